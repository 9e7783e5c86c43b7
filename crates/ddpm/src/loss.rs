//! What is minimised (§3.4; Improved DDPM §3.1, §3.3), and the bound on the likelihood (Eq. 5).

use std::f64::consts::LN_2;

use repro::Result;
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::process::Process;

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// L_simple (Eq. 14): the mean squared error of what the network predicts.
    Simple,
    /// L_vlb: a term of Eq. 5, times T so that its mean over t is the bound.
    Vlb,
    /// L_hybrid = L_simple + 0.001 L_vlb, whose second part teaches the variance alone (Improved DDPM, Eq. 16).
    Hybrid,
}

/// λ of L_hybrid.
const LAMBDA: f64 = 0.001;

/// The losses of each picture, `[N]`, means over its numbers.
#[derive(Debug)]
pub struct Losses {
    /// What is minimised.
    pub loss: Tensor,
    /// L_simple.
    pub simple: Tensor,
    /// L_vlb in bits a number. `None` where it is no part of the loss.
    pub vlb: Option<Tensor>,
}

/// p(x_{t−1} | x_t) as the network has it.
#[derive(Debug)]
pub struct Reverse {
    /// μ_θ, `[N, C, H, W]`.
    pub mean: Tensor,
    /// log σ², `[N, 1, 1, 1]` or as the mean.
    pub log_variance: Tensor,
    /// x̂_0, `[N, C, H, W]`.
    pub x0: Tensor,
}

/// Eq. 5 of pictures, in bits a number.
#[derive(Debug, Clone, Default)]
pub struct Bound {
    /// L_T: how far q(x_T | x_0) is from N(0, 1).
    pub prior: f64,
    /// L_t by t; the first, L_0, is the decoder's.
    pub terms: Vec<f64>,
    /// Root of the mean squared error of x̂_0 by t, pixels being in [0, 255] (Figure 5).
    pub rmse: Vec<f64>,
}

impl Bound {
    /// Adds that of another part of the pictures, `share` being the part's of all.
    pub fn add(&mut self, part: &Bound, share: f64) {
        let add = |sum: &mut Vec<f64>, of: &[f64]| {
            sum.resize(of.len(), 0.0);
            sum.iter_mut().zip(of).for_each(|(sum, value)| *sum += share * value);
        };
        self.prior += share * part.prior;
        add(&mut self.terms, &part.terms);
        add(&mut self.rmse, &part.rmse);
    }

    /// L = L_T + Σ L_t.
    pub fn total(&self) -> f64 {
        self.prior + self.terms.iter().sum::<f64>()
    }

    /// What telling x_t down to x_1 costs, the rate of §4.3.
    pub fn rate(&self) -> f64 {
        self.total() - self.distortion()
    }

    /// L_0, what is lost then.
    pub fn distortion(&self) -> f64 {
        self.terms.first().copied().unwrap_or_default()
    }

    /// Rate and distortion as more and more is told (Figure 5): bits a number so far, and the RMSE of x̂_0 there, from T on.
    pub fn progressive(&self) -> Vec<(f64, f64)> {
        let mut told = self.prior;
        let of = |(t, rmse): (usize, &f64)| {
            let here = (told, *rmse);
            told += self.terms[t];
            here
        };
        self.rmse.iter().enumerate().rev().map(of).collect()
    }
}

/// The mean over all but the first dimension: `[N, …]` → `[N]`.
fn mean(x: &Tensor) -> Tensor {
    x.flatten(1, -1).mean_dim([1_i64].as_slice(), false, None::<Kind>)
}

/// KL(N(m₁, e^l₁) ‖ N(m₂, e^l₂)) in nats, number by number.
fn divergence(m1: &Tensor, l1: &Tensor, m2: &Tensor, l2: &Tensor) -> Tensor {
    ((l2 - l1) - 1.0 + (l1 - l2).exp() + (m1 - m2).square() * (-l2).exp()) * 0.5
}

/// Eq. 13: −log of the share of N(μ, σ²) in the bin of each pixel, in nats; bins are 2/255 wide and open at the ends.
fn decoder(x0: &Tensor, mean: &Tensor, log_variance: &Tensor) -> Tensor {
    let (apart, scale) = (x0 - mean, (log_variance * -0.5).exp());
    let below = |edge: f64| (((&apart + edge) * &scale) * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    let (upper, lower) = (below(1.0 / 255.0), below(-1.0 / 255.0));
    let ones = upper.ones_like();
    let upper = ones.where_self(&x0.gt(0.999), &upper);
    let lower = lower.zeros_like().where_self(&x0.lt(-0.999), &lower);
    -(upper - lower).clamp_min(1e-12).log()
}

impl Process {
    /// p(x_{t−1} | x_t) of the network's raw answer at x_t. With `clip`, x̂_0 is kept in [−1, 1].
    ///
    /// # Errors
    /// An answer of other channels; those of [`crate::schedule::Schedule::at`].
    pub fn reverse(&self, output: &Tensor, x_t: &Tensor, t: &Tensor, clip: bool) -> Result<Reverse> {
        let (predicted, v) = self.halves(output, x_t.size()[1])?;
        let x0 = self.told(&predicted, x_t, t, clip)?.x0;
        let log_variance = self.log_variance(v.as_ref(), t, x_t)?;
        Ok(Reverse { mean: self.posterior_mean(&x0, x_t, t)?, log_variance, x0 })
    }

    /// μ̃ of Eq. 7.
    fn posterior_mean(&self, x0: &Tensor, x_t: &Tensor, t: &Tensor) -> Result<Tensor> {
        let schedule = &self.schedule;
        let (of_x0, of_xt) =
            (schedule.at(t, x_t, |t| schedule.posterior(t).x0)?, schedule.at(t, x_t, |t| schedule.posterior(t).xt)?);
        Ok(x0 * of_x0 + x_t * of_xt)
    }

    /// The term of Eq. 5 at t, `[N]` in bits a number: L_{t−1}, and L_0 at the first step.
    ///
    /// # Errors
    /// Those of [`Self::reverse`].
    pub fn term(&self, reverse: &Reverse, x0: &Tensor, x_t: &Tensor, t: &Tensor) -> Result<Tensor> {
        let schedule = &self.schedule;
        let last = schedule.len() - 1;
        let variance =
            schedule.at(t, x_t, |t| schedule.posterior(t.clamp(1.min(last), last)).variance.max(1e-20).ln())?;
        let between =
            mean(&divergence(&self.posterior_mean(x0, x_t, t)?, &variance, &reverse.mean, &reverse.log_variance));
        let first = mean(&decoder(x0, &reverse.mean, &reverse.log_variance));
        let is_first = t.to_device(x_t.device()).eq(0);
        Ok(first.where_self(&is_first, &between) / LN_2)
    }

    /// The losses of the network's raw answer at x_t = [`Process::noised`]`(x0, noise, t)`.
    ///
    /// # Errors
    /// Those of [`Self::reverse`].
    pub fn losses(
        &self,
        loss: Loss,
        output: &Tensor,
        x0: &Tensor,
        x_t: &Tensor,
        noise: &Tensor,
        t: &Tensor,
    ) -> Result<Losses> {
        let (predicted, v) = self.halves(output, x_t.size()[1])?;
        let simple = mean(&(self.target(x0, noise, t)? - &predicted).square());
        let steps = self.schedule.len() as f64;
        let bound = |output: &Tensor| {
            Ok::<_, repro::Error>(self.term(&self.reverse(output, x_t, t, false)?, x0, x_t, t)? * steps)
        };
        let (loss, vlb) = match loss {
            Loss::Simple => (simple.shallow_clone(), None),
            Loss::Vlb => {
                let vlb = bound(output)?;
                (vlb.shallow_clone(), Some(vlb))
            }
            Loss::Hybrid => {
                // The mean is L_simple's to teach.
                let still = match &v {
                    Some(v) => Tensor::f_cat(&[&predicted.detach(), v], 1)?,
                    None => predicted.detach(),
                };
                let vlb = bound(&still)?;
                (&simple + &vlb * LAMBDA, Some(vlb))
            }
        };
        Ok(Losses { loss, simple, vlb })
    }

    /// Eq. 5 of pictures `[N, C, H, W]`, by the network `(x_t, t of the network)`; `noise` draws ε for a step. x̂_0 is clipped, as in the codes of
    /// both papers. T passes.
    ///
    /// # Errors
    /// The network's, and those of [`Self::reverse`].
    pub fn bound(
        &self,
        x0: &Tensor,
        net: &mut dyn FnMut(&Tensor, &Tensor) -> Result<Tensor>,
        noise: &mut dyn FnMut(usize) -> Result<Tensor>,
    ) -> Result<Bound> {
        let n = x0.size()[0];
        let number = |x: Tensor| Ok::<_, repro::Error>(x.mean(Kind::Double).f_double_value(&[])?);
        let mut found = Bound::default();
        for t in 0..self.schedule.len() {
            let step = |t: usize| Tensor::f_full([n], t as i64, (Kind::Int64, tch::Device::Cpu));
            let at = step(t)?;
            let x_t = self.noised(x0, &noise(t)?, &at)?;
            let output = net(&x_t, &step(self.schedule.times[t])?.f_to_device(x0.device())?)?;
            let reverse = self.reverse(&output, &x_t, &at, true)?;
            found.terms.push(number(self.term(&reverse, x0, &x_t, &at)?)?);
            found.rmse.push(number((&reverse.x0 - x0).square())?.sqrt() * 127.5);
        }
        let bar = self.schedule.alpha_bar[self.schedule.len() - 1];
        let (zero, variance) = (Tensor::from(0.0), Tensor::from((1.0 - bar).ln()));
        found.prior = number(divergence(&(x0 * bar.sqrt()), &variance, &zero, &zero))? / LN_2;
        Ok(found)
    }
}
