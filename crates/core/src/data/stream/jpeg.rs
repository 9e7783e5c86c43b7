//! JPEG files to RGB bytes: by zune-jpeg, or by libjpeg-turbo with the feature `turbojpeg`.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::bad::Reason;

/// Longest side.
const LONGEST: usize = 65_535;

/// What reads JPEG files in this build, by the name of the library.
pub const JPEG_DECODER: &str = if cfg!(feature = "turbojpeg") { "libjpeg-turbo" } else { "zune-jpeg" };

/// What a worker decodes with.
#[derive(Debug, Default)]
pub(super) struct Jpeg {
    /// Made for the first picture.
    #[cfg(feature = "turbojpeg")]
    turbo: Option<turbojpeg::Decompressor>,
}

impl Jpeg {
    /// Fills `pixels`, which grows as it must, with height × width × 3 bytes; returns width and height.
    ///
    /// # Errors
    /// Why the picture is bad.
    pub(super) fn decode(&mut self, file: &[u8], pixels: &mut Vec<u8>) -> Result<[u32; 2], Reason> {
        // What libjpeg-turbo does not turn into RGB (CMYK), or warns of, is for the other to judge: which pictures are bad does not depend on
        // the feature.
        #[cfg(feature = "turbojpeg")]
        if let Ok(size) = self.turbo(file, pixels) {
            return Ok(size);
        }
        let wrong = |error: zune_jpeg::errors::DecodeErrors| format!("JPEG: {error}");
        let options = DecoderOptions::default()
            .set_max_width(LONGEST)
            .set_max_height(LONGEST)
            .set_strict_mode(false)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
        decoder.decode_headers().map_err(wrong)?;
        let (width, height) = decoder.dimensions().ok_or("JPEG: no size")?;
        let size = width * height * 3;
        if decoder.output_buffer_size() != Some(size) {
            return Err("JPEG: neither grey, colour nor CMYK".into());
        }
        pixels.resize(size, 0);
        decoder.decode_into(pixels).map_err(wrong)?;
        Ok([width as u32, height as u32])
    }

    #[cfg(feature = "turbojpeg")]
    fn turbo(&mut self, file: &[u8], pixels: &mut Vec<u8>) -> turbojpeg::Result<[u32; 2]> {
        let turbo = match &mut self.turbo {
            Some(turbo) => turbo,
            none => none.insert(turbojpeg::Decompressor::new()?),
        };
        let turbojpeg::DecompressHeader { width, height, .. } = turbo.read_header(file)?;
        pixels.resize(width * height * 3, 0);
        let format = turbojpeg::PixelFormat::RGB;
        turbo.decompress(file, turbojpeg::Image { pixels, width, pitch: 3 * width, height, format })?;
        Ok([width as u32, height as u32])
    }
}

/// Width and height of a JPEG; refuses one whose scans do not end with the end mark, which decoders fill up with grey.
pub(super) fn frame(file: &[u8]) -> Result<(u32, u32), Reason> {
    let (mut at, mut size) = (2, None);
    loop {
        let Segment { marker, content, end } = segment(file, at)?;
        at = end;
        size = size_in(marker, content).or(size);
        if marker == 0xda {
            break;
        }
    }
    // Within the scans' data each 0xff is followed by 0 or a marker, so that the end mark stands for itself. It is the last thing in nearly
    // every file.
    if !file.ends_with(&[0xff, 0xd9]) && !file[at..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
        return Err(cut_off());
    }
    size.ok_or_else(|| "JPEG: no size before its pixels".into())
}

/// Width and height of a JPEG of which the start alone is there.
pub(super) fn first_frame(start: &[u8]) -> Result<(u32, u32), Reason> {
    let mut at = 2;
    loop {
        let Segment { marker, content, end } = segment(start, at)?;
        at = end;
        if let Some(size) = size_in(marker, content) {
            return Ok(size);
        }
        if marker == 0xda {
            return Err("JPEG: no size before its pixels".into());
        }
    }
}

/// What a camera wrote into a JPEG (EXIF), if it did before the pixels' size.
pub(super) fn exif(start: &[u8]) -> Option<&[u8]> {
    let mut at = 2;
    loop {
        let Segment { marker, content, end } = segment(start, at).ok()?;
        at = end;
        match (marker, content.strip_prefix(b"Exif\0\0")) {
            (0xe1, Some(exif)) => return Some(exif),
            (0xda, _) => return None,
            _ => {}
        }
    }
}

/// What stands between two markers.
struct Segment<'a> {
    marker: u8,
    content: &'a [u8],
    /// Where the next begins.
    end: usize,
}

fn cut_off() -> Reason {
    "JPEG: cut off".to_string()
}

/// The next segment that has a length.
fn segment(file: &[u8], mut at: usize) -> Result<Segment<'_>, Reason> {
    loop {
        // Before a marker there may be any number of 0xff; other bytes between segments are skipped, as libjpeg does.
        while *file.get(at).ok_or_else(cut_off)? != 0xff {
            at += 1;
        }
        while *file.get(at).ok_or_else(cut_off)? == 0xff {
            at += 1;
        }
        let marker = file[at];
        at += 1;
        match marker {
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            0xd9 => return Err("JPEG: ends before its pixels".into()),
            _ => {}
        }
        let Some(&[a, b]) = file.get(at..at + 2) else { return Err(cut_off()) };
        let content = file.get(at + 2..at + usize::from(u16::from_be_bytes([a, b])).max(2)).ok_or_else(cut_off)?;
        // The bytes of scans are no segment.
        let end = if marker == 0xda { at } else { at + 2 + content.len() };
        return Ok(Segment { marker, content, end });
    }
}

/// Width and height, if a segment tells them.
fn size_in(marker: u8, content: &[u8]) -> Option<(u32, u32)> {
    match (marker, content) {
        // Frames: all of 0xc0..=0xcf but tables (c4), extensions (c8) and conditioning (cc).
        (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, &[_, y1, y0, x1, x0, ..]) => {
            Some((u32::from(u16::from_be_bytes([x1, x0])), u32::from(u16::from_be_bytes([y1, y0]))))
        }
        _ => None,
    }
}
