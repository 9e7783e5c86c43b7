//! Normalisation layers.

use tch::{Kind, Tensor, nn};

use super::Mode;

/// Normalises each channel over batch and positions (arXiv:1502.03167), as `torch.nn.BatchNorm2d` with its defaults.
#[derive(Debug)]
pub struct BatchNorm2d {
    /// `[C]`, from 1.
    pub weight: Tensor,
    /// `[C]`, from 0.
    pub bias: Tensor,
    /// `[C]`, from 0; not trained.
    pub running_mean: Tensor,
    /// `[C]`, from 1; not trained. Of the unbiased variance.
    pub running_var: Tensor,
    /// Training batches seen, i64; kept because PyTorch's state dicts have it.
    pub num_batches_tracked: Tensor,
}

impl BatchNorm2d {
    const EPS: f64 = 1e-5;
    /// Weight of the present batch in the running statistics.
    const MOMENTUM: f64 = 0.1;

    /// The five tensors of PyTorch's state dict under `path`.
    pub fn new(path: &nn::Path, channels: i64) -> Self {
        let count = Tensor::zeros([], (Kind::Int64, path.device()));
        Self {
            weight: path.ones("weight", &[channels]),
            bias: path.zeros("bias", &[channels]),
            running_mean: path.zeros_no_train("running_mean", &[channels]),
            running_var: path.ones_no_train("running_var", &[channels]),
            num_batches_tracked: path.add("num_batches_tracked", count, false),
        }
    }

    /// `[N, C, H, W]` → the same. In training by the batch's statistics, else by the running ones; by these also in training, and
    /// without moving them, where `weight` takes no gradient: a frozen part stays as it is.
    ///
    /// # Panics
    /// As tch's own operations: on tensors of another shape or kind. In training also on a single value for each channel.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.forward_act(x, mode, None, false)
    }

    /// As [`Self::forward`], then the sum with `shortcut` (of the same shape) if there is one, then max(0, ·) if `relu`: on the CPU in
    /// one operation, which saves walks over the pictures.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_act(&self, x: &Tensor, mode: Mode, shortcut: Option<&Tensor>, relu: bool) -> Tensor {
        let mode = if self.weight.requires_grad() { mode } else { Mode::Eval };
        if mode == Mode::Train {
            let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        }
        let norm = torch_ext::BatchNorm {
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &self.running_mean,
            running_var: &self.running_var,
            train: mode.trains(),
            update: mode == Mode::Train,
            momentum: Self::MOMENTUM,
            eps: Self::EPS,
        };
        torch_ext::batch_norm_act(x, &norm, shortcut, relu).unwrap_or_else(|error| panic!("batch norm: {error}"))
    }
}

/// Normalises over the last dimension (arXiv:1607.06450), as `torch.nn.LayerNorm`.
#[derive(Debug)]
pub struct LayerNorm {
    /// `[D]`, from 1.
    pub weight: Tensor,
    /// `[D]`, from 0.
    pub bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// `weight` and `bias` under `path`. PyTorch's default `eps` is 1e-5; vision transformers use 1e-6.
    pub fn new(path: &nn::Path, width: i64, eps: f64) -> Self {
        Self { weight: path.ones("weight", &[width]), bias: path.zeros("bias", &[width]), eps }
    }

    /// `[…, D]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}
