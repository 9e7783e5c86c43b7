//! One step of each sampler: Algorithm 2, DDIM (arXiv:2010.02502) and DPM-Solver++ (arXiv:2211.01095), functions of the network's raw answer.
//!
//! A step goes from t to s < t, or to the clean picture, where ᾱ is 1.

use repro::Result;
use tch::{Device, Kind, Tensor};

use crate::process::{Process, Told};
use crate::schedule::{Posterior, Schedule};

/// What a step makes of x_t.
#[derive(Debug)]
pub struct Step {
    /// x_s without its noise, `[N, C, H, W]`.
    pub mean: Tensor,
    /// The deviation of its noise, one number, `[N, 1, 1, 1]` or as the mean. `None`: the step draws none.
    pub sigma: Option<Tensor>,
    /// x̂_0, `[N, C, H, W]`.
    pub x0: Tensor,
}

/// x̂_0 of a step, and where it was: what DPM-Solver++ remembers.
#[derive(Debug)]
pub struct Memory {
    /// x̂_0
    pub x0: Tensor,
    /// t
    pub t: usize,
}

/// `[N]` times t, on the CPU: where the tables are read, so that no step waits for the device.
fn whole(x: &Tensor, t: usize) -> Result<Tensor> {
    Ok(Tensor::f_full([x.size()[0]], t as i64, (Kind::Int64, Device::Cpu))?)
}

/// ᾱ_s, 1 of the clean picture.
fn bar(schedule: &Schedule, s: Option<usize>) -> f64 {
    s.map_or(1.0, |s| schedule.alpha_bar[s])
}

/// x̂_0 and ε̂ of the network's raw answer at x_t.
fn told(process: &Process, output: &Tensor, x: &Tensor, t: usize, clip: bool) -> Result<Told> {
    let (predicted, _) = process.halves(output, x.size()[1])?;
    process.told(&predicted, x, &whole(x, t)?, clip)
}

/// Algorithm 2, lines 3 and 4, from t to t − 1 of the process: x_{t−1} = μ_θ(x_t, t) + σ_t z, where μ_θ is the posterior's mean (Eq. 7) at x̂_0,
/// which `clip` keeps in [−1, 1]. The last step, of t = 0, draws nothing, nor does one of β = 0, which changes nothing.
///
/// # Errors
/// Those of [`Process::halves`] and [`Schedule::at`].
pub fn ancestral(process: &Process, output: &Tensor, x: &Tensor, t: usize, clip: bool) -> Result<Step> {
    let (predicted, v) = process.halves(output, x.size()[1])?;
    let at = whole(x, t)?;
    let x0 = process.told(&predicted, x, &at, clip)?.x0;
    let Posterior { x0: of_x0, xt: of_xt, .. } = process.schedule.posterior(t);
    let sigma = match t > 0 && process.schedule.beta[t] > 0.0 {
        true => Some((process.log_variance(v.as_ref(), &at, x)? * 0.5).exp()),
        false => None,
    };
    Ok(Step { mean: &x0 * of_x0 + x * of_xt, sigma, x0 })
}

/// DDIM, Eq. 12: x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z, with σ = η √((1 − ᾱ_s)/(1 − ᾱ_t)) √(1 − ᾱ_t/ᾱ_s) (Eq. 16). With `clip` x̂_0 is kept
/// in [−1, 1], and ε̂ is what is then left of x_t.
///
/// # Errors
/// Those of [`Process::halves`] and [`Schedule::at`].
pub fn ddim(
    process: &Process,
    output: &Tensor,
    x: &Tensor,
    t: usize,
    s: Option<usize>,
    eta: f64,
    clip: bool,
) -> Result<Step> {
    let Told { x0, eps } = told(process, output, x, t, clip)?;
    let (bar_t, bar_s) = (process.schedule.alpha_bar[t], bar(&process.schedule, s));
    let sigma = eta * ((1.0 - bar_s) / (1.0 - bar_t)).sqrt() * (1.0 - bar_t / bar_s).max(0.0).sqrt();
    // With η = 1 and t near s rounding may leave less than nothing under the root.
    let mean = &x0 * bar_s.sqrt() + eps * (1.0 - bar_s - sigma * sigma).max(0.0).sqrt();
    Ok(Step { mean, sigma: (sigma > 0.0).then(|| Tensor::from(sigma)), x0 })
}

/// DPM-Solver++ of second order in its multistep form (2M; arXiv:2211.01095, Algorithm 2), with λ = ln(√ᾱ/√(1 − ᾱ)) and h = λ_s − λ_t:
/// x_s = √((1 − ᾱ_s)/(1 − ᾱ_t)) x_t − √ᾱ_s (e^{−h} − 1) D, where D is x̂_0 and, with a step before, half of what x̂_0 changed by since, stretched
/// from that step's h to this one's. The step to the clean picture, where h is infinite, takes x̂_0 itself. Nothing is drawn.
///
/// # Errors
/// Those of [`Process::halves`] and [`Schedule::at`].
pub fn dpm(
    process: &Process,
    output: &Tensor,
    x: &Tensor,
    t: usize,
    s: Option<usize>,
    before: Option<&Memory>,
    clip: bool,
) -> Result<Step> {
    let x0 = told(process, output, x, t, clip)?.x0;
    let Some(s) = s else {
        return Ok(Step { mean: x0.shallow_clone(), sigma: None, x0 });
    };
    let bars = &process.schedule.alpha_bar;
    let lambda = |t: usize| 0.5 * (bars[t] / (1.0 - bars[t])).ln();
    let ahead = lambda(s) - lambda(t);
    let direction = match before {
        None => x0.shallow_clone(),
        Some(before) => &x0 + (&x0 - &before.x0) * (0.5 * ahead / (lambda(t) - lambda(before.t))),
    };
    let mean = x * ((1.0 - bars[s]) / (1.0 - bars[t])).sqrt() - direction * (bars[s].sqrt() * (-ahead).exp_m1());
    Ok(Step { mean, sigma: None, x0 })
}
