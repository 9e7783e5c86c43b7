//! What some rows of Figure 9 do to a picture before a network sees it.

use serde::Deserialize;
use tch::Tensor;

/// One preparation.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Prepare {
    /// \[deslant\]: [`deslant`].
    Deslant,
}

impl Prepare {
    /// Pictures `[N, 1, H, W]` of 0 (background) to 1 (ink) → the same, prepared.
    pub(crate) fn apply(self, images: &Tensor) -> Tensor {
        match self {
            Prepare::Deslant => deslant(images),
        }
    }
}

/// Shears each picture `[N, 1, H, W]` of ink ≥ 0 horizontally until the principal axis of its second moments stands upright. The centre of mass
/// stays where it is; what the shear moves over the edge is lost. A picture without ink stays as it is.
///
/// The covariance of x and y over the ink is brought to 0: x ← x − (μ₁₁ / μ₀₂) (y − ȳ).
pub fn deslant(images: &Tensor) -> Tensor {
    let (n, _, height, width) = images.size4().unwrap_or_default();
    let kind = images.kind();
    // Pixel centres from −1 to 1, as `grid_sampler` counts them.
    let centres = |size: i64| {
        let at = Tensor::arange(size, (kind, images.device()));
        (at * 2.0 + (1 - size) as f64) / size as f64
    };
    let (x, y) = (centres(width), centres(height).view([-1, 1]));
    let over = |values: Tensor| values.sum_dim_intlist([1i64, 2].as_slice(), true, kind);
    let ink = images.squeeze_dim(1);
    let mass = over(ink.shallow_clone()).clamp_min(1e-12);
    let (x_mean, y_mean) = (over(&ink * &x) / &mass, over(&ink * &y) / &mass);
    let (dx, dy) = (&x - &x_mean, &y - &y_mean);
    let covariance = over(&ink * &dx * &dy);
    let slant = covariance / over(&ink * dy.square()).clamp_min(1e-12);
    // The picture at (x, y) comes from (x + slant (y − ȳ), y).
    let (one, zero) = (slant.ones_like(), slant.zeros_like());
    let shift = -(&slant * &y_mean);
    let rows = Tensor::cat(&[&one, &slant, &shift, &zero, &one, &zero], 1).view([n, 2, 3]);
    let grid = Tensor::affine_grid_generator(&rows, [n, 1, height, width], false);
    images.grid_sampler(&grid, 0, 0, false)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// μ₁₁ / μ₀₂ in plain Rust, in pixels.
    fn slant(image: &Tensor) -> f64 {
        let rows: Vec<Vec<f64>> = Vec::try_from(image.squeeze().to_kind(Kind::Double)).unwrap();
        let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            let row = |(y, row): (usize, &Vec<f64>)| {
                row.iter().enumerate().map(|(x, p)| p * f(x as f64, y as f64)).sum::<f64>()
            };
            rows.iter().enumerate().map(row).sum()
        };
        let mass = sum(&|_, _| 1.0);
        let (x0, y0) = (sum(&|x, _| x) / mass, sum(&|_, y| y) / mass);
        sum(&|x, y| (x - x0) * (y - y0)) / sum(&|_, y| (y - y0) * (y - y0))
    }

    /// A stroke of width 3 that leans by `lean` columns a row, about the middle.
    fn stroke(lean: f64) -> Tensor {
        let mut pixels = vec![0f32; 28 * 28];
        for y in 5..23usize {
            for x in 0..28usize {
                let off = x as f64 - 13.5 - lean * (y as f64 - 13.5);
                pixels[y * 28 + x] = (2.0 - off.abs()).clamp(0.0, 1.0) as f32;
            }
        }
        Tensor::from_slice(&pixels).view([1, 1, 28, 28])
    }

    #[test]
    fn a_leaning_stroke_stands_up_and_an_upright_one_stays() {
        for lean in [-0.6, -0.2, 0.35] {
            let image = stroke(lean);
            assert!((slant(&image) - lean).abs() < 0.02);
            let upright = deslant(&image);
            assert!(slant(&upright).abs() < 0.02, "{lean} left {}", slant(&upright));
            // A shear about the centre of mass keeps the ink and its place.
            let moved = (upright.sum(Kind::Double) - image.sum(Kind::Double)).double_value(&[]);
            assert!(moved.abs() < 0.5, "{moved}");
            assert!((deslant(&image) - stroke(0.0)).abs().max().double_value(&[]) < 0.35);
        }
        let image = stroke(0.0);
        assert!((deslant(&image) - &image).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn each_picture_has_its_own_slant_and_an_empty_one_stays_empty() {
        let empty = Tensor::zeros([1, 1, 28, 28], (Kind::Float, Device::Cpu));
        let batch = deslant(&Tensor::cat(&[stroke(0.4), empty.shallow_clone(), stroke(-0.4)], 0));
        assert!((batch.narrow(0, 0, 1) - deslant(&stroke(0.4))).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(batch.narrow(0, 1, 1), empty);
        assert!((batch.narrow(0, 2, 1) - deslant(&stroke(-0.4))).abs().max().double_value(&[]) < 1e-6);
    }
}
