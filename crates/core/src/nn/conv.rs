//! The convolution.

use tch::{Tensor, nn};

use super::default_init;
use super::record::{self, Counts};

/// What of a convolution has a usual value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv2dConfig {
    /// In both directions.
    pub stride: i64,
    /// Zeros on each of the four sides.
    pub padding: i64,
    /// Pixels from one place of the kernel to the next.
    pub dilation: i64,
    /// Blocks of channels that do not see one another; divides both channel counts.
    pub groups: i64,
    /// Whether there is one.
    pub bias: bool,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1, bias: true }
    }
}

/// Two-dimensional cross-correlation with a square kernel, as `torch.nn.Conv2d`.
#[derive(Debug)]
pub struct Conv2d {
    /// `[out, in/groups, kernel, kernel]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
    config: Conv2dConfig,
    name: String,
}

impl Conv2d {
    /// `weight` and, if configured, `bias` under `path`.
    pub fn new(path: &nn::Path, input: i64, output: i64, kernel: i64, config: Conv2dConfig) -> Self {
        let fan_in = input / config.groups * kernel * kernel;
        let weight = path.var("weight", &[output, input / config.groups, kernel, kernel], default_init(fan_in));
        let bias = config.bias.then(|| path.var("bias", &[output], default_init(fan_in)));
        Self { weight, bias, config, name: record::name(path) }
    }

    /// `[N, in, H, W]` → `[N, out, H′, W′]` with H′ = ⌊(H + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let Conv2dConfig { stride, padding, dilation, groups, .. } = self.config;
        let y = x.conv2d(&self.weight, self.bias.as_ref(), [stride; 2], [padding; 2], [dilation; 2], groups);
        record::seen(&self.name, &y, || Counts::product(&y, &self.weight, self.bias.as_ref()));
        y
    }
}
