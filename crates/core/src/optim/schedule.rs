//! Learning-rate schedules: pure functions of the step, so there is nothing to save.

use std::f64::consts::PI;

use serde::Deserialize;

use crate::config::Length;
use crate::{Result, user};

/// The factor on the learning rate over a stage of `total` steps.
///
/// Every schedule may start with a warm-up of w steps, in which step i is multiplied by (i + 1)/w. `end` is a fraction of the base rate.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always 1.
    Constant {
        /// Length of the warm-up.
        warmup: Option<Length>,
    },
    /// 1 before the first milestone, `scale[k]` from milestone `at[k]` on. Scales are factors on the base rate, not on one another.
    Steps {
        /// Milestones, counted from the start of the stage, ascending.
        at: Vec<Length>,
        /// The factor from each milestone on.
        scale: Vec<f64>,
        /// Length of the warm-up.
        warmup: Option<Length>,
    },
    /// Half a cosine from 1 at the end of the warm-up to `end` at the end of the stage (arXiv:1608.03983, Eq. 5, without restarts).
    Cosine {
        /// Length of the warm-up.
        warmup: Option<Length>,
        /// What it ends in.
        #[serde(default)]
        end: f64,
    },
    /// A straight line from 1 at the end of the warm-up to `end` at the end of the stage.
    Linear {
        /// Length of the warm-up.
        warmup: Option<Length>,
        /// What it ends in.
        #[serde(default)]
        end: f64,
    },
}

impl Schedule {
    /// The factor at `step` (from 0) of `total`.
    pub fn factor(&self, step: u64, total: u64, steps_per_epoch: u64) -> f64 {
        let warmup = self.warmup().map_or(0, |length| length.steps(steps_per_epoch));
        let ramp = if step < warmup { (step + 1) as f64 / warmup as f64 } else { 1.0 };
        // Of the way from the end of the warm-up to the end of the stage.
        let done = (step.saturating_sub(warmup) as f64 / total.saturating_sub(warmup).max(1) as f64).min(1.0);
        ramp * match self {
            Schedule::Constant { .. } => 1.0,
            Schedule::Steps { at, scale, .. } => {
                let passed = |(at, _): &(&Length, &f64)| at.steps(steps_per_epoch) <= step;
                at.iter().zip(scale).rev().find(passed).map_or(1.0, |(_, scale)| *scale)
            }
            Schedule::Cosine { end, .. } => end + (1.0 - end) * 0.5 * (1.0 + (PI * done).cos()),
            Schedule::Linear { end, .. } => end + (1.0 - end) * (1.0 - done),
        }
    }

    /// Whether the schedule makes sense for a stage of `total` steps.
    /// # Errors
    /// Milestones and scales that do not match, milestones out of order, negative factors, a warm-up longer than the stage.
    pub fn check(&self, total: u64, steps_per_epoch: u64) -> Result<()> {
        if let Some(warmup) = self.warmup()
            && warmup.steps(steps_per_epoch) > total
        {
            let warmup = warmup.steps(steps_per_epoch);
            return Err(user!("schedule.warmup is {warmup} steps, but the stage has only {total}; shorten it"));
        }
        match self {
            Schedule::Constant { .. } => Ok(()),
            Schedule::Steps { at, scale, .. } => {
                if at.len() != scale.len() {
                    let (at, scale) = (at.len(), scale.len());
                    return Err(user!(
                        "schedule.at has {at} entries, schedule.scale {scale}; each milestone needs its scale"
                    ));
                }
                let at: Vec<u64> = at.iter().map(|length| length.steps(steps_per_epoch)).collect();
                if !at.is_sorted_by(|a, b| a < b) {
                    return Err(user!("schedule.at is {at:?} in steps; the milestones must ascend"));
                }
                scale.iter().try_for_each(|&scale| not_negative("scale", scale))
            }
            Schedule::Cosine { end, .. } | Schedule::Linear { end, .. } => not_negative("end", *end),
        }
    }

    fn warmup(&self) -> Option<&Length> {
        match self {
            Schedule::Constant { warmup }
            | Schedule::Steps { warmup, .. }
            | Schedule::Cosine { warmup, .. }
            | Schedule::Linear { warmup, .. } => warmup.as_ref(),
        }
    }
}

fn not_negative(key: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(user!("schedule.{key} is {value}; factors must be at least 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEPS_PER_EPOCH: u64 = 10;

    fn at(schedule: &Schedule, step: u64) -> f64 {
        schedule.factor(step, 100, STEPS_PER_EPOCH)
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} != {b}");
    }

    #[test]
    fn warmup_counts_from_one_and_ends_at_one() {
        let warm = Schedule::Constant { warmup: Some(Length::Steps(4)) };
        let factors: Vec<f64> = (0..6).map(|step| at(&warm, step)).collect();
        assert_eq!(factors, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        assert_eq!(at(&Schedule::Constant { warmup: None }, 0), 1.0);
        assert_eq!(at(&Schedule::Constant { warmup: Some(Length::Steps(0)) }, 0), 1.0);
    }

    #[test]
    fn steps_change_at_their_milestones() {
        let lengths = vec![Length::Epochs(2.0), Length::Steps(50)];
        let steps = Schedule::Steps { at: lengths, scale: vec![0.4, 0.02], warmup: Some(Length::Steps(2)) };
        for (step, factor) in [(0, 0.5), (1, 1.0), (19, 1.0), (20, 0.4), (49, 0.4), (50, 0.02), (99, 0.02)] {
            close(at(&steps, step), factor);
        }
    }

    #[test]
    fn cosine_and_linear_pass_their_ends_and_middles() {
        let warmup = Some(Length::Epochs(2.0));
        let cosine = Schedule::Cosine { warmup, end: 0.1 };
        let linear = Schedule::Linear { warmup, end: 0.1 };
        for schedule in [&cosine, &linear] {
            close(at(schedule, 0), 0.05);
            close(at(schedule, 19), 1.0);
            close(at(schedule, 20), 1.0);
            close(at(schedule, 60), 0.55);
            close(at(schedule, 100), 0.1);
            close(at(schedule, 1000), 0.1);
        }
        close(at(&cosine, 40), 0.1 + 0.9 * 0.5 * (1.0 + 0.5f64.sqrt()));
        close(at(&linear, 40), 0.1 + 0.9 * 0.75);
    }

    proptest! {
        #[test]
        fn factors_rise_in_the_warmup_and_fall_after_it(warmup in 0u64..50, total in 1u64..200, end in 0.0..1.0f64) {
            let warmup_length = Some(Length::Steps(warmup));
            let schedules = [Schedule::Cosine { warmup: warmup_length, end }, Schedule::Linear { warmup: warmup_length, end }];
            for schedule in schedules {
                let factors: Vec<f64> = (0..total).map(|step| schedule.factor(step, total, 7)).collect();
                prop_assert!(factors.iter().all(|&f| 0.0 < f && f <= 1.0 + 1e-12));
                let (up, down) = factors.split_at(warmup.min(total) as usize);
                prop_assert!(up.windows(2).all(|w| w[0] < w[1]));
                prop_assert!(down.windows(2).all(|w| w[0] >= w[1]));
            }
        }
    }

    #[test]
    fn senseless_schedules_are_refused() {
        let refused = |schedule: Schedule| matches!(schedule.check(100, STEPS_PER_EPOCH), Err(crate::Error::User(_)));
        let steps = |at: &[u64], scale: &[f64]| Schedule::Steps {
            at: at.iter().map(|&step| Length::Steps(step)).collect(),
            scale: scale.to_vec(),
            warmup: None,
        };
        assert!(!refused(steps(&[10, 20], &[0.1, 0.01])));
        assert!(refused(steps(&[10, 20], &[0.1])));
        assert!(refused(steps(&[20, 10], &[0.1, 0.01])));
        assert!(refused(steps(&[10], &[-0.1])));
        assert!(refused(Schedule::Constant { warmup: Some(Length::Steps(101)) }));
        assert!(!refused(Schedule::Constant { warmup: Some(Length::Steps(100)) }));
        assert!(refused(Schedule::Cosine { warmup: None, end: f64::NAN }));
    }

    #[test]
    fn yaml_gives_the_variants() {
        let cosine: Schedule = serde_json::from_str(r#"{"cosine": {"warmup": "2 epochs"}}"#).unwrap();
        assert_eq!(cosine, Schedule::Cosine { warmup: Some(Length::Epochs(2.0)), end: 0.0 });
        assert!(serde_json::from_str::<Schedule>(r#"{"cosine": {"scale": 1}}"#).is_err());
    }
}
