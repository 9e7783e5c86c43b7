//! The experiments spell what the papers fix: their values, held against a table of facts that is written from the papers.

use lenet::config::{Config, Name, Optim};
use repro::config::{Experiment, Length};
use repro::optim::Schedule;

use crate::program::root;

fn lenet(row: &str) -> Experiment<Config> {
    repro::config::load(&root().join(format!("experiments/lenet/{row}.yaml")), &[]).unwrap()
}

/// §III.A: 20 passes, one pattern at a time; the global rate of passes 1–2, 3–5, 6–8, 9–12 and 13–20; μ; patterns for the curvature.
#[test]
fn the_recipe_of_1998() {
    let rates = [(1, 5e-4), (3, 2e-4), (6, 1e-4), (9, 5e-5), (13, 1e-5)];
    for (row, distorted) in [("figure9_lenet5", false), ("figure9_lenet5_dist", true)] {
        let Experiment { settings, paper, .. } = lenet(row);
        assert_eq!(settings.length, Length::Epochs(20.0));
        assert_eq!(settings.batch_size, 1);
        assert_eq!(settings.data.name, "mnist");
        assert_eq!((settings.data.limit_train, settings.data.limit_test), (None, None));
        assert_eq!(paper.augment.is_empty(), !distorted);
        let Optim::LevenbergMarquardt(rule) = &paper.optim else { panic!("{row}: {:?}", paper.optim) };
        assert_eq!((rule.mu, rule.samples), (0.02, 500));
        assert!(matches!(paper.schedule, Schedule::Steps { .. }));
        for pass in 1..=20u64 {
            // A rate per pass: the schedule at the first and at the last pattern of it.
            let expected = rates.iter().rfind(|(from, _)| *from <= pass).unwrap().1;
            for step in [(pass - 1) * 60_000, pass * 60_000 - 1] {
                let rate = rule.base_lr * paper.schedule.factor(step, 1_200_000, 60_000);
                assert!((rate - expected).abs() < 1e-12, "{row}, pass {pass}: {rate} and not {expected}");
            }
        }
        assert!(paper.ema.is_none());
    }
}

/// Figure 9, test error in per cent.
#[test]
fn claims_are_those_of_figure_9() {
    let figure_9 = [("lenet5", 0.95), ("lenet5_dist", 0.8)];
    for file in ["lenet5", "lenet5_dist", "figure9_lenet5", "figure9_lenet5_dist"] {
        let experiment = lenet(file);
        let claim = experiment.settings.paper.unwrap();
        let (_, value) = figure_9.iter().find(|(row, _)| *row == claim.row).unwrap();
        assert_eq!((claim.table.as_str(), claim.metric.as_str()), ("figure9", "test/error"));
        assert!((100.0 * claim.value.unwrap() - value).abs() < 1e-9, "{file}");
        assert_eq!(claim.row.ends_with("dist"), !experiment.paper.augment.is_empty(), "{file}");
        assert_eq!(experiment.paper.model.name, Name::Lenet5);
    }
}
