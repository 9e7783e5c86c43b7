//! The fully connected layer.

use tch::{Tensor, nn};

use super::default_init;

/// y = x·Wᵀ + b, as `torch.nn.Linear`.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `weight` and `bias` under `path`.
    pub fn new(path: &nn::Path, input: i64, output: i64) -> Self {
        let weight = path.var("weight", &[output, input], default_init(input));
        Self { weight, bias: Some(path.var("bias", &[output], default_init(input))) }
    }

    /// `weight` alone.
    pub fn without_bias(path: &nn::Path, input: i64, output: i64) -> Self {
        Self { weight: path.var("weight", &[output, input], default_init(input)), bias: None }
    }

    /// `[…, in]` → `[…, out]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
