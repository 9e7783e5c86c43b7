//! The fully connected layer.

use tch::{Tensor, nn};

use super::default_init;
use super::record::{self, Counts};

/// y = x·Wᵀ + b, as `torch.nn.Linear`.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
    name: String,
}

impl Linear {
    /// `weight` and `bias` under `path`.
    pub fn new(path: &nn::Path, input: i64, output: i64) -> Self {
        let weight = path.var("weight", &[output, input], default_init(input));
        Self { weight, bias: Some(path.var("bias", &[output], default_init(input))), name: record::name(path) }
    }

    /// `weight` alone.
    pub fn without_bias(path: &nn::Path, input: i64, output: i64) -> Self {
        let weight = path.var("weight", &[output, input], default_init(input));
        Self { weight, bias: None, name: record::name(path) }
    }

    /// `[…, in]` → `[…, out]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight, self.bias.as_ref());
        record::seen(&self.name, &y, || Counts::product(&y, &self.weight, self.bias.as_ref()));
        y
    }
}
