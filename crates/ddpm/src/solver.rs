//! DPM-Solver++ (arXiv:2211.01095), the multistep form of second order: diffusers' `DPMSolverMultistepScheduler` at its defaults.

use tch::Tensor;

use crate::schedule::Schedule;

/// The steps, and what the last one found.
#[derive(Debug)]
pub struct Solver {
    /// Of each step, from the noisiest on.
    times: Vec<usize>,
    /// α = √ᾱ and σ = √(1 − ᾱ) of each step, and of the clean picture behind the last.
    shares: Vec<(f64, f64)>,
    /// x̂_0 of the step before.
    before: Option<Tensor>,
}

impl Solver {
    /// Of `steps` even ones from T − 1 down; the last ends in the clean picture.
    pub fn new(schedule: &Schedule, steps: usize) -> Self {
        let last = (schedule.len() - 1) as f64;
        // NumPy's rounding, to the even neighbour of a half.
        let times: Vec<usize> =
            (0..steps).map(|k| (last - last / steps as f64 * k as f64).round_ties_even() as usize).collect();
        let share = |&t: &usize| (schedule.alpha_bar[t].sqrt(), (1.0 - schedule.alpha_bar[t]).sqrt());
        let shares = times.iter().map(share).chain([(1.0, 0.0)]).collect();
        Solver { times, shares, before: None }
    }

    /// The t of a step, counted from 1.
    pub fn time(&self, step: usize) -> usize {
        self.times[step - 1]
    }

    /// x after a step, by Eq. 9 with λ = ln(α/σ), h = λ_next − λ: x ← (σ_next/σ) x − α_next (e^{−h} − 1) D, where D is x̂_0 and, with a step before
    /// it, half of what changed since, carried on. The first and the last step take x̂_0 alone.
    pub fn step(&mut self, step: usize, x: &Tensor, x0: &Tensor) -> Tensor {
        let ((alpha, sigma), (alpha_next, sigma_next)) = (self.shares[step - 1], self.shares[step]);
        let before = self.before.replace(x0.shallow_clone());
        if sigma_next == 0.0 {
            return x0 * alpha_next;
        }
        let lambda = |(alpha, sigma): (f64, f64)| (alpha / sigma).ln();
        let now = lambda((alpha, sigma));
        let ahead = lambda((alpha_next, sigma_next)) - now;
        let direction = match before {
            None => x0.shallow_clone(),
            Some(before) => {
                let behind = now - lambda(self.shares[step - 2]);
                x0 + (x0 - before) * (0.5 * ahead / behind)
            }
        };
        x * (sigma_next / sigma) - direction * (alpha_next * (-ahead).exp_m1())
    }
}
