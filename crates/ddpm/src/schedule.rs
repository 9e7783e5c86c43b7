//! How much noise each step adds (§2, §4; Improved DDPM §3.2), as tables in float64.
//!
//! The paper counts t from 1 to T; here, as in its code, from 0 to T − 1.

use repro::{Result, user};
use serde::Deserialize;
use tch::{Kind, Tensor};

/// The form of the variances β.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Betas {
    /// §4: from 1e-4 to 0.02 in even steps for T = 1000; for another T both ends times 1000/T, as Improved DDPM's code has it.
    Linear,
    /// Improved DDPM (arXiv:2102.09672), Eq. 17: ᾱ falls as a squared cosine; β is at most 0.999.
    Cosine,
}

/// β and what follows from it, by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// β_t
    pub beta: Vec<f64>,
    /// ᾱ_t = ∏ (1 − β_s) over s ≤ t.
    pub alpha_bar: Vec<f64>,
    /// The step of the whole schedule that each is: t itself, unless steps were left out.
    pub times: Vec<usize>,
}

/// q(x_{t−1} | x_t, x_0), Eqs. 6 and 7: its mean is `x0`·x_0 + `xt`·x_t.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Posterior {
    /// √ᾱ_{t−1} β_t / (1 − ᾱ_t)
    pub x0: f64,
    /// √α_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t)
    pub xt: f64,
    /// β̃_t = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) β_t; 0 for the first step.
    pub variance: f64,
}

impl Schedule {
    /// Of so many steps T ≥ 1.
    pub fn new(betas: Betas, steps: usize) -> Self {
        let beta = match betas {
            Betas::Linear => {
                let scale = 1000.0 / steps as f64;
                let (first, last) = (scale * 1e-4, scale * 0.02);
                let step = (last - first) / (steps.max(2) - 1) as f64;
                (0..steps).map(|t| first + step * t as f64).collect()
            }
            Betas::Cosine => {
                let alpha_bar =
                    |t: usize| ((t as f64 / steps as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                (0..steps).map(|t| (1.0 - alpha_bar(t + 1) / alpha_bar(t)).min(0.999)).collect()
            }
        };
        Self::of(beta, (0..steps).collect())
    }

    fn of(beta: Vec<f64>, times: Vec<usize>) -> Self {
        let products = beta.iter().scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        });
        Schedule { alpha_bar: products.collect(), beta, times }
    }

    /// T
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.beta.len()
    }

    /// The schedule of these steps alone, ascending: β such that ᾱ stays what it was (Improved DDPM, §4). A step that comes twice has β = 0.
    pub fn strided(&self, times: &[usize]) -> Self {
        let mut before = 1.0;
        let beta = times.iter().map(|&t| 1.0 - self.alpha_bar[t] / std::mem::replace(&mut before, self.alpha_bar[t]));
        Self::of(beta.collect(), times.iter().map(|&t| self.times[t]).collect())
    }

    /// ᾱ_{t−1}, 1 before the first step.
    pub fn alpha_bar_before(&self, t: usize) -> f64 {
        t.checked_sub(1).map_or(1.0, |t| self.alpha_bar[t])
    }

    /// Eqs. 6 and 7.
    pub fn posterior(&self, t: usize) -> Posterior {
        let (beta, bar, before) = (self.beta[t], self.alpha_bar[t], self.alpha_bar_before(t));
        Posterior {
            x0: before.sqrt() * beta / (1.0 - bar),
            xt: (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - bar),
            variance: (1.0 - before) / (1.0 - bar) * beta,
        }
    }

    /// What `of` gives for each step t, `[N]` int64, in the kind of `like` and shaped to be multiplied with it: `[N, 1, …]`.
    ///
    /// # Errors
    /// A t that is not from 0 to T − 1; libtorch's.
    pub fn at(&self, t: &Tensor, like: &Tensor, of: impl Fn(usize) -> f64) -> Result<Tensor> {
        let steps: Vec<i64> = Vec::try_from(t.to_device(tch::Device::Cpu).to_kind(Kind::Int64))?;
        if let Some(t) = steps.iter().find(|t| !(0..self.len() as i64).contains(t)) {
            return Err(user!("t is {t}; it must be from 0 to {}, T being {}", self.len() - 1, self.len()));
        }
        let values: Vec<f64> = steps.iter().map(|&t| of(t as usize)).collect();
        let shape: Vec<i64> = (0..like.dim()).map(|d| if d == 0 { values.len() as i64 } else { 1 }).collect();
        Ok(Tensor::f_from_slice(&values)?.f_to_kind(like.kind())?.f_view(&shape[..])?.f_to_device(like.device())?)
    }
}
