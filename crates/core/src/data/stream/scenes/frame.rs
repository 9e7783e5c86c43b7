//! A picture on its way from the photo to the network, and where the photo's pixels have gone.

use std::borrow::Cow;

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::view::Plan;
use crate::data::Filter;
use crate::data::stream::bad::Reason;
use crate::data::stream::decode::{CHANNELS, MOST_RESIZED, Part, convolve};

/// What stands beside a picture: Darknet's 0.5.
pub(super) const GREY: u8 = 128;

/// Where a pixel of the photo has gone along one axis: `scale`·x + `offset`. Where left and right are exchanged the scale is negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// Pixels there per pixel of the photo.
    pub scale: f64,
    /// In pixels there.
    pub offset: f64,
}

impl Axis {
    /// Where the photo's `x` is.
    pub fn there(&self, x: f64) -> f64 {
        self.scale * x + self.offset
    }

    /// Where in the photo `x` was.
    pub fn back(&self, x: f64) -> f64 {
        (x - self.offset) / self.scale
    }

    fn times(self, factor: f64) -> Self {
        Self { scale: self.scale * factor, offset: self.offset * factor }
    }

    fn plus(self, shift: f64) -> Self {
        Self { offset: self.offset + shift, ..self }
    }
}

/// A part of pixels in memory that is seen, mirrored or not. Nothing is copied before it is resized.
pub(super) struct Frame<'a> {
    pixels: Cow<'a, [u8]>,
    /// Width and height of the pixels.
    size: [u32; 2],
    /// Left, top, width and height of what is seen.
    part: [u32; 4],
    mirrored: bool,
    axes: [Axis; 2],
}

/// What was laid onto a canvas.
pub(super) struct Laid {
    /// From the photo to the canvas.
    pub(super) axes: [Axis; 2],
    /// Left, top, width and height of what the picture covers.
    pub(super) covered: [u32; 4],
}

impl<'a> Frame<'a> {
    /// A whole photo of `size` (width, height).
    pub(super) fn new(pixels: &'a [u8], size: [u32; 2]) -> Self {
        let axes = [Axis { scale: 1.0, offset: 0.0 }; 2];
        Self { pixels: Cow::Borrowed(pixels), size, part: [0, 0, size[0], size[1]], mirrored: false, axes }
    }

    /// Width and height of what is seen.
    pub(super) fn size(&self) -> [u32; 2] {
        [self.part[2], self.part[3]]
    }

    /// Exchanges left and right.
    pub(super) fn flip(&mut self) {
        self.mirrored = !self.mirrored;
        self.axes[0] = self.axes[0].times(-1.0).plus(f64::from(self.part[2]));
    }

    /// Leaves this part of what is seen: left, top, width, height.
    pub(super) fn crop(&mut self, [left, top, width, height]: [u32; 4]) {
        let stored = if self.mirrored { self.part[2] - left - width } else { left };
        self.part = [self.part[0] + stored, self.part[1] + top, width, height];
        self.axes = [self.axes[0].plus(-f64::from(left)), self.axes[1].plus(-f64::from(top))];
    }

    /// Resizes to `to` (width, height); what has that size is left alone.
    pub(super) fn resize(&mut self, to: [u32; 2], filter: Filter, resizer: &mut Resizer) -> Result<(), Reason> {
        if self.size() == to {
            return Ok(());
        }
        let mut made = vec![0; bytes_of(to)?];
        let source = Part { pixels: &*self.pixels, size: self.size, part: self.part };
        let target = Part { pixels: &mut made[..], size: to, part: [0, 0, to[0], to[1]] };
        convolve(resizer, source, target, &options(filter))?;
        let now = self.size();
        let scaled = |axis: usize| self.axes[axis].times(f64::from(to[axis]) / f64::from(now[axis]));
        self.axes = [scaled(0), scaled(1)];
        self.part = [0, 0, to[0], to[1]];
        self.size = to;
        self.pixels = Cow::Owned(made);
        Ok(())
    }

    /// Resizes and lays what is seen onto a grey canvas, whose pixels are added to `out`. On an error `out` may have grown.
    pub(super) fn lay(&self, plan: &Plan, resizer: &mut Resizer, out: &mut Vec<u8>) -> Result<Laid, Reason> {
        let Plan { canvas, resized, corner, filter } = *plan;
        let now = self.size();
        // The part of the resized picture that lies on the canvas, and the photo's part that it shows.
        let (mut from, mut covered, mut axes) = ([0.0; 4], [0; 4], self.axes);
        let mut whole = true;
        for axis in 0..2 {
            let length = i64::from(resized[axis]);
            let start = (-corner[axis]).clamp(0, length);
            let end = (i64::from(canvas[axis]) - corner[axis]).clamp(start, length);
            if start == end {
                return Err("nothing of it lies within the network's picture".into());
            }
            whole &= (start, end) == (0, length);
            let first = if axis == 0 && self.mirrored { length - end } else { start };
            let scale = f64::from(now[axis]) / length as f64;
            from[axis] = first as f64 * scale;
            from[axis + 2] = ((end - start) as f64 * scale).min(f64::from(now[axis]) - from[axis]);
            covered[axis] = (corner[axis] + start) as u32;
            covered[axis + 2] = (end - start) as u32;
            axes[axis] = axes[axis].times(1.0 / scale).plus(corner[axis] as f64);
        }
        let at = out.len();
        out.resize(at + bytes_of(canvas)?, GREY);
        let pixels = &mut out[at..];
        let source = Part { pixels: &*self.pixels, size: self.size, part: self.part };
        let [left, top, width, height] = from;
        let options = if whole { options(filter) } else { options(filter).crop(left, top, width, height) };
        convolve(resizer, source, Part { pixels: &mut *pixels, size: canvas, part: covered }, &options)?;
        if self.mirrored {
            let [left, top, width, height] = covered.map(|side| side as usize);
            for row in pixels.chunks_exact_mut(canvas[0] as usize * CHANNELS).skip(top).take(height) {
                row.as_chunks_mut::<CHANNELS>().0[left..left + width].reverse();
            }
        }
        Ok(Laid { axes, covered })
    }
}

fn options(filter: Filter) -> ResizeOptions {
    let kind = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(kind)).use_alpha(false)
}

fn bytes_of([width, height]: [u32; 2]) -> Result<usize, Reason> {
    match u64::from(width) * u64::from(height) {
        pixels if pixels > MOST_RESIZED => {
            Err(format!("resized it would have {width}×{height} pixels, more than {MOST_RESIZED}"))
        }
        pixels => Ok(pixels as usize * CHANNELS),
    }
}
