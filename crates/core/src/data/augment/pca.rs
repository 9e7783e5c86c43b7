//! Noise along the principal components of the colours.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::{demand, upload};
use crate::data::ImageSet;
use crate::random::normal;
use crate::{Result, user};

/// "Fancy PCA" (Krizhevsky, Sutskever and Hinton 2012, §4.1): to each pixel of a picture \[p₁ p₂ p₃\]\[α₁λ₁, α₂λ₂, α₃λ₃\]ᵀ is added,
/// αᵢ ~ N(0, `std`²) drawn once for each picture and presentation; pᵢ and λᵢ are eigenvectors and eigenvalues of the covariance of the
/// RGB values of the training pixels in \[0, 1\]. Nothing is clipped.
///
/// In YAML `{kind: pca_noise, std: 0.1}` for a set that is read as a whole; for photos that stream by, with `values` and `vectors`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct PcaNoise {
    /// Standard deviation of α, at least 0.
    pub std: f64,
    /// λ₁, λ₂, λ₃, each at least 0; those of the training set if they are left away.
    pub values: Option<[f64; 3]>,
    /// p₁, p₂, p₃, each of length 1, as rows; those of the training set if they are left away.
    pub vectors: Option<[[f64; 3]; 3]>,
}

impl PcaNoise {
    pub(super) fn check(&self, [channels, ..]: [i64; 3]) -> Result<()> {
        if channels != 3 {
            return Err(user!("augment: `pca_noise` is for RGB pictures, not those of {channels} channels; remove it"));
        }
        demand(self.std >= 0.0 && self.std.is_finite(), "pca_noise.std", self.std, "a number of at least 0")?;
        if self.values.is_some() != self.vectors.is_some() {
            return Err(user!("augment: `pca_noise` has one of `values` and `vectors`; write both or none"));
        }
        for value in self.values.iter().flatten() {
            demand(*value >= 0.0 && value.is_finite(), "pca_noise.values", value, "numbers of at least 0")?;
        }
        for vector in self.vectors.iter().flatten() {
            let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
            demand((length - 1.0).abs() < 0.01, "pca_noise.vectors", format!("{vector:?}"), "rows of length 1")?;
        }
        Ok(())
    }

    /// With the numbers of `set` where none are given.
    pub(super) fn settle(&mut self, set: &ImageSet) -> Result<()> {
        if self.values.is_none() && set.shape()[0] == 3 {
            let (values, vectors) = components(set)?;
            (self.values, self.vectors) = (Some(values), Some(vectors));
        }
        Ok(())
    }

    /// What is added to each pixel of one picture: always three normal numbers.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Result<[f64; 3]> {
        let (Some(values), Some(vectors)) = (self.values, self.vectors) else { return Err(unsettled()) };
        let mut shift = [0.0; 3];
        for (value, vector) in values.into_iter().zip(vectors) {
            let length = self.std * normal(rng) * value;
            for (sum, x) in shift.iter_mut().zip(vector) {
                *sum += length * x;
            }
        }
        Ok(shift)
    }
}

/// What to say where neither the config nor a set gives the numbers.
pub(super) fn unsettled() -> crate::Error {
    user!(
        "augment: `pca_noise` has no colour statistics, because these pictures are not read as a whole; write `values:` [λ1, λ2, λ3] and \
         `vectors:` [[p1], [p2], [p3]], three numbers each: eigenvalues and eigenvectors of the covariance of RGB values in [0, 1]"
    )
}

/// Adds to each picture its three numbers.
pub(super) fn add(image: &Tensor, shifts: &[[f64; 3]]) -> Result<Tensor> {
    let shifts: Vec<f32> = shifts.iter().flatten().map(|x| *x as f32).collect();
    Ok(image.f_add(&upload(&shifts, image.device())?.f_view([-1, 3, 1, 1])?)?)
}

/// Eigenvalues, the largest first, and eigenvectors of the covariance of a set's colours in [0, 1]. Of each vector the number that is
/// farthest from 0 is positive.
fn components(set: &ImageSet) -> Result<([f64; 3], [[f64; 3]; 3])> {
    let covariance = covariance(set)?;
    let (values, vectors) = Tensor::f_from_slice(covariance.as_flattened())?.f_view([3, 3])?.f_linalg_eigh("L")?;
    let values = Vec::<f64>::try_from(&values)?;
    let columns = Vec::<Vec<f64>>::try_from(&vectors.f_transpose(0, 1)?.f_contiguous()?)?;
    let vector = |place: usize| {
        let column = &columns[place];
        let farthest = column.iter().copied().fold(0.0, |far: f64, x| if x.abs() > far.abs() { x } else { far });
        [0, 1, 2].map(|i| column[i] * farthest.signum())
    };
    // libtorch has the smallest first, and rounding may make it negative.
    Ok(([2, 1, 0].map(|place| values[place].max(0.0)), [2, 1, 0].map(vector)))
}

/// Covariance (over all pixels, not its sample estimate) of the three channels, of values in [0, 1].
fn covariance(set: &ImageSet) -> Result<[[f64; 3]; 3]> {
    let [_, height, width] = set.shape();
    let plane = (height * width) as usize;
    let (_, pixels) = set.host()?;
    // Sums of bytes and of their products are exact in integers.
    let (mut sums, mut products) = ([0_u64; 3], [[0_u64; 3]; 3]);
    for picture in pixels.chunks_exact(3 * plane) {
        for place in 0..plane {
            let colour = [0, 1, 2].map(|channel| u64::from(picture[channel * plane + place]));
            for i in 0..3 {
                sums[i] += colour[i];
                for j in 0..3 {
                    products[i][j] += colour[i] * colour[j];
                }
            }
        }
    }
    let count = (set.len() * plane as u64) as f64;
    let mean = sums.map(|sum| sum as f64 / count);
    Ok([0, 1, 2].map(|i| [0, 1, 2].map(|j| (products[i][j] as f64 / count - mean[i] * mean[j]) / (255.0 * 255.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;
    use tch::{Device, Kind};

    fn set() -> ImageSet {
        // Channels that go together, with something of their own.
        let colour = |i: usize, c: usize| (i * 53 % 97 + [i * 29 % 61, i * 17 % 43, i * 31 % 89][c] + 10 * c) as u8;
        let pixels: Vec<u8> = (0..2).flat_map(|n| (0..60).map(move |k| colour(n * 20 + k % 20, k / 20))).collect();
        ImageSet::new(&pixels, [3, 4, 5], &[0, 0], &["a"]).unwrap()
    }

    /// Of the pixels as float64, by the definition.
    fn slow_covariance(set: &ImageSet) -> [[f64; 3]; 3] {
        let image = set.in_order(2).next().unwrap().image.to_kind(Kind::Double);
        let rows = Vec::<Vec<f64>>::try_from(image.transpose(0, 1).flatten(1, 3).contiguous()).unwrap();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let centred: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|x| x - mean(row)).collect()).collect();
        let product = |i: usize, j: usize| centred[i].iter().zip(&centred[j]).map(|(a, b)| a * b).collect::<Vec<f64>>();
        [0, 1, 2].map(|i| [0, 1, 2].map(|j| mean(&product(i, j))))
    }

    #[test]
    fn components_are_those_of_the_covariance() {
        let set = set();
        let expected = slow_covariance(&set);
        let (values, vectors) = components(&set).unwrap();
        assert!(values[0] > values[1] && values[1] > values[2] && values[2] > 0.0, "{values:?}");
        for (value, vector) in values.into_iter().zip(vectors) {
            for (row, x) in expected.iter().zip(vector) {
                let product: f64 = row.iter().zip(vector).map(|(a, b)| a * b).sum();
                // The pixels in `expected` were float32.
                assert!((product - value * x).abs() < 1e-8, "{product} {value} {x}");
            }
            assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(vector.iter().copied().fold(0.0, f64::max) >= -vector.iter().copied().fold(0.0, f64::min));
        }
    }

    #[test]
    fn a_set_gives_what_the_config_does_not() {
        let given = PcaNoise { std: 0.1, values: Some([3.0, 2.0, 1.0]), vectors: Some([[1.0, 0.0, 0.0]; 3]) };
        let mut noise = given.clone();
        noise.settle(&set()).unwrap();
        assert_eq!(noise, given);
        let mut noise = PcaNoise { std: 0.1, values: None, vectors: None };
        assert!(noise.draw(&mut rng(1, 0, 0, "pca_noise")).is_err());
        noise.settle(&set()).unwrap();
        assert_eq!(noise.values, Some(components(&set()).unwrap().0));
        noise.draw(&mut rng(1, 0, 0, "pca_noise")).unwrap();
    }

    #[test]
    fn each_component_varies_as_its_eigenvalue() {
        let vectors = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]];
        let values = [0.2, 0.05, 0.01];
        let noise = PcaNoise { std: 0.1, values: Some(values), vectors: Some(vectors) };
        let n = 10_000;
        let (mut sums, mut products) = ([0.0; 3], [[0.0; 3]; 3]);
        for sample in 0..n {
            let shift = noise.draw(&mut rng(5, 0, sample, "pca_noise")).unwrap();
            // Along each component, in standard deviations.
            let along =
                [0, 1, 2].map(|i| vectors[i].iter().zip(shift).map(|(p, x)| p * x).sum::<f64>() / (0.1 * values[i]));
            for i in 0..3 {
                sums[i] += along[i] / n as f64;
                (0..3).for_each(|j| products[i][j] += along[i] * along[j] / n as f64);
            }
        }
        // Standard errors 0.01, of variances 0.014.
        for i in 0..3 {
            assert!(sums[i].abs() < 0.04, "{sums:?}");
            for j in 0..3 {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((products[i][j] - expected).abs() < 0.056, "{products:?}");
            }
        }
    }

    #[test]
    fn one_colour_is_added_to_all_pixels_of_a_picture() {
        let image = Tensor::rand([2, 3, 2, 4], (Kind::Float, Device::Cpu));
        let shifts = [[0.5, -0.25, 2.0], [0.0, 1.0, -3.0]];
        let found = add(&image, &shifts).unwrap();
        for (n, c, k) in (0..48_i64).map(|i| (i / 24, i / 8 % 3, i % 8)) {
            let at = [n, c, k / 4, k % 4];
            let expected = image.double_value(&at) + shifts[n as usize][c as usize];
            assert!((found.double_value(&at) - expected).abs() < 1e-6);
        }
    }
}
