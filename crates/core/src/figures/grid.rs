//! Images side by side.

use image::{Rgb, RgbImage};
use tch::{Kind, Tensor};

use super::{GREEN, INK, RED, WHITE, fill, text};
use crate::{Error, Result};

/// Pixels between tiles and around them.
const GAP: u32 = 2;
/// The same where tiles have frames, and the width of a frame.
const FRAMED: (u32, u32) = (8, 3);
const TITLE: f32 = 16.0;
const TEXT: f32 = 13.0;
/// From one line of a caption to the next.
const LINE: u32 = TEXT as u32 + GAP;

/// What is drawn around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Nothing.
    None,
    /// Green.
    Right,
    /// Red.
    Wrong,
}

/// Lays images out in rows of `columns`, in reading order.
///
/// - `images` `[N, C, H, W]`, C = 1 (grey) or 3 (RGB): u8, or floating point in [0, 1] (what lies outside is clipped)
/// - `scale`: each pixel becomes a square of `scale` × `scale`
/// - `captions`: none, or one for each image, written under it; it may have several lines
pub fn grid(images: &Tensor, columns: u32, scale: u32, captions: &[String]) -> Result<RgbImage> {
    framed(images, columns, scale, captions, &[], "")
}

/// The same under a title, with a frame around each image; none of them if `frames` is empty.
///
/// # Errors
/// Shapes and numbers that do not fit each other.
pub fn framed(
    images: &Tensor,
    columns: u32,
    scale: u32,
    captions: &[String],
    frames: &[Frame],
    title: &str,
) -> Result<RgbImage> {
    wall(&tiles(images)?, columns, scale, captions, frames, title)
}

/// The same of pictures as they are, which may differ in size.
///
/// # Errors
/// No picture, numbers that do not fit each other.
pub fn wall(
    tiles: &[RgbImage],
    columns: u32,
    scale: u32,
    captions: &[String],
    frames: &[Frame],
    title: &str,
) -> Result<RgbImage> {
    if columns == 0 || scale == 0 || tiles.is_empty() {
        return Err(Error::Failed(
            "a grid of images needs at least one image, one column and a scale of at least 1".into(),
        ));
    }
    for (what, count) in [("captions", captions.len()), ("frames", frames.len())] {
        if count > 0 && count != tiles.len() {
            return Err(Error::Failed(format!("a grid has {} images and {count} {what}", tiles.len())));
        }
    }
    let gap = if frames.is_empty() { GAP } else { FRAMED.0 };
    let columns = columns.min(tiles.len() as u32);
    let rows = (tiles.len() as u32).div_ceil(columns);
    let largest = |side: fn(&RgbImage) -> u32| scale * tiles.iter().map(side).max().unwrap_or(0);
    let (tile_width, tile_height) = (largest(RgbImage::width), largest(RgbImage::height));
    // A caption is never cut off: the widest one sets the column's width.
    let widest = captions.iter().flat_map(|caption| caption.lines()).map(|line| text::width(line, TEXT)).max();
    let cell_width = tile_width.max(widest.map_or(0, |width| width + 2 * GAP)) + gap;
    let most_lines = captions.iter().map(|caption| caption.lines().count() as u32).max().unwrap_or(0);
    let cell_height = tile_height + gap + most_lines * LINE + if most_lines == 0 { 0 } else { GAP };
    let header = if title.is_empty() { 0 } else { TITLE as u32 + 4 * GAP };

    let width = (columns * cell_width + gap).max(text::width(title, TITLE) + 2 * gap);
    let mut picture = RgbImage::from_pixel(width, header + rows * cell_height + gap, WHITE);
    text::draw(&mut picture, title, gap, 2 * GAP, TITLE, INK);
    for (index, tile) in tiles.iter().enumerate() {
        let (column, row) = (index as u32 % columns, index as u32 / columns);
        let (left, top) = (gap + column * cell_width, header + gap + row * cell_height);
        let inset = (cell_width - gap - tile_width) / 2;
        if let Some(colour) = frames.get(index).and_then(|frame| frame.colour()) {
            let edge = FRAMED.1;
            let (x, y) = (left + inset - edge, top - edge);
            fill(&mut picture, x, y, tile_width + 2 * edge, tile_height + 2 * edge, colour);
        }
        paste(&mut picture, tile, left + inset, top, scale);
        for (line, caption) in captions.get(index).iter().flat_map(|caption| caption.lines()).enumerate() {
            let inset = (cell_width - gap - text::width(caption, TEXT)) / 2;
            let below = top + tile_height + gap.min(2 * GAP + 1) + line as u32 * LINE;
            text::draw(&mut picture, caption, left + inset, below, TEXT, INK);
        }
    }
    Ok(picture)
}

impl Frame {
    /// Green where it is right.
    pub fn of(right: bool) -> Self {
        if right { Frame::Right } else { Frame::Wrong }
    }

    fn colour(self) -> Option<Rgb<u8>> {
        match self {
            Frame::None => None,
            Frame::Right => Some(GREEN),
            Frame::Wrong => Some(RED),
        }
    }
}

/// Draws an image with squares of `scale` × `scale` for pixels.
pub(super) fn paste(picture: &mut RgbImage, tile: &RgbImage, left: u32, top: u32, scale: u32) {
    for (x, y, colour) in tile.enumerate_pixels() {
        fill(picture, left + x * scale, top + y * scale, scale, scale, *colour);
    }
}

/// Splits `[N, C, H, W]` into images.
/// One picture, `[C, H, W]` as in [`grid`].
///
/// # Errors
/// Tensors of another shape.
pub fn tile(image: &Tensor) -> Result<RgbImage> {
    let mut tiles = tiles(&image.f_unsqueeze(0)?)?;
    tiles.pop().ok_or_else(|| Error::Failed("a picture is empty".into()))
}

fn tiles(images: &Tensor) -> Result<Vec<RgbImage>> {
    let [n, channels @ (1 | 3), height, width] = images.size()[..] else {
        return Err(Error::Failed(format!("a grid takes [N, 1 or 3, H, W], not {:?}", images.size())));
    };
    if n * height * width == 0 {
        return Err(Error::Failed(format!("a grid needs at least one pixel of one image, not {:?}", images.size())));
    }
    let bytes: Vec<u8> = if images.kind() == Kind::Uint8 {
        Vec::try_from(images.f_flatten(0, -1)?)?
    } else {
        let values: Vec<f32> = Vec::try_from(images.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)?;
        values.iter().map(|value| (value * 255.0).round() as u8).collect() // The cast clips.
    };
    let plane = (height * width) as usize;
    let (width, height) = (width as u32, height as u32);
    let tile = |bytes: &[u8]| {
        RgbImage::from_fn(width, height, |x, y| {
            let at = (y * width + x) as usize;
            if channels == 1 { Rgb([bytes[at]; 3]) } else { Rgb([bytes[at], bytes[plane + at], bytes[2 * plane + at]]) }
        })
    };
    Ok(bytes.chunks(channels as usize * plane).map(tile).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiny_grid_has_exactly_these_pixels() {
        // Two grey images of 1 × 2 pixels, doubled, under each other.
        let images = Tensor::from_slice(&[0.0f32, 0.5, 1.0, 2.0]).view([2, 1, 1, 2]);
        let picture = grid(&images, 1, 2, &[]).unwrap();
        let (w, g, b) = (255, 128, 0);
        let expected: [[u8; 8]; 10] = [
            [w; 8],
            [w; 8],
            [w, w, b, b, g, g, w, w],
            [w, w, b, b, g, g, w, w],
            [w; 8],
            [w; 8],
            [w; 8], // The second image is white: 1, and 2 clipped to 1.
            [w; 8],
            [w; 8],
            [w; 8],
        ];
        let grey: Vec<u8> = picture.pixels().map(|pixel| pixel[0]).collect();
        assert_eq!(picture.dimensions(), (8, 10));
        assert_eq!(grey, expected.concat());
        assert!(picture.pixels().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
    }

    #[test]
    fn channels_are_red_green_blue_and_tiles_run_in_reading_order() {
        let images = Tensor::from_slice(&[10u8, 20, 30, 40, 50, 60, 70, 80, 90]).view([3, 3, 1, 1]);
        let picture = grid(&images, 2, 1, &[]).unwrap();
        assert_eq!(picture.dimensions(), (8, 8));
        assert_eq!(picture.get_pixel(2, 2), &Rgb([10, 20, 30]));
        assert_eq!(picture.get_pixel(5, 2), &Rgb([40, 50, 60]));
        assert_eq!(picture.get_pixel(2, 5), &Rgb([70, 80, 90]));
        assert_eq!(picture.get_pixel(5, 5), &WHITE);
    }

    #[test]
    fn captions_widen_the_columns_and_are_drawn() {
        let images = Tensor::full([2, 1, 4, 4], 1.0, (Kind::Float, tch::Device::Cpu));
        let captions = ["a rather long caption".to_string(), "b".to_string()];
        let picture = grid(&images, 2, 1, &captions).unwrap();
        assert!(picture.width() > 2 * text::width(&captions[0], TEXT));
        assert!(picture.pixels().any(|pixel| pixel[0] < 100), "captions are ink on white");
    }

    #[test]
    fn frames_are_green_or_red_and_a_title_stands_above() {
        let images = Tensor::full([3, 1, 8, 8], 1.0, (Kind::Float, tch::Device::Cpu));
        let frames = [Frame::None, Frame::of(true), Frame::of(false)];
        let picture = framed(&images, 3, 1, &[], &frames, "").unwrap();
        let count = |colour: Rgb<u8>| picture.pixels().filter(|pixel| **pixel == colour).count();
        assert_eq!([count(GREEN), count(RED)], [14 * 14 - 64; 2]);
        let titled = framed(&images, 3, 1, &[], &frames, "a title that is wider than the images").unwrap();
        assert!(titled.height() > picture.height() && titled.width() > picture.width());
        assert!(framed(&images, 3, 1, &[], &frames[..2], "").is_err());
    }

    #[test]
    fn lines_of_a_caption_stand_under_each_other() {
        let images = Tensor::full([1, 1, 4, 4], 1.0, (Kind::Float, tch::Device::Cpu));
        let of = |caption: &str| grid(&images, 1, 1, &[caption.to_string()]).unwrap();
        let (one, two) = (of("mmm"), of("mmm\nm"));
        assert_eq!((two.width(), two.height()), (one.width(), one.height() + LINE));
        let ink = |picture: &RgbImage, from: u32| {
            (from..picture.height()).any(|y| (0..picture.width()).any(|x| picture.get_pixel(x, y)[0] < 100))
        };
        assert!(ink(&two, one.height()) && ink(&one, 8));
    }

    #[test]
    fn wrong_input_is_an_error() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
        for shape in [&[2, 2, 4, 4][..], &[1, 4, 4], &[0, 1, 4, 4], &[1, 1, 0, 4]] {
            assert!(grid(&zeros(shape), 1, 1, &[]).is_err(), "{shape:?}");
        }
        assert!(grid(&zeros(&[2, 1, 4, 4]), 0, 1, &[]).is_err());
        assert!(grid(&zeros(&[2, 1, 4, 4]), 1, 1, &["one".into()]).is_err());
    }
}
