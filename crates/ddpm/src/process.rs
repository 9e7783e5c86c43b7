//! The forward process and what a network's answer says about it (§2, §3.2).

use repro::{Result, user};
use serde::Deserialize;
use tch::Tensor;

use crate::schedule::Schedule;

/// What the network is to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The noise ε (Eq. 14).
    Epsilon,
    /// The picture x_0.
    X0,
    /// v = √ᾱ ε − √(1 − ᾱ) x_0 (arXiv:2202.00512).
    V,
}

/// The variance of the reverse process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// σ² = β, at the first step that of the second step's posterior (§3.2; the code's `fixedlarge`).
    Large,
    /// σ² = β̃ (§3.2; `fixedsmall`).
    Small,
    /// exp(v log β + (1 − v) log β̃), v being the network's (Improved DDPM, Eq. 15).
    Learned,
}

/// A schedule, and how a network answers in it.
#[derive(Debug, Clone)]
pub struct Process {
    /// β and ᾱ.
    pub schedule: Schedule,
    /// What the network predicts.
    pub objective: Objective,
    /// The variance of x_{t−1}.
    pub variance: Variance,
}

/// A picture and the noise in it that a network's answer means, `[N, C, H, W]` each.
#[derive(Debug)]
pub struct Told {
    /// x̂_0
    pub x0: Tensor,
    /// ε̂
    pub eps: Tensor,
}

impl Process {
    /// Eq. 4: x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, for t `[N]` int64.
    ///
    /// # Errors
    /// Those of [`Schedule::at`].
    pub fn noised(&self, x0: &Tensor, noise: &Tensor, t: &Tensor) -> Result<Tensor> {
        let (signal, rest) = self.shares(t, x0)?;
        Ok(x0 * signal + noise * rest)
    }

    /// √ᾱ_t and √(1 − ᾱ_t), `[N, 1, 1, 1]` each.
    fn shares(&self, t: &Tensor, like: &Tensor) -> Result<(Tensor, Tensor)> {
        let bar = &self.schedule.alpha_bar;
        Ok((self.schedule.at(t, like, |t| bar[t].sqrt())?, self.schedule.at(t, like, |t| (1.0 - bar[t]).sqrt())?))
    }

    /// What the network's objective asks for.
    ///
    /// # Errors
    /// Those of [`Schedule::at`].
    pub fn target(&self, x0: &Tensor, noise: &Tensor, t: &Tensor) -> Result<Tensor> {
        Ok(match self.objective {
            Objective::Epsilon => noise.shallow_clone(),
            Objective::X0 => x0.shallow_clone(),
            Objective::V => {
                let (signal, rest) = self.shares(t, x0)?;
                noise * signal - x0 * rest
            }
        })
    }

    /// x̂_0 and ε̂ of a prediction at x_t; with `clip` x̂_0 is kept in [−1, 1] and ε̂ follows from it.
    ///
    /// # Errors
    /// Those of [`Schedule::at`].
    pub fn told(&self, predicted: &Tensor, x_t: &Tensor, t: &Tensor, clip: bool) -> Result<Told> {
        let (signal, rest) = self.shares(t, x_t)?;
        let x0 = match self.objective {
            Objective::Epsilon => (x_t - predicted * &rest) / &signal,
            Objective::X0 => predicted.shallow_clone(),
            Objective::V => x_t * &signal - predicted * &rest,
        };
        let x0 = if clip { x0.clamp(-1.0, 1.0) } else { x0 };
        let eps = match (self.objective, clip) {
            (Objective::Epsilon, false) => predicted.shallow_clone(),
            _ => (x_t - &x0 * signal) / rest,
        };
        Ok(Told { x0, eps })
    }

    /// The network's answer in its two halves: the prediction and v, which is read where variances are learned and passed over elsewhere.
    ///
    /// # Errors
    /// It has other channels than the process needs.
    pub fn halves(&self, output: &Tensor, channels: i64) -> Result<(Tensor, Option<Tensor>)> {
        let (given, learned) = (output.size()[1], self.variance == Variance::Learned);
        if given != 2 * channels && (learned || given != channels) {
            return Err(user!(
                "the network answers with {given} channels for pictures of {channels}, and learned variances take {}",
                2 * channels
            ));
        }
        let v = if learned { Some(output.f_narrow(1, channels, channels)?) } else { None };
        Ok((output.f_narrow(1, 0, channels)?, v))
    }

    /// log σ²_t of the reverse process, `[N, 1, 1, 1]`, or `[N, C, H, W]` where the network gives v in [−1, 1] (Improved DDPM's code: (v + 1)/2).
    ///
    /// # Errors
    /// Those of [`Schedule::at`].
    pub fn log_variance(&self, v: Option<&Tensor>, t: &Tensor, like: &Tensor) -> Result<Tensor> {
        let schedule = &self.schedule;
        // β̃ is 0 at the first step: its logarithm is cut to that of the second.
        let least = |t: usize| schedule.posterior(t.max(1).min(schedule.len() - 1)).variance.max(1e-20).ln();
        let small = schedule.at(t, like, least)?;
        match (self.variance, v) {
            (Variance::Small, _) => Ok(small),
            (Variance::Large, _) => schedule.at(t, like, |t| if t == 0 { least(0) } else { schedule.beta[t].ln() }),
            (Variance::Learned, Some(v)) => {
                let (large, share) = (schedule.at(t, like, |t| schedule.beta[t].ln())?, (v + 1.0) / 2.0);
                Ok(&share * large + (1.0f64 - &share) * small)
            }
            (Variance::Learned, None) => Err(user!("the network gives no variance")),
        }
    }
}
