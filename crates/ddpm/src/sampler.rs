//! From noise to pictures: Algorithm 2, DDIM (arXiv:2010.02502), DPM-Solver++ (arXiv:2211.01095).

use repro::{Error, Result};
use serde::Deserialize;
use tch::{Kind as Number, Tensor};

use crate::process::{Process, Told, Variance};
use crate::solver::Solver;

/// Steps between two looks at whether all numbers are finite: a look waits for the device.
const LOOK: usize = 25;

/// How pictures are drawn from a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SamplerConfig {
    /// Which method.
    pub kind: Kind,
    /// S, from 1 to T. `None`: T for `ddpm`, 50 for `ddim`, 20 for `dpm++`.
    pub steps: Option<usize>,
    /// Of `ddim`: η in [0, 1]; with 0 nothing is drawn on the way, with 1 as much as by `ddpm` with small variances. `None`: 0.
    pub eta: Option<f64>,
    /// Which steps of T are taken. `None`: `uniform`.
    pub spacing: Option<Spacing>,
    /// Whether x̂_0 is kept in [−1, 1] at each step. `None`: yes for `ddpm`, no for the others, as in the papers' codes.
    pub clip: Option<bool>,
    /// Of `ddpm`: another variance than the model's (`large`, `small`). `None`: the model's.
    pub variance: Option<Variance>,
}

/// Which method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Algorithm 2; with fewer than T steps by the strided posterior (Improved DDPM, §4).
    Ddpm,
    /// DDIM, Eq. 12.
    Ddim,
    /// DPM-Solver++ of second order with two steps in memory.
    #[serde(rename = "dpm++")]
    DpmPp,
}

/// Which steps of T are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// i · ⌊T/S⌋
    Uniform,
    /// The squares of even steps from 0 to √(0.8 T), rounded down (DDIM, Appendix D.2). A step that comes twice changes nothing.
    Quadratic,
}

impl SamplerConfig {
    /// A method with its own defaults.
    pub fn of(kind: Kind) -> Self {
        SamplerConfig { kind, steps: None, eta: None, spacing: None, clip: None, variance: None }
    }

    /// S of T.
    pub fn length(&self, whole: usize) -> usize {
        self.steps.unwrap_or(match self.kind {
            Kind::Ddpm => whole,
            Kind::Ddim => whole.min(50),
            Kind::DpmPp => whole.min(20),
        })
    }

    /// Whether x̂_0 is kept in [−1, 1].
    pub fn clips(&self) -> bool {
        self.clip.unwrap_or(self.kind == Kind::Ddpm)
    }

    /// What cannot be, for a model of T steps and these variances: keys, each with a message.
    pub fn problems(&self, whole: usize, learned: Variance) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut must = |holds: bool, key, message: String| {
            if !holds {
                found.push((key, message));
            }
        };
        let steps = self.length(whole);
        must(
            (1..=whole).contains(&steps),
            "steps",
            format!("is {steps}; it must be from 1 to {whole}, the model's steps"),
        );
        let eta = self.eta.unwrap_or(0.0);
        must((0.0..=1.0).contains(&eta), "eta", format!("is {eta}; it must be from 0 to 1"));
        must(
            self.eta.is_none() || self.kind == Kind::Ddim,
            "eta",
            "is of ddim; leave it away, or write the kind ddim".into(),
        );
        must(self.variance.is_none() || self.kind == Kind::Ddpm, "variance", "is of ddpm; leave it away".into());
        must(
            self.variance != Some(Variance::Learned) && (self.variance.is_none() || learned != Variance::Learned),
            "variance",
            "is the network's where it is learned, and else large or small".into(),
        );
        must(
            self.spacing.is_none() || self.kind != Kind::DpmPp,
            "spacing",
            "is of ddpm and ddim: dpm++ has even steps of its own; leave it away".into(),
        );
        must(
            self.spacing != Some(Spacing::Quadratic) || steps > 1,
            "spacing",
            "is quadratic, which has no single step; write uniform, or more steps".into(),
        );
        found
    }

    /// As metrics and files call it: `ddim_s10_eta0.5`.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Ddpm => "ddpm",
            Kind::Ddim => "ddim",
            Kind::DpmPp => "dpm++",
        };
        let steps = self.steps.map(|steps| format!("_s{steps}")).unwrap_or_default();
        let eta = self.eta.map(|eta| format!("_eta{eta}")).unwrap_or_default();
        let spacing = if self.spacing == Some(Spacing::Quadratic) { "_quadratic" } else { "" };
        let clip = self.clip.map_or("", |clip| if clip { "_clipped" } else { "_unclipped" });
        let variance = match self.variance {
            Some(Variance::Small) => "_small",
            Some(Variance::Large) => "_large",
            _ => "",
        };
        format!("{kind}{steps}{eta}{spacing}{clip}{variance}")
    }

    /// τ: S steps of T from 0 on, ascending (DDIM, Appendix D.2).
    pub fn times(&self, whole: usize) -> Vec<usize> {
        let steps = self.length(whole);
        match self.spacing.unwrap_or(Spacing::Uniform) {
            Spacing::Uniform => (0..steps).map(|i| i * (whole / steps)).collect(),
            Spacing::Quadratic => {
                let step = (0.8 * whole as f64).sqrt() / (steps.max(2) - 1) as f64;
                // The last is 0.8 T, whatever the rounding of its root says.
                (0..steps).map(|i| ((step * i as f64).powi(2) + 1e-9) as usize).collect()
            }
        }
    }
}

/// `(x_t, t)` → the network's raw answer; t is `[N]` int64, of the whole schedule.
pub type Network<'a> = &'a mut dyn FnMut(&Tensor, &Tensor) -> Result<Tensor>;
/// Noise for a step, counted from 1.
pub type Noise<'a> = &'a mut dyn FnMut(usize) -> Result<Tensor>;
/// Called after each step, counted from 1, with x and x̂_0.
pub type Each<'a> = &'a mut dyn FnMut(usize, &Tensor, &Tensor) -> Result<()>;

/// x_0 of x_T, not clamped. Noise is asked for where a step draws some.
///
/// # Errors
/// Those of the network, of `noise` and of `each`; numbers that are not finite, with the step.
pub fn run(
    process: &Process,
    config: &SamplerConfig,
    net: Network,
    x: &Tensor,
    noise: Noise,
    each: Each,
) -> Result<Tensor> {
    match config.kind {
        Kind::Ddpm => ancestral(process, config, net, x, noise, each),
        Kind::Ddim => ddim(process, config, net, x, noise, each),
        Kind::DpmPp => solve(process, config, net, x, each),
    }
}

/// `[N]` times t.
fn all(x: &Tensor, t: usize) -> Result<Tensor> {
    Ok(Tensor::f_full([x.size()[0]], t as i64, (Number::Int64, x.device()))?)
}

/// Now and then, and at the end, that all numbers are finite.
fn look(x: &Tensor, step: usize, steps: usize) -> Result<()> {
    if !(step.is_multiple_of(LOOK) || step == steps) || x.isfinite().all().f_int64_value(&[])? == 1 {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "step {step} of {steps}: the pictures hold numbers that are not finite, so the network's answers are none; other weights, or x_0 clipped (sampler.clip=true), may help"
    )))
}

/// Algorithm 2: x_{t−1} = μ_θ(x_t, t) + σ_t z, and no noise at the last step.
fn ancestral(
    process: &Process,
    config: &SamplerConfig,
    net: Network,
    x: &Tensor,
    noise: Noise,
    each: Each,
) -> Result<Tensor> {
    let times = config.times(process.schedule.len());
    let mut taken = times.clone();
    taken.dedup();
    let variance = config.variance.unwrap_or(process.variance);
    let strided = Process { schedule: process.schedule.strided(&taken), objective: process.objective, variance };
    let (steps, mut x) = (times.len(), x.shallow_clone());
    for (step, place) in (1..=steps).zip((0..steps).rev()) {
        if place > 0 && times[place] == times[place - 1] {
            continue;
        }
        let at = taken.partition_point(|t| *t < times[place]);
        let output = net(&x, &all(&x, process.schedule.times[times[place]])?)?;
        let reverse = strided.reverse(&output, &x, &all(&x, at)?, config.clips())?;
        x = match at {
            0 => reverse.mean,
            _ => reverse.mean + (reverse.log_variance * 0.5).exp() * noise(step)?,
        };
        look(&x, step, steps)?;
        each(step, &x, &reverse.x0)?;
    }
    Ok(x)
}

/// DDIM, Eq. 12, from ᾱ_t to ᾱ_s: σ of Eq. 16. After the last step ᾱ is 1.
fn ddim(
    process: &Process,
    config: &SamplerConfig,
    net: Network,
    x: &Tensor,
    noise: Noise,
    each: Each,
) -> Result<Tensor> {
    let (bars, eta) = (&process.schedule.alpha_bar, config.eta.unwrap_or(0.0));
    let times = config.times(bars.len());
    let (steps, mut x) = (times.len(), x.shallow_clone());
    for (step, place) in (1..=steps).zip((0..steps).rev()) {
        let t = times[place];
        let (bar_t, bar_s) = (bars[t], place.checked_sub(1).map_or(1.0, |before| bars[times[before]]));
        let output = net(&x, &all(&x, process.schedule.times[t])?)?;
        let (predicted, _) = process.halves(&output, x.size()[1])?;
        let Told { x0, eps } = process.told(&predicted, &x, &all(&x, t)?, config.clips())?;
        let sigma = eta * ((1.0 - bar_s) / (1.0 - bar_t)).sqrt() * (1.0 - bar_t / bar_s).max(0.0).sqrt();
        x = &x0 * bar_s.sqrt() + eps * (1.0 - bar_s - sigma * sigma).max(0.0).sqrt();
        if sigma > 0.0 {
            x += noise(step)? * sigma;
        }
        look(&x, step, steps)?;
        each(step, &x, &x0)?;
    }
    Ok(x)
}

/// DPM-Solver++ (2M).
fn solve(process: &Process, config: &SamplerConfig, net: Network, x: &Tensor, each: Each) -> Result<Tensor> {
    let steps = config.length(process.schedule.len());
    let (mut solver, mut x) = (Solver::new(&process.schedule, steps), x.shallow_clone());
    for step in 1..=steps {
        let t = solver.time(step);
        let output = net(&x, &all(&x, process.schedule.times[t])?)?;
        let (predicted, _) = process.halves(&output, x.size()[1])?;
        let x0 = process.told(&predicted, &x, &all(&x, t)?, config.clips())?.x0;
        x = solver.step(step, &x, &x0);
        look(&x, step, steps)?;
        each(step, &x, &x0)?;
    }
    Ok(x)
}
