//! Gaussian blur.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::{always, demand, upload};
use crate::Result;
use crate::random::uniform;

/// torchvision's `GaussianBlur`: each picture with a deviation of its own; beyond the border the picture is mirrored, the pixels on it not
/// repeated. In YAML: `{kind: blur, kernel: 23, sigma: [0.1, 2], p: 0.5}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Blur {
    /// Edge of the kernel in pixels, odd, from 3 to below twice the picture's shorter edge.
    pub kernel: u64,
    /// Smallest and largest standard deviation in pixels, above 0; uniform between them.
    pub sigma: [f64; 2],
    /// The share of the pictures that are blurred, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

impl Blur {
    pub(super) fn check(&self, [_, height, width]: [i64; 3]) -> Result<()> {
        // The mirror image has one pixel fewer than the picture.
        let most = 2 * height.min(width) as u64 - 1;
        let fits = self.kernel % 2 == 1 && (3..=most).contains(&self.kernel);
        demand(fits, "blur.kernel", self.kernel, &format!("an odd number from 3 to {most}"))?;
        let [low, high] = self.sigma;
        let fits = 0.0 < low && low <= high && high.is_finite();
        demand(fits, "blur.sigma", format!("[{low}, {high}]"), "two deviations in pixels, 0 < low ≤ high")
    }

    /// The deviation of one picture.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> f64 {
        uniform(rng, self.sigma[0], self.sigma[1])
    }
}

/// Blurs each picture by a kernel of `size` pixels and its own deviation.
///
/// The kernel is a product of a row and a column, so that 2·`size` products a pixel are enough. They are sums of shifted pictures: their order
/// is written here, so that a picture comes out the same whatever stands beside it in the batch.
pub(super) fn blur(image: &Tensor, size: u64, sigmas: &[f64]) -> Result<Tensor> {
    let radius = size as i64 / 2;
    let padded = image.f_reflection_pad2d([radius; 4])?;
    let kernels: Vec<Vec<f64>> = sigmas.iter().map(|sigma| kernel(size, *sigma)).collect();
    // `[size, N, 1, 1, 1]`: one weight of each picture at a time.
    let weights = (0..size as usize).flat_map(|at| kernels.iter().map(move |kernel| kernel[at] as f32));
    let weights: Vec<f32> = weights.collect();
    let weights = upload(&weights, image.device())?.f_view([size as i64, -1, 1, 1, 1])?;
    let along = |from: &Tensor, dim: i64, length: i64| -> Result<Tensor> {
        let mut sum = from.f_narrow(dim, 0, length)?.f_mul(&weights.f_get(0)?)?;
        for at in 1..size as i64 {
            sum = sum.f_addcmul_(&from.f_narrow(dim, at, length)?, &weights.f_get(at)?)?;
        }
        Ok(sum)
    };
    let (_, _, h, w) = image.size4()?;
    along(&along(&padded, 3, w)?, 2, h)
}

/// The weights of one line, whose sum is 1.
fn kernel(size: u64, sigma: f64) -> Vec<f64> {
    let radius = size as i64 / 2;
    let weight = |at: i64| (-0.5 * (at as f64 / sigma).powi(2)).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    (-radius..=radius).map(|at| weight(at) / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn each_pixel_is_the_weighted_mean_of_its_neighbours((h, w) in (3_i64..9, 3_i64..9), kernel in 1_i64..3, sigma in 0.1_f64..3.0) {
            let image = Tensor::rand([2, 1, h, w], (Kind::Float, Device::Cpu));
            let found = blur(&image, 2 * kernel as u64 + 1, &[sigma, 0.7]).unwrap();
            let folded = |x: i64, size: i64| if x < 0 { -x } else if x >= size { 2 * (size - 1) - x } else { x };
            for (n, row, column) in (0..2 * h * w).map(|i| (i / (h * w), i / w % h, i % w)) {
                let (mut sum, mut total, sigma) = (0.0, 0.0, [sigma, 0.7][n as usize]);
                for (y, x) in (-kernel..=kernel).flat_map(|y| (-kernel..=kernel).map(move |x| (y, x))) {
                    let weight = (-((x * x + y * y) as f64) / (2.0 * sigma * sigma)).exp();
                    sum += weight * image.double_value(&[n, 0, folded(row + y, h), folded(column + x, w)]);
                    total += weight;
                }
                prop_assert!((found.double_value(&[n, 0, row, column]) - sum / total).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn deviations_are_uniform() {
        let blur = Blur { kernel: 3, sigma: [0.1, 2.0], p: 1.0 };
        let mut drawn: Vec<f64> = (0..10_000).map(|sample| blur.draw(&mut rng(5, 0, sample, "blur"))).collect();
        drawn.sort_by(f64::total_cmp);
        let gap = |(k, x): (usize, &f64)| ((k as f64 + 0.5) / 1e4 - (x - 0.1) / 1.9).abs();
        // Kolmogorov and Smirnov: exceeded once in a thousand uniform samples.
        assert!(drawn.iter().enumerate().map(gap).fold(0.0, f64::max) < 1.95 / 100.0);
    }
}
