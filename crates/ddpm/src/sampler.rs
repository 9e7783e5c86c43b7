//! From noise to pictures: the loop around the steps of [`solver`], and how it is configured.

use repro::{Error, Result};
use serde::Deserialize;
use tch::{Kind as Number, Tensor};

use crate::process::{Process, Variance};
use crate::solver::{self, Memory, Step};

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
    /// Which steps of T are taken by `ddpm` and `ddim`. `None`: `uniform`.
    pub spacing: Option<Spacing>,
    /// Whether x̂_0 is kept in [−1, 1] at each step. `None`: yes for `ddpm`, no for the others, as in the papers' codes.
    pub clip: Option<bool>,
    /// Of `ddpm`: another variance than the model's, `large` or `small`. With fewer than T steps `large` is the σ̂ of DDIM's Table 1. `None`: the
    /// model's.
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

    /// The same by another method, with its own number of steps; what is said of x̂_0 and of the spacing holds where the method knows it.
    pub fn turned(self, kind: Kind) -> Self {
        if kind == self.kind {
            return self;
        }
        let spacing = self.spacing.filter(|_| kind != Kind::DpmPp);
        SamplerConfig { spacing, clip: self.clip, ..Self::of(kind) }
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

    /// τ: S steps of T, ascending. Those of `ddpm` and `ddim` begin with 0 (DDIM, Appendix D.2); those of `dpm++` end with T − 1, being all but the
    /// first of S + 1 even ones from 0 on, rounded, a half to the even neighbour: diffusers' `linspace`.
    pub fn times(&self, whole: usize) -> Vec<usize> {
        let steps = self.length(whole);
        match (self.kind, self.spacing.unwrap_or(Spacing::Uniform)) {
            (Kind::DpmPp, _) => {
                let last = (whole - 1) as f64;
                even(last, steps + 1).skip(1).map(|t| t.round_ties_even() as usize).collect()
            }
            (_, Spacing::Uniform) => (0..steps).map(|i| i * (whole / steps)).collect(),
            (_, Spacing::Quadratic) => {
                even((0.8 * whole as f64).sqrt(), steps).map(|root| (root * root) as usize).collect()
            }
        }
    }
}

/// Even steps from 0 to `last`, by the very roundings of NumPy's `linspace`: what is rounded to whole numbers later hangs on them.
fn even(last: f64, count: usize) -> impl Iterator<Item = f64> {
    let step = last / (count.max(2) - 1) as f64;
    (0..count).map(move |i| if i > 0 && i + 1 == count { last } else { i as f64 * step })
}

/// `(x_t, t)` → the network's raw answer; t is `[N]` int64, of the whole schedule.
pub type Network<'a> = &'a mut dyn FnMut(&Tensor, &Tensor) -> Result<Tensor>;
/// Noise for a step, counted from 1.
pub type Noise<'a> = &'a mut dyn FnMut(usize) -> Result<Tensor>;
/// Called after each step, counted from 1, with x and x̂_0.
pub type Each<'a> = &'a mut dyn FnMut(usize, &Tensor, &Tensor) -> Result<()>;
/// What becomes of x after a step, counted from 1, that leads to s, or to the clean picture.
pub(crate) type Change<'a> = &'a mut dyn FnMut(usize, Option<usize>, Tensor) -> Result<Tensor>;

/// x_0 of x_T, `[N, C, H, W]` each, not clamped; `config` has no [`SamplerConfig::problems`]. Noise is asked for where a step draws some.
///
/// # Errors
/// Those of the network, of `noise` and of `each`; numbers that are not finite, with the step, looked for every 25 steps and at the end.
pub fn run(
    process: &Process,
    config: &SamplerConfig,
    net: Network,
    x: &Tensor,
    noise: Noise,
    each: Each,
) -> Result<Tensor> {
    walk(process, config, net, x, noise, &mut |_, _, x| Ok(x), each)
}

/// [`run`], with something done to x after each step.
pub(crate) fn walk(
    process: &Process,
    config: &SamplerConfig,
    net: Network,
    x: &Tensor,
    noise: Noise,
    change: Change,
    each: Each,
) -> Result<Tensor> {
    let (times, clip, eta) = (config.times(process.schedule.len()), config.clips(), config.eta.unwrap_or(0.0));
    let strided = Process {
        schedule: process.schedule.strided(&times),
        objective: process.objective,
        variance: config.variance.unwrap_or(process.variance),
    };
    let (steps, mut x, mut before) = (times.len(), x.shallow_clone(), None);
    for (step, place) in (1..=steps).zip((0..steps).rev()) {
        let (t, s) = (times[place], place.checked_sub(1).map(|place| times[place]));
        let asked = Tensor::f_full([x.size()[0]], process.schedule.times[t] as i64, (Number::Int64, x.device()))?;
        let output = net(&x, &asked)?;
        let Step { mean, sigma, x0 } = match config.kind {
            Kind::Ddpm => solver::ancestral(&strided, &output, &x, place, clip)?,
            Kind::Ddim => solver::ddim(process, &output, &x, t, s, eta, clip)?,
            Kind::DpmPp => solver::dpm(process, &output, &x, t, s, before.as_ref(), clip)?,
        };
        if s != Some(t) {
            before = Some(Memory { x0: x0.shallow_clone(), t });
        }
        x = match sigma {
            Some(sigma) => mean + sigma * noise(step)?,
            None => mean,
        };
        x = change(step, s, x)?;
        look(&x, step, steps)?;
        each(step, &x, &x0)?;
    }
    Ok(x)
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
