//! Text in pictures, in the one font that the program carries.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Point, PxScale, ScaleFont};
use image::{Rgb, RgbImage};

use super::blend;

/// DejaVu Sans; its licence lies beside it.
pub(super) static FONT_FILE: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

static FONT: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(FONT_FILE).expect("the embedded font is sound, which the tests hold"));

/// Width in pixels of a line of text; `size` is the line's height in pixels.
pub(super) fn width(text: &str, size: f32) -> u32 {
    let font = FONT.as_scaled(PxScale::from(size));
    text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum::<f32>().ceil() as u32
}

/// Draws a line of text with its upper left corner at (`x`, `y`). What falls outside the picture is cut off.
pub(super) fn draw(picture: &mut RgbImage, text: &str, x: u32, y: u32, size: f32, colour: Rgb<u8>) {
    let font = FONT.as_scaled(PxScale::from(size));
    let mut at = Point { x: x as f32, y: y as f32 + font.ascent() };
    for letter in text.chars() {
        let mut glyph = font.scaled_glyph(letter);
        glyph.position = at;
        at.x += font.h_advance(glyph.id);
        let Some(outline) = font.outline_glyph(glyph) else {
            continue;
        }; // A space has none.
        let corner = outline.px_bounds().min;
        outline.draw(|dx, dy, coverage| {
            let (px, py) = (corner.x + dx as f32, corner.y + dy as f32);
            if px >= 0.0 && py >= 0.0 && px < picture.width() as f32 && py < picture.height() as f32 {
                let pixel = picture.get_pixel_mut(px as u32, py as u32);
                *pixel = blend(*pixel, colour, f64::from(coverage.clamp(0.0, 1.0)));
            }
        });
    }
}

/// Draws a line of text that reads from bottom to top, its lower left corner (the text's start) at (`x`, `y`).
pub(super) fn draw_upward(picture: &mut RgbImage, text: &str, x: u32, y: u32, size: f32, colour: Rgb<u8>) {
    let mut line = RgbImage::from_pixel(width(text, size).max(1), size.ceil() as u32, super::WHITE);
    draw(&mut line, text, 0, 0, size, colour);
    let turned = image::imageops::rotate270(&line);
    let top = i64::from(y) - i64::from(turned.height());
    image::imageops::replace(picture, &turned, i64::from(x), top);
}

#[cfg(test)]
mod tests {
    use super::super::{INK, WHITE};
    use super::*;

    #[test]
    fn text_stays_in_its_box_and_darkens_it() {
        let (text, size) = ("Ag 7/1 µ", 14.0);
        let mut picture = RgbImage::from_pixel(width(text, size) + 20, 34, WHITE);
        draw(&mut picture, text, 10, 10, size, INK);
        let dark = |x: u32, y: u32| picture.get_pixel(x, y)[0] < 128;
        let inside = |x: u32, y: u32| (9..picture.width() - 9).contains(&x) && (10..24).contains(&y);
        let all = || (0..picture.width()).flat_map(|x| (0..picture.height()).map(move |y| (x, y)));
        assert!(all().filter(|&(x, y)| dark(x, y)).count() > 60);
        assert!(all().filter(|&(x, y)| dark(x, y)).all(|(x, y)| inside(x, y)));
    }

    #[test]
    fn text_beyond_the_edge_is_cut_off() {
        let mut picture = RgbImage::from_pixel(10, 10, WHITE);
        draw(&mut picture, "a long line of text", 5, 5, 14.0, INK);
        draw_upward(&mut picture, "a long line of text", 5, 5, 14.0, INK);
    }
}
