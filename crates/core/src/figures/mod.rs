//! Pictures: grids, boxes, activations, confusion and other matrices, dots, plots. Each is an [`image::RgbImage`]; [`save`] writes it as PNG.

mod activations;
mod animation;
mod boxes;
mod confusion;
mod field;
mod grid;
mod heat;
mod matrix;
mod mistakes;
mod plot;
mod scatter;
mod text;

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::files::write_atomic;
use crate::{Error, Result};

pub use activations::feature_maps;
pub use animation::animation;
pub use boxes::{Boxed, Line, boxes};
pub(crate) use confusion::MOST_CLASSES;
pub use confusion::{confusion, detections};
pub use field::field;
pub use grid::{Frame, framed, grid, tile, wall};
pub use heat::{heat, heats};
pub use matrix::{Matrix, matrix};
pub use mistakes::{close_up, mistakes, precision_recall};
pub use plot::{Curve, Level, Plot, plot};
pub use scatter::{Panel, scatter};

const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([32, 32, 32]);
const GREY: Rgb<u8> = Rgb([120, 120, 120]);
const BLUE: Rgb<u8> = Rgb([24, 84, 160]);
const GREEN: Rgb<u8> = Rgb([30, 140, 60]);
const RED: Rgb<u8> = Rgb([190, 30, 45]);

/// Writes a picture as PNG, whole or not at all.
pub fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error::Failed(format!("cannot encode {}: {error}", path.display())))?;
    write_atomic(path, &[png.get_ref()])
}

/// The colour a share `t` in [0, 1] of the way from `from` to `to`.
fn blend(from: Rgb<u8>, to: Rgb<u8>, t: f64) -> Rgb<u8> {
    let mix = |a: u8, b: u8| (f64::from(a) + t * (f64::from(b) - f64::from(a))).round() as u8;
    Rgb([mix(from[0], to[0]), mix(from[1], to[1]), mix(from[2], to[2])])
}

/// Fills the part of a rectangle that lies inside the picture.
fn fill(picture: &mut RgbImage, x: u32, y: u32, width: u32, height: u32, colour: Rgb<u8>) {
    for row in y..(y + height).min(picture.height()) {
        for column in x..(x + width).min(picture.width()) {
            picture.put_pixel(column, row, colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn save_writes_a_png_that_reads_back_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let picture = RgbImage::from_fn(5, 3, |x, y| Rgb([x as u8, y as u8, 7]));
        save(&RgbImage::new(1, 1), &path).unwrap();
        save(&picture, &path).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8(), picture);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn save_into_a_missing_folder_is_an_error_that_names_the_file() {
        let error = save(&RgbImage::new(1, 1), Path::new("/nowhere/at/all/a.png")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all/a.png"), "{error}");
    }
}
