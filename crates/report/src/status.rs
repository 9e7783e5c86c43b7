//! Numbers over seeds, and when a number counts as reproduced.

use repro::{Result, user};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::experiment::{Better, is_fraction};

/// What seeds gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) n: usize,
    pub(crate) mean: f64,
    /// Sample standard deviation (n − 1); 0 for one seed.
    pub(crate) sd: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
        (n > 0).then_some(Self { n, mean, sd })
    }
}

/// Fewer seeds show nothing of how much chance alone changes.
pub(crate) const SEEDS: usize = 3;

/// How a row stands against the paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Status {
    /// The paper's row has no experiment.
    NoExperiment,
    /// An experiment without evidence.
    NotRun,
    /// Nothing to hold it against.
    NoNumber,
    Reproduced,
    /// So far from the paper on the good side that another recipe is what is measured.
    OtherRecipe,
    /// Too few seeds, and no reason yet to say that it is missed.
    FewSeeds,
    /// Worse than the paper by `by`, of which `allowed` would pass.
    Missed {
        by: f64,
        allowed: f64,
    },
}

/// The rule of [`Held::status`], as every page prints it.
pub(crate) const RULE: &str = "\
A row is held against the paper by the mean over its seeds. In the rule, n is the number of seeds and sd their standard deviation; t is the \
97.5 % point of Student's t-distribution with n − 1 degrees of freedom; p is the paper's value, and N the number of test pictures. \
The **margin** is t·sd/√n + 2·√(p(1 − p)/N): what chance explains, in our runs and in the paper's one test set. For metrics that are not \
rates, and where N is not known, it is the first term alone.

- **reproduced**: at least 3 seeds; the mean is better than the paper, or worse by no more than the margin and by no more than a tenth of p.
- **missed**: worse by more than the margin, or by more than a tenth of p; with fewer than 3 seeds, only the tenth counts. The reason stands \
under the table, where it is known.
- **better, other recipe**: at least 3 seeds; trained in another way than the paper's, and better by more than the margin and by more than \
a tenth of p. This says nothing about the paper's own recipe.
- **partial**: fewer than 3 seeds, and not missed.

A row that is marked *deterministic* gives the same number with every seed: one run is enough, and its sd is 0. The column *seconds* is the \
training time of the fastest seed: the others shared the machine with other work. Of a paper with several stages, *epochs* names each stage's, \
*seconds* is their sum, and *parameters* are those of the first.";

/// What a row's seeds are held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) better: Better,
    pub(crate) metric: &'a str,
    /// The paper's value.
    pub(crate) paper: f64,
    /// Size of the test set.
    pub(crate) examples: Option<u64>,
    /// Every seed gives the same.
    pub(crate) deterministic: bool,
    /// It trains in another way than the paper.
    pub(crate) other_recipe: bool,
}

impl Held<'_> {
    /// Holds what seeds gave against the paper's value, by [`RULE`].
    pub(crate) fn status(&self, ours: Spread) -> Status {
        let worse_by = if self.better == Better::Higher { self.paper - ours.mean } else { ours.mean - self.paper };
        let (margin, tenth) = (self.margin(ours), self.paper.abs() / 10.0);
        let enough = self.deterministic || ours.n >= SEEDS;
        let allowed = if enough { margin.min(tenth) } else { tenth };
        if worse_by > allowed {
            Status::Missed { by: worse_by, allowed }
        } else if !enough {
            Status::FewSeeds
        } else if self.other_recipe && -worse_by > margin.max(tenth) {
            Status::OtherRecipe
        } else {
            Status::Reproduced
        }
    }

    /// What chance explains: t(0.975, n − 1)·sd/√n of our seeds, and for a rate 2·√(p(1 − p)/N) of the test set.
    fn margin(&self, ours: Spread) -> f64 {
        let of_seeds = match StudentsT::new(0.0, 1.0, ours.n as f64 - 1.0) {
            Ok(t) if !self.deterministic => t.inverse_cdf(0.975) * ours.sd / (ours.n as f64).sqrt(),
            _ => 0.0,
        };
        let of_test_set = match self.examples {
            Some(examples) if is_fraction(self.metric) => {
                2.0 * (self.paper * (1.0 - self.paper) / examples as f64).max(0.0).sqrt()
            }
            _ => 0.0,
        };
        of_seeds + of_test_set
    }
}

/// The smallest difference between the means of two groups of `n` seeds that a two-sided t-test at 5 % finds with power 80 %:
/// (t₀.₉₇₅ + t₀.₈₀)·sd·√(2/n), t with 2(n − 1) degrees of freedom.
///
/// # Errors
/// Fewer than two seeds have no spread.
pub(crate) fn detectable(sd: f64, n: usize) -> Result<f64> {
    let no_spread = |_| user!("{n} seed(s) have no spread; run at least 2");
    let t = StudentsT::new(0.0, 1.0, 2.0 * (n as f64 - 1.0)).map_err(no_spread)?;
    Ok((t.inverse_cdf(0.975) + t.inverse_cdf(0.8)) * sd * (2.0 / n as f64).sqrt())
}

/// The seeds per group that [`detectable`] needs to get down to `difference`; `None`: more than a thousand.
pub(crate) fn seeds_for(sd: f64, difference: f64) -> Option<usize> {
    (2..=1000).find(|&n| detectable(sd, n).is_ok_and(|d| d <= difference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_sample_deviation() {
        let spread = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        // Squares of the distances from 5 sum to 32; 32 / 7.
        assert!((spread.mean, spread.n) == (5.0, 8) && (spread.sd - (32f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { n: 1, mean: 3.0, sd: 0.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    fn held(better: Better, metric: &str, paper: f64, examples: Option<u64>) -> Held<'_> {
        Held { better, metric, paper, examples, deterministic: false, other_recipe: false }
    }

    fn spread(n: usize, mean: f64, sd: f64) -> Spread {
        Spread { n, mean, sd }
    }

    #[test]
    fn the_rule_at_its_edges() {
        // p = 0.05, N = 10,000: 2·√(0.05·0.95/10⁴) = 0.0043589; a tenth of p is 0.005.
        let of = |mean, n, sd| held(Better::Lower, "test/error", 0.05, Some(10_000)).status(spread(n, mean, sd));
        assert_eq!(of(0.05435, 3, 0.0), Status::Reproduced);
        assert!(matches!(of(0.05437, 3, 0.0), Status::Missed { by, allowed }
            if (by - 0.00437).abs() < 1e-9 && (allowed - 0.0043589).abs() < 1e-6));
        // Tables of t: 4.3027 with 2 degrees of freedom. sd = 0.0002: 4.3027·0.0002/√3 = 0.0004968, together 0.0048557.
        assert_eq!(of(0.05485, 3, 0.0002), Status::Reproduced);
        assert!(matches!(of(0.05486, 3, 0.0002), Status::Missed { .. }));
        // However far the seeds lie apart, a tenth of the paper's value is the end.
        assert_eq!(of(0.05499, 3, 0.02), Status::Reproduced);
        assert!(matches!(of(0.05501, 3, 0.02), Status::Missed { allowed, .. } if (allowed - 0.005).abs() < 1e-12));
        assert_eq!(of(0.01, 3, 0.0), Status::Reproduced, "better counts");
    }

    #[test]
    fn a_large_spread_and_few_seeds_reproduce_nothing() {
        let of = |values: &[f64]| {
            held(Better::Higher, "test/accuracy", 0.8, Some(10_000)).status(Spread::of(values).unwrap())
        };
        // Two seeds around the paper's value said nothing, and were called reproduced.
        assert_eq!(of(&[0.60, 0.90]), Status::FewSeeds);
        assert!(matches!(of(&[0.50, 0.60, 0.90]), Status::Missed { by, .. } if (by - 0.8 + 2.0 / 3.0).abs() < 1e-12));
        assert_eq!(of(&[0.79, 0.80, 0.80]), Status::Reproduced);
        for few in [&[0.95][..], &[0.8, 0.8]] {
            assert_eq!(of(few), Status::FewSeeds, "{few:?}");
        }
        assert!(matches!(of(&[0.7]), Status::Missed { .. }), "one seed is enough to see a miss by more than a tenth");
    }

    #[test]
    fn what_is_deterministic_needs_no_seeds() {
        let knn = Held { deterministic: true, ..held(Better::Lower, "test/error", 0.05, Some(10_000)) };
        assert_eq!(knn.status(spread(1, 0.05, 0.0)), Status::Reproduced);
        assert!(matches!(knn.status(spread(1, 0.0545, 0.0)), Status::Missed { .. }));
        assert_eq!(Held { other_recipe: true, ..knn }.status(spread(1, 0.03, 0.0)), Status::OtherRecipe);
    }

    #[test]
    fn better_by_far_with_another_recipe_is_no_reproduction() {
        let paper = held(Better::Lower, "test/error", 0.047, Some(10_000));
        let other = Held { other_recipe: true, ..paper };
        assert_eq!(paper.status(spread(3, 0.0205, 0.0002)), Status::Reproduced);
        assert_eq!(other.status(spread(3, 0.0205, 0.0002)), Status::OtherRecipe);
        assert_eq!(other.status(spread(1, 0.0205, 0.0)), Status::FewSeeds);
        // Better by less than a tenth, and better by less than the margin.
        assert_eq!(other.status(spread(3, 0.0425, 0.0)), Status::Reproduced);
        assert_eq!(other.status(spread(3, 0.0405, 0.002)), Status::Reproduced);
    }

    #[test]
    fn an_unknown_metric_is_asked_about() {
        assert_eq!(Better::of(None, "test/accuracy").unwrap(), Better::Higher);
        assert_eq!(Better::of(Some(Better::Higher), "test/AP").unwrap(), Better::Higher);
        assert_eq!(Better::of(None, "test/mood").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_loss_has_no_binomial_noise() {
        // 3.1824·0.04/√4 = 0.063649 with 3 degrees of freedom.
        let of = |mean| held(Better::Lower, "test/loss", 1.0, Some(100)).status(spread(4, mean, 0.04));
        assert_eq!(of(1.0636), Status::Reproduced);
        assert!(matches!(of(1.0637), Status::Missed { allowed, .. } if (allowed - 0.063649).abs() < 1e-5));
    }

    #[test]
    fn detectable_differences() {
        // Tables of t with 4 degrees of freedom: 2.776 and 0.941.
        assert!((detectable(1.0, 3).unwrap() - (2.7764 + 0.9410) * (2f64 / 3.0).sqrt()).abs() < 1e-3);
        // Many seeds: the normal distribution's 1.960 + 0.842.
        assert!((detectable(1.0, 1000).unwrap() - 2.8016 * (2f64 / 1000.0).sqrt()).abs() < 1e-3);
        assert_eq!(detectable(1.0, 1).unwrap_err().exit_code(), 2);
        // 2.8·1·√(2/n) ≤ 1 gives 15.7; the t-distribution asks for a little more.
        assert_eq!(seeds_for(1.0, 1.0), Some(17));
        assert_eq!(seeds_for(1.0, 1e-6), None);
        assert_eq!(seeds_for(0.0, 1.0), Some(2));
    }
}
