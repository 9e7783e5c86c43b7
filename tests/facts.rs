//! The experiments spell what the papers fix: their values, held against a table of facts that is written from the papers.

use lenet::config::{Config, Optim};
use lenet::prepare::Prepare;
use repro::config::{Experiment, Length};
use repro::data::{Augment, Crop, CutMix, Fill, Filter, Flip, Mixup, Normalise, TrainView};
use repro::optim::{LrScale, LrScaling, OptimConfig, Schedule, SgdConfig};

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
    for file in crate::configs::experiments("lenet") {
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

fn resnet(row: &str) -> Experiment<resnet::config::Config> {
    repro::config::load(&root().join(format!("experiments/resnet/{row}.yaml")), &[]).unwrap()
}

fn alexnet(row: &str) -> Experiment<alexnet::config::Config> {
    repro::config::load(&root().join(format!("experiments/alexnet/{row}.yaml")), &[]).unwrap()
}

fn sgd(base_lr: f64, weight_decay: f64) -> OptimConfig {
    let (momentum, nesterov, lr_scaling) = (0.9, false, LrScaling::None);
    OptimConfig::Sgd(SgdConfig { base_lr, momentum, nesterov, weight_decay, lr_scaling, lr_scale: LrScale::new() })
}

/// The learning rate at these steps of `total`.
fn assert_rates(row: &str, optim: &OptimConfig, schedule: &Schedule, [total, epoch]: [u64; 2], rates: &[(u64, f64)]) {
    for (step, expected) in rates {
        let rate = optim.lr(128) * schedule.factor(*step, total, epoch);
        assert!((rate - expected).abs() < 1e-12, "{row}, step {step}: {rate} and not {expected}");
    }
}

/// §4.2 and Table 6: layers and test error in per cent.
const TABLE_6: [(u64, f64); 6] = [(20, 8.75), (32, 7.51), (44, 7.17), (56, 6.97), (110, 6.43), (1202, 7.93)];

/// The recipe of §4.2; `quarter`: of its length in steps.
fn section_4_2(row: &str, network: &str, quarter: u64, validation: Option<u64>) -> Experiment<resnet::config::Config> {
    let experiment = resnet(row);
    let (settings, paper) = (&experiment.settings, &experiment.paper);
    assert_eq!(settings.length, Length::Steps(4 * quarter), "{row}");
    assert_eq!((settings.batch_size, settings.data.name.as_str()), (128, "cifar10"), "{row}");
    let data = &settings.data;
    assert_eq!((data.validation, data.limit_train, data.limit_test), (validation, None, None), "{row}");
    assert_eq!((paper.model.name.as_str(), paper.model.num_classes), (network, Some(10)), "{row}");
    assert_eq!(paper.normalise, Normalise::PixelMean { scale: None }, "{row}");
    let crop = Augment::Crop(Crop { pad: 4, fill: Fill::Zero, size: None });
    assert_eq!(paper.augment, [crop, Augment::Flip(Flip { p: 0.5 })], "{row}");
    assert!(paper.label_smoothing.is_none() && paper.sam.is_none() && paper.ema.is_none(), "{row}");
    // "We further explore" 110 layers: a rate of 0.01 until the training error is below 80 %, "about 400 iterations".
    let slow = ["resnet110", "resnet1202"].iter().any(|deep| network.ends_with(deep));
    assert_eq!(paper.optim, sgd(if slow { 0.01 } else { 0.1 }, 1e-4), "{row}");
    let first = if slow { 0.01 } else { 0.1 };
    let rates = [
        (0, first),
        (399.min(quarter), first),
        (400.min(quarter), 0.1),
        (2 * quarter - 1, 0.1),
        (2 * quarter, 0.01),
        (3 * quarter - 1, 0.01),
        (3 * quarter, 0.001),
        (4 * quarter - 1, 0.001),
    ];
    assert_rates(row, &paper.optim, &paper.schedule, [4 * quarter, 351], &rates);
    experiment
}

#[test]
fn table_6_of_resnet() {
    for (layers, error) in TABLE_6 {
        for (suffix, validation) in [("", Some(5000)), ("_full", None)] {
            let row = format!("table6_resnet{layers}{suffix}");
            // The largest has one row: 45,000 pictures.
            if layers == 1202 && validation.is_none() {
                continue;
            }
            let experiment = section_4_2(&row, &format!("cifar_resnet{layers}"), 16_000, validation);
            let claim = experiment.settings.paper.unwrap();
            assert_eq!((claim.table.as_str(), claim.row), ("table6", format!("resnet{layers}")));
            assert_eq!(claim.metric, "test/error");
            assert!((100.0 * claim.value.unwrap() - error).abs() < 1e-9, "{row}");
        }
    }
}

#[test]
fn figure_6_of_resnet_and_the_short_rows() {
    for layers in [20, 32, 44, 56, 110] {
        let experiment =
            section_4_2(&format!("figure6_plain{layers}"), &format!("cifar_plain{layers}"), 16_000, Some(5000));
        let claim = experiment.settings.paper.unwrap();
        assert_eq!((claim.table.as_str(), claim.row, claim.value), ("figure6", format!("plain{layers}"), None));
    }
    for name in ["plain20", "plain56", "resnet20", "resnet56"] {
        section_4_2(&format!("{name}_short"), &format!("cifar_{name}"), 1_000, Some(5000));
    }
}

/// §3.4: batch 256, 0.1 divided by 10 "when the error plateaus" (here twice), 60·10⁴ steps, weight decay 0.0001, momentum 0.9, no dropout; the shorter side from 256 to 480.
#[test]
fn the_recipe_of_resnet_for_photos() {
    let Experiment { settings, paper, .. } = resnet("imagenet_resnet50");
    assert_eq!((settings.length, settings.batch_size), (Length::Steps(600_000), 256));
    assert_eq!((paper.model.name.as_str(), paper.model.num_classes), ("resnet50_v1", Some(1000)));
    assert_eq!(paper.optim, sgd(0.1, 1e-4));
    let rates = [(199_999, 0.1), (200_000, 0.01), (400_000, 0.001), (599_999, 0.001)];
    assert_rates("imagenet_resnet50", &paper.optim, &paper.schedule, [600_000, 5004], &rates);
    let view = paper.view.unwrap();
    assert_eq!(view.train, TrainView::ResizeRandomCrop { resize: [256, 480], filter: Filter::Bilinear });
    assert!(matches!(&paper.augment[..], [Augment::PcaNoise(noise), Augment::Flip(_)] if noise.std == 0.1));
    assert!((settings.paper.unwrap().value.unwrap() - 0.2285).abs() < 1e-12);
}

/// The two rows of Imagenette differ in their length alone, and are of torchvision's network.
#[test]
fn imagenette_in_two_lengths() {
    let [five, twenty] = ["imagenette_e5", "imagenette_e20"].map(resnet);
    assert_eq!((five.settings.length, twenty.settings.length), (Length::Epochs(5.0), Length::Epochs(20.0)));
    assert_eq!((five.paper.model.name.as_str(), five.paper.edge(five.paper.variant().unwrap())), ("resnet18", 224));
    assert_eq!(five.paper, twenty.paper);
    assert_eq!(
        (five.settings.batch_size, five.settings.compute),
        (twenty.settings.batch_size, twenty.settings.compute)
    );
}

/// arXiv:2010.01412, §3.1: flips, and crops after four reflected pixels; ρ = 0.05. arXiv:2102.11600: ρ is ten times as large or more.
#[test]
fn sharpness_aware_rows_differ_in_nothing_else() {
    let [plain, sam, asam] = ["sam_sgd", "sam_sam", "sam_asam"].map(resnet);
    assert!(plain.paper.sam.is_none());
    let of = |experiment: &Experiment<resnet::config::Config>| {
        let sam = experiment.paper.sam.clone().unwrap();
        (sam.rho, sam.adaptive)
    };
    assert_eq!((of(&sam), of(&asam)), ((0.05, false), (2.0, true)));
    for other in [sam, asam] {
        assert_eq!(resnet::config::Config { sam: None, ..other.paper }, plain.paper);
        assert_eq!(other.settings.length, plain.settings.length);
        assert_eq!(other.settings.data, plain.settings.data);
    }
    let crop = Augment::Crop(Crop { pad: 4, fill: Fill::Reflect, size: None });
    assert_eq!(plain.paper.augment, [crop, Augment::Flip(Flip { p: 0.5 })]);
}

/// Figure 1: one network, "no regularization of any kind", each line with its own rate; centred raw RGB values (§2).
#[test]
fn figure_1_of_alexnet() {
    let [relu, tanh] = ["figure1_relu", "figure1_tanh"].map(alexnet);
    for (line, network) in [(&relu, "cifar_cnn"), (&tanh, "cifar_cnn_tanh")] {
        assert_eq!(line.paper.model.name, network);
        assert_eq!(line.settings.batch_size, 128);
        assert_eq!(line.settings.data, relu.settings.data);
        assert_eq!(line.settings.data.name, "cifar10");
        assert_eq!(line.paper.normalise, Normalise::PixelMean { scale: Some(255.0) });
        assert!(line.paper.augment.is_empty() && line.paper.ema.is_none());
        assert_eq!(line.paper.optim.weight_decay(), 0.0);
        assert!(matches!(line.paper.schedule, Schedule::Constant { warmup: None, warmup_start: None }));
    }
}

/// §3.3 and cuda-convnet's files: 13 % and 11 %; crops of 24 pixels, ten views, 350 + 150 + 10 + 10 epochs at 0.001, 0.0001 and 0.00001.
#[test]
fn the_networks_of_section_3_3() {
    for (row, network, error) in [("nolrn", "cifar_local", 0.13), ("lrn", "cifar_local_lrn", 0.11)] {
        for (suffix, twentieths) in [("", 20), ("_short", 1)] {
            let name = format!("cifar_{row}{suffix}");
            let Experiment { settings, paper, .. } = alexnet(&name);
            assert_eq!(paper.model.name, network);
            assert_eq!(settings.length, Length::Epochs(26.0 * f64::from(twentieths)));
            assert_eq!((settings.batch_size, settings.data.name.as_str()), (128, "cifar10"));
            assert_eq!((settings.data.limit_train, settings.data.validation), (None, None));
            let crop = Augment::Crop(Crop { pad: 0, fill: Fill::Zero, size: Some(24) });
            assert_eq!(paper.augment, [crop, Augment::Flip(Flip { p: 0.5 })]);
            assert_eq!(paper.test.crops, alexnet::config::Crops::Ten);
            assert_eq!(paper.normalise, Normalise::PixelMean { scale: Some(255.0) });
            assert_eq!(paper.optim, sgd(0.001, 0.004));
            // Steps of a twentieth of an epoch, so that half an epoch is a whole number of them.
            let at = |epochs: f64| (epochs * 20.0 * f64::from(twentieths)) as u64;
            let rates = [(0, 1e-3), (at(25.0) - 1, 1e-3), (at(25.0), 1e-4), (at(25.5) - 1, 1e-4), (at(25.5), 1e-5)];
            assert_rates(&name, &paper.optim, &paper.schedule, [at(26.0), 20], &rates);
            let claim = settings.paper.unwrap();
            assert_eq!(claim.value, (twentieths == 20).then_some(error), "{name}");
        }
    }
}

/// §5: batch 128, momentum 0.9, weight decay 0.0005, 0.01 divided by 10 three times, roughly 90 passes; §4.1: ten views, α of 0.1.
#[test]
fn the_recipe_of_alexnet_for_photos() {
    let Experiment { settings, paper, .. } = alexnet("ilsvrc2012_alexnet");
    assert_eq!((settings.length, settings.batch_size), (Length::Epochs(90.0), 128));
    assert_eq!((paper.model.name.as_str(), paper.model.num_classes), ("alexnet_2012", Some(1000)));
    assert_eq!(paper.optim, sgd(0.01, 5e-4));
    let rates = [(0, 1e-2), (299, 1e-2), (300, 1e-3), (600, 1e-4), (899, 1e-5)];
    assert_rates("ilsvrc2012_alexnet", &paper.optim, &paper.schedule, [900, 10], &rates);
    assert_eq!(paper.test.crops, alexnet::config::Crops::Ten);
    assert!(matches!(&paper.augment[..], [Augment::PcaNoise(noise), Augment::Flip(_)] if noise.std == 0.1));
    assert_eq!(settings.paper.unwrap().value, Some(0.407));
}

fn vit(row: &str) -> Experiment<vit::config::Config> {
    repro::config::load(&root().join(format!("experiments/vit/{row}.yaml")), &[]).unwrap()
}

/// arXiv:2112.13492, main table: 100 epochs of three passes each, batch 128, AdamW at 0.001, decay 0.05, 10 such epochs of warm-up, smoothing 0.1,
/// drop path 0.1; AutoAugment, a quarter of the pictures erased, half of the steps mixed.
#[test]
fn the_small_vit_on_cifar() {
    let Experiment { settings, paper, .. } = vit("cifar10_2m7_e100");
    assert_eq!((settings.length, settings.batch_size, settings.data.repeats), (Length::Epochs(300.0), 128, None));
    assert_eq!((paper.model.name.as_str(), paper.model.drop_path), ("vit_2m7_patch4_32", Some(0.1)));
    assert_eq!((paper.label_smoothing, paper.optim.weight_decay(), paper.clip), (Some(0.1), 0.05, None));
    let rates = [(11_699, 1e-3), (11_700, 1e-3)];
    assert_rates("cifar10_2m7_e100", &paper.optim, &paper.schedule, [117_000, 390], &rates);
    let [Augment::Flip(_), Augment::Crop(crop), Augment::AutoAugment(_), Augment::RandomErasing(erasing), rest @ ..] =
        &paper.augment[..]
    else {
        panic!("{:?}", paper.augment)
    };
    assert_eq!((crop.pad, erasing.p, erasing.scale), (4, 0.25, [0.02, 0.4]));
    assert_eq!(rest, mixtures([1.0, 1.0], Some(0.25)));
    assert_eq!(settings.paper.unwrap().value, Some(0.0642));
}

/// mixup and cutmix of these α, each in this share of the steps.
fn mixtures([mixup, cutmix]: [f64; 2], p: Option<f64>) -> [Augment; 2] {
    [Augment::Mixup(Mixup { alpha: mixup, p }), Augment::CutMix(CutMix { alpha: cutmix, p })]
}

/// arXiv:2012.12877, Table 9: rand-m9-mstd0.5-inc1, mixup 0.8, cutmix 1.0, erasing 0.25, three copies of each picture; timm fills with the mean.
#[test]
fn the_augmentation_of_deit() {
    let Experiment { settings, paper, .. } = vit("imagenet_deit_tiny");
    assert_eq!((settings.length, settings.batch_size, settings.data.repeats), (Length::Epochs(300.0), 1024, Some(3)));
    let [Augment::Flip(_), Augment::RandAugmentTimm(rand), Augment::RandomErasing(erasing), rest @ ..] =
        &paper.augment[..]
    else {
        panic!("{:?}", paper.augment)
    };
    assert_eq!((rand.ops, rand.magnitude, rand.std, rand.fill, rand.p), (2, 9.0, 0.5, [124, 116, 104], 1.0));
    assert_eq!((erasing.p, erasing.scale, erasing.ratio), (0.25, [0.02, 1.0 / 3.0], [0.3, 1.0 / 0.3]));
    assert_eq!(rest, mixtures([0.8, 1.0], None));
    assert_eq!((paper.label_smoothing, paper.clip, paper.model.drop_path), (Some(0.1), None, Some(0.1)));
    assert_eq!(settings.paper.unwrap().value, Some(0.278));
}

/// 250,000 pictures seen, whatever the set; nothing else differs.
#[test]
fn the_rows_of_few_pictures_differ_in_their_number() {
    for (row, limit) in [("5k", Some(5000)), ("15k", Some(15_000)), ("50k", None)] {
        let Experiment { settings, paper, .. } = vit(&format!("cifar10_d96_{row}"));
        assert_eq!((settings.length, settings.batch_size), (Length::Steps(5000), 50), "{row}");
        assert_eq!((settings.data.limit_train, settings.data.limit_test), (limit, None), "{row}");
        assert_eq!(paper, vit("cifar10_d96_5k").paper, "{row}");
        let beside = resnet(&format!("cifar10_rn20_{row}"));
        assert_eq!((beside.settings.length, beside.settings.batch_size), (Length::Steps(5000), 50), "{row}");
        assert_eq!(beside.settings.data, settings.data, "{row}");
        assert_eq!((&beside.paper.augment, &beside.paper.normalise), (&paper.augment, &paper.normalise), "{row}");
        assert_eq!(beside.paper.optim, resnet("cifar10_rn20_5k").paper.optim, "{row}");
    }
}
