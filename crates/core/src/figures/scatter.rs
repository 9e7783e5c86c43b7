//! Dots in the plane, coloured by class.

use image::{Rgb, RgbImage};

use super::{GREY, INK, WHITE, blend, fill, text};
use crate::{Error, Result};

const MARGIN: u32 = 16;
const TITLE: f32 = 18.0;
const LABEL: f32 = 13.0;
/// Edge of a panel, and how many stand beside each other.
const PANEL: u32 = 380;
const ACROSS: u32 = 3;
const RADIUS: i32 = 3;
/// Of the classes by label; those behind the last are grey together.
const COLOURS: [Rgb<u8>; 10] = [
    Rgb([31, 119, 180]),
    Rgb([255, 127, 14]),
    Rgb([44, 160, 44]),
    Rgb([214, 39, 40]),
    Rgb([148, 103, 189]),
    Rgb([140, 86, 75]),
    Rgb([227, 119, 194]),
    Rgb([60, 60, 60]),
    Rgb([188, 189, 34]),
    Rgb([23, 190, 207]),
];
const OTHERS: Rgb<u8> = Rgb([200, 200, 200]);

/// Dots with a line of text over them.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    /// Over the dots.
    pub caption: String,
    /// (x, y, class).
    pub dots: Vec<(f64, f64, usize)>,
}

/// Panels of dots, three in a row, each scaled to its own dots and alike along both axes, with a legend of the first ten classes.
///
/// # Errors
/// No panel; dots that are no numbers.
pub fn scatter(title: &str, panels: &[Panel], classes: &[String]) -> Result<RgbImage> {
    let dots = || panels.iter().flat_map(|panel| &panel.dots);
    if dots().next().is_none() || dots().any(|dot| !dot.0.is_finite() || !dot.1.is_finite()) {
        return Err(Error::Failed(format!("'{title}' has no dots, or dots that are no numbers")));
    }
    let across = ACROSS.min(panels.len() as u32);
    let widest = panels.iter().map(|panel| text::width(&panel.caption, LABEL)).max().unwrap_or(0);
    let (line, pitch) = (LABEL as u32 + 6, PANEL.max(widest) + MARGIN);
    let width = (across * pitch).max(text::width(title, TITLE) + MARGIN);

    let mut entries: Vec<(&str, Rgb<u8>)> = classes.iter().map(String::as_str).zip(COLOURS).collect();
    if classes.len() > COLOURS.len() {
        entries.push(("other classes", OTHERS));
    }
    let mut legend = Vec::new();
    let (mut x, mut y) = (MARGIN, MARGIN + TITLE as u32 + 10);
    for (name, colour) in entries {
        let room = text::width(name, LABEL) + 34;
        if x > MARGIN && x + room > width {
            (x, y) = (MARGIN, y + line);
        }
        legend.push((name, colour, x, y));
        x += room;
    }
    let top = y + line + 8;
    let rows = (panels.len() as u32).div_ceil(across);
    let mut picture = RgbImage::from_pixel(width + MARGIN, top + rows * (PANEL + line + MARGIN), WHITE);

    text::draw(&mut picture, title, MARGIN, MARGIN, TITLE, INK);
    for (name, colour, x, y) in legend {
        disc(&mut picture, x as i32 + 6, (y + line / 2 - 1) as i32, RADIUS + 2, colour);
        text::draw(&mut picture, name, x + 16, y, LABEL, INK);
    }
    for (place, panel) in panels.iter().enumerate() {
        let left = MARGIN + place as u32 % across * pitch;
        let above = top + place as u32 / across * (PANEL + line + MARGIN);
        text::draw(&mut picture, &panel.caption, left, above, LABEL, INK);
        draw(&mut picture, panel, left, above + line);
    }
    Ok(picture)
}

fn draw(picture: &mut RgbImage, panel: &Panel, left: u32, top: u32) {
    fill(picture, left, top, PANEL, PANEL, blend(WHITE, GREY, 0.5));
    fill(picture, left + 1, top + 1, PANEL - 2, PANEL - 2, WHITE);
    let ends = |of: fn(&(f64, f64, usize)) -> f64| {
        let values = panel.dots.iter().map(of);
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
    };
    let (x, y) = (ends(|dot| dot.0), ends(|dot| dot.1));
    let span = (x.1 - x.0).max(y.1 - y.0).max(1e-12);
    let room = f64::from(PANEL - 4 * RADIUS as u32);
    let pixel = |value: f64, (low, high): (f64, f64)| {
        (f64::from(PANEL) / 2.0 + (value - (low + high) / 2.0) / span * room).round() as i32
    };
    for &(at, up, class) in &panel.dots {
        let colour = COLOURS.get(class).copied().unwrap_or(OTHERS);
        disc(picture, left as i32 + pixel(at, x), top as i32 + PANEL as i32 - pixel(up, y), RADIUS, colour);
    }
}

/// A disc that lets what lies under it shine through a little.
fn disc(picture: &mut RgbImage, x: i32, y: i32, radius: i32, colour: Rgb<u8>) {
    for (dx, dy) in (-radius..=radius).flat_map(|dy| (-radius..=radius).map(move |dx| (dx, dy))) {
        let inside = dx * dx + dy * dy <= radius * radius + radius;
        if let (true, Ok(px), Ok(py)) = (inside, u32::try_from(x + dx), u32::try_from(y + dy))
            && px < picture.width()
            && py < picture.height()
        {
            let pixel = picture.get_pixel_mut(px, py);
            *pixel = blend(*pixel, colour, 0.75);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_have_the_colours_of_their_classes_and_stay_in_their_panel() {
        let panel = Panel { caption: "step 1".into(), dots: vec![(0.0, 0.0, 0), (5.0, 1.0, 1), (2.0, 9.0, 11)] };
        let names: Vec<_> = (0..12).map(|class| format!("class {class}")).collect();
        let one = scatter("dots", std::slice::from_ref(&panel), &names).unwrap();
        for colour in [COLOURS[0], COLOURS[1], OTHERS] {
            let shown = blend(WHITE, colour, 0.75);
            assert!(one.pixels().filter(|pixel| **pixel == shown).count() > 25, "{colour:?}");
        }
        let four = scatter("dots", &vec![panel; 4], &names).unwrap();
        // Three beside each other and one below; the wider picture may need fewer lines of legend.
        assert!(four.width() > 2 * one.width() && four.height() > one.height() + PANEL / 2);
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let panel = Panel { caption: String::new(), dots: vec![(f64::NAN, 0.0, 0)] };
        assert!(scatter("dots", &[panel], &[]).is_err());
        assert!(scatter("dots", &[], &[]).is_err());
        let still = Panel { caption: String::new(), dots: vec![(1.0, 1.0, 0); 3] };
        assert!(scatter("dots", &[still], &[]).is_ok(), "dots on one place");
    }
}
