//! Normalisation over groups of channels.

use tch::{Tensor, nn};

use super::record::{self, Counts, trainable};

/// Normalises each group of channels of each example over the group and all positions (arXiv:1803.08494), as `torch.nn.GroupNorm`.
#[derive(Debug)]
pub struct GroupNorm {
    /// `[C]`, from 1.
    pub weight: Tensor,
    /// `[C]`, from 0.
    pub bias: Tensor,
    groups: i64,
    eps: f64,
    name: String,
}

impl GroupNorm {
    /// `weight` and `bias` under `path`; `groups` divides `channels`. PyTorch's default `eps` is 1e-5.
    pub fn new(path: &nn::Path, groups: i64, channels: i64, eps: f64) -> Self {
        let (weight, bias) = (path.ones("weight", &[channels]), path.zeros("bias", &[channels]));
        Self { weight, bias, groups, eps, name: record::name(path) }
    }

    /// `[N, C, …]` → the same.
    ///
    /// # Panics
    /// As tch's own operations: on tensors of another shape or kind.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.seen(self.fused(x, false))
    }

    /// SiLU of [`Self::forward`], on the CPU in one operation, which saves walks over the pictures. A recorder that keeps this layer's output
    /// gets what [`Self::forward`] gives; the rest is then done by itself.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn silu(&self, x: &Tensor) -> Tensor {
        match record::keeps(&self.name) {
            true => self.forward(x).silu(),
            false => self.seen(self.fused(x, true)),
        }
    }

    fn fused(&self, x: &Tensor, silu: bool) -> Tensor {
        torch_ext::group_norm_act(x, self.groups, &self.weight, &self.bias, self.eps, silu)
            .unwrap_or_else(|error| panic!("group norm: {error}"))
    }

    fn seen(&self, y: Tensor) -> Tensor {
        record::seen(&self.name, &y, || Counts {
            parameters: trainable([&self.weight, &self.bias]),
            ..Counts::default()
        });
        y
    }
}
