//! A part of random area and shape, resized.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::{demand, upload};
use crate::Result;
use crate::random::{below, uniform};

/// What torchvision's RandomResizedCrop tries before it takes the middle.
const TRIES: usize = 10;

/// torchvision's `RandomResizedCrop` of tensors, with its antialias: a part of random area and shape, resized as if there were no other
/// pixels. In YAML: `{kind: random_resized_crop, scale: [0.08, 1], ratio: [0.75, 1.3333], filter: bilinear}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct RandomResizedCrop {
    /// Smallest and largest share of the picture's area, in (0, 1].
    pub scale: [f64; 2],
    /// Smallest and largest width by height, above 0; the logarithm is uniform.
    pub ratio: [f64; 2],
    /// How pixels are blended. A cubic may leave [0, 1]; nothing is clipped.
    pub filter: Filter,
    /// Edge of the result, in pixels. `None`: the picture's own size.
    pub size: Option<u64>,
}

/// How pixels are blended when a picture is resized; where it shrinks, the filter widens with it (Pillow's way, `antialias=True`).
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = −1/2.
    Bicubic,
}

impl RandomResizedCrop {
    pub(super) fn check(&self) -> Result<()> {
        let [low, high] = self.scale;
        let told = |[low, high]: [f64; 2]| format!("[{low}, {high}]");
        let rule = "two shares of the area, 0 < low ≤ high ≤ 1";
        demand(0.0 < low && low <= high && high <= 1.0, "random_resized_crop.scale", told(self.scale), rule)?;
        let [low, high] = self.ratio;
        let rule = "width by height, 0 < low ≤ high";
        demand(0.0 < low && low <= high && high.is_finite(), "random_resized_crop.ratio", told(self.ratio), rule)?;
        let size = self.size.unwrap_or(1);
        demand((1..=4096).contains(&size), "random_resized_crop.size", size, "a number from 1 to 4096")
    }

    /// Height and width of the result for a picture of this height and width.
    pub(super) fn cut(&self, picture: [i64; 2]) -> [i64; 2] {
        self.size.map_or(picture, |size| [size as i64; 2])
    }

    /// The part of a picture of this height and width that is seen.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng, [height, width]: [i64; 2]) -> [u32; 4] {
        random_part([width as u32, height as u32], self.scale, self.ratio, rng)
    }
}

/// Left, top, width and height of RandomResizedCrop's part. Each try draws the share of the area and the logarithm of the ratio; one that
/// fits, then top and left.
pub(in crate::data) fn random_part(
    [width, height]: [u32; 2],
    scale: [f64; 2],
    ratio: [f64; 2],
    rng: &mut ChaCha8Rng,
) -> [u32; 4] {
    let (w, h) = (f64::from(width), f64::from(height));
    let fits = |length: f64, most: f64| 0.0 < length && length <= most;
    for _ in 0..TRIES {
        let area = w * h * uniform(rng, scale[0], scale[1]);
        let shape = uniform(rng, ratio[0].ln(), ratio[1].ln()).exp();
        let (wide, high) = ((area * shape).sqrt().round_ties_even(), (area / shape).sqrt().round_ties_even());
        if fits(wide, w) && fits(high, h) {
            let top = below(rng, u64::from(height) - high as u64 + 1);
            let left = below(rng, u64::from(width) - wide as u64 + 1);
            return [left as u32, top as u32, wide as u32, high as u32];
        }
    }
    let shape = w / h;
    let (wide, high) = if shape < ratio[0] {
        (w, (w / ratio[0]).round_ties_even())
    } else if shape > ratio[1] {
        ((h * ratio[1]).round_ties_even(), h)
    } else {
        (w, h)
    };
    let (wide, high) = (wide.clamp(1.0, w) as u32, high.clamp(1.0, h) as u32);
    [(width - wide) / 2, (height - high) / 2, wide, high]
}

impl Filter {
    /// How far it reaches, in pixels.
    fn reach(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    /// The weight at this distance from its middle.
    fn weight(self, x: f32) -> f32 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0),
            Filter::Bicubic => 0.0,
        }
    }
}

/// Each picture's part (left, top, width, height), resized to this height and width.
///
/// Enlarged or reduced, a pixel is a weighted sum of neighbours along the row, then along the column, as libtorch has it with antialias;
/// for the whole batch these are as many gathers as the widest filter has places, twice.
pub(super) fn resize(image: &Tensor, parts: &[[u32; 4]], [height, width]: [i64; 2], filter: Filter) -> Result<Tensor> {
    let across: Vec<[u32; 2]> = parts.iter().map(|[left, _, width, _]| [*left, *width]).collect();
    let down: Vec<[u32; 2]> = parts.iter().map(|[_, top, _, height]| [*top, *height]).collect();
    along(&along(image, 3, &across, width, filter)?, 2, &down, height, filter)
}

/// Resizes each picture's part (start, length) along one axis to `size` pixels.
fn along(image: &Tensor, dim: usize, parts: &[[u32; 2]], size: i64, filter: Filter) -> Result<Tensor> {
    let n = parts.len();
    let taps: Vec<Taps> = parts.iter().flat_map(|part| (0..size).map(|i| Taps::of(*part, i, size, filter))).collect();
    let most = taps.iter().map(|taps| taps.weights.len()).max().unwrap_or(0);
    // The k-th place and weight of each pixel of each picture; beyond its last a weight of 0, which changes no sum.
    let at = |k: usize| taps.iter().map(move |taps| (taps.first + k.min(taps.weights.len() - 1)) as i64);
    let weight = |k: usize| taps.iter().map(move |taps| taps.weights.get(k).copied().unwrap_or(0.0));
    let mut shape = [most as i64, n as i64, 1, 1, 1];
    shape[dim + 1] = size;
    let index = upload(&(0..most).flat_map(at).collect::<Vec<i64>>(), image.device())?.f_view(shape)?;
    let weights = upload(&(0..most).flat_map(weight).collect::<Vec<f32>>(), image.device())?.f_view(shape)?;
    let mut target = image.size();
    target[dim] = size;
    let tap = |k: i64| image.f_gather(dim as i64, &index.f_get(k)?.f_expand(&target, false)?, false);
    let mut sum = tap(0)?.f_mul_(&weights.f_get(0)?)?;
    for k in 1..most as i64 {
        sum = sum.f_addcmul_(&tap(k)?, &weights.f_get(k)?)?;
    }
    Ok(sum)
}

/// The pixels of a line that one pixel of the resized line is made of.
struct Taps {
    /// The first of them, counted from the start of the whole line.
    first: usize,
    /// At least one, of sum 1.
    weights: Vec<f32>,
}

impl Taps {
    /// Pixel `i` of `size` made of a part (start, length); numbers are rounded where libtorch rounds them.
    fn of([start, length]: [u32; 2], i: i64, size: i64, filter: Filter) -> Self {
        let scale = length as f32 / size as f32;
        let widened = scale.max(1.0);
        let reach = (filter.reach() * f64::from(widened)) as f32;
        let middle = (f64::from(scale) * (i as f64 + 0.5)) as f32;
        let bound = |edge: f32| ((f64::from(edge) + 0.5) as i64).clamp(0, i64::from(length));
        let (first, end) = (bound(middle - reach), bound(middle + reach));
        let shrink = f64::from(1.0 / widened);
        let weight = |at: i64| filter.weight(((f64::from(at as f32 - middle) + 0.5) * shrink) as f32);
        let weights: Vec<f32> = (first..end).map(weight).collect();
        let sum: f32 = weights.iter().sum();
        Self { first: start as usize + first as usize, weights: weights.into_iter().map(|w| w / sum).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;

    #[test]
    fn parts_have_uniform_areas_shapes_and_places() {
        // So large that whole pixels do not matter; shares and shapes that always fit.
        let crop = RandomResizedCrop { scale: [0.1, 0.5], ratio: [0.5, 2.0], filter: Filter::Bilinear, size: None };
        let edge = 1 << 20;
        let mut drawn = [const { Vec::new() }; 4];
        for sample in 0..10_000 {
            let part = crop.draw(&mut rng(5, 0, sample, "random_resized_crop"), [edge, edge]);
            let [left, top, width, height] = part.map(f64::from);
            let edge = edge as f64;
            drawn[0].push((width * height / (edge * edge) - 0.1) / 0.4);
            drawn[1].push(((width / height).log2() + 1.0) / 2.0);
            drawn[2].push(left / (edge - width));
            drawn[3].push(top / (edge - height));
        }
        for (which, mut values) in drawn.into_iter().enumerate() {
            values.sort_by(f64::total_cmp);
            let gap = |(k, x): (usize, &f64)| ((k as f64 + 0.5) / 1e4 - x).abs();
            // Kolmogorov and Smirnov: exceeded once in a thousand uniform samples.
            let largest = values.iter().enumerate().map(gap).fold(0.0, f64::max);
            assert!(largest < 1.95 / 100.0, "{which}: {largest}");
        }
    }

    #[test]
    fn the_whole_picture_at_its_own_size_is_itself() {
        let image = Tensor::rand([2, 3, 7, 5], (tch::Kind::Float, tch::Device::Cpu));
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            assert_eq!(resize(&image, &[[0, 0, 5, 7]; 2], [7, 5], filter).unwrap(), image);
            let whole = RandomResizedCrop { scale: [1.0, 1.0], ratio: [0.01, 0.02], filter, size: None };
            // No try fits: the middle, of the nearest shape.
            assert_eq!(whole.draw(&mut rng(1, 0, 0, "x"), [50, 100]), [49, 0, 1, 50]);
        }
    }
}
