//! SimCLR through its binary: exact in all its stages, a probe that proves its frozen trunk, refusals; and its YAMLs against the paper.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use repro::config::{Experiment, Length};
use repro::data::{Augment, Filter, Flip, Normalise, RandomResizedCrop, TestView, TrainView, View};
use repro::optim::{LrScaling, OptimConfig, Schedule};
use repro::weights::{self, Named};
use serde_json::Value;
use simclr::config::Config;
use simclr::loss::Loss;
use tch::{Device, Kind, Tensor};

use crate::photos::photos;
use crate::program::{checkpoints, program, quietly, result, root, run, succeed, text, wait_until};

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

fn yaml(row: &str) -> String {
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
