//! The experiments spell what the papers fix: their values, held against a table of facts that is written from the papers.

use lenet::config::{Config, Optim};
use lenet::prepare::Prepare;
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

/// Figure 9, test error in per cent. Rows that are no network of this crate (quadratic, radial, tangent distance, support vectors) are not here.
const FIGURE_9: [(&str, f64); 19] = [
    ("linear", 12.0),
    ("linear_deslant", 8.4),
    ("pairwise", 7.6),
    ("knn", 5.0),
    ("knn_deslant", 2.4),
    ("mlp300", 4.7),
    ("mlp300_dist", 3.6),
    ("mlp300_deslant", 1.6),
    ("mlp1000", 4.5),
    ("mlp1000_dist", 3.8),
    ("mlp300_100", 3.05),
    ("mlp300_100_dist", 2.5),
    ("mlp500_150", 2.95),
    ("mlp500_150_dist", 2.45),
    ("lenet1", 1.7),
    ("lenet4", 1.1),
    ("lenet5", 0.95),
    ("lenet5_dist", 0.8),
    ("boosted_lenet4_dist", 0.7),
];

#[test]
fn claims_are_those_of_figure_9() {
    let mut seen = Vec::new();
    for file in crate::configs::experiments() {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let Experiment { settings, paper, .. } = lenet(stem);
        let Some(claim) = settings.paper.filter(|claim| claim.table == "figure9") else { continue };
        let (row, value) = FIGURE_9.iter().find(|(row, _)| *row == claim.row).unwrap();
        assert_eq!(claim.metric, "test/error", "{stem}");
        assert!((100.0 * claim.value.unwrap() - value).abs() < 1e-9, "{stem}");
        assert!(stem == format!("figure9_{row}") || stem == *row, "{stem} stands for {row}");
        assert_eq!(row.ends_with("dist"), !paper.augment.is_empty(), "{stem}");
        assert_eq!(row.ends_with("deslant"), paper.model.prepare == Some(Prepare::Deslant), "{stem}");
        // The network is the row's, and all of MNIST is used.
        let network = row.trim_end_matches("_dist").trim_end_matches("_deslant");
        assert_eq!(
            format!("{:?}", paper.model.name).to_lowercase(),
            network.replace('_', "").replace("300100", "300_100").replace("500150", "500_150")
        );
        assert_eq!(
            (settings.data.name.as_str(), settings.data.limit_train, settings.data.limit_test),
            ("mnist", None, None)
        );
        seen.push(*row);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), FIGURE_9.len(), "rows with an experiment: {seen:?}");
}

/// Section 7 of the paper's comparison: hidden units; the 20×20 picture of [deslant] 300-10; k.
#[test]
fn the_other_networks_are_those_of_figure_9() {
    for (row, hidden) in
        [("mlp300", &[300][..]), ("mlp1000", &[1000]), ("mlp300_100", &[300, 100]), ("mlp500_150", &[500, 150])]
    {
        assert_eq!(lenet(&format!("figure9_{row}")).paper.model.name.hidden(), Some(hidden));
    }
    assert_eq!(lenet("figure9_mlp300_deslant").paper.model.image_size, Some(20));
    assert_eq!(lenet("figure9_knn").paper.model.k, Some(3));
    let figure_6 = [("15000", 15_000), ("30000", 30_000), ("15000_dist", 15_000), ("30000_dist", 30_000)];
    for (row, pictures) in figure_6 {
        assert_eq!(lenet(&format!("figure6_{row}")).settings.data.limit_train, Some(pictures));
    }
}
