//! The PyTorch twins of `scripts/fixtures/lenet.py`, held against the library and against `lenet forward`.
//!
//! Both sides fill the weights from the tensors' names ([`golden`]); the fixtures hold the inputs and what the twins made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use lenet::config::{ModelConfig, Name};
use lenet::loss::Loss;
use lenet::model::C3_INPUTS;
use lenet::network::Network;
use repro::golden::{self, DOUBLE, Program, ROUNDED, SINGLE, Tolerance, assert_close, gradients, variables};
use repro::optim::{AdamwConfig, LrScale, LrScaling, OptimConfig, SgdConfig};
use repro::weights;
use repro::weights::Named;
use tch::{Device, Kind, Tensor, nn};

/// The same names both ways, and close values.
fn assert_gradients_close(ours: &Named, twin: &Named, tolerance: Tolerance) {
    let names = |all: &Named| all.keys().filter(|name| name.starts_with("grad.")).cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(twin));
    for name in names(twin) {
        assert_close(&name, &ours[&name], &twin[&name], tolerance);
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture(name: &str) -> Named {
    weights::read(&folder().join(format!("{name}.safetensors"))).unwrap().0
}

/// The modern form with the twin's weights, float32.
fn modern() -> (nn::VarStore, Network) {
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), &ModelConfig::new(Name::Lenet5Modern, 10));
    golden::fill(&store);
    (store, net)
}

/// The network of 1998 with the twin's weights and output codes, float64.
fn faithful(twin: &Named) -> (nn::VarStore, Network) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), &ModelConfig::new(Name::Lenet5, 10));
    store.double();
    golden::fill(&store);
    tch::no_grad(|| store.variables()["rbf.centers"].shallow_clone().copy_(&twin["rbf.centers"]));
    (store, net)
}

#[test]
fn the_inputs_are_those_of_the_rule() {
    let image = golden::input("input", &[6, 1, 28, 28]).to_kind(Kind::Float);
    assert_eq!(fixture("lenet5_modern")["image"], image);
    assert_eq!(fixture("lenet5")["image"], golden::input("input", &[8, 1, 32, 32]));
}

/// `lenet5_modern.tsv` is the state dict of the usual PyTorch port: name, shape, kind, dtype.
#[test]
fn modern_has_the_state_dict_of_the_port() {
    let table = std::fs::read_to_string(folder().join("lenet5_modern.tsv")).unwrap();
    let row = |line: &str| {
        let (name, rest) = line.split_once('\t').unwrap();
        (name.to_string(), rest.to_string())
    };
    let port: BTreeMap<_, _> = table.lines().skip(1).map(row).collect();
    assert_eq!(port.len(), 10);

    let (store, _) = modern();
    assert_eq!(golden::state_dict(&store), port);
    assert_eq!(store.variables().values().map(Tensor::numel).sum::<usize>(), 61_706);
}

#[test]
fn modern_logits_loss_and_gradients() {
    let twin = fixture("lenet5_modern");
    let (store, net) = modern();
    let logits = net.forward(&twin["image"]);
    let loss = Loss::CrossEntropy {}.mean(&logits, &twin["label"]).unwrap();
    loss.backward();
    assert_close("logits", &logits, &twin["logits"], SINGLE);
    assert_close("loss", &loss, &twin["loss"], SINGLE);
    assert_gradients_close(&gradients(&store), &twin, SINGLE);
}

/// The loss on the fixture's batch after each of ten steps on it.
fn ten_losses(twin: &Named, config: &OptimConfig) -> Tensor {
    let (store, net) = modern();
    let loss = || Loss::CrossEntropy {}.mean(&net.forward(&twin["image"]), &twin["label"]).unwrap();
    golden::ten_losses(&store, config, loss).unwrap()
}

#[test]
fn ten_steps_of_sgd() {
    let twin = fixture("lenet5_modern");
    let config = SgdConfig {
        base_lr: 0.05,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 1e-4,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    };
    let losses = ten_losses(&twin, &OptimConfig::Sgd(config));
    assert_close("losses.sgd", &losses, &twin["losses.sgd"], SINGLE);
}

#[test]
fn ten_steps_of_adamw() {
    let twin = fixture("lenet5_modern");
    let config = AdamwConfig {
        base_lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.05,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    };
    let losses = ten_losses(&twin, &OptimConfig::Adamw(config));
    assert_close("losses.adamw", &losses, &twin["losses.adamw"], SINGLE);
}

#[test]
fn distances_loss_and_gradients_of_1998() {
    let twin = fixture("lenet5");
    let (store, net) = faithful(&twin);
    let logits = net.forward(&twin["image"]);
    let loss = Loss::Map { j: twin["j"].double_value(&[]) }.mean(&logits, &twin["label"]).unwrap();
    loss.backward();
    assert_close("distances", &-logits, &twin["distances"], DOUBLE);
    assert_close("loss", &loss, &twin["loss"], DOUBLE);
    assert_gradients_close(&gradients(&store), &twin, ROUNDED);
}

/// The twin states Table I on its own, as the paper prints it.
#[test]
fn c3_sees_the_maps_of_table_i() {
    let twin = fixture("lenet5");
    let (store, net) = faithful(&twin);
    net.forward(&twin["image"]).sum(Kind::Double).backward();
    // The maps below whose kernel has any gradient at all.
    let seen = |gradient: &Tensor| -> Vec<Vec<i64>> {
        let acts = |map, input: &i64| gradient.get(map).get(*input).count_nonzero(None::<i64>).int64_value(&[]) > 0;
        (0..16).map(|map| (0..6).filter(|input| acts(map, input)).collect()).collect()
    };
    assert_eq!(seen(&twin["grad.c3.weight"]), C3_INPUTS);
    assert_eq!(seen(&store.variables()["c3.weight"].grad()), C3_INPUTS);
}

/// `lenet forward` with the experiment of that name, in a folder where it finds `weights` and `input`.
fn forward(folder: &Path, experiment: &str, weights: &Named, input: &Named, words: &[&str]) -> Output {
    let config = experiments().join(format!("{experiment}.yaml"));
    let program = Program { binary: env!("CARGO_BIN_EXE_lenet"), config: &config };
    program.forward(folder, weights, input, words).unwrap()
}

/// What `forward` wrote, `--grad` included.
fn answer(experiment: &str, weights: &Named, input: &Named, words: &[&str]) -> Named {
    let config = experiments().join(format!("{experiment}.yaml"));
    let program = Program { binary: env!("CARGO_BIN_EXE_lenet"), config: &config };
    program.answer(weights, input, &[words, &["--grad"]].concat()).unwrap()
}

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/lenet")
}

/// Exit code 2, a message that has every one of `parts`, and nothing written.
fn refused(weights: &Named, input: &Named, words: &[&str], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let output = forward(folder.path(), "lenet5_modern", weights, input, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{parts:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "should name {part:?}: {said}");
    }
    assert!(!folder.path().join("O.safetensors").exists());
}

/// The tensors of these names.
fn only(names: &[&str], twin: &Named) -> Named {
    names.iter().map(|&name| (name.to_string(), twin[name].shallow_clone())).collect()
}

#[test]
fn the_binary_agrees_on_the_modern_form() {
    let twin = fixture("lenet5_modern");
    let output = answer("lenet5_modern", &variables(&modern().0), &only(&["image", "label"], &twin), &[]);
    assert_eq!(output.len(), 12, "logits, loss and ten gradients: {:?}", output.keys());
    assert_close("logits", &output["logits"], &twin["logits"], SINGLE);
    assert_close("loss", &output["loss"], &twin["loss"], SINGLE);
    assert_gradients_close(&output, &twin, SINGLE);
}

#[test]
fn the_binary_agrees_on_the_network_of_1998_in_float64() {
    let twin = fixture("lenet5");
    let j = format!("loss.j={}", twin["j"].double_value(&[]));
    let output = answer("lenet5", &variables(&faithful(&twin).0), &only(&["image", "label"], &twin), &[&j]);
    assert_eq!(output.len(), 14, "logits, loss and twelve gradients: {:?}", output.keys());
    assert!(output.values().all(|tensor| tensor.kind() == Kind::Double));
    assert_close("distances", &-&output["logits"], &twin["distances"], DOUBLE);
    assert_close("loss", &output["loss"], &twin["loss"], DOUBLE);
    assert_gradients_close(&output, &twin, ROUNDED);
}

#[test]
fn forward_lists_all_weights_that_do_not_fit() {
    let mut weights = variables(&modern().0);
    weights.remove("fc3.bias");
    weights.insert("fc4.bias".into(), Tensor::zeros([3], (Kind::Float, Device::Cpu)));
    // Shapes that would broadcast, and a kind that would convert; half precision does convert.
    weights.insert("conv1.weight".into(), Tensor::zeros([1, 1, 5, 5], (Kind::Float, Device::Cpu)));
    weights.insert("fc2.bias".into(), Tensor::zeros([84], (Kind::Int64, Device::Cpu)));
    weights.insert("fc1.bias".into(), Tensor::zeros([120], (Kind::Half, Device::Cpu)));
    let parts = [
        "W.safetensors",
        "4 differences",
        "missing: fc3.bias [10]",
        "unexpected: fc4.bias [3]",
        "misshapen: conv1.weight is [1, 1, 5, 5] and should be [6, 1, 5, 5]",
        "wrong kind: fc2.bias is int64 and should be float32",
    ];
    refused(&weights, &only(&["image"], &fixture("lenet5_modern")), &[], &parts);
}

#[test]
fn forward_refuses_inputs_that_do_not_fit() {
    let weights = variables(&modern().0);
    let twin = fixture("lenet5_modern");
    let with = |name: &str, tensor: Tensor| {
        let mut input = only(&["image", "label"], &twin);
        input.insert(name.into(), tensor);
        input
    };
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let takes = "[N, 1, 28, 28]";
    for (name, tensor, parts) in [
        ("image", zeros(&[6, 1, 32, 32], Kind::Float), ["[6, 1, 32, 32]", takes]),
        ("image", zeros(&[6, 28, 28], Kind::Float), ["[6, 28, 28]", takes]),
        ("image", zeros(&[0, 1, 28, 28], Kind::Float), ["[0, 1, 28, 28]", takes]),
        ("image", zeros(&[6, 1, 28, 28], Kind::Uint8), ["Uint8", takes]),
        ("image", zeros(&[6, 1, 28, 28], Kind::Double), ["image is Double", "weights are Float"]),
        ("label", zeros(&[5], Kind::Int64), ["label", "int64 of [6]"]),
        ("label", zeros(&[6], Kind::Int), ["label", "int64 of [6]"]),
        ("label", zeros(&[6], Kind::Int64) + 10, ["label", "0 to 9"]),
        ("labels", zeros(&[6], Kind::Int64), ["labels", "not known"]),
    ] {
        refused(&weights, &with(name, tensor), &[], &parts);
    }
    refused(&weights, &only(&["label"], &twin), &[], &["no tensor named image"]);
}

#[test]
fn forward_refuses_gradients_without_a_label() {
    let input = only(&["image"], &fixture("lenet5_modern"));
    refused(&variables(&modern().0), &input, &["--grad"], &["--grad", "I.safetensors", "loss"]);
}
