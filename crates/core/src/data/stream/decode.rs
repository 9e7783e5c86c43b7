//! From the bytes of a file (JPEG, PNG, WebP, BMP) to a square of RGB bytes. Pictures are read as Pillow's `convert("RGB")` reads them: grey is repeated, transparency
//! is dropped, palettes are looked up, CMYK is taken for Adobe's inverted kind, the orientation that a camera noted is not applied. Of 16 bits
//! the upper 8 are taken (Pillow cuts 16-bit grey off at 255). The decoder is told by the content, not by the name.

use std::io::Cursor;
use std::sync::Mutex;

use fast_image_resize::images::{TypedCroppedImage, TypedCroppedImageMut, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{ImageFormat, ImageReader};
use png::{ColorType, Transformations};

use super::bad::Reason;
use super::jpeg::{Jpeg, exif, first_frame, frame};
use super::view::Cut;
use crate::data::Filter;

/// Bytes of a pixel.
pub(super) const CHANNELS: usize = 3;
/// Most pixels of a picture that is decoded: 178,956,970, from where Pillow takes it for an attack, too.
pub(super) const MOST_PIXELS: u64 = (1 << 30) / 6;
/// Most pixels of a resized picture.
pub(super) const MOST_RESIZED: u64 = 1 << 26;
/// From so many pixels on, one picture is decoded at a time.
const LARGE: u64 = 1 << 24;

/// Held while a large picture is decoded, so that memory stays that of one.
static LARGE_ONE: Mutex<()> = Mutex::new(());

/// Buffers that one worker uses again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The bytes of the file.
    pub(super) file: Vec<u8>,
    pixels: Vec<u8>,
    jpeg: Jpeg,
    /// A whole resized picture.
    whole: Vec<u8>,
    pub(super) resizer: Resizer,
}

/// A decoded picture, and what it is resized with.
pub(super) struct Opened<'a> {
    /// height × width × 3.
    pub(super) pixels: &'a [u8],
    /// Width and height.
    pub(super) size: [u32; 2],
    pub(super) resizer: &'a mut Resizer,
    /// A buffer for a whole resized picture.
    pub(super) whole: &'a mut Vec<u8>,
}

impl Scratch {
    /// Memory that is kept for the next picture.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.file.capacity() + self.pixels.capacity() + self.whole.capacity() + self.resizer.size_of_internal_buffers()
    }

    /// Decodes [`Self::file`] and fills each of `squares`, `edge` × `edge` × 3 bytes, with what `cut` chooses for its place among them and
    /// the picture's (width, height), mirrored or not.
    pub(super) fn squares<'a>(
        &mut self,
        squares: impl Iterator<Item = &'a mut [u8]>,
        edge: u32,
        filter: Filter,
        mut cut: impl FnMut(usize, [u32; 2]) -> (Cut, bool),
    ) -> Result<(), Reason> {
        self.picture(|Opened { pixels, size, resizer, whole }| {
            squares.enumerate().try_for_each(|(place, square)| {
                let (cut, mirrored) = cut(place, size);
                resize((resizer, whole), pixels, size, square, edge, filter, cut)?;
                if mirrored {
                    mirror(square, edge as usize);
                }
                Ok(())
            })
        })
    }

    /// Decodes [`Self::file`] for `work`.
    pub(super) fn picture<T>(&mut self, work: impl FnOnce(Opened) -> Result<T, Reason>) -> Result<T, Reason> {
        let pixels = pixels_of(&self.file)?;
        let guard = (pixels >= LARGE).then(|| LARGE_ONE.lock().unwrap_or_else(|dead| dead.into_inner()));
        let size = decode(&self.file, &mut self.jpeg, &mut self.pixels)?;
        let done = work(Opened { pixels: &self.pixels, size, resizer: &mut self.resizer, whole: &mut self.whole });
        if guard.is_some() {
            self.pixels = Vec::new();
            self.file = Vec::new();
            self.whole = Vec::new();
            self.resizer.reset_internal_buffers();
        }
        done
    }
}

/// Exchanges left and right.
pub(super) fn mirror(square: &mut [u8], edge: usize) {
    for row in square.chunks_exact_mut(edge * CHANNELS) {
        let (pixels, _) = row.as_chunks_mut::<CHANNELS>();
        pixels.reverse();
    }
}

/// What the file's first bytes say it is.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Jpeg,
    Png,
    /// What the crate `image` reads.
    Other(ImageFormat),
}

fn format_of(file: &[u8]) -> Result<Format, Reason> {
    match file {
        [] => Err("the file is empty".into()),
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        [0x89, b'P', b'N', b'G', ..] => Ok(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::Other(ImageFormat::WebP)),
        [b'B', b'M', ..] => Ok(Format::Other(ImageFormat::Bmp)),
        _ => Err("neither JPEG, PNG, WebP nor BMP, whatever its name says".into()),
    }
}

/// Pixels of the picture, from its header alone; refused if they are too many, or the file is cut off as far as can be told.
pub(super) fn pixels_of(file: &[u8]) -> Result<u64, Reason> {
    match format_of(file)? {
        Format::Jpeg => few_enough(frame(file)?),
        Format::Other(ImageFormat::WebP) if is_cut_off(file) => Err("WebP: cut off".into()),
        _ => size_of(file).and_then(|[width, height]| few_enough((width, height))),
    }
}

/// Width and height of a picture of which the start alone is there.
pub(super) fn size_of(start: &[u8]) -> Result<[u32; 2], Reason> {
    let (width, height) = match format_of(start)? {
        Format::Jpeg => first_frame(start)?,
        Format::Png => match start.get(16..24) {
            Some(&[a, b, c, d, e, f, g, h]) => (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])),
            _ => return Err("PNG: cut off within its header".into()),
        },
        Format::Other(format) => {
            ImageReader::with_format(Cursor::new(start), format).into_dimensions().map_err(|e| wrong(format, &e))?
        }
    };
    few_enough((width, height)).map(|_| [width, height])
}

/// Whether a camera noted that a picture, of which the start is enough, does not lie as it was seen.
pub(super) fn is_turned(start: &[u8]) -> bool {
    let exif = match format_of(start) {
        Ok(Format::Jpeg) => exif(start),
        _ => None,
    };
    exif.and_then(Orientation::from_exif_chunk).is_some_and(|noted| noted != Orientation::NoTransforms)
}

fn few_enough((width, height): (u32, u32)) -> Result<u64, Reason> {
    match u64::from(width) * u64::from(height) {
        0 => Err(format!("{width}×{height} pixels are no picture")),
        n if n > MOST_PIXELS => Err(format!("{width}×{height} pixels are more than the {MOST_PIXELS} that are read")),
        n => Ok(n),
    }
}

/// Decodes into `pixels`, which grows as it must and is used again; returns width and height.
fn decode(file: &[u8], jpeg: &mut Jpeg, pixels: &mut Vec<u8>) -> Result<[u32; 2], Reason> {
    match format_of(file)? {
        Format::Jpeg => jpeg.decode(file, pixels),
        Format::Png => png(file, pixels),
        Format::Other(format) => {
            // How large it may be has been looked at.
            let mut reader = ImageReader::with_format(Cursor::new(file), format);
            reader.no_limits();
            let picture = reader.decode().map_err(|e| wrong(format, &e))?.into_rgb8();
            let size = [picture.width(), picture.height()];
            *pixels = picture.into_raw();
            Ok(size)
        }
    }
}

/// Whether a file in RIFF's layout is shorter than it says at its start.
fn is_cut_off(file: &[u8]) -> bool {
    matches!(file, [_, _, _, _, a, b, c, d, ..] if (file.len() as u64) < 8 + u64::from(u32::from_le_bytes([*a, *b, *c, *d])))
}

fn wrong(format: ImageFormat, error: &image::ImageError) -> Reason {
    format!("{format:?}: {error}")
}

fn png(file: &[u8], pixels: &mut Vec<u8>) -> Result<[u32; 2], Reason> {
    let wrong = |error: png::DecodingError| format!("PNG: {error}");
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(wrong)?;
    let size = reader.output_buffer_size().ok_or("PNG: too large")?;
    pixels.resize(size, 0);
    let info = reader.next_frame(pixels).map_err(wrong)?;
    let channels = match info.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgba => 4,
        ColorType::Rgb | ColorType::Indexed => 3,
    };
    let count = info.width as usize * info.height as usize;
    if channels != 3 {
        // From 1 or 2 numbers a pixel grow from the end; 4 shrink from the start: no pixel is overwritten before it is read.
        pixels.resize(size.max(3 * count), 0);
        let one = |pixels: &mut Vec<u8>, i: usize| {
            let first = pixels[channels * i];
            let rgb = match channels {
                4 => [first, pixels[4 * i + 1], pixels[4 * i + 2]],
                _ => [first; 3],
            };
            pixels[3 * i..3 * i + 3].copy_from_slice(&rgb);
        };
        match channels {
            4 => (0..count).for_each(|i| one(pixels, i)),
            _ => (0..count).rev().for_each(|i| one(pixels, i)),
        }
        pixels.truncate(3 * count);
    }
    Ok([info.width, info.height])
}

fn resize(
    buffers: (&mut Resizer, &mut Vec<u8>),
    pixels: &[u8],
    size: [u32; 2],
    square: &mut [u8],
    edge: u32,
    filter: Filter,
    cut: Cut,
) -> Result<(), Reason> {
    let kind = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(kind)).use_alpha(false);
    let ([width, height], (resizer, whole)) = (size, buffers);
    let source = Part { pixels, size, part: [0, 0, width, height] };
    let all = [0, 0, edge, edge];
    match cut {
        Cut::Part(part) => {
            convolve(resizer, Part { part, ..source }, Part { pixels: square, size: [edge; 2], part: all }, &options)
        }
        Cut::Box { from: [left, top, width, height], into, .. } if filter == Filter::Bilinear => {
            if into != all {
                square.fill(0);
            }
            let options = options.crop(left, top, width, height);
            convolve(resizer, source, Part { pixels: square, size: [edge; 2], part: into }, &options)
        }
        // fast_image_resize 6.1 leaves zeros at the ends of a filter's weights away, and takes those of the first and the last row for the
        // outermost. The cubic has zeros within, where a box between pixels may put them: it would read beyond its memory. Without a box
        // there is none at the ends. So the whole picture is resized, and the part copied.
        Cut::Box {
            into: [left, top, width, height], resized: [all_width, all_height, from_left, from_top], ..
        } => {
            if all_width * all_height > MOST_RESIZED {
                return Err(format!("resized it would have {all_width}×{all_height} pixels, more than {MOST_RESIZED}"));
            }
            whole.resize((all_width * all_height) as usize * 3, 0);
            let resized = [all_width as u32, all_height as u32];
            let target = Part { pixels: &mut whole[..], size: resized, part: [0, 0, resized[0], resized[1]] };
            convolve(resizer, source, target, &options)?;
            square.fill(0);
            let rows = whole.chunks_exact(3 * all_width as usize).skip(from_top as usize);
            let lines = square.chunks_exact_mut(3 * edge as usize).skip(top as usize);
            let (from, to, length) = (3 * from_left as usize, 3 * left as usize, 3 * width as usize);
            for (line, row) in lines.zip(rows).take(height as usize) {
                line[to..to + length].copy_from_slice(&row[from..from + length]);
            }
            Ok(())
        }
    }
}

/// A part of a picture: the bytes of the whole, its width and height, and left, top, width and height of the part.
pub(super) struct Part<Pixels> {
    pub(super) pixels: Pixels,
    pub(super) size: [u32; 2],
    pub(super) part: [u32; 4],
}

/// Resizes one part into another. Both sides have one type each, and the pixels theirs: the resizer's `resize` would be compiled for 13 kinds
/// of pixel at each call, which took as long as the rest of this crate.
pub(super) fn convolve(
    resizer: &mut Resizer,
    from: Part<&[u8]>,
    to: Part<&mut [u8]>,
    options: &ResizeOptions,
) -> Result<(), Reason> {
    let wrong = |error: &dyn std::fmt::Display| format!("cannot be resized: {error}");
    let source = TypedImageRef::<U8x3>::from_buffer(from.size[0], from.size[1], from.pixels).map_err(|e| wrong(&e))?;
    let target = TypedImage::<U8x3>::from_buffer(to.size[0], to.size[1], to.pixels).map_err(|e| wrong(&e))?;
    let [left, top, width, height] = from.part;
    let source = TypedCroppedImage::new(source, left, top, width, height).map_err(|e| wrong(&e))?;
    let [left, top, width, height] = to.part;
    let mut target = TypedCroppedImageMut::new(target, left, top, width, height).map_err(|e| wrong(&e))?;
    resizer.resize_typed::<U8x3>(&source, &mut target, options).map_err(|e| wrong(&e))
}
