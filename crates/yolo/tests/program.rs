//! The program itself: `forward` by weights of either form, `convert` there and back, files that are cut.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use repro::golden::{self, DOUBLE, Program, SINGLE, assert_close, variables};
use repro::nn::Mode;
use repro::weights::{self, Named};
use tch::{Device, Kind, Tensor, nn};
use yolo::model::Network;
use yolo::sections::Variant;

fn smoke() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/yolo/smoke.yaml")
}

fn program(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_yolo"));
    command.current_dir(folder).args(words).env("OMP_NUM_THREADS", "1").output().unwrap()
}

fn succeeds(folder: &Path, words: &[&str]) {
    let output = program(folder, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn refused(folder: &Path, words: &[&str]) -> String {
    let output = program(folder, words);
    assert_eq!(output.status.code(), Some(2), "{words:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The smoke experiment's network with weights from names; its anchors stay what they are.
fn small(kind: Kind) -> (nn::VarStore, Network) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), Variant::Small.plan(10)).unwrap();
    if kind == Kind::Double {
        store.double();
    }
    let anchors: Named = variables(&store).into_iter().filter(|(name, _)| name.contains(".yolo_")).collect();
    let anchors: Named = anchors.into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
    golden::fill(&store);
    tch::no_grad(|| anchors.iter().for_each(|(name, tensor)| store.variables().get_mut(name).unwrap().copy_(tensor)));
    (store, net)
}

fn input(kind: Kind) -> Named {
    let image = (golden::input("input", &[2, 3, 64, 96]) * 0.5 + 0.5).to_kind(kind);
    let boxes = Tensor::from_slice2(&[[0.4, 0.3, 0.2, 0.3], [0.5, 0.5, 0.3, 0.2], [0.1, 0.9, 0.1, 0.1]]).to_kind(kind);
    let named = [
        ("image", image),
        ("boxes", boxes),
        ("labels", Tensor::from_slice(&[3i64, 9, 0])),
        ("counts", Tensor::from_slice(&[2i64, 1])),
    ];
    named.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect()
}

/// What is written is what the library gives, the loss with its parts and gradients beside it.
#[test]
fn forward_answers_by_the_contract() {
    let (store, net) = small(Kind::Double);
    let input = input(Kind::Double);
    let told = Program { binary: env!("CARGO_BIN_EXE_yolo"), config: &smoke() };
    let told = told.answer(&variables(&store), &input, &["--grad", "--tap", "module_list.0"]).unwrap();
    let raw = tch::no_grad(|| net.forward(&input["image"], Mode::Eval));
    assert_eq!((raw[0].size(), raw[1].size()), (vec![2, 3, 4, 6, 15], vec![2, 3, 8, 12, 15]));
    for (i, raw) in raw.iter().enumerate() {
        assert_close("raw", &told[&format!("raw.{i}")], raw, DOUBLE.of_scale(raw));
    }
    let parts = &told["loss_box"] + &told["loss_objectness"] + &told["loss_class"];
    assert_close("loss", &told["loss"], &parts, DOUBLE);
    let learnt = store.trainable_variables().len();
    assert_eq!(told.keys().filter(|name| name.starts_with("grad.")).count(), learnt);
    assert_eq!(told["tap.module_list.0"].size(), [2, 16, 64, 96]);
}

#[test]
fn weights_of_both_forms_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = small(Kind::Float);
    weights::write(&folder.path().join("w.safetensors"), &variables(&store), None).unwrap();
    weights::write(&folder.path().join("i.safetensors"), &input(Kind::Float), None).unwrap();
    let yaml = smoke().display().to_string();
    // Without a configuration a file is known by its length.
    succeeds(folder.path(), &["convert", "--weights", "w.safetensors", "--out", "w.weights"]);
    succeeds(folder.path(), &["convert", "--weights", "w.weights", "--out", "back.safetensors"]);
    succeeds(folder.path(), &["convert", "--weights", "back.safetensors", "--out", "again.weights"]);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("w.weights") == read("again.weights"));
    for form in ["w.safetensors", "w.weights"] {
        let words = ["forward", "--config", &yaml, "--input", "i.safetensors", "--device", "cpu", "--weights", form];
        succeeds(folder.path(), &[&words[..], &["--output", &format!("{form}.out")]].concat());
    }
    let told = |form: &str| weights::read(&folder.path().join(format!("{form}.out"))).unwrap().0;
    let (ours, theirs) = (told("w.safetensors"), told("w.weights"));
    assert!(ours.len() == 6 && ours.iter().all(|(name, tensor)| tensor.equal(&theirs[name])));

    // The network by its own .cfg, which a configuration may name.
    succeeds(folder.path(), &["convert", "--config", &yaml, "--out", "w.cfg"]);
    succeeds(folder.path(), &["convert", "--weights", "w.weights", "--cfg", "w.cfg", "--out", "by.safetensors"]);
    assert!(read("by.safetensors") == read("back.safetensors"));
    let words = ["forward", "--config", &yaml, "model.name=w.cfg", "--input", "i.safetensors", "--device", "cpu"];
    succeeds(folder.path(), &[&words[..], &["--weights", "w.weights", "--output", "w.out"]].concat());
    let by_cfg = weights::read(&folder.path().join("w.out")).unwrap().0;
    assert_close("loss", &by_cfg["loss"], &ours["loss"], SINGLE);
}

#[test]
fn files_that_do_not_fit_are_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (store, _) = small(Kind::Float);
    weights::write(&at("w.safetensors"), &variables(&store), None).unwrap();
    weights::write(&at("i.safetensors"), &input(Kind::Float), None).unwrap();
    succeeds(folder.path(), &["convert", "--weights", "w.safetensors", "--out", "w.weights"]);
    let whole = fs::read(at("w.weights")).unwrap();
    fs::write(at("cut.weights"), &whole[..whole.len() - 400]).unwrap();
    let yaml = smoke().display().to_string();
    let forward = |weights: &str| {
        let words = ["forward", "--config", &yaml, "--device", "cpu", "--input", "i.safetensors", "--output", "o"];
        refused(folder.path(), &[&words[..], &["--weights", weights]].concat())
    };
    assert!(forward("cut.weights").contains("100 are missing"), "{}", forward("cut.weights"));
    let said = refused(folder.path(), &["convert", "--weights", "cut.weights", "--out", "x.safetensors"]);
    assert!(said.contains("no known network's; name it with --config or --cfg"), "{said}");
    let said = refused(folder.path(), &["convert", "--weights", "w.weights", "--out", "x.onnx"]);
    assert!(said.contains("the ending must be .weights, .safetensors or .cfg"), "{said}");

    succeeds(folder.path(), &["convert", "--config", &yaml, "--out", "w.cfg"]);
    let text = fs::read_to_string(at("w.cfg")).unwrap();
    fs::write(at("other.cfg"), text.replacen("filters=16", "filters=17", 1)).unwrap();
    let words =
        ["convert", "--config", &yaml, "--cfg", "other.cfg", "--weights", "w.weights", "--out", "x.safetensors"];
    let said = refused(folder.path(), &words);
    assert!(said.contains("section 0 of the .cfg") && said.lines().count() == 1, "{said}");

    fs::write(at("huge.cfg"), text.replacen("size=3", "size=999999999", 1)).unwrap();
    let said =
        refused(folder.path(), &["convert", "--cfg", "huge.cfg", "--weights", "w.weights", "--out", "x.safetensors"]);
    assert!(said.contains("999999999") && said.lines().count() == 1, "{said}");

    let mut other = input(Kind::Float);
    other.insert("image".into(), Tensor::zeros([2, 3, 60, 96], (Kind::Float, Device::Cpu)));
    weights::write(&at("i.safetensors"), &other, None).unwrap();
    assert!(forward("w.weights").contains("H and W multiples of 16"));
    other.insert("padding".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    weights::write(&at("i.safetensors"), &other, None).unwrap();
    assert!(forward("w.weights").contains("padding is not known"));
}

/// Weights of other classes, and a network's beginning: what is missing starts fresh, and the run says so.
#[test]
fn a_run_begins_with_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let _net = Network::new(&store.root(), Variant::Small.plan(4)).unwrap();
    weights::write(&folder.path().join("w.safetensors"), &variables(&store), None).unwrap();
    succeeds(folder.path(), &["convert", "--weights", "w.safetensors", "--out", "w.weights"]);
    // The first two convolutions: 16·27 + 64 numbers and 32·16·9 + 128.
    let whole = fs::read(folder.path().join("w.weights")).unwrap();
    fs::write(folder.path().join("begun.conv"), &whole[..20 + 4 * (432 + 64 + 4608 + 128)]).unwrap();
    let yaml = smoke().display().to_string();
    for (init, told) in [("w.weights", "another number of classes"), ("begun.conv", "end at section 1")] {
        let out = format!("run-{init}");
        let words = ["train", "--config", &yaml, "--device", "cpu", "--init", init, "--out", &out, "length=1 steps"];
        let words = [&words[..], &["-q", "batch_size=2", "data.limit_test=2", "schedule.warmup=0 steps"]].concat();
        succeeds(folder.path(), &words);
        let log = fs::read_to_string(folder.path().join(&out).join("log.txt")).unwrap();
        assert!(log.contains(told), "{log}");
    }
}
