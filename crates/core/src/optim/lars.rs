//! Layer-wise adaptive rates (arXiv:1708.03888), in the form of SimCLR's authors.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::Tensor;

use super::{LrScale, LrScaling, Param, Params, Rate, in_range};
use crate::Result;

/// Numbers of [`Lars`].
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LarsConfig {
    /// Learning rate before scaling and schedule, above 0.
    pub base_lr: f64,
    /// In [0, 1).
    pub momentum: f64,
    /// At least 0; added to the gradient as `weight_decay · parameter`, before its norm is taken.
    pub weight_decay: f64,
    /// The trust coefficient η, above 0: 0.001.
    pub trust: f64,
    /// How the rate grows with the batch.
    #[serde(default)]
    pub lr_scaling: LrScaling,
    /// Factors on the rate of parts of the model; see [`super::LrScale`].
    #[serde(default, deserialize_with = "super::lr_scale")]
    pub lr_scale: LrScale,
}

/// g ← grad + λ·p; v ← μ·v + lr·t·g; p ← p − v, with t = η·‖p‖/‖g‖ for tensors that adapt, 1 for the others and where either norm is 0
/// (google-research/simclr, `lars_optimizer.py`, classic momentum). The rate stands inside the momentum: one that changes acts on what comes,
/// not on what is gathered.
#[derive(Debug)]
pub struct Lars {
    params: Vec<Learner>,
    momentum: f64,
    trust: f64,
}

#[derive(Debug)]
struct Learner {
    param: Param,
    velocity: Tensor,
    rate: Rate,
}

impl Lars {
    pub(super) fn new(config: &LarsConfig, params: &Params) -> Result<Self> {
        let &LarsConfig { base_lr, momentum, weight_decay, trust, .. } = config;
        in_range("base_lr", base_lr, f64::MIN_POSITIVE.., "above 0")?;
        in_range("momentum", momentum, 0.0..1.0, "at least 0 and below 1")?;
        in_range("weight_decay", weight_decay, 0.0.., "at least 0")?;
        in_range("trust", trust, f64::MIN_POSITIVE.., "above 0, such as 0.001")?;
        let learner = |param: &Param| -> Result<Learner> {
            let Param { name, tensor, group } = param;
            Ok(Learner {
                velocity: tensor.detach().f_zeros_like()?,
                rate: Rate::new(group.lr_scale, tensor.device())?,
                param: Param { name: name.clone(), tensor: tensor.shallow_clone(), group: *group },
            })
        };
        Ok(Self { params: params.iter().map(learner).collect::<Result<_>>()?, momentum, trust })
    }

    pub(super) fn step(&mut self, lr: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for Learner { param: Param { tensor, group, .. }, velocity, rate } in &mut self.params {
            let gradient = tensor.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let kind = tensor.kind();
            let gradient = if group.weight_decay == 0.0 { gradient } else { gradient + &*tensor * group.weight_decay };
            let mut rate = rate.set(lr)?.f_to_kind(kind)?;
            if group.adapt {
                let (ours, theirs) = (tensor.f_norm()?, gradient.f_norm()?);
                let both = ours.f_gt(0.0)?.f_logical_and(&theirs.f_gt(0.0)?)?;
                // Where a norm is 0 the quotient is no number, and not taken.
                let ratio = (ours * self.trust).f_div(&theirs)?;
                rate *= ratio.f_where_self(&both, &Tensor::f_ones([], (kind, tensor.device()))?)?;
            }
            let _ = velocity.f_mul_scalar_(self.momentum)?.f_addcmul_(&gradient, &rate)?;
            let _ = tensor.f_sub_(velocity)?;
        }
        Ok(())
    }

    pub(super) fn state(&self) -> BTreeMap<String, Tensor> {
        let of = |learner: &Learner| (format!("momentum.{}", learner.param.name), learner.velocity.shallow_clone());
        self.params.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::optim::{Group, OptimConfig, SgdConfig};
    use tch::{Device, Kind, nn};

    fn config(momentum: f64, weight_decay: f64) -> OptimConfig {
        OptimConfig::Lars(LarsConfig {
            base_lr: 0.3,
            momentum,
            weight_decay,
            trust: 0.001,
            lr_scaling: LrScaling::None,
            lr_scale: LrScale::new(),
        })
    }

    fn store(value: &Tensor) -> (nn::VarStore, Tensor) {
        let mut store = nn::VarStore::new(Device::Cpu);
        let mut w = store.root().zeros("w", &value.size());
        store.double();
        tch::no_grad(|| w.copy_(value));
        w = store.variables().remove("w").unwrap();
        (store, w)
    }

    /// Numbers of the reference for one step from rest, on inputs made by the rule of [`golden`].
    #[test]
    fn the_first_step_is_that_of_the_reference() {
        let (store, w) = store(&golden::input("w", &[3, 4]));
        let g = golden::input("g", &[3, 4]) * 0.1;
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        close(w.norm().double_value(&[]), 1.905_051_795_0);
        close(g.norm().double_value(&[]), 0.190_679_841_8);
        let trust = 0.001 * w.norm().double_value(&[]) / (&g + &w * 1e-6).norm().double_value(&[]);
        close(trust, 0.009_990_895_0);
        let params = config(0.9, 1e-6).params(&store, |_, _| Some(Group::of(1e-6))).unwrap();
        let mut optimizer = config(0.9, 1e-6).build(&params).unwrap();
        (&w * &g).sum(Kind::Double).backward();
        optimizer.step(0.3).unwrap();
        for (place, expected) in [0.003_611_981_4, 0.503_957_436_1, -0.538_199_672_0].into_iter().enumerate() {
            close(w.double_value(&[0, place as i64]), expected);
        }
    }

    /// Five steps by the definition, rates that change, decay, and a tensor of zeros, whose trust is 1.
    #[test]
    fn it_is_its_formula() {
        let start = golden::input("start", &[5, 3]);
        for (adapt, start) in [(true, start.copy()), (false, start.copy()), (true, start.zeros_like())] {
            let (store, w) = store(&start);
            let group = Group { lr_scale: 0.5, weight_decay: 0.01, adapt };
            let params = config(0.9, 0.01).params(&store, |_, _| Some(group)).unwrap();
            let mut optimizer = config(0.9, 0.01).build(&params).unwrap();
            let (mut ours, mut v) = (start.copy(), start.zeros_like());
            for (step, lr) in [0.3, 0.3, 0.1, 2.0, 0.0].into_iter().enumerate() {
                let slope = golden::input(&format!("slope{step}"), &[5, 3]);
                params.zero_grad();
                (&w * &slope).sum(Kind::Double).backward();
                optimizer.step(lr).unwrap();
                let g = &slope + &ours * 0.01;
                let (p, q) = (ours.norm().double_value(&[]), g.norm().double_value(&[]));
                let trust = if adapt && p > 0.0 && q > 0.0 { 0.001 * p / q } else { 1.0 };
                v = v * 0.9 + g * (lr * 0.5 * trust);
                ours -= &v;
                let gap = (&w - &ours).abs().max().double_value(&[]);
                assert!(gap < 1e-14, "{adapt} {step}: {gap}");
            }
        }
    }

    #[test]
    fn what_does_not_adapt_or_decay_is_plain_momentum() {
        let start = golden::input("start", &[7]);
        let ((store_a, a), (store_b, b)) = (store(&start), store(&start));
        let group = Group { lr_scale: 1.0, weight_decay: 0.0, adapt: false };
        let sgd = OptimConfig::Sgd(SgdConfig {
            base_lr: 0.3,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
            lr_scaling: LrScaling::None,
            lr_scale: LrScale::new(),
        });
        let ours = config(0.9, 0.5).params(&store_a, |_, _| Some(group)).unwrap();
        let plain = sgd.params(&store_b, |_, _| Some(group)).unwrap();
        let (mut lars, mut sgd) = (config(0.9, 0.5).build(&ours).unwrap(), sgd.build(&plain).unwrap());
        for step in 0..4 {
            for (params, w) in [(&ours, &a), (&plain, &b)] {
                params.zero_grad();
                (w * golden::input(&format!("s{step}"), &[7])).sum(Kind::Double).backward();
            }
            lars.step(0.3).unwrap();
            sgd.step(0.3).unwrap();
            assert!((&a - &b).abs().max().double_value(&[]) < 1e-15);
        }
    }
}
