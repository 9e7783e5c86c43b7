//! Stochastic diagonal Levenberg-Marquardt (§III.A and Appendix C of the paper): every weight has its own step size,
//! ε_k = η / (μ + h_kk), from the curvature h_kk of [`crate::hessian`].

use std::collections::BTreeMap;

use repro::Result;
use repro::data::ImageSet;
use repro::random::{below, rng};
use serde::Deserialize;
use tch::Tensor;
use torch_ext::TensorList;

use crate::hessian;
use crate::loss::Loss;
use crate::model::{Lenet5, pixels};

/// The numbers of the rule.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct LmConfig {
    /// η before the schedule, greater than 0.
    pub base_lr: f64,
    /// μ > 0: keeps steps finite where the loss is flat.
    pub mu: f64,
    /// Training pictures on which the curvature is estimated before each pass, at least 1.
    pub samples: u64,
}

/// The optimizer: parameters, and for each of their elements the factor 1 / (μ + h_kk).
#[derive(Debug)]
pub struct LevenbergMarquardt {
    mu: f64,
    factors: BTreeMap<String, Tensor>,
    parameters: TensorList,
    factor_list: TensorList,
}

impl LevenbergMarquardt {
    /// For these parameters. Until [`Self::set_curvature`] all curvatures are 0.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new<'a>(parameters: impl Iterator<Item = (&'a str, &'a Tensor)>, mu: f64) -> Result<Self> {
        let parameters: BTreeMap<_, _> = parameters.collect();
        let factors: BTreeMap<_, _> =
            parameters.iter().map(|(name, p)| (name.to_string(), tch::no_grad(|| p.ones_like() / mu))).collect();
        let list = |tensors: Vec<&Tensor>| TensorList::new(&tensors);
        Ok(LevenbergMarquardt {
            mu,
            parameters: list(parameters.values().copied().collect())?,
            factor_list: list(factors.values().collect())?,
            factors,
        })
    }

    /// Estimates the curvature before pass `epoch` on `samples` random pictures of `set`, drawn from (seed, pass) alone.
    ///
    /// # Errors
    /// libtorch's.
    pub fn estimate(
        &mut self,
        net: &Lenet5,
        loss: Loss,
        set: &ImageSet,
        samples: u64,
        seed: u64,
        epoch: u64,
    ) -> Result<()> {
        let mut rng = rng(seed, epoch, 0, "curvature");
        let index: Vec<i64> = (0..samples).map(|_| below(&mut rng, set.len()) as i64).collect();
        let images = set.select(&Tensor::f_from_slice(&index)?.f_to_device(set.device())?);
        self.set_curvature(&hessian::diagonal(net, &pixels(&images.image), loss))
    }

    /// Takes over h_kk of every parameter, by name, where it is larger than in the passes before. A network that has learned saturates
    /// its units, and the curvature of typical pictures falls below that of the hard ones still to come: steps grown by it undo a pass
    /// (loss 2.9 to 30 in the first steps of the second, tried).
    ///
    /// # Errors
    /// libtorch's.
    pub fn set_curvature(&mut self, h: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, factor) in &mut self.factors {
            // In place: the list and the checkpoint hold handles to the same memory.
            let fresh = (&h[name] + self.mu).f_reciprocal()?;
            factor.f_copy_(&factor.f_minimum(&fresh)?)?;
        }
        Ok(())
    }

    /// w_k ← w_k − η / (μ + h_kk) · ∂E/∂w_k (Eq. 20, 21), with the gradients that the parameters hold.
    ///
    /// # Errors
    /// libtorch's.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        Ok(self.parameters.foreach_addcmul_grads(&self.factor_list, -lr)?)
    }

    /// The factors by name, `factor.<parameter>`: a resumed run needs them until the next pass begins.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.factors.iter().map(|(name, t)| (format!("factor.{name}"), t.shallow_clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn};

    use super::*;

    #[test]
    fn the_step_is_eta_over_mu_plus_h_times_the_gradient() {
        let w = Tensor::from_slice(&[1.0f64, -2.0, 3.0]).set_requires_grad(true);
        let mut lm = LevenbergMarquardt::new([("w", &w)].into_iter(), 0.02).unwrap();
        // E = Σ a_k w_k² / 2: gradient a w, curvature a.
        let a = Tensor::from_slice(&[0.5f64, 4.0, 0.0]);
        (&a * w.square() / 2.0).sum(Kind::Double).backward();
        lm.set_curvature(&BTreeMap::from([("w".to_string(), a)])).unwrap();
        lm.step(0.1).unwrap();
        let after: Vec<f64> = Vec::try_from(w.detach()).unwrap();
        let expected = [1.0 - 0.1 / 0.52 * 0.5, -2.0 + 0.1 / 4.02 * 8.0, 3.0];
        for (ours, expected) in after.iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-12, "{ours} against {expected}");
        }
        assert_eq!(lm.state().keys().collect::<Vec<_>>(), ["factor.w"]);
        assert!((lm.state()["factor.w"].double_value(&[2]) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_few_steps_on_one_batch_lower_the_loss_and_leave_absent_connections_at_zero() {
        tch::manual_seed(5);
        let vs = nn::VarStore::new(Device::Cpu);
        let net = Lenet5::new(&vs.root(), 10, crate::layers::Init::Lecun);
        let names = vs.variables();
        let trainable = names.iter().filter(|(_, t)| t.requires_grad()).map(|(n, t)| (n.as_str(), t));
        let mut lm = LevenbergMarquardt::new(trainable, 0.02).unwrap();
        let images = Tensor::rand([8, 1, 28, 28], (Kind::Float, Device::Cpu));
        let (x, label, loss) = (pixels(&images), Tensor::arange(8, (Kind::Int64, Device::Cpu)), Loss::Map { j: 1.0 });
        lm.set_curvature(&hessian::diagonal(&net, &x, loss)).unwrap();
        let mut losses = Vec::new();
        for _ in 0..20 {
            for t in names.values() {
                let mut t = t.shallow_clone();
                t.zero_grad();
            }
            let e = loss.mean(&net.forward(&x), &label).unwrap();
            e.backward();
            lm.step(5e-4).unwrap();
            losses.push(e.double_value(&[]));
        }
        assert!(losses[19] < 0.9 * losses[0], "{losses:?}");
        let absent: Tensor = &net.c3.weight * (1.0 - &net.c3.table);
        assert_eq!(absent.abs().max().double_value(&[]), 0.0);
    }
}
