//! Twins of `scripts/fixtures/simclr.py`, held against the library and against `simclr forward`.

use std::path::{Path, PathBuf};

use repro::config::Experiment;
use repro::golden::{
    self, DOUBLE, Program, ROUNDED, assert_close, assert_samples_close, gradients, ten_losses, variables,
};
use repro::nn::Mode;
use repro::optim::{LarsConfig, LrScale, LrScaling, OptimConfig};
use repro::weights::{self, Named};
use simclr::config::Config;
use simclr::loss::Loss;
use simclr::model::{Output, Simclr};
use tch::{Device, Tensor, nn};

/// Name in the fixture, and what makes it of the smoke experiment.
const HEADS: [(&str, [&str; 2]); 4] = [
    ("mlp2_bn", ["model.head=mlp2", "model.head_bn=true"]),
    ("mlp3_bn", ["model.head=3", "model.head_bn=true"]),
    ("mlp2", ["model.head=mlp2", "model.head_bn=false"]),
    ("none", ["model.head=none", "model.head_bn=false"]),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture() -> Named {
    weights::read(&folder().join("simclr.safetensors")).unwrap().0
}

fn smoke() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/simclr/smoke.yaml")
}

fn config(words: &[&str]) -> Config {
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let Experiment { paper, .. } = repro::config::load(&smoke(), &words).unwrap();
    paper
}

/// A model with the twin's weights, in float64.
fn twin(words: &[&str]) -> (nn::VarStore, Simclr) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Simclr::new(&store.root(), &config(&[words, &["model.head_dim=16"]].concat()), None).unwrap();
    store.double();
    golden::fill(&store);
    (store, net)
}

fn views() -> [Tensor; 2] {
    ["view1", "view2"].map(|name| golden::input(name, &[8, 3, 8, 8]))
}

const NT_XENT: Loss = Loss::NtXent { temperature: 0.5, normalise: true, chunk: None };

fn loss(net: &Simclr) -> Tensor {
    let z = net.forward(&Tensor::cat(&views(), 0), Mode::Train).z;
    NT_XENT.of(&z, 0, |rows| Ok(rows.shallow_clone())).unwrap()
}

#[test]
fn features_projections_loss_and_every_gradient() {
    let twins = fixture();
    for (name, words) in HEADS {
        let (store, net) = twin(&words);
        let Output { h, z } = net.forward(&Tensor::cat(&views(), 0), Mode::Train);
        let found = NT_XENT.of(&z, 0, |rows| Ok(rows.shallow_clone())).unwrap();
        found.backward();
        let twin = |what: &str| &twins[&format!("{name}.{what}")];
        assert_close(name, &h, twin("h"), DOUBLE.of_scale(twin("h")));
        assert_close(name, &z, twin("z"), DOUBLE.of_scale(twin("z")));
        assert_close(name, &found, twin("loss"), DOUBLE);
        assert_samples_close(name, &gradients(&store), twin("grad"), ROUNDED);
    }
}

#[test]
fn ten_steps_of_lars() {
    let twins = fixture();
    let lars = OptimConfig::Lars(LarsConfig {
        base_lr: 0.5,
        momentum: 0.9,
        weight_decay: 1e-4,
        trust: 0.001,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    });
    for (name, words) in HEADS {
        let (store, net) = twin(&words);
        let losses = ten_losses(&store, &lars, || loss(&net)).unwrap();
        assert_close(name, &losses, &twins[&format!("{name}.losses")], DOUBLE);
    }
}

#[test]
fn the_losses_of_table_4_and_their_gradients() {
    let twins = fixture();
    let normalise = true;
    let losses = [
        ("nt_xent", NT_XENT),
        ("nt_xent_cold", Loss::NtXent { temperature: 0.1, normalise, chunk: Some(3) }),
        ("nt_logistic", Loss::NtLogistic { temperature: 0.5, normalise, semi_hard: false }),
        ("nt_logistic_sh", Loss::NtLogistic { temperature: 0.5, normalise, semi_hard: true }),
        ("triplet", Loss::Triplet { margin: 0.4, normalise, semi_hard: false }),
        ("triplet_sh", Loss::Triplet { margin: 0.4, normalise, semi_hard: true }),
    ];
    for (name, loss) in losses {
        let z = golden::input("z", &[8, 16]).set_requires_grad(true);
        let found = loss.of(&z, 0, |rows| Ok(rows.shallow_clone())).unwrap();
        found.backward();
        assert_close(name, &found, &twins[&format!("{name}.value")], DOUBLE);
        let grad = &twins[&format!("{name}.grad")];
        assert_close(name, &z.grad(), grad, DOUBLE.of_scale(grad));
    }
}

#[test]
fn state_dicts_are_those_of_the_twins() {
    let references = golden::state_dicts(&folder().join("state_dicts.tsv.gz")).unwrap();
    assert_eq!(references.len(), 6);
    for (name, reference) in references {
        let (model, head) = name.split_once(' ').unwrap();
        let (layers, normed) = head.strip_suffix("_bn").map_or((head, false), |head| (head, true));
        let words = [format!("model.name={model}"), format!("model.head={layers}"), format!("model.head_bn={normed}")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let store = nn::VarStore::new(Device::Cpu);
        Simclr::new(&store.root(), &config(&words), None).unwrap();
        assert_eq!(golden::state_dict(&store), reference, "{name}");
    }
}

/// Counts of f, and of f with a head of two layers without norms, as they are published.
#[test]
fn parameters_are_those_of_the_networks() {
    let count = |words: &[&str]| -> usize {
        let store = nn::VarStore::new(Device::Cpu);
        Simclr::new(&store.root(), &config(words), None).unwrap();
        store.trainable_variables().iter().map(Tensor::numel).sum()
    };
    for (name, f, both) in
        [("simclr_resnet18_cifar", 11_168_832, 11_497_152), ("simclr_resnet50_cifar", 23_500_352, 27_958_976)]
    {
        let name = format!("model.name={name}");
        assert_eq!(count(&[&name, "model.head=none"]), f);
        assert_eq!(count(&[&name, "model.head_bn=false"]), both);
    }
}

#[test]
fn the_binary_agrees() {
    let (twins, smoke) = (fixture(), smoke());
    let program = Program { binary: env!("CARGO_BIN_EXE_simclr"), config: &smoke };
    let [view1, view2] = views();
    let input = Named::from([("view1".to_string(), view1), ("view2".to_string(), view2)]);
    for (name, words) in HEADS {
        let twin_of = |what: &str| &twins[&format!("{name}.{what}")];
        let words = [&words[..], &["model.head_dim=16", "--train", "--grad"]].concat();
        let output = program.answer(&variables(&twin(&words[..2]).0), &input, &words).unwrap();
        let both = |what: &str| Tensor::cat(&[&output[&format!("{what}1")], &output[&format!("{what}2")]], 0);
        assert_close(name, &both("h"), twin_of("h"), DOUBLE.of_scale(twin_of("h")));
        assert_close(name, &both("z"), twin_of("z"), DOUBLE.of_scale(twin_of("z")));
        assert_close(name, &output["loss"], twin_of("loss"), DOUBLE);
        let gradients = output.iter().filter(|(name, _)| name.starts_with("grad."));
        let gradients = gradients.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        assert_samples_close(name, &gradients, twin_of("grad"), ROUNDED);
    }
    let words = ["model.head=mlp2", "model.head_bn=true", "model.head_dim=16"];
    let output = program.answer(&variables(&twin(&words[..2]).0), &input, &words).unwrap();
    let z = Tensor::cat(&[&output["z1"], &output["z2"]], 0);
    let expected = &twins["mlp2_bn.eval.z"];
    assert_close("eval mode", &z, expected, DOUBLE.of_scale(expected));
}
