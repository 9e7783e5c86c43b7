//! Sharpness-aware minimisation (arXiv:2010.01412) and its scale-invariant form (ASAM, arXiv:2102.11600).

use serde::Deserialize;
use tch::Tensor;

use super::Params;
use crate::{Result, user};

/// Numbers of [`Sam`].
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SamConfig {
    /// ρ, the radius of the neighbourhood, above 0.
    pub rho: f64,
    /// Whether the neighbourhood is measured in units of each weight's own size (ASAM).
    #[serde(default)]
    pub adaptive: bool,
}

impl SamConfig {
    /// # Errors
    /// A radius that is not above 0.
    pub fn check(&self) -> Result<()> {
        match self.rho {
            rho if rho > 0.0 && rho.is_finite() => Ok(()),
            rho => Err(user!("sam.rho is {rho}; it must be greater than 0, such as 0.05")),
        }
    }
}

/// The climb to the worst place nearby, around which an optimizer step then takes the gradient.
///
/// Algorithm 1: gradient at w → [`Sam::climb`] → gradient at w + ε → [`Sam::back`] → the optimizer's step with that gradient.
#[derive(Debug)]
pub struct Sam {
    config: SamConfig,
    /// w, between climb and return.
    before: Vec<Tensor>,
}

impl Sam {
    /// Added to the norm, so that a gradient of zeros climbs nowhere.
    const TINY: f64 = 1e-12;

    /// # Errors
    /// A radius that is not above 0.
    pub fn new(config: &SamConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config: config.clone(), before: Vec::new() })
    }

    /// w ← w + ε(w), with ε = ρ·g/‖g‖ (Eq. 2 for p = 2), the norm being one over all parameters; adaptive: ε = ρ·w²·g/‖w·g‖ (ASAM, Eq. 8).
    /// The host does not wait for the device.
    /// # Errors
    /// What libtorch says.
    pub fn climb(&mut self, params: &Params) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.before = params.tensors().map(copy).collect::<Result<_>>()?;
        let norm = match self.config.adaptive {
            false => params.list().grad_norm()?,
            true => {
                let scaled = with_gradient(params).map(|(w, g)| Ok((w.f_detach()? * g).f_norm()?));
                Tensor::f_stack(&scaled.collect::<Result<Vec<_>>>()?, 0)?.f_norm()?
            }
        };
        let scale = norm.f_add_scalar(Self::TINY)?.f_reciprocal()?.f_mul_scalar(self.config.rho)?;
        for (w, g) in with_gradient(params) {
            let step = if self.config.adaptive { w.f_detach()?.f_square()?.f_mul(&g)? } else { g };
            let _ = w.shallow_clone().f_addcmul_(&step, &scale)?;
        }
        Ok(())
    }

    /// w as it was before the climb, to the bit.
    /// # Errors
    /// There was no climb; what libtorch says.
    pub fn back(&mut self, params: &Params) -> Result<()> {
        if self.before.len() != params.tensors().len() {
            return Err(user!("sam: nothing to come back from; climb first"));
        }
        let _guard = tch::no_grad_guard();
        for (w, before) in params.tensors().zip(self.before.drain(..)) {
            w.shallow_clone().f_copy_(&before)?;
        }
        Ok(())
    }
}

fn copy(w: &Tensor) -> Result<Tensor> {
    let mut copy = w.f_empty_like()?;
    copy.f_copy_(&w.f_detach()?)?;
    Ok(copy)
}

/// The parameters that have a gradient, with it.
fn with_gradient(params: &Params) -> impl Iterator<Item = (&Tensor, Tensor)> {
    params.tensors().map(|w| (w, w.grad())).filter(|(_, g)| g.defined())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::optim::{Group, LrScale, OptimConfig, SgdConfig};
    use tch::{Kind, nn};

    /// One step on f(w) = Σ i·w_i⁴/4 in float64, in place of which a plain evaluation stands below.
    fn step(config: &SamConfig) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let mut store = nn::VarStore::new(tch::Device::Cpu);
        let w = store.root().zeros("w", &[12]);
        store.double();
        let w = {
            let _ = w;
            store.variables()["w"].shallow_clone()
        };
        tch::no_grad(|| w.shallow_clone().copy_(&golden::input("w", &[12])));
        let params = Params::new(&store, |_, _| Some(Group::of(0.0))).unwrap();
        let sgd = SgdConfig {
            base_lr: 0.1,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            lr_scaling: Default::default(),
            lr_scale: LrScale::new(),
        };
        let mut sgd = OptimConfig::Sgd(sgd).build(&params).unwrap();
        let mut sam = Sam::new(config).unwrap();
        let numbers = |t: &Tensor| Vec::<f64>::try_from(t.detach()).unwrap();
        let gradient = || {
            params.zero_grad();
            let i = Tensor::arange_start(1, 13, (Kind::Double, tch::Device::Cpu));
            (&w * &w * &w * &w * i / 4.0).sum(Kind::Double).backward();
        };
        let start = numbers(&w);
        gradient();
        sam.climb(&params).unwrap();
        let high = numbers(&w);
        gradient();
        sam.back(&params).unwrap();
        assert_eq!(numbers(&w), start, "w comes back to the bit");
        sgd.step(0.1).unwrap();
        (start, high, numbers(&w))
    }

    /// The numbers of the reference: ρ = 0.05, plain gradient descent with a rate of 0.1.
    #[test]
    fn the_golden_step() {
        let (start, high, end) = step(&SamConfig { rho: 0.05, adaptive: false });
        let near = |a: f64, b: f64, tolerance: f64| assert!((a - b).abs() < tolerance, "{a} {b}");
        for (i, expected) in [2.1743e-10, 0.0011180840, -0.0020445707].into_iter().enumerate() {
            near(high[i] - start[i], expected, 1e-9);
            near(end[i], [0.0036778405, 0.4780988551, -0.4909312230][i], 1e-9);
        }
    }

    #[test]
    fn both_forms_are_their_formulas() {
        for adaptive in [false, true] {
            let (w, high, end) = step(&SamConfig { rho: 0.3, adaptive });
            let g: Vec<f64> = w.iter().enumerate().map(|(i, w)| (i + 1) as f64 * w.powi(3)).collect();
            let unit = |w: f64| if adaptive { w } else { 1.0 };
            let norm = w.iter().zip(&g).map(|(w, g)| (unit(*w) * g).powi(2)).sum::<f64>().sqrt();
            for i in 0..12 {
                let epsilon = 0.3 * unit(w[i]).powi(2) * g[i] / norm;
                assert!((high[i] - w[i] - epsilon).abs() < 1e-12);
                let steep = (i + 1) as f64 * (w[i] + epsilon).powi(3);
                assert!((end[i] - (w[i] - 0.1 * steep)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn senseless_numbers_and_orders_are_refused() {
        assert!(Sam::new(&SamConfig { rho: 0.0, adaptive: false }).is_err());
        assert!(Sam::new(&SamConfig { rho: f64::NAN, adaptive: true }).is_err());
        let store = nn::VarStore::new(tch::Device::Cpu);
        let _ = store.root().zeros("w", &[1]);
        let params = Params::new(&store, |_, _| Some(Group::of(0.0))).unwrap();
        assert!(Sam::new(&SamConfig { rho: 1.0, adaptive: true }).unwrap().back(&params).is_err());
    }
}
