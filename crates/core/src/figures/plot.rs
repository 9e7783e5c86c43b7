//! Curves over steps or epochs.

use std::ops::Range;
use std::sync::Once;

use image::{Rgb, RgbImage};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::register_font;

use super::{INK, fill, text};
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

/// One line of a plot.
#[derive(Debug, Clone, Default)]
pub struct Curve {
    /// What the legend says; an empty label has no entry there.
    pub label: String,
    /// (x, y) from left to right. Points with a NaN or an infinity are skipped.
    pub points: Vec<(f64, f64)>,
    /// (x, low, high): a pale band behind the line, such as the spread over seeds. Empty for none.
    pub band: Vec<(f64, f64, f64)>,
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
    /// Logarithmic y axis; then points with y ≤ 0 are skipped too.
    pub log_y: bool,
    /// The lines; the colours repeat after seven.
    pub curves: Vec<Curve>,
}

/// Draws a plot of 960 × 600 pixels. Without a single point that can be drawn, it says so in place of the lines.
pub fn plot(plot: &Plot) -> Result<RgbImage> {
    static REGISTER: Once = Once::new();
    // If the font were refused, the drawing below would fail and say so.
    REGISTER.call_once(|| drop(register_font("sans-serif", FontStyle::Normal, text::FONT_FILE)));

    let shows = |value: f64| value.abs() < HUGE;
    let shows_y = |value: f64| shows(value) && (!plot.log_y || value > 0.0);
    let curves: Vec<Curve> = plot
        .curves
        .iter()
        .map(|curve| Curve {
            label: curve.label.clone(),
            points: curve.points.iter().copied().filter(|&(x, y)| shows(x) && shows_y(y)).collect(),
            band: curve.band.iter().copied().filter(|&(x, a, b)| shows(x) && shows_y(a) && shows_y(b)).collect(),
        })
        .collect();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let bands = || curves.iter().flat_map(|curve| &curve.band);
    let xs = points().map(|point| point.0).chain(bands().map(|band| band.0));
    let ys = points().map(|point| point.1).chain(bands().flat_map(|band| [band.1, band.2]));
    let (x, y) = (range(xs, 0.0), if plot.log_y { log_range(ys) } else { range(ys, 0.04) });

    let mut picture = RgbImage::new(SIZE.0, SIZE.1);
    let legend = legend(&curves);
    let header = MARGIN + TITLE as u32 + 8 + legend.last().map_or(10, |entry| entry.y + LABEL as u32 + 10);
    let drawn = {
        let area = BitMapBackend::with_buffer(&mut picture, SIZE).into_drawing_area();
        let lines = Lines { curves: &curves, header };
        if plot.log_y {
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
        let (left, top) = (MARGIN + entry.x, MARGIN + TITLE as u32 + 8 + entry.y);
        fill(&mut picture, left, top + LABEL as u32 / 2, SAMPLE, 3, entry.colour);
        text::draw(&mut picture, entry.label, left + SAMPLE + 6, top, LABEL, INK);
    }
    if points().next().is_none() {
        let note = "nothing to draw: no point is a finite number";
        let left = (SIZE.0 - text::width(note, LABEL)) / 2;
        text::draw(&mut picture, note, left, SIZE.1 / 2, LABEL, INK);
    }
    Ok(picture)
}

/// What plotters draws: axes, bands and lines.
struct Lines<'a> {
    curves: &'a [Curve],
    header: u32,
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

impl Lines<'_> {
    fn draw<Y>(&self, area: &Area, x: Range<f64>, y: Y) -> Result<(), Box<dyn std::error::Error>>
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
            .build_cartesian_2d(x, y)
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
        // The lines come after all bands, so that none is veiled.
        for (curve, colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
            chart.draw_series(line).map_err(|error| error.to_string())?;
            if let [only] = curve.points[..] {
                chart.draw_series([Circle::new(only, 4, colour.filled())]).map_err(|error| error.to_string())?;
            }
        }
        area.present().map_err(|error| error.to_string())?;
        Ok(())
    }
}

struct Entry<'a> {
    label: &'a str,
    colour: Rgb<u8>,
    x: u32,
    y: u32,
}

/// Places the labels in lines under the title, where they hide no curve.
fn legend(curves: &[Curve]) -> Vec<Entry<'_>> {
    let (mut x, mut y) = (0, 0);
    let labelled = curves.iter().zip(COLOURS.iter().cycle()).filter(|(curve, _)| !curve.label.is_empty());
    labelled
        .map(|(curve, colour)| {
            let width = SAMPLE + 6 + text::width(&curve.label, LABEL) + 20;
            if x > 0 && x + width > SIZE.0 - 2 * MARGIN {
                (x, y) = (0, y + LABEL as u32 + 6);
            }
            let entry = Entry { label: &curve.label, colour: Rgb([colour.0, colour.1, colour.2]), x, y };
            x += width;
            entry
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(points: &[(f64, f64)], log_y: bool) -> Plot {
        Plot { log_y, curves: vec![Curve { points: points.to_vec(), ..Curve::default() }], ..Plot::default() }
    }

    /// Pixels of the first curve's colour.
    fn drawn(picture: &RgbImage) -> Vec<(u32, u32)> {
        let colour = Rgb([COLOURS[0].0, COLOURS[0].1, COLOURS[0].2]);
        picture.enumerate_pixels().filter(|(_, _, pixel)| **pixel == colour).map(|(x, y, _)| (x, y)).collect()
    }

    #[test]
    fn a_horizontal_line_lies_in_the_middle_and_reaches_across() {
        let line = drawn(&plot(&of(&[(0.0, 3.0), (1.0, 3.0)], false)).unwrap());
        let (left, right) = (line.iter().map(|p| p.0).min().unwrap(), line.iter().map(|p| p.0).max().unwrap());
        assert!(left < 120 && right > SIZE.0 - 40, "{left} to {right}");
        let rows = (line.iter().map(|p| p.1).min().unwrap(), line.iter().map(|p| p.1).max().unwrap());
        assert!(rows.1 - rows.0 <= 3 && (260..320).contains(&rows.0), "{rows:?}");
    }

    #[test]
    fn degenerate_input_gives_a_picture() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let cases: [&[(f64, f64)]; 10] = [
            &[],
            &[(1.0, 2.0)],
            &[(0.0, 0.0), (0.0, 0.0)],
            &[(nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, -inf)],
            &[(0.0, 1.0), (1.0, 1.0 + 1e-15)],
            &[(1.0, -5.0), (2.0, -6.0)],
            &[(0.0, 1e308), (1.0, -1e308)],
            &[(0.0, 1e-300), (1.0, 2e-300)],
            &[(1e15, 1e-12), (1e15 + 1.0, 1e29)],
            &[(f64::MAX, 1.0), (f64::MIN, 2.0)],
        ];
        for points in cases {
            for log_y in [false, true] {
                let picture = plot(&of(points, log_y)).unwrap();
                assert_eq!(picture.dimensions(), SIZE, "{points:?}");
            }
        }
        plot(&Plot::default()).unwrap();
    }

    #[test]
    fn skipped_points_leave_the_rest_as_it_was() {
        let clean = plot(&of(&[(0.0, 1.0), (2.0, 3.0)], false)).unwrap();
        let holed = plot(&of(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (9.0, f64::INFINITY)], false)).unwrap();
        assert_eq!(clean, holed);
        assert!(!drawn(&plot(&of(&[(1.0, 2.0)], false)).unwrap()).is_empty(), "a single point is a dot");
    }

    #[test]
    fn a_log_axis_makes_powers_a_straight_line() {
        let powers: Vec<(f64, f64)> = (0..5).map(|x| (f64::from(x), 10f64.powi(x - 3))).collect();
        let line = drawn(&plot(&of(&powers, true)).unwrap());
        let (first, last) = (line.iter().min().unwrap(), line.iter().max().unwrap());
        let off = |&(x, y): &(u32, u32)| {
            let t = f64::from(x - first.0) / f64::from(last.0 - first.0);
            (f64::from(y) - (f64::from(first.1) + t * (f64::from(last.1) - f64::from(first.1)))).abs()
        };
        assert!(line.iter().all(|point| off(point) < 5.0));
    }

    #[test]
    fn a_log_axis_has_numbers_at_any_length() {
        for (low, high) in [(0.7, 2.8), (0.013, 3.1), (1e-8, 1.0), (1e-30, 1e30), (5.0, 5.5)] {
            let range = log_range([low, high].into_iter());
            let ticks = log_ticks(&range).len();
            assert!((3..=12).contains(&ticks), "{range:?}: {ticks}");
        }
    }

    #[test]
    fn a_band_surrounds_its_line() {
        let band = vec![(0.0, 0.0, 2.0), (1.0, 0.0, 2.0)];
        let curve = Curve { label: "seeds".into(), points: vec![(0.0, 1.0), (1.0, 1.0)], band };
        let picture = plot(&Plot { curves: vec![curve], ..Plot::default() }).unwrap();
        let tinted = |pixel: &Rgb<u8>| pixel[2] > 230 && pixel[0] < 220;
        assert!(picture.pixels().filter(|pixel| tinted(pixel)).count() > 200_000);
    }

    #[test]
    fn axis_numbers_are_short() {
        let numbers = [0.0, 0.5, 10.0, 60000.0, -2.25, 1e-5, 3e8].map(number);
        assert_eq!(numbers, ["0", "0.5", "10", "60000", "−2.25", "1e−5", "3e8"]);
    }
}
