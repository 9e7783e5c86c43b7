//! The networks behind the scores: Inception v3 against pytorch-fid's (`scripts/fixtures/inception.py`), and classifiers of other papers by
//! their runs.

use std::path::{Path, PathBuf};

use ddpm::features::FeatureNet;
use ddpm::inception::Inception;
use repro::data::{Card, Normalise};
use repro::golden::{self, DOUBLE, SINGLE, Tolerance, assert_close};
use repro::nn::Mode;
use repro::weights::{self, Named};
use repro::{Error, config};
use tch::{Device, Kind, Tensor, nn};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Pictures in [0, 1], float64.
fn pictures(shape: &[i64]) -> Tensor {
    (golden::input("input", shape) + 1.0) / 2.0
}

fn tensors(store: &nn::VarStore) -> Named {
    store.variables().into_iter().collect()
}

/// Names, shapes, kinds of every tensor of the public file's network.
#[test]
fn the_state_dict_is_that_of_the_public_file() {
    let store = nn::VarStore::new(Device::Cpu);
    Inception::new(&store.root());
    let references = golden::state_dicts(&fixture("inception.tsv.gz")).unwrap();
    assert_eq!(golden::state_dict(&store), references["inception_v3"]);
    assert_eq!(store.trainable_variables().iter().map(Tensor::numel).sum::<usize>(), 23_834_568 + 8 * 2049);
}

/// In float64 to 1e-10 of the outputs' scale; opened from a file, in float32, as near as that allows.
#[test]
fn inception_is_that_of_pytorch_fid() {
    let (theirs, _) = weights::read(&fixture("inception.safetensors")).unwrap();
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Inception::new(&store.root());
    store.double();
    golden::fill(&store);
    let (features, logits) = tch::no_grad(|| {
        let features = net.features(&pictures(&[2, 3, 20, 24]));
        (features.shallow_clone(), net.fc.forward(&features))
    });
    let tight = Tolerance { relative: 1e-10, ..DOUBLE };
    for (name, ours) in [("features", &features), ("logits", &logits)] {
        assert_close(name, ours, &theirs[name], tight.of_scale(&theirs[name]));
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inception.safetensors");
    store.float();
    weights::write(&file, &tensors(&store), None).unwrap();
    let opened = FeatureNet::open(&file, Device::Cpu).unwrap();
    assert_eq!((opened.name.as_str(), opened.is_inception()), ("inception_v3", true));
    assert_eq!(opened.sha256, weights::hash(&tensors(&store)).unwrap());
    assert_eq!(opened.notes, Vec::<String>::new());
    let found = opened.features(&pictures(&[2, 3, 20, 24])).unwrap();
    assert_close("float32", &found.features, &features, SINGLE.of_scale(&features));
    // The literature's inception score knows no bias.
    let bias = net.fc.bias.as_ref().unwrap().to_kind(Kind::Double);
    assert_close("probabilities", &found.probabilities, &(logits - bias).softmax(1, Kind::Double), SINGLE);
    let grey = pictures(&[1, 1, 20, 24]);
    let coloured = opened.features(&grey.expand([1, 3, 20, 24], false)).unwrap();
    assert_eq!(opened.features(&grey).unwrap().features, coloured.features);
}

/// A run of an experiment, as far as a reader of its weights looks at it; the weights are made from names.
fn run(folder: &Path, experiment: &str, store: &nn::VarStore, card: Option<&str>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments").join(experiment);
    let resolved = config::resolve(&file, &[]).unwrap();
    std::fs::write(folder.join("config.yaml"), resolved.yaml()).unwrap();
    std::fs::write(folder.join("result.json"), "{}").unwrap();
    golden::fill(store);
    weights::write(&folder.join("weights.safetensors"), &tensors(store), card).unwrap();
}

fn refused<T>(result: repro::Result<T>, word: &str) {
    match result {
        Err(Error::User(text)) => assert!(text.contains(word), "{text}"),
        Err(other) => panic!("{word}: {other:?}"),
        Ok(_) => panic!("{word}: it is taken"),
    }
}

/// What the last layer of either LeNet-5 is given, in two batches.
#[test]
fn lenet_by_its_run_or_alone() {
    use lenet::config::{ModelConfig, Name};
    let shown = pictures(&[300, 1, 28, 28]).to_kind(Kind::Float);
    for (name, word, experiment, width, last) in [
        (Name::Lenet5Modern, "lenet5_modern", "lenet/lenet5_modern.yaml", 84, "fc2"),
        (Name::Lenet5, "lenet5", "lenet/lenet5.yaml", 84, "F6"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        let net = lenet::network::Network::new(&store.root(), &ModelConfig::new(name, 10));
        run(folder.path(), experiment, &store, None);
        let input = net.input(&shown);
        let (states, logits) = tch::no_grad(|| (net.states(&input), net.forward(&input)));
        let (_, expected) = states.iter().find(|(name, _)| *name == last).unwrap();
        let opened = FeatureNet::open(folder.path(), Device::Cpu).unwrap();
        assert_eq!((opened.name.as_str(), opened.is_inception()), (word, false));
        let found = opened.features(&shown).unwrap();
        assert_eq!(found.features.size(), [300, width]);
        assert_close(word, &found.features, expected, SINGLE);
        assert_close(word, &found.probabilities, &logits.softmax(1, Kind::Double), SINGLE);

        // The weights alone say as much.
        std::fs::remove_file(folder.path().join("config.yaml")).unwrap();
        let alone = FeatureNet::open(folder.path(), Device::Cpu).unwrap();
        assert_eq!(alone.features(&shown).unwrap().features, found.features);
        refused(alone.features(&pictures(&[2, 1, 32, 32])), "floating point of [N, C, 28, 28], C being of [1]");
        refused(alone.features(&pictures(&[2, 3, 28, 28])), "[2, 3, 28, 28]");
        refused(alone.features(&pictures(&[0, 1, 28, 28])), "[0, 1, 28, 28]");
    }
}

/// Pooled features, of pictures that are centred as the card of the weights has it and not as the configuration.
#[test]
fn resnet_by_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let variant = resnet::model::Variant::named("cifar_resnet20").unwrap();
    let net = resnet::model::Network::new(&store.root(), variant, 10);
    let normalise = Normalise::Channels { mean: vec![0.1, 0.2, 0.3], std: vec![0.5, 1.0, 2.0] };
    let card = Card::named(&["a"; 10].map(String::from), &normalise).unwrap();
    run(folder.path(), "resnet/smoke.yaml", &store, card.text().as_deref());
    let grey = pictures(&[3, 1, 32, 32]).to_kind(Kind::Float);
    let centred = card.normaliser().unwrap().apply(&grey.expand([3, 3, 32, 32], false)).unwrap();
    let output = tch::no_grad(|| net.forward(&centred, Mode::Eval));
    let opened = FeatureNet::open(folder.path(), Device::Cpu).unwrap();
    assert_eq!(opened.name, "cifar_resnet20");
    let found = opened.features(&grey).unwrap();
    assert_eq!(found.features.size(), [3, 64]);
    assert_close("features", &found.features, &resnet::model::pooled(&output.map), SINGLE);
    assert_close("probabilities", &found.probabilities, &output.logits.softmax(1, Kind::Double), SINGLE);
    refused(opened.features(&pictures(&[3, 3, 28, 28])), "[N, C, 32, 32], C being of [1, 3]");

    std::fs::remove_file(folder.path().join("result.json")).unwrap();
    refused(FeatureNet::open(folder.path(), Device::Cpu), "give the folder of their run");
    let other = folder.path().join("other.safetensors");
    weights::write(&other, &Named::from([("w".to_string(), Tensor::from(1.0))]), None).unwrap();
    refused(FeatureNet::open(&other, Device::Cpu), "must be Inception v3");
}

/// `ddpm metrics`: one object on stdout and nothing else, with or without `--json`; the warning on stderr; exit code 2 for what does not fit.
#[test]
fn the_program_prints_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, features: [i64; 2], more: Option<Tensor>| {
        let file = folder.path().join(name);
        let more = more.map(|tensor| ("probabilities".to_string(), tensor));
        let features = ("features".to_string(), golden::input(name, &features));
        weights::write(&file, &[features].into_iter().chain(more).collect(), None).unwrap();
        file
    };
    let probabilities = golden::input("logits", &[7, 5]).softmax(1, Kind::Double);
    let (real, fake) = (write("real", [6, 8], None), write("fake", [7, 8], Some(probabilities)));
    let run = |fake: &Path, words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ddpm"));
        command.arg("metrics").arg("--real").arg(&real).arg("--fake").arg(fake).args(words).output().unwrap()
    };
    for words in [&[][..], &["--json"]] {
        let output = run(&fake, words);
        let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&said).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["fid", "kid", "is", "precision", "recall"]);
        assert!(found.values().all(serde_json::Value::is_number), "{said}");
        assert!(output.status.success() && warned.contains("too few for covariances of 8 features"), "{warned}");
    }
    let output = run(&write("narrow", [7, 3], None), &[]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}
