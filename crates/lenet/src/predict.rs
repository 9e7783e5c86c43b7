//! A picture of one digit as the data set would hold it, so that the network can read it (§III.A, "Database: the modified NIST
//! set": size normalised to 20×20 keeping the aspect ratio, centred by its centre of mass in 28×28).

use std::path::Path;

use image::imageops::{self, FilterType};
use image::{GrayImage, Luma};
use repro::data::photo_bytes;
use repro::{Result, user};
use tch::Tensor;

/// Ink that is weaker than this part of the strongest is taken for paper.
const FAINT: f32 = 0.2;
/// Edge of the box that the digit is fitted into.
const BOX: u32 = 20;
/// Edge of the picture.
const SIZE: i64 = 28;

/// Reads a picture (JPEG, PNG, WebP, BMP) of one digit, dark on light or light on dark, of any size, and returns it as `[1, 1, 28, 28]` of 0
/// (background) to 1 (ink).
///
/// # Errors
/// [`repro::Error::User`] where the file cannot be read as a picture, or nothing is drawn on it.
pub fn read_digit(path: &Path) -> Result<Tensor> {
    let picture = image::load_from_memory(&photo_bytes(path)?)
        .map_err(|e| user!("{}: is not a picture that can be read: {e}", path.display()))?;
    // What is transparent shows the paper beneath.
    let mut rgba = picture.to_rgba8();
    for pixel in rgba.pixels_mut() {
        let [r, g, b, a] = pixel.0.map(u32::from);
        let over = |c: u32| ((c * a + 255 * (255 - a)) / 255) as u8;
        pixel.0 = [over(r), over(g), over(b), 255];
    }
    digit(&image::DynamicImage::ImageRgba8(rgba).to_luma8())
        .ok_or_else(|| user!("{}: nothing is drawn on this picture; give one with a single digit", path.display()))
}

/// The digit of a grey picture, or `None` where all of it is as its border.
fn digit(grey: &GrayImage) -> Option<Tensor> {
    let paper = f32::from(border_median(grey));
    // Ink is what departs from the paper, to whichever side departs further.
    let (low, high) = grey.pixels().fold((255u8, 0u8), |(low, high), p| (low.min(p[0]), high.max(p[0])));
    let sign = if paper - f32::from(low) >= f32::from(high) - paper { -1.0 } else { 1.0 };
    let strongest = if sign < 0.0 { paper - f32::from(low) } else { f32::from(high) - paper };
    // Fewer grey levels than that are noise.
    if strongest < 16.0 {
        return None;
    }
    let ink = |p: &Luma<u8>| ((f32::from(p[0]) - paper) * sign / strongest).max(0.0);
    let (mut left, mut right, mut top, mut bottom) = (u32::MAX, 0, u32::MAX, 0);
    for (x, y, _) in grey.enumerate_pixels().filter(|(_, _, p)| ink(p) > FAINT) {
        (left, right, top, bottom) = (left.min(x), right.max(x), top.min(y), bottom.max(y));
    }
    let (width, height) = (right - left + 1, bottom - top + 1);
    let cut = image::ImageBuffer::from_fn(width, height, |x, y| Luma([ink(grey.get_pixel(left + x, top + y))]));

    let scale = BOX as f32 / width.max(height) as f32;
    let fit = |edge: u32| ((edge as f32 * scale).round() as u32).clamp(1, BOX);
    let small = imageops::resize(&cut, fit(width), fit(height), FilterType::Triangle);

    let (mut mass, mut x_sum, mut y_sum) = (0.0, 0.0, 0.0);
    for (x, y, Luma([ink])) in small.enumerate_pixels() {
        (mass, x_sum, y_sum) = (mass + ink, x_sum + ink * x as f32, y_sum + ink * y as f32);
    }
    // The centre of mass goes to the middle of the picture; the digit stays inside.
    let place =
        |sum: f32, edge: u32| (((SIZE - 1) as f32 / 2.0 - sum / mass).round() as i64).clamp(0, SIZE - i64::from(edge));
    let (dx, dy) = (place(x_sum, small.width()), place(y_sum, small.height()));
    let mut field = vec![0.0f32; (SIZE * SIZE) as usize];
    for (x, y, Luma([ink])) in small.enumerate_pixels() {
        field[((i64::from(y) + dy) * SIZE + i64::from(x) + dx) as usize] = ink.clamp(0.0, 1.0);
    }
    Some(Tensor::from_slice(&field).view([1, 1, SIZE, SIZE]))
}

/// The median of the outermost pixels: the colour of the paper.
fn border_median(grey: &GrayImage) -> u8 {
    let (width, height) = grey.dimensions();
    let on_border = |x: u32, y: u32| x == 0 || y == 0 || x + 1 == width || y + 1 == height;
    let mut border: Vec<u8> =
        grey.enumerate_pixels().filter(|(x, y, _)| on_border(*x, *y)).map(|(_, _, p)| p[0]).collect();
    border.sort_unstable();
    border.get(border.len() / 2).copied().unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use repro::Error;

    use super::*;

    /// A vertical bar with a foot, `ink` on `paper`, on a field of `scale`×(30, 40) pixels.
    fn drawing(paper: u8, ink: u8, scale: u32) -> GrayImage {
        GrayImage::from_fn(30 * scale, 40 * scale, |x, y| {
            let (x, y) = (x / scale, y / scale);
            Luma([if (12..16).contains(&x) && (5..35).contains(&y) || (12..22).contains(&x) && (30..35).contains(&y) {
                ink
            } else {
                paper
            }])
        })
    }

    #[test]
    fn any_size_and_either_polarity_give_the_same_digit() {
        let reference = digit(&drawing(255, 0, 4)).unwrap();
        assert_eq!(reference.size(), [1, 1, 28, 28]);
        for other in [drawing(0, 255, 4), drawing(250, 20, 8), drawing(30, 90, 16)] {
            let gap = (digit(&other).unwrap() - &reference).abs().max().double_value(&[]);
            assert!(gap < 0.02, "differs by {gap}");
        }
    }

    #[test]
    fn the_digit_is_20_high_and_its_centre_of_mass_is_in_the_middle() {
        let digit = digit(&drawing(255, 0, 3)).unwrap().view([28, 28]);
        let rows = digit.amax([1i64].as_slice(), false).gt(0.5).sum(tch::Kind::Int64).int64_value(&[]);
        assert_eq!(rows, 20);
        let mass = digit.sum(tch::Kind::Float).double_value(&[]);
        let at = Tensor::arange(28, (tch::Kind::Float, tch::Device::Cpu));
        let x = (digit.sum_dim_intlist(0i64, false, None) * &at).sum(tch::Kind::Float).double_value(&[]) / mass;
        let y = (digit.sum_dim_intlist(1i64, false, None) * &at).sum(tch::Kind::Float).double_value(&[]) / mass;
        assert!((x - 13.5).abs() <= 0.5 && (y - 13.5).abs() <= 0.5, "{x}, {y}");
    }

    #[test]
    fn blank_pictures_and_other_files_are_the_users_to_mend() {
        assert!(digit(&GrayImage::from_pixel(50, 40, Luma([200]))).is_none());
        assert!(digit(&GrayImage::from_pixel(1, 1, Luma([0]))).is_none());
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(matches!(read_digit(&here), Err(Error::User(_))));
        assert!(matches!(read_digit(Path::new("no such file.png")), Err(Error::User(_))));
    }
}
