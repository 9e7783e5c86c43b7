//! torchvision's network and the twins of `scripts/fixtures/alexnet.py`, held against the library and against `alexnet forward`.
//!
//! Both sides fill weights and inputs from names ([`golden`]); the fixtures hold what the twins made of them.

use std::path::{Path, PathBuf};

use alexnet::model::{NAMES, Network, Variant};
use repro::golden::{self, DOUBLE, Program, SINGLE, assert_close, assert_samples_close, gradients, variables};
use repro::nn::Mode;
use repro::optim::{LrScale, LrScaling, OptimConfig, SgdConfig};
use repro::weights::Named;
use repro::{loss, weights};
use tch::{Device, Kind, Tensor, nn};

/// What the inputs are multiplied by, so that the sums of squares count beside k.
const SCALE: f64 = 10.0;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture() -> Named {
    weights::read(&folder().join("alexnet.safetensors")).unwrap().0
}

/// Edge of the twins' pictures: 67 leaves one place before the fully connected layers.
fn edge(variant: Variant) -> i64 {
    if variant.edge() == 224 { 67 } else { variant.edge() }
}

/// A network with the twin's weights, in float32 or float64.
fn network(variant: Variant, double: bool) -> (nn::VarStore, Network) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant, 10, edge(variant));
    if double {
        store.double();
    }
    golden::fill(&store);
    (store, net)
}

fn pictures(variant: Variant, count: i64) -> Tensor {
    golden::input("input", &[count, 3, edge(variant), edge(variant)]) * SCALE
}

/// Mean, standard deviation, the first four and the last of 2 × 1,000 logits in float64, as they are published.
#[test]
fn alexnet_has_its_golden_values() {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), Variant::Torchvision, 1000, 224);
    store.double();
    golden::fill(&store);
    let logits = tch::no_grad(|| net.forward(&golden::input("input", &[2, 3, 224, 224]), Mode::Eval).logits);
    assert_eq!(logits.size(), [2, 1000]);
    let deviation = 0.2561168796;
    let found = [0, 1, 2, 3].map(|i| logits.double_value(&[0, i]));
    let twin = [0.0838426774, 0.0932397272, -0.2013709839, 0.0710340467];
    let rest = [
        (logits.double_value(&[1, 999]), 0.2310809678),
        (logits.mean(Kind::Double).double_value(&[]), -0.006996304506),
        (logits.std(false).double_value(&[]), deviation),
    ];
    for (ours, twin) in found.into_iter().zip(twin).chain(rest) {
        assert!((ours - twin).abs() <= 1e-6 * deviation, "{ours} and not {twin}");
    }
}

#[test]
fn the_state_dict_is_that_of_torchvision() {
    let reference = golden::state_dicts(&folder().join("state_dicts.tsv.gz")).unwrap().remove("alexnet").unwrap();
    assert_eq!(reference.len(), 16);
    let names = |variant| {
        let store = nn::VarStore::new(Device::Cpu);
        Network::new(&store.root(), variant, 1000, 224);
        golden::state_dict(&store)
    };
    assert_eq!(names(Variant::Torchvision), reference);
    // The network of 2012 has the same names.
    assert!(names(Variant::Paper).keys().eq(reference.keys()));
}

#[test]
fn logits_of_every_variant() {
    let twins = fixture();
    for (name, variant) in NAMES {
        let twin = &twins[&format!("{name}.logits")];
        let logits = tch::no_grad(|| network(variant, true).1.forward(&pictures(variant, 2), Mode::Eval).logits);
        assert_close(name, &logits, twin, DOUBLE.of_scale(twin));
    }
}

/// Nothing is dropped: dropout is the only thing that differs in training.
#[test]
fn a_step_and_ten_steps_of_every_variant() {
    let sgd = SgdConfig {
        base_lr: 2e-4,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 5e-4,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    };
    let twins = fixture();
    for (name, variant) in NAMES {
        let twin = |what: &str| &twins[&format!("{name}.{what}")];
        let (store, net) = network(variant, false);
        let (image, label) = (pictures(variant, 4).to_kind(Kind::Float), golden::labels(4, 10));
        let logits = net.forward(&image, Mode::Eval).logits;
        let loss = loss::cross_entropy(&logits, &label, 0.0);
        loss.backward();
        assert_close(name, &logits, twin("train.logits"), SINGLE.of_scale(twin("train.logits")));
        assert_close(name, &loss, twin("loss"), SINGLE);
        assert_samples_close(name, &gradients(&store), twin("grad"), SINGLE);

        let loss = || loss::cross_entropy(&net.forward(&image, Mode::Eval).logits, &label, 0.0);
        let losses = golden::ten_losses(&store, &OptimConfig::Sgd(sgd.clone()), loss).unwrap();
        assert_close(name, &losses, twin("losses"), SINGLE);
    }
}

#[test]
fn the_binary_agrees() {
    let twins = fixture();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/alexnet/smoke.yaml");
    let program = Program { binary: env!("CARGO_BIN_EXE_alexnet"), config: &config };
    for name in ["alexnet_2012", "cifar_cnn"] {
        let (variant, twin) = (Variant::named(name).unwrap(), |what: &str| &twins[&format!("{name}.{what}")]);
        let words = [&format!("model.name={name}"), &format!("model.image_size={}", edge(variant)), "--grad"];
        let input = Named::from([
            ("image".into(), pictures(variant, 4).to_kind(Kind::Float)),
            ("label".into(), golden::labels(4, 10)),
        ]);
        let output = program.answer(&variables(&network(variant, false).0), &input, &words.map(|word| word as &str));
        let output = output.unwrap();
        assert_close("logits", &output["logits"], twin("train.logits"), SINGLE.of_scale(twin("train.logits")));
        assert_close("loss", &output["loss"], twin("loss"), SINGLE);
        let gradients = output.into_iter().filter(|(name, _)| name.starts_with("grad.")).collect();
        assert_samples_close(name, &gradients, twin("grad"), SINGLE);
    }
}
