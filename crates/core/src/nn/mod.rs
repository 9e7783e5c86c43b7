//! Layers with PyTorch's initialisation and state-dict names.
//!
//! tch's own layers differ from PyTorch's in both (weights 2.45 times as large, no `num_batches_tracked`), and numbers of papers do not
//! survive that. What has no parameters needs no layer: `x.relu()`, `x.max_pool2d(…)`, `x.dropout(p, train)`.

mod activation;
mod conv;
mod group_norm;
mod linear;
mod norm;
mod pool;
pub mod record;
mod summary;
mod sync_norm;

use tch::Tensor;
use tch::nn::{Init, VarStore};

pub use activation::leaky_relu;
pub use conv::{Conv2d, Conv2dConfig};
pub use group_norm::GroupNorm;
pub use linear::Linear;
pub use norm::{BatchNorm2d, BatchNormConfig, Gather, LayerNorm, Normed};
pub use pool::avg_pool_2x2;
pub use summary::{Row, summary};

use crate::{Error, Result};

/// What a layer that behaves differently in training is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, which move the running ones; dropout acts.
    Train,
    /// As [`Mode::Train`], but running statistics stay: the second pass over a batch (arXiv:2010.01412, Algorithm 1).
    TrainAgain,
    /// Running statistics; nothing is dropped.
    Eval,
}

impl Mode {
    /// Whether this is a pass of training.
    pub fn trains(self) -> bool {
        self != Mode::Eval
    }
}

/// PyTorch's default for weights and biases: U(±1/√fan_in), which is what its `kaiming_uniform_(a=√5)` comes to.
fn default_init(fan_in: i64) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// The same pictures `[N, C, H, W]` with the channels of each pixel side by side in memory, as convolutions take them fastest.
///
/// # Panics
/// As tch's own operations: on tensors of another shape.
pub fn channels_last(image: &Tensor) -> Tensor {
    torch_ext::channels_last(image).unwrap_or_else(|error| panic!("channels_last: {error}"))
}

/// `part(x)`, computed again for its gradient instead of kept (arXiv:1604.06174): the same numbers, less memory, one more forward pass.
///
/// # Panics
/// As tch's own operations.
pub fn recomputed(x: &Tensor, part: impl Fn(&Tensor) -> Tensor + 'static) -> Tensor {
    torch_ext::checkpoint(x, part).unwrap_or_else(|error| panic!("recomputed: {error}"))
}

/// Lays the kernels of all convolutions of a store out as [`channels_last`] does pictures; values, names and shapes stay. To be done before
/// an optimizer takes the tensors, since its state is laid out as they are.
/// # Errors
/// libtorch's.
pub fn kernels_channels_last(store: &VarStore) -> Result<()> {
    for mut kernel in store.variables().into_values().filter(|tensor| tensor.dim() == 4) {
        let moved = torch_ext::channels_last(&kernel.detach())?;
        kernel.set_data(&moved);
    }
    Ok(())
}

/// Checks that no two tensors asked for one name: tch then silently calls the second `<name>__<n>`.
/// # Errors
/// The names, if there are any.
pub fn ensure_unique(store: &VarStore) -> Result<()> {
    let renamed = |name: &String| match name.rsplit_once("__") {
        Some((_, number)) => !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()),
        None => false,
    };
    let mut names: Vec<String> = store.variables().into_keys().filter(renamed).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    Err(Error::Failed(format!("the model uses a parameter name twice; the second was stored as {}", names.join(", "))))
}

#[cfg(test)]
mod tests;
