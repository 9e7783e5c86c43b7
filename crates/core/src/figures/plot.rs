//! Curves over steps or epochs.

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Once;

use image::RgbImage;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{INK, text};
use crate::{Error, Result};

const SIZE: (u32, u32) = (960, 600);
const MARGIN: u32 = 16;
const TITLE: f32 = 20.0;
const LABEL: f32 = 15.0;
/// Room for the numbers and the label under the x axis and beside the y axis.
const X_AXIS: u32 = 46;
const Y_AXIS: u32 = 76;
/// Length of a curve's sample in the legend.
const SAMPLE: u32 = 24;
/// Beyond this a value counts as infinite: axes that long show nothing.
const HUGE: f64 = 1e30;
/// Okabe and Ito's colours, which colour-blind readers tell apart.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// A curve of fewer points is not drawn: a line through two points says no more than the two numbers.
const FEWEST: usize = 3;
/// Most markers on a curve; of more points every so many-th has one.
const MARKERS: usize = 40;
/// Pixels from the middle of a marker to its edge, and of one on a thin line.
const MARKER: (i32, i32) = (4, 2);

/// One line of a plot.
#[derive(Debug, Clone, Default)]
pub struct Curve {
    /// What the legend says; an empty label has no entry there.
    pub label: String,
    /// (x, y) from left to right. Points with a NaN or an infinity are skipped; fewer than three are not drawn.
    pub points: Vec<(f64, f64)>,
    /// (x, low, high): a pale band behind the line, such as the spread over seeds. Empty for none.
    pub band: Vec<(f64, f64, f64)>,
    /// A thin line in the same colour, such as the training error of the same run. Empty for none.
    pub beside: Vec<(f64, f64)>,
}

/// A value that the curves are held against: a thin grey line across the plot.
#[derive(Debug, Clone, Default)]
pub struct Level {
    /// Stands on the line, at its right end.
    pub label: String,
    /// Where it lies on the y axis.
    pub value: f64,
}

/// A picture of curves with common axes.
#[derive(Debug, Clone, Default)]
pub struct Plot {
    /// Over the picture.
    pub title: String,
    /// Under the x axis.
    pub x_label: String,
    /// Beside the y axis.
    pub y_label: String,
    /// Logarithmic y axis where the values span a factor of 4; then points with y ≤ 0 are skipped too.
    pub log_y: bool,
    /// The lines; the colours repeat after seven.
    pub curves: Vec<Curve>,
    /// What the legend calls the thin lines, where there are any.
    pub beside: String,
    /// The values that the curves are held against.
    pub levels: Vec<Level>,
}

impl Plot {
    /// Whether no curve has enough points to be drawn.
    pub fn is_empty(&self) -> bool {
        self.drawn().is_empty()
    }

    /// What is drawn of the curves.
    fn drawn(&self) -> Vec<Curve> {
        let shows = |&(x, y): &(f64, f64)| x.abs() < HUGE && self.shows(y);
        let enough = |points: &[(f64, f64)]| {
            let points: Vec<_> = points.iter().copied().filter(shows).collect();
            if points.len() < FEWEST { Vec::new() } else { points }
        };
        let curve = |curve: &Curve| Curve {
            label: curve.label.clone(),
            points: enough(&curve.points),
            band: curve.band.iter().copied().filter(|&(x, a, b)| shows(&(x, a)) && self.shows(b)).collect(),
            beside: enough(&curve.beside),
        };
        self.curves.iter().map(curve).filter(|curve| !curve.points.is_empty()).collect()
    }

    /// Whether a value has a place on the y axis.
    fn shows(&self, value: f64) -> bool {
        value.abs() < HUGE && (!self.log_y || value > 0.0)
    }
}

/// Draws a plot of 960 × 600 pixels. Without a single curve that can be drawn, it says so in place of the lines.
pub fn plot(plot: &Plot) -> Result<RgbImage> {
    static REGISTER: Once = Once::new();
    // If the font were refused, the drawing below would fail and say so.
    REGISTER.call_once(|| drop(register_font("sans-serif", FontStyle::Normal, text::FONT_FILE)));

    let curves = plot.drawn();
    let levels: Vec<Level> = match curves.is_empty() {
        true => Vec::new(),
        false => plot.levels.iter().filter(|level| plot.shows(level.value)).cloned().collect(),
    };
    let points = || curves.iter().flat_map(|curve| curve.points.iter().chain(&curve.beside));
    let bands = || curves.iter().flat_map(|curve| &curve.band);
    let xs = points().map(|point| point.0).chain(bands().map(|band| band.0));
    let ys = || points().map(|point| point.1).chain(bands().flat_map(|band| [band.1, band.2]));
    let ys = || ys().chain(levels.iter().map(|level| level.value));
    let log = plot.log_y && extremes(ys()).is_some_and(|(low, high)| high >= 4.0 * low);
    let (x, y) = (range(xs, 0.0), if log { log_range(ys()) } else { range(ys(), 0.04) });

    let mut picture = RgbImage::new(SIZE.0, SIZE.1);
    let legend = legend(&curves, &plot.beside);
    let header = MARGIN + TITLE as u32 + 8 + legend.last().map_or(10, |entry| entry.y + LABEL as u32 + 10);
    let drawn = {
        let area = BitMapBackend::with_buffer(&mut picture, SIZE).into_drawing_area();
        let lines = Lines { curves: &curves, levels: &levels, legend: &legend, header };
        if log {
            let ticks = log_ticks(&y);
            lines.draw(&area, x, y.log_scale().with_key_points(ticks))
        } else {
            lines.draw(&area, x, y)
        }
    };
    drawn.map_err(|error| Error::Failed(format!("cannot draw the plot '{}': {error}", plot.title)))?;

    text::draw(&mut picture, &plot.title, MARGIN, MARGIN, TITLE, INK);
    let middle = |start: u32, end: u32, label: &str| (start + end).saturating_sub(text::width(label, LABEL)) / 2;
    let x_label = middle(Y_AXIS, SIZE.0 - MARGIN, &plot.x_label);
    text::draw(&mut picture, &plot.x_label, x_label, SIZE.1 - MARGIN - LABEL as u32, LABEL, INK);
    let y_label = SIZE.1 - middle(X_AXIS, SIZE.1 - header, &plot.y_label);
    text::draw_upward(&mut picture, &plot.y_label, MARGIN, y_label, LABEL, INK);
    for entry in &legend {
        text::draw(&mut picture, entry.label, MARGIN + entry.x + SAMPLE + 6, entry.top(), LABEL, INK);
    }
    if curves.is_empty() {
        let note = "nothing to draw: no curve has three points that are finite numbers";
        let left = (SIZE.0 - text::width(note, LABEL)) / 2;
        text::draw(&mut picture, note, left, SIZE.1 / 2, LABEL, INK);
    }
    Ok(picture)
}

/// What plotters draws: axes, bands, lines and markers.
struct Lines<'a> {
    curves: &'a [Curve],
    levels: &'a [Level],
    legend: &'a [Entry<'a>],
    header: u32,
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

impl Lines<'_> {
    fn draw<Y>(&self, area: &Area, range: Range<f64>, y: Y) -> Result<(), Box<dyn std::error::Error>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        let font = ("sans-serif", f64::from(LABEL));
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .margin_top(self.header)
            .margin_right(2 * MARGIN)
            .x_label_area_size(X_AXIS)
            .y_label_area_size(Y_AXIS)
            .build_cartesian_2d(range.clone(), y)
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .x_labels(10)
            .y_labels(10)
            .max_light_lines(0)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .label_style(font)
            .axis_style(RGBColor(120, 120, 120))
            .bold_line_style(RGBColor(222, 222, 222))
            .draw()
            .map_err(|error| error.to_string())?;
        for (curve, colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
            let low = curve.band.iter().map(|band| (band.0, band.1));
            let high = curve.band.iter().rev().map(|band| (band.0, band.2));
            let outline: Vec<_> = low.chain(high).collect();
            if curve.band.len() > 1 {
                let band = Polygon::new(outline, colour.mix(0.18));
                chart.draw_series([band]).map_err(|error| error.to_string())?;
            }
        }
        let grey = RGBColor(90, 90, 90);
        for level in self.levels {
            let ends = [(range.start, level.value), (range.end, level.value)];
            chart.draw_series(LineSeries::new(ends, grey.stroke_width(1))).map_err(|error| error.to_string())?;
        }
        // The lines come after all bands, so that none is veiled.
        for (index, curve) in self.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            for (points, width, size) in [(&curve.beside, 1, MARKER.1), (&curve.points, 2, MARKER.0)] {
                let line = LineSeries::new(points.iter().copied(), colour.stroke_width(width));
                chart.draw_series(line).map_err(|error| error.to_string())?;
                let marker =
                    |at: (f64, f64)| EmptyElement::at(at) + Polygon::new(outline(index, size), colour.filled());
                chart.draw_series(marked(points).map(marker)).map_err(|error| error.to_string())?;
            }
        }
        // Over the lines, on a ground that keeps it readable.
        for level in self.levels {
            let (width, height) = (text::width(&level.label, LABEL) as i32 + 6, LABEL as i32 + 3);
            let end = chart.backend_coord(&(range.end, level.value));
            // Above the line, or below it where fewer points of the curves lie.
            let hidden = |top: i32| {
                let points = self.curves.iter().flat_map(|curve| curve.points.iter().chain(&curve.beside));
                let pixels = points.map(|point| chart.backend_coord(point));
                pixels.filter(|&(x, y)| x > end.0 - width && (top..top + height).contains(&y)).count()
            };
            let (above, below) = (-height, 2);
            let top = if hidden(end.1 + below) < hidden(end.1 + above) { below } else { above };
            let ground = Rectangle::new([(-width, top), (0, top + height - 2)], WHITE.mix(0.8).filled());
            let style = TextStyle::from(font.into_font()).color(&grey).pos(Pos::new(HPos::Right, VPos::Top));
            let label =
                EmptyElement::at((range.end, level.value)) + ground + Text::new(level.label.clone(), (-3, top), style);
            chart.draw_series([label]).map_err(|error| error.to_string())?;
        }
        for entry in self.legend {
            let (left, middle) = ((MARGIN + entry.x) as i32, (entry.top() + LABEL as u32 / 2 + 1) as i32);
            let (width, size) = if entry.thin { (1, MARKER.1) } else { (2, MARKER.0) };
            let ends = vec![(left, middle), (left + SAMPLE as i32, middle)];
            let sample = PathElement::new(ends, entry.colour.stroke_width(width));
            area.draw(&sample).map_err(|error| error.to_string())?;
            let shift = |(x, y): (i32, i32)| (left + SAMPLE as i32 / 2 + x, middle + y);
            let marker: Vec<_> = outline(entry.marker, size).into_iter().map(shift).collect();
            area.draw(&Polygon::new(marker, entry.colour.filled())).map_err(|error| error.to_string())?;
        }
        area.present().map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// The points of a curve that have a marker, the last among them.
fn marked(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let stride = points.len().div_ceil(MARKERS).max(1);
    points.iter().rev().step_by(stride).copied()
}

/// The corners of the marker of a curve around its point: disc, square, triangle, diamond in turn, so that curves can be told apart without
/// their colours.
fn outline(curve: usize, size: i32) -> Vec<(i32, i32)> {
    let unit: &[(f64, f64)] = match curve % 4 {
        0 => &[(1.0, 0.4), (0.4, 1.0), (-0.4, 1.0), (-1.0, 0.4), (-1.0, -0.4), (-0.4, -1.0), (0.4, -1.0), (1.0, -0.4)],
        1 => &[(0.9, 0.9), (-0.9, 0.9), (-0.9, -0.9), (0.9, -0.9)],
        2 => &[(0.0, -1.25), (1.25, 1.0), (-1.25, 1.0)],
        _ => &[(0.0, -1.35), (1.35, 0.0), (0.0, 1.35), (-1.35, 0.0)],
    };
    let pixels = |share: f64| (share * f64::from(size)).round() as i32;
    unit.iter().map(|&(x, y)| (pixels(x), pixels(y))).collect()
}

struct Entry<'a> {
    label: &'a str,
    colour: RGBColor,
    /// Which curve's marker it shows.
    marker: usize,
    /// Whether it stands for the thin lines.
    thin: bool,
    x: u32,
    y: u32,
}

impl Entry<'_> {
    /// Where its text begins in the picture, from above.
    fn top(&self) -> u32 {
        MARGIN + TITLE as u32 + 8 + self.y
    }
}

/// Places the labels in lines under the title, where they hide no curve.
fn legend<'a>(curves: &'a [Curve], beside: &'a str) -> Vec<Entry<'a>> {
    let (mut x, mut y) = (0, 0);
    let labelled = curves.iter().enumerate().map(|(index, curve)| (curve.label.as_str(), index, false));
    let thin = curves.iter().position(|curve| !curve.beside.is_empty()).map(|index| (beside, index, true));
    let entry = |(label, marker, thin): (&'a str, usize, bool)| {
        let width = SAMPLE + 6 + text::width(label, LABEL) + 20;
        if x > 0 && x + width > SIZE.0 - 2 * MARGIN {
            (x, y) = (0, y + LABEL as u32 + 6);
        }
        let colour = if thin { RGBColor(90, 90, 90) } else { COLOURS[marker % COLOURS.len()] };
        let entry = Entry { label, colour, marker, thin, x, y };
        x += width;
        entry
    };
    labelled.chain(thin).filter(|(label, ..)| !label.is_empty()).map(entry).collect()
}

/// The span of the values and a share `room` of it beyond; around a single value, an axis that can be drawn.
fn range(values: impl Iterator<Item = f64>, room: f64) -> Range<f64> {
    let Some((low, high)) = extremes(values) else {
        return 0.0..1.0;
    };
    let size = low.abs().max(high.abs());
    if high - low <= 1e-9 * size || size == 0.0 {
        let room = if size == 0.0 { 0.5 } else { 0.5 * size };
        return low - room..high + room;
    }
    low - room * (high - low)..high + room * (high - low)
}

/// The span of positive values with a little room; at least a factor of 4, so that the axis has its numbers.
fn log_range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let Some((low, high)) = extremes(values) else {
        return 0.1..1.0;
    };
    let (low, high) = (low.max(1e-30).ln(), high.max(1e-30).ln());
    let missing = (4f64.ln() - (high - low)).max(0.0) / 2.0;
    let room = missing + 0.04 * (high - low);
    (low - room).exp()..(high + room).exp()
}

/// Where a logarithmic axis has its numbers: closer on a shorter axis, whole powers of ten on a long one.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let (first, last) = (range.start.log10().floor() as i32, range.end.log10().ceil() as i32);
    let (digits, stride): (&[f64], usize) = match (range.end / range.start).log10() {
        ..1.2 => (&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0], 1),
        ..3.5 => (&[1.0, 2.0, 5.0], 1),
        decades => (&[1.0], (decades / 10.0).ceil() as usize),
    };
    let powers = (first..=last).step_by(stride);
    let ticks = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
    ticks.filter(|tick| range.contains(tick)).collect()
}

fn extremes(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |found, value| {
        let (low, high) = found.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// A number at an axis, without trailing zeros.
fn number(value: f64) -> String {
    let size = value.abs();
    let text = if size < 1e-12 {
        "0".into()
    } else if !(1e-4..1e7).contains(&size) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
    } else {
        format!("{value:.6}").trim_end_matches('0').trim_end_matches('.').into()
    };
    text.replace('-', "−")
}
