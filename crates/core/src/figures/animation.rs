//! Pictures that follow each other in time.

use std::path::Path;

use image::RgbImage;

use crate::files::write_atomic;
use crate::{Error, Result};

/// Writes pictures of one size as an animated PNG that goes round and round, each shown for so many milliseconds and the last four times as long;
/// whole or not at all. Programs that know no animation show the first of them, so that is the last picture.
///
/// # Errors
/// No picture, pictures of different sizes, a picture without pixels; the disk's.
pub fn animation(frames: &[RgbImage], milliseconds: u16, path: &Path) -> Result<()> {
    let Some(last) = frames.last() else { return Err(Error::Failed("an animation needs at least one picture".into())) };
    let (width, height) = last.dimensions();
    if width * height == 0 || frames.iter().any(|frame| frame.dimensions() != (width, height)) {
        return Err(Error::Failed("the pictures of an animation must be of one size".into()));
    }
    let mut bytes = Vec::new();
    let mut write = || -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_animated(frames.len() as u32, 0)?;
        encoder.set_sep_def_img(true)?;
        let mut writer = encoder.write_header()?;
        writer.write_image_data(last)?;
        for (place, frame) in frames.iter().enumerate() {
            let times = if place + 1 == frames.len() { 4 } else { 1 };
            writer.set_frame_delay(milliseconds.saturating_mul(times), 1000)?;
            writer.write_image_data(frame)?;
        }
        writer.finish()
    };
    write().map_err(|error| Error::Failed(format!("cannot encode {}: {error}", path.display())))?;
    write_atomic(path, &[&bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn frames_come_back_one_after_the_other_with_the_last_in_front() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let frame = |level: u8| RgbImage::from_pixel(3, 2, Rgb([level, 0, 0]));
        animation(&[frame(1), frame(2), frame(3)], 40, &path).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8(), frame(3));
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap())).read_info().unwrap();
        assert_eq!(reader.info().animation_control().unwrap().num_frames, 3);
        let mut told = Vec::new();
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        for _ in 0..4 {
            reader.next_frame(&mut buffer).unwrap();
            told.push((buffer[0], reader.info().frame_control().map(|control| control.delay_num)));
        }
        assert_eq!(told, [(3, None), (1, Some(40)), (2, Some(40)), (3, Some(160))]);
    }

    #[test]
    fn what_is_no_animation_is_refused() {
        let path = Path::new("/nowhere/a.png");
        assert!(animation(&[], 40, path).unwrap_err().to_string().contains("at least one"));
        let sizes = [RgbImage::new(1, 1), RgbImage::new(2, 1)];
        assert!(animation(&sizes, 40, path).unwrap_err().to_string().contains("one size"));
    }
}
