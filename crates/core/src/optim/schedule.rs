//! Learning-rate schedules: pure functions of the step, so there is nothing to save.

use std::f64::consts::PI;

use serde::Deserialize;

use crate::config::Length;
use crate::{Result, user};

/// The factor on the learning rate over a stage of `total` steps.
///
/// Every schedule may start with a warm-up of w steps. Without `warmup_start` step i, counted from 0, is multiplied by (i + 1)/w: no step is
/// lost, and step w − 1 has the whole rate. With `warmup_start: s` it is multiplied by s + (1 − s)·i/w, and step w is the first with the
/// whole rate: SimCLR and MAE have s = 0 (their first step moves nothing), timm and what is trained with it (DeiT, CCT) s = `warmup_lr`/`lr`.
/// `end` and `warmup_start` are fractions of the base rate.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always 1.
    Constant {
        /// Length of the warm-up.
        warmup: Option<Length>,
        /// What it starts from.
        warmup_start: Option<f64>,
    },
    /// 1 before the first milestone, `scale[k]` from milestone `at[k]` on. Scales are factors on the base rate, not on one another.
    Steps {
        /// Milestones, counted from the start of the stage, ascending.
        at: Vec<Length>,
        /// The factor from each milestone on.
        scale: Vec<f64>,
        /// Length of the warm-up.
        warmup: Option<Length>,
        /// What it starts from.
        warmup_start: Option<f64>,
    },
    /// Half a cosine from 1 at the end of the warm-up to `end` at the end of the stage (arXiv:1608.03983, Eq. 5, without restarts).
    Cosine {
        /// Length of the warm-up.
        warmup: Option<Length>,
        /// What it starts from.
        warmup_start: Option<f64>,
        /// What it ends in.
        #[serde(default)]
        end: f64,
        /// Which steps the half cosine spans.
        #[serde(default)]
        span: Span,
    },
    /// A straight line from 1 at the end of the warm-up to `end` at the end of the stage.
    Linear {
        /// Length of the warm-up.
        warmup: Option<Length>,
        /// What it starts from.
        warmup_start: Option<f64>,
        /// What it ends in.
        #[serde(default)]
        end: f64,
    },
}

/// Which steps of a stage half a cosine spans.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// From the end of the warm-up on, where it is 1: SimCLR, MAE, timm with `warmup_prefix`.
    #[default]
    AfterWarmup,
    /// From the first step on, so that the end of the warm-up meets it below 1: timm as it is.
    Stage,
}

impl Schedule {
    /// The factor at `step` (from 0) of `total`.
    pub fn factor(&self, step: u64, total: u64, steps_per_epoch: u64) -> f64 {
        let warmup = self.warmup().map_or(0, |length| length.steps(steps_per_epoch));
        let ramp = match self.warmup_start() {
            _ if step >= warmup => 1.0,
            None => (step + 1) as f64 / warmup as f64,
            Some(start) => start + (1.0 - start) * step as f64 / warmup as f64,
        };
        // Of the way from the end of the warm-up to the end of the stage.
        let done = (step.saturating_sub(warmup) as f64 / total.saturating_sub(warmup).max(1) as f64).min(1.0);
        let whole = (step as f64 / total.max(1) as f64).min(1.0);
        let half_cosine = |done: f64, end: f64| end + (1.0 - end) * 0.5 * (1.0 + (PI * done).cos());
        ramp * match self {
            Schedule::Constant { .. } => 1.0,
            Schedule::Steps { at, scale, .. } => {
                let passed = |(at, _): &(&Length, &f64)| at.steps(steps_per_epoch) <= step;
                at.iter().zip(scale).rev().find(passed).map_or(1.0, |(_, scale)| *scale)
            }
            // In the warm-up timm knows no cosine.
            Schedule::Cosine { .. } if step < warmup => 1.0,
            Schedule::Cosine { end, span: Span::AfterWarmup, .. } => half_cosine(done, *end),
            Schedule::Cosine { end, span: Span::Stage, .. } => half_cosine(whole, *end),
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
        match (self.warmup_start(), self.warmup()) {
            (Some(_), None) => {
                return Err(user!("schedule.warmup_start acts on a warm-up, and there is none; set schedule.warmup"));
            }
            (Some(start), _) if !(0.0..=1.0).contains(&start) => {
                return Err(user!("schedule.warmup_start is {start}; it is a fraction of the rate, from 0 to 1"));
            }
            _ => {}
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
            Schedule::Constant { warmup, .. }
            | Schedule::Steps { warmup, .. }
            | Schedule::Cosine { warmup, .. }
            | Schedule::Linear { warmup, .. } => warmup.as_ref(),
        }
    }

    fn warmup_start(&self) -> Option<f64> {
        match *self {
            Schedule::Constant { warmup_start, .. }
            | Schedule::Steps { warmup_start, .. }
            | Schedule::Cosine { warmup_start, .. }
            | Schedule::Linear { warmup_start, .. } => warmup_start,
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
        let warm = Schedule::Constant { warmup: Some(Length::Steps(4)), warmup_start: None };
        let factors: Vec<f64> = (0..6).map(|step| at(&warm, step)).collect();
        assert_eq!(factors, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        assert_eq!(at(&Schedule::Constant { warmup: None, warmup_start: None }, 0), 1.0);
        assert_eq!(at(&Schedule::Constant { warmup: Some(Length::Steps(0)), warmup_start: None }, 0), 1.0);
    }

    #[test]
    fn steps_change_at_their_milestones() {
        let lengths = vec![Length::Epochs(2.0), Length::Steps(50)];
        let steps =
            Schedule::Steps { at: lengths, scale: vec![0.4, 0.02], warmup: Some(Length::Steps(2)), warmup_start: None };
        for (step, factor) in [(0, 0.5), (1, 1.0), (19, 1.0), (20, 0.4), (49, 0.4), (50, 0.02), (99, 0.02)] {
            close(at(&steps, step), factor);
        }
    }

    #[test]
    fn cosine_and_linear_pass_their_ends_and_middles() {
        let warmup = Some(Length::Epochs(2.0));
        let cosine = Schedule::Cosine { warmup, warmup_start: None, end: 0.1, span: Span::AfterWarmup };
        let linear = Schedule::Linear { warmup, warmup_start: None, end: 0.1 };
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
            let schedules = [Schedule::Cosine { warmup: warmup_length, warmup_start: None, end, span: Span::AfterWarmup }, Schedule::Linear { warmup: warmup_length, warmup_start: None, end }];
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
            warmup_start: None,
        };
        assert!(!refused(steps(&[10, 20], &[0.1, 0.01])));
        assert!(refused(steps(&[10, 20], &[0.1])));
        assert!(refused(steps(&[20, 10], &[0.1, 0.01])));
        assert!(refused(steps(&[10], &[-0.1])));
        assert!(refused(Schedule::Constant { warmup: Some(Length::Steps(101)), warmup_start: None }));
        assert!(!refused(Schedule::Constant { warmup: Some(Length::Steps(100)), warmup_start: None }));
        assert!(refused(Schedule::Cosine { warmup: None, warmup_start: None, end: f64::NAN, span: Span::AfterWarmup }));
    }

    #[test]
    fn yaml_gives_the_variants() {
        let cosine: Schedule = serde_json::from_str(r#"{"cosine": {"warmup": "2 epochs"}}"#).unwrap();
        assert_eq!(
            cosine,
            Schedule::Cosine {
                warmup: Some(Length::Epochs(2.0)),
                warmup_start: None,
                end: 0.0,
                span: Span::AfterWarmup
            }
        );
        assert!(serde_json::from_str::<Schedule>(r#"{"cosine": {"scale": 1}}"#).is_err());
    }

    /// The schedule of SimCLR's CIFAR command: 50,000 pictures, batch 512, 1,000 epochs, 10 of warm-up, rate 1.0 scaled to 2.0.
    #[test]
    fn simclrs_schedule_has_its_worked_values() {
        let simclr = Schedule::Cosine {
            warmup: Some(Length::Steps(976)),
            warmup_start: Some(0.0),
            end: 0.0,
            span: Span::AfterWarmup,
        };
        let lr = |step| 2.0 * simclr.factor(step, 97_657, 97);
        for (step, expected) in [(0, 0.0), (488, 1.0), (976, 2.0), (48_828, 1.015_87)] {
            assert!((lr(step) - expected).abs() < 5e-6, "{step}: {}", lr(step));
        }
        assert!((lr(97_656) - 5.3e-10).abs() < 0.1e-10, "{}", lr(97_656));
    }

    /// timm's CosineLRScheduler(t_initial=100, warmup_t=10, warmup_lr_init=1e-5) at a rate of 1e-3, lr_min 1e-5: its formulas by hand.
    #[test]
    fn timms_cosine_starts_with_the_stage() {
        let timm = Schedule::Cosine {
            warmup: Some(Length::Steps(10)),
            warmup_start: Some(0.01),
            end: 0.01,
            span: Span::Stage,
        };
        for step in 0..100u64 {
            let t = step as f64;
            let expected = match step {
                0..10 => 1e-5 + t * (1e-3 - 1e-5) / 10.0,
                _ => 1e-5 + 0.5 * (1e-3 - 1e-5) * (1.0 + (PI * t / 100.0).cos()),
            };
            assert!((1e-3 * timm.factor(step, 100, 10) - expected).abs() < 1e-15, "{step}");
        }
        let refused = |warmup, start| {
            let schedule = Schedule::Constant { warmup, warmup_start: Some(start) };
            matches!(schedule.check(100, 10), Err(crate::Error::User(_)))
        };
        assert!(refused(None, 0.0) && refused(Some(Length::Steps(5)), 1.5) && !refused(Some(Length::Steps(5)), 0.0));
    }
}
