//! torchvision's networks and the twins of `scripts/fixtures/resnet.py`, held against the library and against `resnet forward`.
//!
//! Both sides fill weights and inputs from names ([`golden`]); the fixtures hold what the twins made of them.

use std::path::{Path, PathBuf};

use repro::golden::{
    self, DOUBLE, Program, ROUNDED, SINGLE, Tolerance, assert_close, assert_samples_close, gradients, variables,
};
use repro::nn::{Mode, Row, record, summary};
use repro::optim::{LrScale, LrScaling, OptimConfig, SgdConfig};
use repro::weights::Named;
use repro::{loss, weights};
use resnet::blocks::Stride;
use resnet::model::{CIFAR_DEPTHS, Network, Stem, Variant};
use tch::{Device, Kind, Tensor, nn};

/// One network of each structure, and batch and edge of the pictures that it learns from: see `scripts/fixtures/resnet.py`.
const TRAINED: [(&str, i64, i64); 6] = [
    ("resnet18", 16, 32),
    ("bottleneck", 16, 32),
    ("bottleneck_v1", 16, 32),
    ("resnet18_cifar", 16, 8),
    ("cifar_resnet20", 8, 8),
    ("cifar_plain8", 8, 8),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture() -> Named {
    weights::read(&folder().join("resnet.safetensors")).unwrap().0
}

/// The network of this name, or one of a block a stage.
fn variant(name: &str) -> Variant {
    let shallow = |place| Variant::Photo { blocks: [1; 4], bottleneck: Some(place), stem: Stem::Photo, dilated: false };
    match name {
        "bottleneck" => shallow(Stride::Middle),
        "bottleneck_v1" => shallow(Stride::First),
        "cifar_plain8" => Variant::Cifar { blocks: 1, residual: false },
        _ => Variant::named(name).unwrap(),
    }
}

/// A network with the twin's weights, in float32 or float64.
fn network(name: &str, classes: i64, double: bool) -> (nn::VarStore, Network) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant(name), classes);
    if double {
        store.double();
    }
    golden::fill(&store);
    (store, net)
}

/// Relative to the standard deviation of the twin's values.
fn of_deviation(twin: f64) -> Tolerance {
    Tolerance { relative: 0.0, absolute: 1e-6 * twin }
}

/// Mean, standard deviation, the first four and the last of the logits in float64, as they are published.
fn golden_values(name: &str, edge: i64, classes: i64, mean: f64, deviation: f64, values: [f64; 5]) {
    let (_, net) = network(name, classes, true);
    let logits = tch::no_grad(|| net.forward(&golden::input("input", &[2, 3, edge, edge]), Mode::Eval).logits);
    assert_eq!(logits.size(), [2, classes]);
    let logits = Vec::<f64>::try_from(logits.view(-1)).unwrap();
    let n = logits.len() as f64;
    let found = logits.iter().sum::<f64>() / n;
    let spread = (logits.iter().map(|x| (x - found).powi(2)).sum::<f64>() / n).sqrt();
    let kept = [&logits[..4], &logits[logits.len() - 1..]].concat();
    for (ours, twin) in [&[found, spread], &kept[..]].concat().iter().zip([&[mean, deviation], &values[..]].concat()) {
        assert!((ours - twin).abs() <= 1e-6 * deviation, "{name}: {ours} and not {twin}");
    }
}

#[test]
fn resnet18_has_its_golden_values() {
    let values = [-0.6829857482, 0.4982802525, -0.5323042522, 0.2167011924, -0.376003115];
    golden_values("resnet18", 64, 1000, -0.005349682174, 0.8354559458, values);
}

#[test]
fn resnet50_has_its_golden_values() {
    let values = [0.7908550868, -1.4120096603, 0.8126810359, 0.6428412604, 0.000930918];
    golden_values("resnet50", 64, 1000, 0.05592046044, 1.000689822, values);
}

#[test]
fn cifar_resnet20_has_its_golden_values() {
    let values = [-0.7339857715, 1.6589642899, -0.0194253641, -0.5071299255, -0.1583763663];
    golden_values("cifar_resnet20", 32, 10, -0.003491110018, 0.9091873475, values);
}

/// torchvision's five networks with 1,000 classes and those of §4.2 with 10, `num_batches_tracked` included.
#[test]
fn state_dicts_are_those_of_the_references() {
    let references = golden::state_dicts(&folder().join("state_dicts.tsv.gz")).unwrap();
    assert_eq!(references.len(), 10);
    for (name, reference) in references {
        let variant = Variant::named(&name).unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        Network::new(&store.root(), variant, if name.starts_with("cifar") { 10 } else { 1000 });
        assert_eq!(golden::state_dict(&store), reference, "{name}");
        // The place of the stride changes nothing.
        if let Ok(v1) = Variant::named(&format!("{name}_v1")) {
            let store = nn::VarStore::new(Device::Cpu);
            Network::new(&store.root(), v1, 1000);
            assert_eq!(golden::state_dict(&store), reference, "{name}_v1");
        }
    }
}

/// Published counts: torchvision's, and §4.2's to the unit.
#[test]
fn parameters_are_those_of_the_references() {
    let count = |name: &str, classes: i64| -> usize {
        let store = nn::VarStore::new(Device::Cpu);
        Network::new(&store.root(), Variant::named(name).unwrap(), classes);
        store.trainable_variables().iter().map(Tensor::numel).sum()
    };
    for (name, classes, expected) in [
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("resnet50_v1", 1000, 25_557_032),
        ("resnet101", 1000, 44_549_160),
        ("resnet152", 1000, 60_192_808),
        ("resnet18", 10, 11_181_642),
        ("resnet50", 10, 23_528_522),
        // The first convolution has 9 numbers where the other has 49.
        ("resnet18_cifar", 10, 11_181_642 - 64 * 3 * 40),
        ("resnet50_cifar", 10, 23_528_522 - 64 * 3 * 40),
    ] {
        assert_eq!(count(name, classes), expected, "{name}, {classes} classes");
    }
    for (depth, expected) in CIFAR_DEPTHS.into_iter().zip([269_722, 464_154, 658_586, 853_018, 1_727_962, 19_421_274]) {
        assert_eq!(count(&format!("cifar_resnet{depth}"), 10), expected, "{depth} layers");
        assert_eq!(count(&format!("cifar_plain{depth}"), 10), expected, "{depth} layers, plain");
    }
}

/// Table 1's multiply-adds as torchvision counts them, in units of 10⁹ with three digits; counts of all others to the unit, by hand: a block
/// of §4.2 has 2·9·w² multiply-adds at each place of its map, but the first of a stage, which sees w/2 channels.
#[test]
fn summaries_count_as_published() {
    let rows = |name: &str, classes: i64| {
        let variant = Variant::named(name).unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        let net = Network::new(&store.root(), variant, classes);
        let image = Tensor::zeros([1, 3, variant.edge(), variant.edge()], (Kind::Float, Device::Cpu));
        let rows = summary(&store, || Ok(net.forward(&image, Mode::Eval))).unwrap();
        let parameters: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(rows.iter().map(|row| row.parameters).sum::<u64>(), parameters as u64, "{name}");
        rows
    };
    let adds = |rows: &[Row]| rows.iter().map(|row| row.multiply_adds).sum::<u64>();
    for (name, giga) in
        [("resnet18", 1.814), ("resnet34", 3.664), ("resnet50", 4.089), ("resnet101", 7.801), ("resnet152", 11.514)]
    {
        let found = adds(&rows(name, 1000)) as f64 / 1e9;
        assert!((found - giga).abs() < 5e-4, "{name}: {found}");
    }
    let of_50 = rows("resnet50", 1000);
    let at = |row: &Row| (row.name.clone(), row.output.clone(), row.parameters);
    let expected = [("stem", vec![64, 56, 56], 9_536), ("layer1.0", vec![256, 56, 56], 75_008)];
    assert_eq!(of_50.iter().take(2).map(at).collect::<Vec<_>>(), expected.map(|(name, o, p)| (name.to_string(), o, p)));
    assert_eq!(at(&of_50[17]), ("fc".into(), vec![1000], 2_049_000));
    assert_eq!(of_50.len(), 18);
    // In the first three blocks behind a halving, a 1×1 convolution to w channels sees a quarter of the places.
    let halved: u64 =
        [(256, 128, 56_u64), (512, 256, 28), (1024, 512, 14)].map(|(i, w, e)| i * w * e * e / 4 * 3).iter().sum();
    assert_eq!(adds(&of_50) - adds(&rows("resnet50_v1", 1000)), halved);
    for depth in CIFAR_DEPTHS {
        let n = (depth as u64 - 2) / 6;
        let stage = |width: u64, edge: u64, first: u64| 9 * width * edge * edge * (first + (2 * n - 1) * width);
        let expected = 27 * 16 * 1024 + stage(16, 32, 16) + stage(32, 16, 16) + stage(64, 8, 32) + 640;
        for family in ["cifar_resnet", "cifar_plain"] {
            let rows = rows(&format!("{family}{depth}"), 10);
            assert_eq!((adds(&rows), rows.len() as u64), (expected, 3 * n + 2), "{family}{depth}");
        }
    }
}

/// What torchvision's modules give, rectifiers and sums left to those who do them; of blocks, everything.
#[test]
fn taps_are_torchvision_s_module_outputs() {
    let twins = weights::read(&folder().join("taps.safetensors")).unwrap().0;
    for name in ["bottleneck", "resnet18_cifar"] {
        let (_, net) = network(name, 10, true);
        let image = golden::input("input", &[2, 3, 32, 32]);
        for mode in [Mode::Eval, Mode::Train] {
            let pass = || Ok(tch::no_grad(|| net.forward(&image, mode).logits));
            let (logits, mut taps) = record::tap(&["*".into()], pass).unwrap();
            // The reference has no module of that name.
            drop(taps.remove("stem").unwrap());
            let twin = &twins[&format!("{name}.{mode:?}").to_lowercase()];
            assert_samples_close(name, &taps, twin, DOUBLE);
            assert!(taps["fc"].equal(&logits));
            assert!(taps["bn1"].min().double_value(&[]) < 0.0 && taps["layer1.0"].min().double_value(&[]) == 0.0);
        }
    }
    let (_, net) = network("bottleneck", 10, true);
    let pass = || Ok(net.forward(&golden::input("input", &[2, 3, 32, 32]), Mode::Eval));
    let refused = record::tap(&["layer1.0.conv9".into()], pass).unwrap_err().to_string();
    assert!(refused.contains("layer1.0.conv9") && refused.contains("layer1.0.conv1"), "{refused}");
}

/// Every variant but the one of 1,202 layers, in float64.
#[test]
fn logits_of_every_variant() {
    let twins = fixture();
    let names = twins.keys().filter_map(|key| key.strip_suffix(".logits")).filter(|name| !name.contains('.'));
    let mut seen = 0;
    for name in names {
        let edge = if name.contains("cifar") { 16 } else { 64 };
        let (_, net) = network(name, 10, true);
        let logits = tch::no_grad(|| net.forward(&golden::input("input", &[2, 3, edge, edge]), Mode::Eval).logits);
        let twin = &twins[&format!("{name}.logits")];
        assert_close(name, &logits, twin, of_deviation(twin.std(false).double_value(&[])));
        seen += 1;
    }
    assert_eq!(seen, 21);
}

/// Batch statistics are live, and no branch starts at 0. In float32, on inputs small enough that no rectifier's input rounds across 0: one
/// that does moves a gradient by up to a fifth of its tensor, in PyTorch itself (torchvision's resnet18 on 8 pictures of 64 pixels against its
/// own float64: 5 of 16 runs, seeds 0 to 7 in both memory formats; 5·10⁻⁶ to 10⁻⁵ in the others).
#[test]
fn a_step_in_training_mode() {
    let twins = fixture();
    for (name, batch, edge) in TRAINED {
        let twin = |what: &str| &twins[&format!("{name}.{what}")];
        let (store, net) = network(name, 10, false);
        let image = golden::input("input", &[batch, 3, edge, edge]).to_kind(Kind::Float);
        let logits = net.forward(&image, Mode::Train).logits;
        let loss = loss::cross_entropy(&logits, &golden::labels(batch, 10), 0.0);
        loss.backward();
        assert_close(name, &logits, twin("train.logits"), SINGLE.of_scale(twin("train.logits")));
        assert_close(name, &loss, twin("loss"), SINGLE);
        assert_samples_close(name, &gradients(&store), twin("grad"), SINGLE);
    }
}

/// In float64; and in float32 at a hundredth of the rate for the smallest, where ten steps do not magnify its rounding.
#[test]
fn ten_steps_of_sgd_and_running_statistics() {
    let sgd = |base_lr| {
        let (momentum, weight_decay, lr_scaling) = (0.9, 1e-4, LrScaling::None);
        OptimConfig::Sgd(SgdConfig {
            base_lr,
            momentum,
            nesterov: false,
            weight_decay,
            lr_scaling,
            lr_scale: LrScale::new(),
        })
    };
    let twins = fixture();
    for (name, batch, edge) in TRAINED {
        let twin = |what: &str| &twins[&format!("{name}.{what}")];
        let ten = |kind: Kind, lr: f64| {
            let (store, net) = network(name, 10, kind == Kind::Double);
            let (image, label) = (golden::input("input", &[batch, 3, edge, edge]), golden::labels(batch, 10));
            let image = image.to_kind(kind);
            let loss = || loss::cross_entropy(&net.forward(&image, Mode::Train).logits, &label, 0.0);
            (golden::ten_losses(&store, &sgd(lr), loss).unwrap(), store)
        };
        let (losses, store) = ten(Kind::Double, 0.01);
        assert_close(name, &losses, twin("losses"), DOUBLE);
        let all = variables(&store);
        // Two passes a step, as the loss is taken after it.
        let counters = all.iter().filter(|(key, _)| key.ends_with("num_batches_tracked"));
        assert!(counters.map(|(_, counter)| counter.int64_value(&[])).all(|passes| passes == 20), "{name}");
        let running = all.into_iter().filter(|(key, _)| key.contains("running")).collect();
        assert_samples_close(name, &running, twin("running"), ROUNDED);
        if name.starts_with("cifar") {
            assert_close(name, &ten(Kind::Float, 0.0001).0, twin("single"), SINGLE);
        }
    }
}

/// `resnet forward` of the smoke experiment with another network in it.
fn answer(name: &str, weights: &Named, input: &Named, words: &[&str]) -> Named {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/resnet/smoke.yaml");
    let program = Program { binary: env!("CARGO_BIN_EXE_resnet"), config: &config };
    program.answer(weights, input, &[&[format!("model.name={name}").as_str()], words].concat()).unwrap()
}

#[test]
fn the_binary_agrees() {
    let twins = fixture();
    for (name, batch, edge) in TRAINED.into_iter().filter(|(name, ..)| ["cifar_resnet20", "resnet18"].contains(name)) {
        let twin = |what: &str| &twins[&format!("{name}.{what}")];
        let image = golden::input("input", &[batch, 3, edge, edge]).to_kind(Kind::Float);
        let input = Named::from([("image".into(), image), ("label".into(), golden::labels(batch, 10))]);
        let output = answer(name, &variables(&network(name, 10, false).0), &input, &["--train", "--grad"]);
        assert_close("logits", &output["logits"], twin("train.logits"), SINGLE.of_scale(twin("train.logits")));
        assert_close("loss", &output["loss"], twin("loss"), SINGLE);
        let gradients = output.into_iter().filter(|(name, _)| name.starts_with("grad.")).collect();
        assert_samples_close(name, &gradients, twin("grad"), SINGLE);

        let edge = if name == "resnet18" { 64 } else { 16 };
        let image = golden::input("input", &[2, 3, edge, edge]);
        let output = answer(name, &variables(&network(name, 10, true).0), &Named::from([("image".into(), image)]), &[]);
        assert_close("logits in float64", &output["logits"], twin("logits"), DOUBLE.of_scale(twin("logits")));
    }
}

#[test]
fn one_number_a_channel_is_refused() {
    for (name, edge) in [("resnet18", 32), ("resnet18_cifar", 8), ("cifar_resnet20", 4)] {
        let variant = Variant::named(name).unwrap();
        assert_eq!(variant.check_batch(1, edge).unwrap_err().exit_code(), 2, "{name}");
        variant.check_batch(1, edge + 1).unwrap();
        variant.check_batch(2, edge).unwrap();
        // And it is the last map that has one place.
        let (_, net) = network(name, 10, false);
        let places = |edge: i64| {
            tch::no_grad(|| {
                net.forward(&Tensor::zeros([1, 3, edge, edge], (Kind::Float, Device::Cpu)), Mode::Eval).map.size()
            })
        };
        assert_eq!((&places(edge)[2..], places(edge + 1)[2] > 1), (&[1, 1][..], true), "{name}");
    }
}
