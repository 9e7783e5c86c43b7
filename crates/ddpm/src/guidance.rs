//! Networks that are told what to draw: guidance without a classifier (arXiv:2207.12598) and by one (arXiv:2105.05233), each a network for
//! [`sampler::run`](crate::sampler::run).

use repro::{Result, user};
use tch::Tensor;

use crate::process::{Objective, Process};

/// ε_u + g (ε_c − ε_u) of a network `(x_t, t, class)`, whose classes are `[N]` int64 as `class` is; `null` is the number of no class. (Eq. 6, whose w
/// is g − 1.) Both answers come of one pass over 2N pictures; with g = 1 the network is asked for the first alone.
///
/// x̂_0 and v are mixed by the same formula, as x_t is the same in both answers: the objective does not matter. The v of a learned variance is that
/// of the class.
pub fn classifier_free<'a>(
    mut net: impl FnMut(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + 'a,
    class: &'a Tensor,
    null: i64,
    scale: f64,
) -> impl FnMut(&Tensor, &Tensor) -> Result<Tensor> + 'a {
    move |x, t| {
        if scale == 1.0 {
            return net(x, t, class);
        }
        let classes = Tensor::f_cat(&[class, &class.f_full_like(null)?], 0)?;
        let both = net(&Tensor::f_cat(&[x, x], 0)?, &Tensor::f_cat(&[t, t], 0)?, &classes)?;
        let halves = both.f_chunk(2, 0)?;
        let channels = x.size()[1];
        let part = |half: &Tensor| half.f_narrow(1, 0, channels);
        let (told, free) = (part(&halves[0])?, part(&halves[1])?);
        let mixed = &free + (told - &free) * scale;
        Ok(match both.size()[1] - channels {
            0 => mixed,
            rest => Tensor::f_cat(&[&mixed, &halves[0].f_narrow(1, channels, rest)?], 1)?,
        })
    }
}

/// ε − √(1 − ᾱ_t) s ∇_x log p(y | x_t, t) (arXiv:2105.05233, Algorithm 2) of a network and a classifier `(x_t, t)` → log p, `[N, K]`; `class` is y,
/// `[N]` int64, `scale` is s. An x̂_0 or v is moved as far as its ε is. `process` has all steps that the network knows.
///
/// The gradient is taken within `no_grad` as well.
pub fn by_classifier<'a>(
    process: &'a Process,
    mut net: impl FnMut(&Tensor, &Tensor) -> Result<Tensor> + 'a,
    mut classifier: impl FnMut(&Tensor, &Tensor) -> Result<Tensor> + 'a,
    class: &'a Tensor,
    scale: f64,
) -> impl FnMut(&Tensor, &Tensor) -> Result<Tensor> + 'a {
    move |x, t| {
        let output = net(x, t)?;
        let gradient = tch::with_grad(|| -> Result<Tensor> {
            let x = x.detach().set_requires_grad(true);
            let log = classifier(&x, t)?;
            let picked = log.f_gather(1, &class.f_unsqueeze(1)?, false)?.f_sum(log.kind())?;
            if !picked.requires_grad() {
                return Err(user!("the classifier's answer does not depend on the pictures: it cannot guide"));
            }
            Ok(Tensor::f_run_backward(&[picked], &[&x], false, false)?.swap_remove(0))
        })?;
        let bar = &process.schedule.alpha_bar;
        // What −√(1 − ᾱ) s ∇ in ε is in the objective: x_0 = (x_t − √(1 − ᾱ) ε)/√ᾱ, v = (ε − √(1 − ᾱ) x_t)/√ᾱ.
        let share = |t: usize| match process.objective {
            Objective::Epsilon => -(1.0 - bar[t]).sqrt(),
            Objective::X0 => (1.0 - bar[t]) / bar[t].sqrt(),
            Objective::V => -((1.0 - bar[t]) / bar[t]).sqrt(),
        };
        let shift = gradient * (process.schedule.at(t, x, share)? * scale);
        let (predicted, v) = process.halves(&output, x.size()[1])?;
        let moved = predicted + shift;
        Ok(match v {
            None => moved,
            Some(v) => Tensor::f_cat(&[moved, v], 1)?,
        })
    }
}
