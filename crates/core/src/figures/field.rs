//! Ways and arrows in the plane.

use image::{Rgb, RgbImage};

use super::{BLUE, GREEN, INK, RED, WHITE, blend, text};
use crate::{Error, Result};

const EDGE: u32 = 620;
const MARGIN: u32 = 20;
const TITLE: f32 = 18.0;

/// A place, or a way from one.
type Place = (f64, f64);

/// Ways from where they start, pale, to where they end, dark, with a green dot at the start and a red one at the end; and arrows, each from a
/// place by so much, with a dot at its end. Scaled to hold all, alike along both axes.
///
/// # Errors
/// Nothing to draw; places that are no numbers.
pub fn field(title: &str, ways: &[Vec<Place>], arrows: &[(Place, Place)]) -> Result<RgbImage> {
    let ends = arrows.iter().flat_map(|(at, by)| [*at, (at.0 + by.0, at.1 + by.1)]);
    let places: Vec<Place> = ways.iter().flatten().copied().chain(ends).collect();
    if places.is_empty() || places.iter().any(|at| !at.0.is_finite() || !at.1.is_finite()) {
        return Err(Error::Failed(format!("'{title}' has no places, or places that are no numbers")));
    }
    let range = |of: fn(&Place) -> f64| {
        places.iter().map(of).fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (x, y) = (range(|at| at.0), range(|at| at.1));
    let span = (x.1 - x.0).max(y.1 - y.0).max(1e-9);
    let header = MARGIN + TITLE as u32 + MARGIN / 2;
    let width = (EDGE + 2 * MARGIN).max(text::width(title, TITLE) + 2 * MARGIN);
    let mut picture = RgbImage::from_pixel(width, header + EDGE + MARGIN, WHITE);
    text::draw(&mut picture, title, MARGIN, MARGIN / 2, TITLE, INK);
    let middle = ((x.0 + x.1) / 2.0, (y.0 + y.1) / 2.0);
    let pixel = |at: &Place| {
        let share = |value: f64, middle: f64| ((value - middle) / span + 0.5) * f64::from(EDGE - 1);
        (f64::from(MARGIN) + share(at.0, middle.0), f64::from(header) + f64::from(EDGE - 1) - share(at.1, middle.1))
    };
    let pale = blend(WHITE, BLUE, 0.25);
    for way in ways {
        for (place, step) in way.windows(2).enumerate() {
            let colour = blend(pale, BLUE, place as f64 / way.len() as f64);
            line(&mut picture, pixel(&step[0]), pixel(&step[1]), colour);
        }
    }
    for way in ways {
        way.first().iter().for_each(|at| dot(&mut picture, pixel(at), 2, GREEN));
        way.last().iter().for_each(|at| dot(&mut picture, pixel(at), 2, RED));
    }
    for (at, by) in arrows {
        let end = pixel(&(at.0 + by.0, at.1 + by.1));
        line(&mut picture, pixel(at), end, BLUE);
        dot(&mut picture, end, 1, BLUE);
    }
    Ok(picture)
}

fn line(picture: &mut RgbImage, from: Place, to: Place, colour: Rgb<u8>) {
    // A dot for each pixel along the longer side.
    let dots = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0) as usize;
    for step in 0..=dots {
        let share = step as f64 / dots as f64;
        dot(picture, (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1)), 0, colour);
    }
}

/// A square of `2 · radius + 1` pixels, as far as it lies in the picture.
fn dot(picture: &mut RgbImage, at: Place, radius: i64, colour: Rgb<u8>) {
    let (x, y) = (at.0.round() as i64, at.1.round() as i64);
    for (dx, dy) in (-radius..=radius).flat_map(|dy| (-radius..=radius).map(move |dx| (dx, dy))) {
        if let (Ok(x), Ok(y)) = (u32::try_from(x + dx), u32::try_from(y + dy))
            && x < picture.width()
            && y < picture.height()
        {
            picture.put_pixel(x, y, colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_begin_green_and_end_red_and_places_are_upright() {
        let picture = field("", &[vec![(0.0, 0.0), (1.0, 1.0)]], &[]).unwrap();
        let (left, top) = (MARGIN, MARGIN + TITLE as u32 + MARGIN / 2);
        assert_eq!(*picture.get_pixel(left, top + EDGE - 1), GREEN);
        assert_eq!(*picture.get_pixel(left + EDGE - 1, top), RED);
        assert_eq!(*picture.get_pixel(left, top), WHITE);
    }

    #[test]
    fn nothing_and_no_numbers_are_refused() {
        assert!(field("a", &[], &[]).is_err());
        assert!(field("a", &[vec![(f64::NAN, 0.0)]], &[]).is_err());
    }
}
