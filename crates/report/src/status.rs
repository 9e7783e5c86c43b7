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
    /// One seed is never enough.
    OneSeed,
    /// Worse than the paper by more than this band.
    Outside(f64),
}

/// The rule, as printed under every table that it decides; `examples`: of the test set.
pub(crate) fn rule(metric: &str, examples: Option<u64>) -> String {
    let (noise, p) = match (is_fraction(metric), examples) {
        (true, Some(n)) => (format!(" + p(1 − p)/{}", crate::words::thousands(n)), ", p the paper's value"),
        _ => (String::new(), ""),
    };
    format!(
        "Reproduced: at least 2 seeds, and their mean is better than the paper or within 2·√(sd²/n{noise}) of it \
         (n seeds of standard deviation sd{p}). Other evidence is partial."
    )
}

/// Holds what seeds gave against the paper's value, if there is one; `examples` is the size of the test set.
pub(crate) fn status(better: Better, metric: &str, ours: Spread, paper: Option<f64>, examples: Option<u64>) -> Status {
    let Some(paper) = paper else { return Status::NoNumber };
    if ours.n < 2 {
        return Status::OneSeed;
    }
    let of_test_set = match examples {
        Some(examples) if is_fraction(metric) => paper * (1.0 - paper) / examples as f64,
        _ => 0.0,
    };
    let band = 2.0 * (ours.sd.powi(2) / ours.n as f64 + of_test_set).sqrt();
    let worse_by = if better == Better::Higher { paper - ours.mean } else { ours.mean - paper };
    if worse_by <= band { Status::Reproduced } else { Status::Outside(band) }
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

    #[test]
    fn the_rule_at_its_edges() {
        // p = 0.01, N = 10,000, no spread: the band is 2·√(0.01·0.99/10⁴) = 0.00199.
        let of = |mean, n, sd| status(Better::Lower, "test/error", Spread { n, mean, sd }, Some(0.01), Some(10_000));
        assert_eq!(of(0.01198, 2, 0.0), Status::Reproduced);
        assert!(matches!(of(0.01200, 2, 0.0), Status::Outside(band) if (band - 0.0019900).abs() < 1e-6));
        assert_eq!(of(0.002, 2, 0.0), Status::Reproduced, "better counts");
        assert_eq!(of(0.002, 1, 0.0), Status::OneSeed, "one seed never does");
        assert_eq!(of(0.9, 1, 0.0), Status::OneSeed);
        // sd = 0.004 over 4 seeds adds 0.004²/4: the band is 2·√(4e-6 + 9.9e-7) = 0.004468.
        assert_eq!(of(0.01446, 4, 0.004), Status::Reproduced);
        assert!(matches!(of(0.01447, 4, 0.004), Status::Outside(_)));
    }

    #[test]
    fn more_accuracy_is_better_and_an_unknown_metric_is_asked_about() {
        let ours = Spread { n: 3, mean: 0.80, sd: 0.0 };
        assert_eq!(status(Better::Higher, "test/accuracy", ours, Some(0.75), Some(100)), Status::Reproduced);
        assert!(matches!(status(Better::Higher, "test/accuracy", ours, Some(0.95), Some(100)), Status::Outside(_)));
        assert_eq!(status(Better::Lower, "test/error", ours, None, Some(100)), Status::NoNumber);
        assert_eq!(Better::of(None, "test/accuracy").unwrap(), Better::Higher);
        assert_eq!(Better::of(Some(Better::Higher), "test/AP").unwrap(), Better::Higher);
        assert_eq!(Better::of(None, "test/mood").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_loss_has_no_binomial_noise() {
        let of = |mean| status(Better::Lower, "test/loss", Spread { n: 4, mean, sd: 0.2 }, Some(1.0), Some(100));
        assert_eq!(of(1.199), Status::Reproduced);
        assert!(matches!(of(1.201), Status::Outside(band) if (band - 0.2).abs() < 1e-12));
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
