//! Stochastic gradient descent with momentum, as `torch.optim.SGD` with dampening 0.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::Tensor;
use torch_ext::TensorList;

use super::params::split;
use super::{LrScale, LrScaling, Params, Rate, in_range, named};
use crate::{Result, user};

/// Numbers of [`Sgd`].
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// Learning rate before scaling and schedule, above 0.
    pub base_lr: f64,
    /// In [0, 1); 0 keeps no buffers.
    pub momentum: f64,
    /// Nesterov's momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// At least 0; added to the gradient as `weight_decay · parameter`.
    pub weight_decay: f64,
    /// How the rate grows with the batch.
    #[serde(default)]
    pub lr_scaling: LrScaling,
    /// Factors on the rate of parts of the model; see [`super::LrScale`].
    #[serde(default, deserialize_with = "super::lr_scale")]
    pub lr_scale: LrScale,
}

/// g ← grad + λ·p; b ← μ·b + g; p ← p − lr·b, or p − lr·(g + μ·b) with Nesterov's momentum.
#[derive(Debug)]
pub struct Sgd {
    groups: Vec<Group>,
}

/// What one fused call takes.
#[derive(Debug)]
struct Group {
    names: Vec<String>,
    params: TensorList,
    buffers: Vec<Tensor>,
    buffer_list: Option<TensorList>,
    rate: Rate,
    numbers: torch_ext::Sgd,
}

impl Sgd {
    pub(super) fn new(config: &SgdConfig, params: &Params) -> Result<Self> {
        let &SgdConfig { base_lr, momentum, nesterov, weight_decay, .. } = config;
        in_range("base_lr", base_lr, f64::MIN_POSITIVE.., "above 0")?;
        in_range("momentum", momentum, 0.0..1.0, "at least 0 and below 1")?;
        in_range("weight_decay", weight_decay, 0.0.., "at least 0")?;
        if nesterov && momentum == 0.0 {
            return Err(user!("optimizer: nesterov is true, but momentum is 0; set a momentum, or nesterov to false"));
        }
        let mut groups = Vec::new();
        for (group, members) in params.groups() {
            let (names, tensors, list) = split(&members)?;
            // Zero buffers from the start: the first step is the same, and the state is complete before it.
            let buffers = if momentum == 0.0 {
                Vec::new()
            } else {
                tensors.iter().map(Tensor::f_zeros_like).collect::<Result<Vec<_>, _>>()?
            };
            groups.push(Group {
                names,
                params: list,
                buffer_list: (momentum != 0.0).then(|| TensorList::new(&buffers)).transpose()?,
                buffers,
                rate: Rate::new(group.lr_scale, tensors[0].device())?,
                numbers: torch_ext::Sgd { momentum, weight_decay: group.weight_decay, nesterov },
            });
        }
        Ok(Self { groups })
    }

    pub(super) fn step(&mut self, lr: f64) -> Result<()> {
        for group in &mut self.groups {
            group.params.fused_sgd(group.buffer_list.as_ref(), group.rate.set(lr)?, group.numbers)?;
        }
        Ok(())
    }

    pub(super) fn state(&self) -> BTreeMap<String, Tensor> {
        self.groups.iter().flat_map(|group| named("momentum", &group.names, &group.buffers)).collect()
    }
}
