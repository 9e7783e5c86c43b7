//! SimCLR's YAMLs against the paper and against each other.

use std::path::Path;

use repro::config::{Experiment, Length};
use repro::data::{Augment, Blur, Cutout, Filter, Flip, Normalise, RandomResizedCrop, TestView, TrainView, View};
use repro::optim::{LrScaling, OptimConfig, Schedule};
use simclr::config::Config;
use simclr::loss::Loss;

use crate::program::root;

/// The path of a row.
pub(crate) fn yaml(row: &str) -> String {
    root().join(format!("experiments/simclr/{row}.yaml")).display().to_string()
}

fn experiment(row: &str) -> Experiment<Config> {
    repro::config::load(Path::new(&yaml(row)), &[]).unwrap()
}

/// The rate after scaling, trust and decay of LARS.
fn lars(optim: &OptimConfig, batch: u64) -> (f64, f64, f64, f64, LrScaling) {
    let OptimConfig::Lars(rule) = optim else { panic!("{optim:?}") };
    (optim.lr(batch), rule.momentum, rule.trust, rule.weight_decay, rule.lr_scaling)
}

/// Appendix A at strength s without blur, as B.9 has it for CIFAR-10: crop, mirror image, colours, grey.
fn assert_views(row: &str, list: &[Augment], strength: f64, filter: Filter) {
    let crop = RandomResizedCrop { scale: [0.08, 1.0], ratio: [0.75, 1.3333], filter, size: None };
    assert_eq!(list[..2], [Augment::RandomResizedCrop(crop), Augment::Flip(Flip { p: 0.5 })], "{row}");
    let [_, _, Augment::ColorJitter(jitter), Augment::Grey(grey)] = list else { panic!("{row}: {list:?}") };
    let numbers = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.p, grey.p];
    for (found, expected) in
        numbers.into_iter().zip([0.8, 0.8, 0.8, 0.2].map(|x| x * strength).into_iter().chain([0.8, 0.2]))
    {
        assert!((found - expected).abs() < 1e-12, "{row}: {jitter:?}");
    }
}

fn identity() -> Normalise {
    Normalise::Channels { mean: vec![0.0; 3], std: vec![1.0; 3] }
}

/// B.9: a CIFAR stem, strength 0.5, no blur, LARS with a decay of 1e-6, ten epochs of warm-up; the best row has 94.0 %.
/// The authors' command: batch 512, rate 1.0 · batch / 256, decay 1e-4, temperature 0.5.
#[test]
fn the_recipes_for_cifar_10() {
    let r50 = [256, 512, 1024, 2048, 4096].map(|batch| (format!("cifar10_r50_b{batch}_e1000"), batch, 1000.0));
    let r18 = [100, 200, 500, 1000].map(|epochs| (format!("cifar10_r18_e{epochs}"), 512, f64::from(epochs)));
    let short = [("cifar10_r50_b1024_e100".to_string(), 1024, 100.0)];
    for (row, batch, epochs) in r50.into_iter().chain(r18).chain(short) {
        let Experiment { settings, paper, .. } = experiment(&row);
        let small = row.contains("r18");
        assert_eq!((settings.length, settings.batch_size), (Length::Epochs(epochs), batch), "{row}");
        assert_eq!((settings.data.name.as_str(), settings.data.limit_train), ("cifar10", None), "{row}");
        assert_eq!(paper.model.name, if small { "simclr_resnet18_cifar" } else { "simclr_resnet50_cifar" });
        assert_eq!((paper.model.head.layers, paper.model.head_bn, paper.model.head_dim), (2, true, 128), "{row}");
        assert_eq!(paper.model.zero_init, Some(true), "{row}");
        assert_eq!(paper.loss, Loss::NtXent { temperature: 0.5, normalise: true, chunk: None }, "{row}");
        assert_eq!(paper.normalise, identity(), "{row}");
        assert_views(&row, &paper.augment, 0.5, Filter::Bicubic);
        let (decay, peak) = (if small { 1e-4 } else { 1e-6 }, batch as f64 / 256.0);
        assert_eq!(lars(&paper.optim, batch), (peak, 0.9, 0.001, decay, LrScaling::Linear), "{row}");
        let (epoch, total) = (50_000 / batch, 50_000 / batch * epochs as u64);
        for (step, factor) in [(0, 0.0), (5 * epoch, 0.5), (10 * epoch, 1.0), ((total + 10 * epoch) / 2, 0.5)] {
            let found = paper.schedule.factor(step, total, epoch);
            assert!((found - factor).abs() < 0.001, "{row}, step {step}: {found}");
        }
        // B.5 and B.6: 0.1 · batch / 256, no warm-up, no decay, crops and mirror images alone.
        let probe = paper.probe.unwrap();
        let OptimConfig::Sgd(rule) = &probe.optim else { panic!("{row}") };
        assert!((probe.optim.lr(512) - 0.2).abs() < 1e-12 && rule.nesterov && rule.weight_decay == 0.0, "{row}");
        assert_eq!((rule.momentum, probe.length, probe.batch_size), (0.9, Length::Epochs(100.0), 512), "{row}");
        assert_eq!(probe.augment, paper.augment[..2], "{row}");
        assert!(matches!(probe.schedule, Schedule::Cosine { warmup: None, .. }), "{row}");
        let knn = paper.knn.unwrap();
        assert_eq!((knn.k, knn.temperature), (200, 0.1), "{row}");
        let claim = settings.paper.unwrap();
        assert_eq!(claim.metric, "probe/test/accuracy");
        assert_eq!(claim.value, (row == "cifar10_r50_b1024_e1000").then_some(0.94), "{row}");
    }
}

/// Appendix A, B.6: strength 1 with blur, 0.3 · batch / 256, decay 1e-6, temperature 0.1.
#[test]
fn the_recipe_for_imagenet() {
    let Experiment { settings, paper, .. } = experiment("imagenet_r50_b4096_e100");
    assert_eq!((settings.length, settings.batch_size), (Length::Epochs(100.0), 4096));
    assert_eq!(paper.loss, Loss::NtXent { temperature: 0.1, normalise: true, chunk: None });
    let (peak, momentum, trust, decay, _) = lars(&paper.optim, 4096);
    assert!((peak - 4.8).abs() < 1e-12 && (momentum, trust, decay) == (0.9, 0.001, 1e-6));
    let [Augment::Flip(_), Augment::ColorJitter(jitter), Augment::Grey(grey), Augment::Blur(blur)] = &paper.augment[..]
    else {
        panic!("{:?}", paper.augment)
    };
    let numbers = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.p, grey.p, blur.p];
    assert_eq!(numbers, [0.8, 0.8, 0.8, 0.2, 0.8, 0.2, 0.5]);
    // "The kernel size is set to be 10 % of the image height/width": odd.
    assert_eq!((blur.kernel, blur.sigma), (23, [0.1, 2.0]));
    let view = View {
        train: TrainView::RandomResizedCrop { scale: [0.08, 1.0], ratio: [0.75, 1.3333], filter: Filter::Bicubic },
        test: TestView::ResizeCrop { resize: 256, filter: Filter::Bicubic, edge: None },
    };
    assert_eq!(paper.view, Some(view));
    assert_eq!(paper.normalise, identity());
    let model = &paper.model;
    assert_eq!((model.head.layers, model.head_bn, model.head_dim, model.zero_init), (2, true, 128, Some(true)));
    for (step, factor) in [(0, 0.0), (5 * 312, 0.5), (10 * 312, 1.0), (55 * 312, 0.5)] {
        assert!((paper.schedule.factor(step, 100 * 312, 312) - factor).abs() < 1e-12, "step {step}");
    }
    let probe = paper.probe.unwrap();
    assert_eq!(probe.augment, paper.augment[..1]);
    assert!(matches!(probe.schedule, Schedule::Cosine { warmup: None, .. }));
    assert!((probe.optim.lr(4096) - 1.6).abs() < 1e-12);
    assert_eq!((probe.length, probe.batch_size), (Length::Epochs(90.0), 4096));
    assert_eq!(settings.paper.unwrap().value, Some(0.645));
}

/// The loss alone differs from the row of the same network and length.
#[test]
fn the_rows_of_table_4_differ_in_the_loss() {
    let whole = experiment("cifar10_r18_e100");
    let logistic = |semi_hard| Loss::NtLogistic { temperature: 0.5, normalise: true, semi_hard };
    let triplet = |semi_hard| Loss::Triplet { margin: 0.4, normalise: true, semi_hard };
    let rows = [
        ("nt_logistic", logistic(false)),
        ("nt_logistic_sh", logistic(true)),
        ("triplet", triplet(false)),
        ("triplet_sh", triplet(true)),
    ];
    for (row, loss) in rows {
        let other = experiment(&format!("table4_{row}"));
        assert_eq!(other.paper, Config { loss, ..whole.paper.clone() }, "{row}");
        let fixed = |of: &Experiment<Config>| (of.settings.length, of.settings.batch_size, of.settings.data.clone());
        assert_eq!(fixed(&other), fixed(&whole), "{row}");
    }
}

/// Each cell has its row's augmentation, then its column's, on one view; all else is that of the row of two cores, for half as long.
#[test]
fn the_cells_of_figure_5_differ_in_one_view() {
    let whole = experiment("cifar10_10k_rn20_e20");
    let colours = &whole.paper.augment[2..];
    let kinds = [
        ("crop", whole.paper.augment[..1].to_vec()),
        ("cutout", vec![Augment::Cutout(Cutout { size: 16, p: 1.0 })]),
        ("colour", colours.to_vec()),
        ("blur", vec![Augment::Blur(Blur { kernel: 3, sigma: [0.1, 2.0], p: 0.5 })]),
    ];
    for (first, list) in &kinds {
        for (second, then) in &kinds {
            let row = if first == second { first.to_string() } else { format!("{first}_{second}") };
            let cell = experiment(&format!("figure5_{row}"));
            let augment = if first == second { list.clone() } else { [&list[..], then].concat() };
            let schedule = cell.paper.schedule.clone();
            for (step, factor) in [(0, 0.0), (39, 1.0), (39 + 351 / 3, 0.75), (39 + 351 * 2 / 3, 0.25)] {
                assert!((schedule.factor(step, 390, 39) - factor).abs() < 1e-12, "{row}, step {step}");
            }
            let expected = Config { augment, augment_other: Some(vec![]), schedule, ..whole.paper.clone() };
            assert_eq!(cell.paper, expected, "{row}");
            assert_eq!((cell.settings.length, cell.settings.batch_size), (Length::Epochs(10.0), 256), "{row}");
            assert_eq!(cell.settings.data, whole.settings.data, "{row}");
            assert_eq!(cell.settings.paper.unwrap().row, row);
        }
    }
}

/// One thing is taken away from the row of two cores in each; all else is the same.
#[test]
fn the_rows_of_two_cores_differ_in_one_thing() {
    let whole = experiment("cifar10_10k_rn20_e20");
    assert_eq!((whole.settings.length, whole.settings.batch_size), (Length::Epochs(20.0), 256));
    assert_eq!(whole.settings.data.limit_train, Some(10_000));
    assert_views("cifar10_10k_rn20_e20", &whole.paper.augment, 0.5, Filter::Bilinear);
    assert_eq!(lars(&whole.paper.optim, 256), (1.0, 0.9, 0.001, 1e-4, LrScaling::Linear));
    let list = whole.paper.augment.clone();
    let [nocrop, nocolour, nohead] =
        ["nocrop", "nocolour", "nohead"].map(|what| experiment(&format!("cifar10_10k_rn20_e20_{what}")));
    assert_eq!(nocrop.paper, Config { augment: list[1..].to_vec(), ..whole.paper.clone() });
    assert_eq!(nocolour.paper, Config { augment: list[..2].to_vec(), ..whole.paper.clone() });
    let mut expected = whole.paper.clone();
    expected.model.head.layers = 0;
    assert_eq!(nohead.paper, expected);
    for other in [&nocrop, &nocolour, &nohead] {
        assert_eq!((other.settings.length, &other.settings.data), (whole.settings.length, &whole.settings.data));
    }
    let [random, supervised] = ["random", "supervised"].map(|what| experiment(&format!("cifar10_10k_rn20_{what}")));
    assert_eq!(random.paper.probe, whole.paper.probe);
    assert_eq!(random.paper.knn, whole.paper.knn);
    for control in [&random, &supervised] {
        assert_eq!(control.paper.model, whole.paper.model);
        assert_eq!(control.settings.data, whole.settings.data);
        // Nothing moves: the trunk is as it was drawn.
        assert!((0..39).all(|step| control.paper.schedule.factor(step, 39, 39) == 0.0));
    }
    let tuned = supervised.paper.finetune.unwrap();
    assert_eq!((tuned.length, tuned.batch_size, tuned.labels), (Length::Epochs(20.0), 256, 1.0));
}
