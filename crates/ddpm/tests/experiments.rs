//! Every experiment fits, and those of the papers have their numbers.

use std::path::{Path, PathBuf};

use ddpm::config::{Config, Drawn, validate};
use ddpm::loss::Loss;
use ddpm::process::{Objective, Variance};
use ddpm::sampler::Kind;
use ddpm::schedule::Betas;
use repro::config::{Experiment, load};

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/ddpm")
}

fn row(name: &str, words: &[&str]) -> Experiment<Config> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
    load(&experiments().join(format!("{name}.yaml")), &words).unwrap()
}

/// What is wrong with it, by key.
fn findings(of: &Experiment<Config>) -> Vec<String> {
    validate(&of.paper, &of.settings).list().iter().map(|(key, why)| format!("{key} {why}")).collect()
}

#[test]
fn every_experiment_fits() {
    let mut seen = 0;
    for entry in std::fs::read_dir(experiments()).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(findings(&row(&name, &[])), [""; 0], "{name}");
        seen += 1;
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn another_network_s_name_alone_makes_a_smoke_run_of_it() {
    for name in ["unet_32", "ddpm_cifar10", "improved_ddpm_cifar10"] {
        assert_eq!(findings(&row("smoke", &[&format!("model.name={name}")])), [""; 0], "{name}");
    }
}

/// DDPM, §4 and Appendix B; Improved DDPM, §3 and Appendix A.
#[test]
fn the_papers_rows_have_their_numbers() {
    for (name, loss, steps) in
        [("cifar10", Loss::Simple, 800_000), ("cifar10_vlb", Loss::Vlb, 800_000), ("cifar10_46k", Loss::Simple, 46_800)]
    {
        let Experiment { paper, settings, .. } = row(name, &[]);
        assert_eq!((paper.model.name.as_str(), paper.model.dropout), ("ddpm_cifar10", Some(0.1)), "{name}");
        let diffusion = paper.diffusion;
        assert_eq!((diffusion.steps, diffusion.betas), (1000, Betas::Linear), "{name}");
        assert_eq!((diffusion.objective, diffusion.variance), (Objective::Epsilon, Variance::Large), "{name}");
        assert_eq!((settings.batch_size, settings.length.steps(390)), (128, steps), "{name}");
        assert_eq!((paper.loss.kind, paper.loss.steps, paper.clip), (loss, None, Some(1.0)), "{name}");
        assert_eq!((paper.optim.lr(128), paper.optim.weight_decay()), (2e-4, 0.0), "{name}");
        assert_eq!(paper.ema.unwrap().decay, 0.9999, "{name}");
        let rate = |step: u64| paper.schedule.factor(step, steps, 390);
        assert_eq!((rate(0), rate(2499), rate(4999), rate(steps - 1)), (1.0 / 5000.0, 0.5, 1.0, 1.0), "{name}");
    }
    // Table 1: Algorithm 2 with all its steps, and 50,000 samples.
    let Experiment { paper, settings, .. } = row("cifar10", &[]);
    assert_eq!((paper.sampler.kind, paper.sampler.length(1000), paper.sampler.clips()), (Kind::Ddpm, 1000, true));
    assert_eq!((settings.eval.samples, settings.paper.unwrap().value), (Some(50_000), Some(3.17)));
    for (name, loss, drawn, fid) in [
        ("cifar10_improved_hybrid", Loss::Hybrid, None, 3.19),
        ("cifar10_improved_vlb", Loss::Vlb, Some(Drawn::Importance), 11.47),
    ] {
        let Experiment { paper, settings, .. } = row(name, &[]);
        assert_eq!((paper.model.name.as_str(), paper.model.dropout), ("improved_ddpm_cifar10", Some(0.3)), "{name}");
        assert_eq!((paper.diffusion.steps, paper.diffusion.betas), (4000, Betas::Cosine), "{name}");
        assert_eq!(
            (paper.diffusion.variance, paper.loss.kind, paper.loss.steps),
            (Variance::Learned, loss, drawn),
            "{name}"
        );
        assert_eq!((settings.batch_size, settings.length.steps(390)), (128, 500_000), "{name}");
        assert_eq!((paper.optim.lr(128), paper.clip, paper.ema.unwrap().decay), (1e-4, None, 0.9999), "{name}");
        assert_eq!(settings.paper.unwrap().value, Some(fid), "{name}");
    }
}
