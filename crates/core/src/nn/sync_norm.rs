//! Batch normalisation by the statistics of a batch that lies on several processes.

use tch::{Kind, Tensor};

/// The batch's mean and variance of each channel, `[C]`, and how many numbers of a channel they are of.
pub(super) struct Moments {
    pub(super) mean: Tensor,
    /// Biased: what normalises.
    pub(super) var: Tensor,
    /// A scalar.
    count: Tensor,
}

impl Moments {
    /// Unbiased: what the running statistics are of.
    pub(super) fn unbiased(&self) -> Tensor {
        &self.var * &self.count / (&self.count - 1.0)
    }
}

/// Every dimension but that of the channels.
fn others(x: &Tensor) -> Vec<i64> {
    (0..x.dim() as i64).filter(|&dimension| dimension != 1).collect()
}

/// `[N, C, …]` → `[2C + 1]`: means, sums of squared distances from them, count. Squares alone would cost digits far from zero.
pub(super) fn parts(x: &Tensor) -> Tensor {
    let dims = others(x);
    let mean = x.mean_dim(dims.as_slice(), true, None::<Kind>);
    let squares = (x - &mean).square().sum_dim_intlist(dims.as_slice(), false, None::<Kind>);
    let count = Tensor::full([1], x.numel() as f64 / x.size()[1] as f64, (x.kind(), x.device()));
    Tensor::cat(&[mean.view([-1]), squares, count], 0)
}

/// The [`parts`] of each process, `[processes, 2C + 1]` → the moments of all together.
pub(super) fn combine(parts: &Tensor) -> Moments {
    let channels = (parts.size()[1] - 1) / 2;
    let (means, squares) = (parts.narrow(1, 0, channels), parts.narrow(1, channels, channels));
    let counts = parts.narrow(1, 2 * channels, 1);
    let over_processes = |tensor: Tensor| tensor.sum_dim_intlist([0_i64].as_slice(), false, None::<Kind>);
    let count = counts.sum(None::<Kind>);
    let mean = over_processes(&means * &counts) / &count;
    // Within each process, and between them.
    let var = over_processes(squares + (means - &mean).square() * counts) / &count;
    Moments { mean, var, count }
}

/// (x − mean) / √(var + ε) for `[N, C, …]`.
pub(super) fn normalise(x: &Tensor, mean: &Tensor, var: &Tensor, eps: f64) -> Tensor {
    (x - along(x, mean)) * along(x, &(var + eps).rsqrt())
}

/// `[C]` so that it meets the channels of `x` `[N, C, …]`.
pub(super) fn along(x: &Tensor, channels: &Tensor) -> Tensor {
    let mut shape = vec![1; x.dim()];
    shape[1] = -1;
    channels.view(shape.as_slice())
}
