//! Optimizers, schedules, clipping, averages.
//!
//! A recipe's step reads: `optim.step(lr)` with `lr = config.lr(batch) * schedule.factor(…)`. All state is tensors by name, complete and
//! of fixed shape from construction on, so that a checkpoint is a copy of it and a resumed run continues to the bit.

mod adamw;
mod clip;
mod ema;
mod lars;
mod params;
mod sam;
mod schedule;
mod sgd;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

pub use adamw::{Adamw, AdamwConfig};
pub use clip::clip_grad_norm;
pub use ema::{Buffers, Ema, EmaConfig};
pub use lars::{Lars, LarsConfig};
pub use params::{Group, Param, Params};
pub use sam::{Sam, SamConfig};
pub use schedule::{Schedule, Span};
pub use sgd::{Sgd, SgdConfig};

use crate::Result;
use crate::weights::{below_prefix, check_prefixes};

/// How the base rate grows with the global batch. The base rate is for a batch of 256.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum LrScaling {
    /// The base rate as it stands.
    #[default]
    None,
    /// Times batch/256 (arXiv:1706.02677, §2.1).
    Linear,
    /// Times √(batch/256).
    Sqrt,
}

impl LrScaling {
    fn factor(self, batch: u64) -> f64 {
        let ratio = batch as f64 / 256.0;
        match self {
            LrScaling::None => 1.0,
            LrScaling::Linear => ratio,
            LrScaling::Sqrt => ratio.sqrt(),
        }
    }
}

/// Which optimizer, and its numbers.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum OptimConfig {
    /// Stochastic gradient descent with momentum.
    Sgd(SgdConfig),
    /// Adam with decoupled weight decay.
    Adamw(AdamwConfig),
    /// Momentum with a rate for each layer.
    Lars(LarsConfig),
}

/// Factors on the learning rate of parts of a model, by the first segments of their names: `{layer1: 0.1, layer1.0: 0.01}`. Of several that
/// fit a name the longest counts. A trunk that shall learn more slowly than its new classifier is named here.
pub type LrScale = BTreeMap<String, f64>;

/// Reads factors; a name of several segments may stand as blocks in each other, `{layer1: {0: 0.1}}`, as `optim.lr_scale.layer1.0=0.1` makes them.
fn lr_scale<'de, D: Deserializer<'de>>(from: D) -> Result<LrScale, D::Error> {
    enum Scale {
        Factor(f64),
        Below(BTreeMap<String, Scale>),
    }
    struct Visit;
    impl<'de> Visitor<'de> for Visit {
        type Value = Scale;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a factor such as 0.1, or a block of names with their factors")
        }
        fn visit_f64<E>(self, factor: f64) -> Result<Scale, E> {
            Ok(Scale::Factor(factor))
        }
        fn visit_u64<E>(self, factor: u64) -> Result<Scale, E> {
            Ok(Scale::Factor(factor as f64))
        }
        fn visit_i64<E>(self, factor: i64) -> Result<Scale, E> {
            Ok(Scale::Factor(factor as f64))
        }
        fn visit_map<A: MapAccess<'de>>(self, mut names: A) -> Result<Scale, A::Error> {
            let mut below = BTreeMap::new();
            while let Some((name, scale)) = names.next_entry()? {
                below.insert(name, scale);
            }
            Ok(Scale::Below(below))
        }
    }
    impl<'de> Deserialize<'de> for Scale {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_any(Visit)
        }
    }
    fn collect(prefix: &str, below: BTreeMap<String, Scale>, into: &mut LrScale) {
        for (name, scale) in below {
            let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match scale {
                Scale::Factor(factor) => drop(into.insert(name, factor)),
                Scale::Below(below) => collect(&name, below, into),
            }
        }
    }
    let mut flat = LrScale::new();
    collect("", BTreeMap::deserialize(from)?, &mut flat);
    Ok(flat)
}

impl OptimConfig {
    /// The learning rate for a global batch, before the schedule.
    pub fn lr(&self, batch: u64) -> f64 {
        let (base_lr, scaling) = match self {
            OptimConfig::Sgd(config) => (config.base_lr, config.lr_scaling),
            OptimConfig::Adamw(config) => (config.base_lr, config.lr_scaling),
            OptimConfig::Lars(config) => (config.base_lr, config.lr_scaling),
        };
        base_lr * scaling.factor(batch)
    }

    /// The parameters of a store by the paper's rule ([`Params::new`]), their rates scaled by `optim.lr_scale`.
    ///
    /// # Errors
    /// A factor below 0; a key below which the model has nothing. What is frozen may have a factor, which does not act.
    pub fn params(&self, store: &VarStore, rule: impl Fn(&str, &Tensor) -> Option<Group>) -> Result<Params> {
        let scale = match self {
            OptimConfig::Sgd(config) => &config.lr_scale,
            OptimConfig::Adamw(config) => &config.lr_scale,
            OptimConfig::Lars(config) => &config.lr_scale,
        };
        let names: Vec<String> = store.variables().into_keys().collect();
        check_prefixes("optim.lr_scale", scale.keys().map(String::as_str), names.iter().map(String::as_str))?;
        for (prefix, factor) in scale {
            in_range(&format!("lr_scale.{prefix}"), *factor, 0.0.., "at least 0; `freeze` leaves a part as it is")?;
        }
        Params::new(store, |name, tensor| {
            let fits = scale.iter().filter(|(prefix, _)| below_prefix(name, prefix));
            let factor = fits.max_by_key(|(prefix, _)| prefix.len()).map_or(1.0, |(_, factor)| *factor);
            // Biases and norms neither adapt nor decay under LARS (SimCLR, MAE): it stalls with them.
            let lars = matches!(self, OptimConfig::Lars(_)) && tensor.dim() < 2;
            rule(name, tensor).map(|group| Group {
                lr_scale: group.lr_scale * factor,
                adapt: group.adapt && !lars,
                weight_decay: if lars { 0.0 } else { group.weight_decay },
            })
        })
    }

    /// The configured weight decay, for the rule given to [`Params::new`]: which parameters decay is the paper's to say.
    pub fn weight_decay(&self) -> f64 {
        match self {
            OptimConfig::Sgd(config) => config.weight_decay,
            OptimConfig::Adamw(config) => config.weight_decay,
            OptimConfig::Lars(config) => config.weight_decay,
        }
    }

    /// The optimizer of these parameters, before its first step.
    /// # Errors
    /// A number out of its range.
    pub fn build(&self, params: &Params) -> Result<Optimizer> {
        Ok(match self {
            OptimConfig::Sgd(config) => Optimizer::Sgd(Sgd::new(config, params)?),
            OptimConfig::Adamw(config) => Optimizer::Adamw(Adamw::new(config, params)?),
            OptimConfig::Lars(config) => Optimizer::Lars(Lars::new(config, params)?),
        })
    }
}

/// The configured optimizer.
#[derive(Debug)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// Adam with decoupled weight decay.
    Adamw(Adamw),
    /// Momentum with a rate for each layer.
    Lars(Lars),
}

impl Optimizer {
    /// One update of every parameter that has a gradient; `lr` is multiplied by each group's `lr_scale`.
    /// # Errors
    /// What libtorch says.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        match self {
            Optimizer::Sgd(sgd) => sgd.step(lr),
            Optimizer::Adamw(adamw) => adamw.step(lr),
            Optimizer::Lars(lars) => lars.step(lr),
        }
    }

    /// Handles to the state by name (`momentum.<parameter>`, …): copying into them restores a checkpoint.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        match self {
            Optimizer::Sgd(sgd) => sgd.state(),
            Optimizer::Adamw(adamw) => adamw.state(),
            Optimizer::Lars(lars) => lars.state(),
        }
    }
}

/// One learning rate kept where the parameters are, so that a step neither waits for the device nor bakes the number in.
#[derive(Debug)]
struct Rate {
    scale: f64,
    tensor: Tensor,
}

impl Rate {
    fn new(scale: f64, device: Device) -> Result<Self> {
        // The CUDA kernels read a float32; on the CPU nothing need be lost.
        let kind = if device == Device::Cpu { Kind::Double } else { Kind::Float };
        Ok(Self { scale, tensor: Tensor::f_zeros([], (kind, device))? })
    }

    fn set(&mut self, lr: f64) -> Result<&Tensor> {
        let _ = self.tensor.f_fill_(lr * self.scale)?;
        Ok(&self.tensor)
    }
}

/// Refuses a number that is not in `range`, by the name of its key.
fn in_range(key: &str, value: f64, range: impl std::ops::RangeBounds<f64>, words: &str) -> Result<()> {
    if value.is_finite() && range.contains(&value) {
        return Ok(());
    }
    Err(crate::user!("optimizer: {key} is {value}; it must be {words}"))
}

/// Handles to tensors under a prefix.
fn named<'a>(
    prefix: &'a str,
    names: &'a [String],
    tensors: &'a [Tensor],
) -> impl Iterator<Item = (String, Tensor)> + 'a {
    names.iter().zip(tensors).map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor.shallow_clone()))
}

#[cfg(test)]
mod tests;
