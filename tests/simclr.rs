//! SimCLR through its binary: exact in all its stages, a probe that proves its frozen trunk, refusals.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use repro::weights::{self, Named};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::photos::photos;
use crate::program::{checkpoints, program, quietly, result, root, run, succeed, text, wait_until};
use crate::simclr_rows::yaml;

const STAGES: [&str; 4] = ["pretrain", "probe", "knn", "finetune"];

/// The smoke experiment on one thread.
fn smoke(folder: &Path, command: &str, words: &[&str]) -> Command {
    let yaml = root().join("experiments/simclr/smoke.yaml").display().to_string();
    program("simclr", folder, [&[command, "--config", &yaml, "--device", "cpu"], words].concat())
}

/// Some steps of each stage.
fn train(folder: &Path, words: &[&str]) -> Command {
    let short = [
        "-q",
        "compute.threads=1",
        "length=8 steps",
        "schedule.warmup=2 steps",
        "batch_size=8",
        "data.limit_train=64",
        "data.limit_test=40",
        "checkpoint.every=2 steps",
        "probe.length=12 steps",
        "probe.batch_size=16",
        "finetune.length=6 steps",
        "finetune.batch_size=8",
        "finetune.labels=0.5",
    ];
    smoke(folder, "train", &[&short[..], words].concat())
}

/// The hashes of what each stage has learned, and those of the trunk that the probes read.
fn learned(run: &Path) -> Vec<Value> {
    let result = result(run);
    assert_eq!(result["status"], "done", "{result:#}");
    let stages = STAGES.map(|stage| result["stages"][stage]["weights_sha256"].clone());
    let trunk = ["trunk_sha256_before", "trunk_sha256_after"].map(|field| result[field].clone());
    let all = [&stages[..], &trunk].concat();
    assert!(all.iter().all(Value::is_string), "{result:#}");
    all
}

#[test]
fn one_yaml_runs_all_stages_and_the_trunk_stays() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), &["--out", "run"]));
    let run = dir.path().join("run");
    let result = result(&run);
    for metric in ["test/loss", "probe/test/accuracy", "knn/test/accuracy", "finetune/test/accuracy"] {
        assert!(result["metrics"][metric].is_number(), "{metric}: {result:#}");
    }
    assert_eq!(result["trunk_sha256_before"], result["trunk_sha256_after"]);
    // It is the trunk of pre-training, statistics of norms included.
    let (model, _) = weights::read(&run.join("weights.safetensors")).unwrap();
    assert!(model.contains_key("backbone.bn1.running_var"));
    let trunk = weights::frozen_hash(&model, &["backbone".to_string()]).unwrap();
    assert_eq!(result["trunk_sha256_after"], trunk);
    // Fine-tuning began there and moved it.
    let (tuned, _) = weights::read(&run.join("weights-finetune.safetensors")).unwrap();
    assert_ne!(weights::frozen_hash(&tuned, &["backbone".to_string()]).unwrap(), trunk);
    for stage in ["probe", "knn", "finetune"] {
        assert!(run.join(format!("weights-{stage}.safetensors")).is_file(), "{stage}");
    }
    for figure in ["test-views", "test-similarity", "test-components", "knn-test-neighbours"] {
        let drawn = fs::read_dir(run.join("figures")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert!(drawn.into_iter().any(|name| name.starts_with(figure)), "{figure}");
    }
    let said = succeed(program("simclr", dir.path(), ["verify", "run"]));
    assert!(!said.contains("DIFFERS"), "{said}");
}

#[test]
fn killed_in_any_stage_it_ends_the_same() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), &["--out", "whole"]));
    let whole = learned(&dir.path().join("whole"));
    for (name, stage, least) in [("early", "pretrain", 4), ("late", "probe", 4), ("last", "finetune", 2)] {
        let folder = dir.path().join(name);
        let mut child = quietly(train(dir.path(), &["--out", name]));
        let there = |path: &PathBuf| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            name.starts_with(stage) && name >= format!("{stage}-{least:09}")
        };
        wait_until(name, || checkpoints(&folder).iter().any(there) || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        let said = run(program("simclr", dir.path(), ["--resume", name, "-q"]));
        assert!(said.status.success(), "{}", text(&said.stderr));
        assert_eq!(learned(&folder), whole, "{name}");
    }
}

/// No gradient tells of norms that take statistics during a probe: the hashes do.
#[test]
fn a_trunk_that_drifts_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = yaml("smoke");
    let words =
        ["--config", &yaml, "--device", "cpu", "-q", "--out", "run", "data.limit_train=40", "data.limit_test=10"];
    let output = run(program("examples/drifting", dir.path(), [&words[..], &["probe.length=2 steps"]].concat()));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the trunk has changed in stage probe"), "{}", text(&output.stderr));
    let result = result(&dir.path().join("run"));
    assert_eq!(result["status"], "failed");
    assert_ne!(result["trunk_sha256_before"], result["trunk_sha256_after"]);
}

/// A probe beside pre-training takes what the trunk gives and gives nothing back.
#[test]
fn an_online_probe_leaves_the_trunk_as_it_would_be() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), &["--out", "without"]));
    succeed(train(dir.path(), &["--out", "with", "probe.online=true"]));
    let [without, with] = ["without", "with"].map(|name| result(&dir.path().join(name)));
    assert_eq!(without["trunk_sha256_before"], with["trunk_sha256_before"]);
    assert_eq!(without["metrics"]["test/loss"], with["metrics"]["test/loss"]);
    assert!(without["metrics"].get("test/accuracy").is_none());
    assert!(with["metrics"]["test/accuracy"].is_number(), "{with:#}");
    let said = succeed(program("simclr", dir.path(), ["verify", "with"]));
    assert!(!said.contains("DIFFERS"), "{said}");
}

/// The whole run over two processes, and one that was begun by one process and goes on with two.
#[test]
fn two_processes_train_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| weights::read(&dir.path().join(name).join("weights.safetensors")).unwrap().0;
    let gap = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
    let trained = |name: &str, words: &[&str]| {
        succeed(train(dir.path(), &[&["batch_size=16", "length=3 steps", "--out", name], words].concat()));
        of(name)
    };
    let start = trained("start", &["schedule={kind: steps, at: [0 steps], scale: [0]}"]);
    let one = trained("one", &[]);
    let two = trained("two", &["--processes", "2"]);
    let (cut, mut child) =
        (dir.path().join("cut"), { quietly(train(dir.path(), &["batch_size=16", "length=3 steps", "--out", "cut"])) });
    wait_until("a checkpoint", || !checkpoints(&cut).is_empty() || child.try_wait().unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(program("simclr", dir.path(), ["--resume", "cut", "--processes", "2", "-q"]));
    for (name, weight) in one.iter().filter(|(_, tensor)| tensor.kind() == Kind::Float) {
        let moved = gap(weight, &start[name]);
        for (how, other) in [("two", &two), ("cut", &of("cut"))] {
            let apart = gap(weight, &other[name]);
            assert!(apart <= 1e-5 + 0.01 * moved, "{how}: {name} is {apart} apart and moved by {moved}");
        }
    }
    assert_eq!(result(&dir.path().join("two"))["world_size"], 2);
}

/// The trunk of another run, and one that nothing has trained.
#[test]
fn a_probe_reads_the_trunk_that_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), &["--out", "whole"]));
    succeed(train(dir.path(), &["--stage", "probe", "--init", "whole", "--out", "probe"]));
    let [whole, probe] = ["whole", "probe"].map(|name| result(&dir.path().join(name)));
    assert_eq!(whole["trunk_sha256_after"], probe["trunk_sha256_after"]);
    assert_eq!(whole["metrics"]["probe/test/accuracy"], probe["metrics"]["probe/test/accuracy"]);
    succeed(train(dir.path(), &["--stage", "probe", "--out", "drawn"]));
    let drawn = result(&dir.path().join("drawn"));
    assert!(drawn["trunk_sha256_after"].is_string());
    assert_ne!(drawn["trunk_sha256_after"], probe["trunk_sha256_after"]);
}

#[test]
fn photos_are_pre_trained_on_and_described() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    let words = [
        "data={name: folder, root: photos}",
        "data.limit_test=null",
        "model.num_classes=2",
        "view={train: {kind: random_resized_crop, scale: [0.2, 1], ratio: [0.75, 1.3333], filter: bilinear}, test: {kind: resize_crop, resize: 36, filter: bilinear}}",
        "length=2 steps",
        "schedule.warmup=1 step",
        "batch_size=8",
        "compute.threads=1",
        "-q",
    ];
    succeed(smoke(dir.path(), "train", &[&words[..], &["--out", "run"]].concat()));
    assert_eq!(learned(&dir.path().join("run")).len(), 6);

    // Without --config: the run has one.
    for out in ["F.safetensors", "F.npy"] {
        succeed(program("simclr", dir.path(), ["features", "photos/val", "--weights", "run", "--out", out]));
    }
    let bytes = fs::read(dir.path().join("F.safetensors")).unwrap();
    let header: Value =
        serde_json::from_slice(&bytes[8..8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize]).unwrap();
    let files: Vec<String> = serde_json::from_str(header["__metadata__"]["files"].as_str().unwrap()).unwrap();
    assert_eq!((files.len(), files[0].as_str()), (10, "bright/00.png"));
    let (features, _) = weights::read(&dir.path().join("F.safetensors")).unwrap();
    assert_eq!(features["features"].size(), [10, 64]);
    let npy = Tensor::read_npy(dir.path().join("F.npy")).unwrap();
    assert_eq!(npy, features["features"]);
    assert_eq!(fs::read_to_string(dir.path().join("F.txt")).unwrap().lines().collect::<Vec<_>>(), files);
    // The same picture's own row, whatever stands beside it.
    let one = dir.path().join("one");
    fs::create_dir(&one).unwrap();
    fs::copy(dir.path().join("photos/val").join(&files[3]), one.join("a.jpg")).unwrap();
    succeed(program("simclr", dir.path(), ["features", "one", "--weights", "run", "--out", "one.safetensors"]));
    let (alone, _) = weights::read(&dir.path().join("one.safetensors")).unwrap();
    let gap = (&alone["features"] - features["features"].narrow(0, 3, 1)).abs().max().double_value(&[]);
    assert!(gap < 1e-5, "{gap}");

    // A picture that cannot be read is an answer of its own.
    fs::write(one.join("b.jpg"), b"no picture").unwrap();
    let two = ["features", "one", "--weights", "run", "--out", "two.safetensors", "--json"];
    let output = run(program("simclr", dir.path(), two));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("b.jpg") && text(&output.stdout).contains("\"error\""));
    assert_eq!(weights::read(&dir.path().join("two.safetensors")).unwrap().0["features"], alone["features"]);

    // A training picture is its own nearest neighbour.
    let asked = [
        "predict",
        "--neighbours",
        "photos/train/bright/00.png",
        "photos/train/dark/01.jpg",
        "--weights",
        "run",
        "--out",
        "near",
        "--json",
    ];
    let said: Value = serde_json::from_str(&succeed(program("simclr", dir.path(), asked))).unwrap();
    for (answer, class) in said.as_array().unwrap().iter().zip(["bright", "dark"]) {
        assert_eq!(answer["classes"][0][0], class, "{answer:#}");
        assert!(dir.path().join(answer["pictures"][0].as_str().unwrap()).is_file());
    }

    let said = succeed(smoke(
        dir.path(),
        "predict",
        &[
            &words[..4],
            &["--weights", "run", "--json", "photos/val/bright/00.png", "photos/val/dark/00.png", "one/a.jpg"],
        ]
        .concat(),
    ));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said[0]["nearest"].as_array().unwrap().len(), 2);
    assert!(dir.path().join("predictions/similarity.png").is_file());
}

/// One photo of 24 is damaged and put up with, in every stage.
#[test]
fn a_damaged_photo_is_put_up_with() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    fs::write(dir.path().join("photos/train/dark/00.png"), "no picture").unwrap();
    let words = [
        "data={name: folder, root: photos, max_bad: 1}",
        "data.limit_test=null",
        "model.num_classes=2",
        "view={train: {kind: random_resized_crop, scale: [0.2, 1], ratio: [0.75, 1.3333], filter: bilinear}, test: {kind: resize_crop, resize: 36, filter: bilinear}}",
        "length=3 steps",
        "schedule.warmup=1 step",
        "batch_size=8",
        "freeze=[backbone.layer1]",
        "compute.threads=1",
        "-q",
    ];
    succeed(smoke(dir.path(), "train", &[&words[..], &["--out", "run"]].concat()));
    let run = dir.path().join("run");
    assert_eq!(learned(&run).len(), 6);
    assert!(result(&run)["notes"].to_string().contains("00.png"), "{:#}", result(&run));
    // What is frozen stays over pre-training and fine-tuning.
    let hash = |stage: &str| result(&run)["stages"][stage]["frozen_sha256"].clone();
    assert!(hash("pretrain").is_string() && hash("pretrain") == hash("finetune"));
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |words: &[&str], says: &str| {
        let output = run(train(dir.path(), &[words, &["--dry-run"]].concat()));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(says), "{words:?}: {said}");
    };
    refused(&["batch_size=1"], "at least 2");
    refused(&["compute.micro_batch=4"], "loss.chunk");
    refused(&["loss.temperature=0"], "loss.temperature=0: is 0");
    refused(&["knn.temperature=0"], "knn.temperature");
    refused(&["knn.k=65"], "there are 64 training pictures");
    refused(&["finetune.labels=0"], "finetune.labels");
    refused(&["finetune.labels=0.01"], "finetune.batch_size is 8, but 1 of the 64");
    refused(&["probe.batch_size=65"], "probe: batch_size 65 is larger");
    refused(&["probe.schedule={kind: cosine, warmup: 13 steps}"], "probe: schedule.warmup is 13 steps");
    refused(&["model.head=mlp4"], "none, linear, mlp2, mlp3");
    refused(&["model.head=4"], "none, linear, mlp2, mlp3");
    refused(&["model.name=resnet18"], "simclr_resnet18_cifar");
    refused(&["augment=[{kind: mixup, alpha: 1}]"], "mixtures");
    refused(&["augment_other=[{kind: mixup, alpha: 1}]"], "augment_other");
    refused(&["augment_other=[{kind: blur, kernel: 4, sigma: [0.1, 2]}]"], "blur.kernel");
    refused(&["augment_other=[{kind: crop, pad: 0, size: 24}]"], "views of 24 pixels, but augment makes views of 32");
    refused(&["model.name=simclr_resnet18", "model.image_size=32", "finetune.batch_size=1"], "one number a channel");
    refused(&["freeze=[projector]"], "only parts of backbone");
    refused(&["probe.length=0 steps"], "probe.length");
    refused(&["--processes", "2", "batch_size=9"], "batch_size 9");
    // A folder whose pictures lie in no class.
    let loose = dir.path().join("loose/train");
    fs::create_dir_all(&loose).unwrap();
    image::RgbImage::new(40, 40).save(loose.join("a.png")).unwrap();
    let view = "view={train: {kind: random_resized_crop, scale: [0.2, 1], ratio: [0.75, 1.3333], filter: bilinear}, test: {kind: resize_crop, resize: 36, filter: bilinear}}";
    refused(&["data={name: folder, root: loose}", "model.num_classes=2", view], "loose");
    // A stage whose block is not written.
    let output = run(program(
        "simclr",
        dir.path(),
        ["train", "finetune", "--config", &yaml("cifar10_r18_e200"), "data.root=nowhere"],
    ));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("pretrain, probe, knn"), "{}", text(&output.stderr));
}

/// An odd batch, whose epochs drop what is left; pairs are drawn apart.
#[test]
fn views_are_drawn_apart_and_an_odd_batch_is_one() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), &["batch_size=9", "--dry-run"]));
    succeed(smoke(dir.path(), "data", &["--out", "pairs.png"]));
    // Two rows of ten pairs, each picture twice as large, captions under them.
    let drawn = image::open(dir.path().join("pairs.png")).unwrap().to_rgb8();
    // Rows of one height, and a line of two pixels more.
    let high = (drawn.height() - 2) / 2;
    let pictures = |top: u32| image::imageops::crop_imm(&drawn, 0, top + 2, drawn.width(), 64).to_image();
    assert_ne!(pictures(0), pictures(high), "both views are one");
    // The classes under them are the same, and which view it is stands below.
    let classes = |top: u32| image::imageops::crop_imm(&drawn, 0, top + 68, drawn.width(), 14).to_image();
    assert_eq!(classes(0), classes(high), "the rows are cut elsewhere");
}

#[test]
fn forward_refuses_views_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), &["--out", "run", "--stage", "pretrain"]));
    let picture = |n: i64| Tensor::rand([n, 3, 16, 16], (Kind::Float, Device::Cpu));
    for (input, says) in [
        (vec![("view1", picture(2))], "view2"),
        (vec![("view1", picture(2)), ("view2", picture(3))], "one shape"),
        (vec![("view1", picture(2)), ("view2", picture(2)), ("label", picture(2))], "label is not known"),
    ] {
        let input: Named = input.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
        weights::write(&dir.path().join("I.safetensors"), &input, None).unwrap();
        let words = ["--weights", "run", "--input", "I.safetensors", "--output", "O.safetensors"];
        let output = run(smoke(dir.path(), "forward", &words));
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}
