//! Adam with decoupled weight decay (arXiv:1711.05101, Algorithm 2), as `torch.optim.AdamW`.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Kind, Tensor};
use torch_ext::TensorList;

use super::params::split;
use super::{LrScale, LrScaling, Params, Rate, in_range, named};
use crate::Result;

/// Numbers of [`Adamw`].
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AdamwConfig {
    /// Learning rate before scaling and schedule, above 0.
    pub base_lr: f64,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment; at least 0.
    pub eps: f64,
    /// At least 0; the weights shrink by `1 − lr · weight_decay` a step.
    pub weight_decay: f64,
    /// How the rate grows with the batch.
    #[serde(default)]
    pub lr_scaling: LrScaling,
    /// Factors on the rate of parts of the model; see [`super::LrScale`].
    #[serde(default, deserialize_with = "super::lr_scale")]
    pub lr_scale: LrScale,
}

/// p ← p·(1 − lr·λ) − lr·m̂/(√v̂ + ε) with the bias-corrected moments m̂ and v̂ of the gradient.
#[derive(Debug)]
pub struct Adamw {
    groups: Vec<Group>,
}

/// What one fused call takes.
#[derive(Debug)]
struct Group {
    names: Vec<String>,
    params: TensorList,
    exp_avg: State,
    exp_avg_sq: State,
    step: State,
    rate: Rate,
    numbers: torch_ext::Adamw,
}

/// Tensors and the list of them.
#[derive(Debug)]
struct State {
    tensors: Vec<Tensor>,
    list: TensorList,
}

impl State {
    fn new(params: &[Tensor], of: impl Fn(&Tensor) -> Result<Tensor, tch::TchError>) -> Result<Self> {
        let tensors = params.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { list: TensorList::new(&tensors)?, tensors })
    }
}

impl Adamw {
    pub(super) fn new(config: &AdamwConfig, params: &Params) -> Result<Self> {
        let &AdamwConfig { base_lr, beta1, beta2, eps, weight_decay, .. } = config;
        in_range("base_lr", base_lr, f64::MIN_POSITIVE.., "above 0")?;
        in_range("beta1", beta1, 0.0..1.0, "at least 0 and below 1")?;
        in_range("beta2", beta2, 0.0..1.0, "at least 0 and below 1")?;
        in_range("eps", eps, 0.0.., "at least 0")?;
        in_range("weight_decay", weight_decay, 0.0.., "at least 0")?;
        let mut groups = Vec::new();
        for (group, members) in params.groups() {
            let (names, tensors, list) = split(&members)?;
            groups.push(Group {
                names,
                params: list,
                exp_avg: State::new(&tensors, Tensor::f_zeros_like)?,
                exp_avg_sq: State::new(&tensors, Tensor::f_zeros_like)?,
                // A count for each parameter, since one without a gradient takes no part in a step.
                step: State::new(&tensors, |param| Tensor::f_zeros([], (Kind::Float, param.device())))?,
                rate: Rate::new(group.lr_scale, tensors[0].device())?,
                numbers: torch_ext::Adamw { beta1, beta2, eps, weight_decay: group.weight_decay },
            });
        }
        Ok(Self { groups })
    }

    pub(super) fn step(&mut self, lr: f64) -> Result<()> {
        for group in &mut self.groups {
            let Group { params, exp_avg, exp_avg_sq, step, rate, numbers, .. } = group;
            params.fused_adamw(&exp_avg.list, &exp_avg_sq.list, &step.list, rate.set(lr)?, *numbers)?;
        }
        Ok(())
    }

    pub(super) fn state(&self) -> BTreeMap<String, Tensor> {
        let of = |group: &Group| {
            named("exp_avg", &group.names, &group.exp_avg.tensors)
                .chain(named("exp_avg_sq", &group.names, &group.exp_avg_sq.tensors))
                .chain(named("step", &group.names, &group.step.tensors))
                .collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(of).collect()
    }
}
