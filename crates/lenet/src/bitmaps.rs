//! The targets of the output layer: ten stylised digits of 7×12 pixels (§II.B, Fig. 3 of the paper).
//!
//! The paper prints its glyphs only as a picture, so these are drawn anew: a declared deviation. What matters is kept: pixels
//! are ±1, digits that look alike have codes that are alike, and all ten are far apart.

use image::{GrayImage, Luma};
use tch::{Kind, Tensor};

/// Width of a glyph in pixels.
pub const WIDTH: usize = 7;
/// Height of a glyph in pixels.
pub const HEIGHT: usize = 12;
/// How many glyphs there are: the digits 0 to 9.
pub const COUNT: usize = 10;

/// The glyphs 0 to 9 side by side, one picture row per line: `#` is +1 (ink), `.` is −1.
const ART: [&str; HEIGHT] = [
    "....... ....... ....... ....... ....... ....... ....... ....... ....... .......",
    "..###.. ...##.. .#####. ####### ....##. ####### ..####. ####### .#####. .#####.",
    ".##.##. ..###.. ##...## .....## ...###. ##..... .##.... .....## ##...## ##...##",
    "##...## .####.. .....## ....##. ..####. ##..... ##..... .....## ##...## ##...##",
    "##...## ...##.. .....## ...##.. .##.##. ######. ##..... ....##. ##...## ##...##",
    "##...## ...##.. ....##. ..####. ##..##. ##...## ######. ....##. .#####. ##...##",
    "##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .######",
    "##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##",
    "##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##",
    ".##.##. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.",
    "..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..",
    "....... ....... ....... ....... ....... ....... ....... ....... ....... .......",
];

/// Is this pixel of this digit ink?
fn ink(digit: usize, row: usize, column: usize) -> bool {
    ART[row].as_bytes()[digit * (WIDTH + 1) + column] == b'#'
}

/// The codes w_ij of the output units, `[10, 84]` float32 of ±1, each glyph row by row.
pub fn codes() -> Tensor {
    let mut codes = Vec::with_capacity(COUNT * HEIGHT * WIDTH);
    for digit in 0..COUNT {
        for row in 0..HEIGHT {
            codes.extend((0..WIDTH).map(|column| if ink(digit, row, column) { 1.0f32 } else { -1.0 }));
        }
    }
    Tensor::from_slice(&codes).view([COUNT as i64, (HEIGHT * WIDTH) as i64]).to_kind(Kind::Float)
}

/// The ten glyphs as a picture, ink black, `scale` screen pixels per pixel, one white pixel between glyphs.
pub fn picture(scale: u32) -> GrayImage {
    let (width, height) = (COUNT * (WIDTH + 1) - 1, HEIGHT);
    GrayImage::from_fn(width as u32 * scale, height as u32 * scale, |x, y| {
        let (x, y) = ((x / scale) as usize, (y / scale) as usize);
        Luma([if ART[y].as_bytes()[x] == b'#' { 0 } else { 255 }])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_glyphs_of_plus_and_minus_one_far_apart() {
        assert!(ART.iter().all(|row| row.len() == COUNT * (WIDTH + 1) - 1));
        let codes = codes();
        assert_eq!(codes.size(), [10, 84]);
        assert_eq!(codes.square().min().double_value(&[]), 1.0);
        // |w_i − w_j|² = 4 × the number of differing pixels.
        let gap = (codes.unsqueeze(0) - codes.unsqueeze(1)).square().sum_dim_intlist(2i64, false, Kind::Float);
        let nearest = (gap + Tensor::eye(10, (Kind::Float, tch::Device::Cpu)) * 1e9).min().double_value(&[]);
        assert!(nearest >= 4.0 * 7.0, "two glyphs differ in {} pixels only", nearest / 4.0);
        // The top row of the 7 is all ink, and so is no other pixel of its first column.
        assert_eq!((0..HEIGHT).filter(|&row| ink(7, row, 0)).collect::<Vec<_>>(), [1]);
    }
}
