//! Local response normalisation (§3.3).

use tch::Tensor;

/// The constants of §3.3, in the paper's letters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lrn {
    /// Added to the sum.
    pub k: f64,
    /// How many adjacent maps are summed over, the map itself in the middle; odd.
    pub n: i64,
    /// Times the sum of squares. PyTorch's and Caffe's α is n times as large: they take the mean.
    pub alpha: f64,
    /// The power of the denominator.
    pub beta: f64,
}

/// k = 2, n = 5, α = 10⁻⁴, β = 0.75: "their values are determined using a validation set".
pub const PAPER: Lrn = Lrn { k: 2.0, n: 5, alpha: 1e-4, beta: 0.75 };

/// b_i = a_i / (k + α Σ_j a_j²)^β, where j runs over the maps at most ⌊n/2⌋ beside i: `[N, C, H, W]` → the same.
pub fn local_response_norm(x: &Tensor, Lrn { k, n, alpha, beta }: Lrn) -> Tensor {
    let channels = x.size()[1];
    // The sums over windows of channels are one product with a banded matrix, which libtorch does faster than pooling over channels.
    let ones = Tensor::ones([channels, channels], (x.kind(), x.device()));
    let band = (ones.triu(-(n / 2)).tril(n / 2) * alpha).view([channels, channels, 1, 1]);
    let sum = x.square().conv2d(&band, None::<Tensor>, [1; 2], [0; 2], [1; 2], 1);
    x * (sum + k).pow_tensor_scalar(-beta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Channels 1 to 7 of one pixel: the first is 0.5943, and would be 0.5945 if α were divided by n.
    #[test]
    fn the_published_check() {
        let x = Tensor::arange_start(1, 8, (Kind::Double, Device::Cpu)).view([1, 7, 1, 1]);
        let first = local_response_norm(&x, PAPER).double_value(&[0, 0, 0, 0]);
        assert!((first - 0.5943).abs() < 5e-5, "{first}");
        let divided = local_response_norm(&x, Lrn { alpha: PAPER.alpha / 5.0, ..PAPER }).double_value(&[0, 0, 0, 0]);
        assert!((divided - 0.5945).abs() < 5e-5, "{divided}");
    }

    /// Against §3.3 in plain Rust, window cut at the first and the last map; derivative against differences.
    #[test]
    fn it_is_its_formula() {
        for (channels, lrn) in [(7, PAPER), (2, PAPER), (6, Lrn { k: 1.0, n: 3, alpha: 0.4, beta: 0.6 })] {
            let x = Tensor::randn([2, channels, 3, 2], (Kind::Double, Device::Cpu)) * 5.0;
            let values = Vec::<f64>::try_from(x.view(-1)).unwrap();
            let formula = |values: &[f64]| -> Vec<f64> {
                let plane = 6;
                let at = |place: usize| {
                    let (pixel, map) = (place % plane, (place / plane) as i64 % channels);
                    let image = place / plane / channels as usize * channels as usize;
                    let window = (map - lrn.n / 2).max(0)..=(map + lrn.n / 2).min(channels - 1);
                    let sum: f64 = window.map(|j| values[(image + j as usize) * plane + pixel].powi(2)).sum();
                    values[place] / (lrn.k + lrn.alpha * sum).powf(lrn.beta)
                };
                (0..values.len()).map(at).collect()
            };
            let x = x.set_requires_grad(true);
            let y = local_response_norm(&x, lrn);
            let expected = formula(&values);
            for (ours, expected) in Vec::<f64>::try_from(y.detach().view(-1)).unwrap().iter().zip(&expected) {
                assert!((ours - expected).abs() < 1e-12, "{ours} {expected}");
            }
            y.square().sum(Kind::Double).backward();
            let gradient = Vec::<f64>::try_from(x.grad().view(-1)).unwrap();
            let energy = |values: &[f64]| formula(values).iter().map(|y| y * y).sum::<f64>();
            for place in 0..values.len() {
                let moved = |by: f64| {
                    let mut values = values.clone();
                    values[place] += by;
                    energy(&values)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((gradient[place] - slope).abs() < 1e-6, "{} {slope}", gradient[place]);
            }
        }
    }
}
