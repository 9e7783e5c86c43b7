//! Several stages in one run: each is exact when it is killed, over processes, and is not done twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use repro::weights;
use serde_json::Value;

use crate::program::{checkpoints, newest, program, quietly, result, rows, run, succeed, text, wait_until};

const YAML: &str = "
seed: 1
length: 300 steps
batch_size: 32
data: {name: synthetic}
augment: [{kind: affine, rotate: 10, scale: 0.1, squeeze: 0.1, shear: 10, shift: 2}]
optim: {kind: adamw, base_lr: 0.003, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0001}
ema: {decay: 0.9}
probe:
  length: 300 steps
  batch_size: 64
  optim: {kind: sgd, base_lr: 0.5, momentum: 0.9, nesterov: true, weight_decay: 0}
compute: {device: cpu, precision: f32, threads: 1, micro_batch: 12}
log: {every: 10 steps}
eval: {every: 100 steps, full_every: 200 steps}
checkpoint: {every: 15 steps, keep: 2}
";

fn toy(folder: &Path, words: &[&str]) -> Command {
    std::fs::write(folder.join("toy.yaml"), YAML).unwrap();
    program("examples/two_stages", folder, words)
}

/// The hashes of what each stage has learned.
fn learned(run: &Path) -> Vec<String> {
    let result = result(run);
    assert_eq!(result["status"], "done", "{result:#}");
    let mut hashes: Vec<_> =
        ["pretrain", "probe", "knn"].map(|s| result["stages"][s]["weights_sha256"].to_string()).into();
    let (averages, _) = weights::read(&run.join("weights-ema.safetensors")).unwrap();
    hashes.push(weights::hash(&averages).unwrap());
    hashes
}

fn whole(folder: &Path) -> PathBuf {
    succeed(toy(folder, &["--config", "toy.yaml", "--out", "whole", "-q"]));
    folder.join("whole")
}

#[test]
fn each_stage_has_its_record_its_seed_and_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let run = whole(dir.path());
    let result = result(&run);
    let stages = &result["stages"];
    assert_eq!((&stages["pretrain"]["effective_batch"], &stages["probe"]["effective_batch"]), (&32.into(), &64.into()));
    assert_eq!((&stages["pretrain"]["steps"], &stages["probe"]["steps"]), (&300.into(), &300.into()));
    assert_eq!((&stages["knn"]["steps"], &stages["knn"]["done"]), (&0.into(), &true.into()));
    assert_eq!(stages["probe"]["lr"]["base"], 0.5);
    // What stands at the top is the first stage's.
    for field in ["steps", "epochs", "seconds", "effective_batch", "lr", "data_sha256", "weights_sha256"] {
        assert_eq!(result[field], stages["pretrain"][field], "{field}");
    }
    for metric in ["test/rmse", "probe/test/accuracy", "knn/test/accuracy"] {
        assert!(result["metrics"][metric].is_number(), "{metric}");
    }
    assert!(result["metrics"]["probe/test/accuracy"].as_f64().unwrap() > 0.5, "{result:#}");
    // On the way everything is measured where full_every says, and at the end.
    let full: Vec<_> =
        rows(&run).iter().filter_map(|r| r.get("monitor/full").or(r.get("test/full"))?.as_f64()).collect();
    assert_eq!(full, [0.0, 1.0, 1.0]);
    for file in
        ["weights.safetensors", "weights-ema.safetensors", "weights-probe.safetensors", "weights-knn.safetensors"]
    {
        assert!(run.join(file).is_file(), "{file}");
    }
}

#[test]
fn killed_in_either_stage_it_ends_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let whole = whole(dir.path());
    for (name, at) in [("early", "pretrain-000000030"), ("late", "probe-000000030"), ("between", "probe-000000000")] {
        let folder = dir.path().join(name);
        let mut child = quietly(toy(dir.path(), &["--config", "toy.yaml", "--out", name]));
        let stage = at.split('-').next().unwrap();
        wait_until(at, || {
            let found = checkpoints(&folder).iter().any(|p| {
                let name = p.file_stem().unwrap().to_string_lossy().into_owned();
                name.starts_with(stage) && name.as_str() >= at
            });
            found || child.try_wait().unwrap().is_some()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let said = run(toy(dir.path(), &["--resume", name]));
        assert!(said.status.success(), "{}", text(&said.stderr));
        assert_eq!(learned(&folder), learned(&whole), "{name}");
    }
}

#[test]
fn a_stage_that_is_done_is_neither_run_nor_tested_again() {
    let dir = tempfile::tempdir().unwrap();
    succeed(toy(dir.path(), &["train", "pretrain", "--config", "toy.yaml", "--out", "run", "-q"]));
    let folder = dir.path().join("run");
    let before = result(&folder);
    let time = |name: &str| std::fs::metadata(folder.join(name)).unwrap().modified().unwrap();
    let (weights, first) = (time("weights.safetensors"), rows(&folder));
    std::thread::sleep(Duration::from_millis(20));
    succeed(toy(dir.path(), &["--resume", "run", "-q"]));
    let after = result(&folder);
    assert_eq!(time("weights.safetensors"), weights);
    assert_eq!(rows(&folder)[..first.len()], first[..]);
    assert_eq!(before["stages"]["pretrain"], after["stages"]["pretrain"]);
    assert_eq!(before["metrics"]["test/rmse"], after["metrics"]["test/rmse"]);
    assert_eq!(learned(&folder), learned(&whole(dir.path())));
    assert!(succeed(toy(dir.path(), &["--resume", "run"])).contains("done already"));
    // The later stages learned from these weights: with others in their place they are not gone on with.
    std::fs::remove_dir_all(dir.path().join("other")).ok();
    succeed(toy(dir.path(), &["train", "pretrain", "--config", "toy.yaml", "--out", "other", "-q"]));
    let (mut state, card) = weights::read(&dir.path().join("other/weights.safetensors")).unwrap();
    let first = state.values_mut().next().unwrap();
    *first = &*first + 1.0;
    weights::write(&dir.path().join("other/weights.safetensors"), &state, card.as_deref()).unwrap();
    let refused = run(toy(dir.path(), &["--resume", "other"]));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}

#[test]
fn a_later_stage_begins_with_a_run_and_says_where_from() {
    let dir = tempfile::tempdir().unwrap();
    let whole = whole(dir.path());
    succeed(toy(
        dir.path(),
        &["train", "--stage", "probe", "--config", "toy.yaml", "--init", "whole", "--out", "probe", "-q"],
    ));
    let (probe, all) = (result(&dir.path().join("probe")), result(&whole));
    assert_eq!(probe["stages"]["probe"]["weights_sha256"], all["stages"]["probe"]["weights_sha256"]);
    assert_eq!(probe["init"]["path"], "whole");
    assert_eq!(probe["init"]["sha256"], all["weights_sha256"]);
    assert!(probe["stages"].get("pretrain").is_none());
    // Each stage's weights are evaluated by its name.
    let said =
        succeed(toy(dir.path(), &["eval", "--stage", "probe", "--config", "toy.yaml", "--weights", "whole", "--json"]));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["metrics"]["probe/test/accuracy"], all["metrics"]["probe/test/accuracy"]);
    let said = succeed(toy(dir.path(), &["verify", "whole"]));
    assert!(said.contains("holds   weights hash of probe") && !said.contains("DIFFERS"), "{said}");
    let refused = run(toy(dir.path(), &["eval", "--stage", "prob", "--config", "toy.yaml", "--weights", "whole"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("pretrain, probe, knn"), "{}", text(&refused.stderr));
}

#[test]
fn weights_that_a_run_began_with_stay_those_when_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    whole(dir.path());
    let mut child = quietly(toy(
        dir.path(),
        &["train", "probe", "--config", "toy.yaml", "--init", "whole", "--out", "cut", "probe.length=600 steps"],
    ));
    let folder = dir.path().join("cut");
    wait_until("a checkpoint", || newest(&folder).as_str() > "probe-000000010");
    child.kill().unwrap();
    child.wait().unwrap();
    let before = result(&folder)["init"].clone();
    succeed(toy(dir.path(), &["train", "probe", "--resume", "cut", "-q"]));
    assert_eq!(result(&folder)["init"], before);
    succeed(toy(dir.path(), &["train", "pretrain", "--config", "toy.yaml", "--out", "else", "seed=2", "-q"]));
    let refused = run(toy(dir.path(), &["train", "pretrain", "--resume", "cut", "--init", "else"]));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("began with the weights whole"), "{}", text(&refused.stderr));
}

#[test]
fn two_processes_are_exact_in_both_stages() {
    let dir = tempfile::tempdir().unwrap();
    let two = &["--config", "toy.yaml", "--processes", "2", "compute.micro_batch=16"];
    succeed(toy(dir.path(), &[&two[..], &["--out", "two", "-q"]].concat()));
    let whole = dir.path().join("two");
    let one = result(&{
        succeed(toy(dir.path(), &["--config", "toy.yaml", "--out", "one", "-q", "compute.micro_batch=16"]));
        dir.path().join("one")
    });
    let gap = |metric: &str| {
        (result(&whole)["metrics"][metric].as_f64().unwrap() - one["metrics"][metric].as_f64().unwrap()).abs()
    };
    // Dropout is drawn by each process for itself, so the two are alike and not equal.
    assert!(gap("test/rmse") < 0.01 && gap("probe/test/accuracy") < 0.1, "{one:#}");
    for (name, stage) in [("a", "pretrain-"), ("b", "probe-0000000")] {
        let folder = dir.path().join(name);
        let mut child = quietly(toy(dir.path(), &[&two[..], &["--out", name]].concat()));
        wait_until(stage, || {
            let found =
                checkpoints(&folder).iter().any(|p| p.file_name().unwrap().to_string_lossy().starts_with(stage));
            found || child.try_wait().unwrap().is_some()
        });
        crate::program::signal(&child, "TERM");
        child.wait().unwrap();
        succeed(toy(dir.path(), &["--resume", name, "--processes", "2", "-q"]));
        assert_eq!(learned(&folder), learned(&whole), "{name}");
    }
}

#[test]
fn a_longer_stage_goes_on_and_those_that_began_with_its_weights_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let toy = |words: &[&str]| toy(dir.path(), words);
    let folder = |name: &str| dir.path().join(name);
    let train = |out: &str, words: &[&str]| {
        succeed(toy(&[&["--config", "toy.yaml", "--out", out, "-q"], words].concat()));
        learned(&folder(out))
    };
    let short = ["length=100 steps", "probe.length=60 steps"];
    train("run", &short);
    let time = |name: &str| std::fs::metadata(folder("run").join(name)).unwrap().modified().unwrap();
    // A longer probe leaves the stage before it, and the one that does not begin with its weights, as they are.
    let before = [time("weights.safetensors"), time("weights-knn.safetensors")];
    succeed(toy(&["--resume", "run", "probe.length=100 steps", "-q"]));
    assert_eq!([time("weights.safetensors"), time("weights-knn.safetensors")], before);
    assert_eq!(learned(&folder("run")), train("probe", &[short[0], "probe.length=100 steps"]));
    // A longer first stage: the probe of the shorter one is void.
    let said = run(toy(&["--resume", "run", "length=140 steps", "train", "probe"]));
    assert_eq!(said.status.code(), Some(2));
    let said = run(toy(&["train", "probe", "--resume", "run", "length=140 steps"]));
    assert_eq!(said.status.code(), Some(2));
    assert!(text(&said.stderr).contains("pretrain has another length now"), "{}", text(&said.stderr));
    succeed(toy(&["--resume", "run", "length=140 steps", "limit=0.0001 seconds", "-q"]));
    let names: Vec<_> = checkpoints(&folder("run")).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with("pretrain-")), "{names:?}");
    assert!(!folder("run/weights-probe.safetensors").exists() && !folder("run/weights.safetensors").exists());
    succeed(toy(&["--resume", "run", "limit=10 minutes", "-q"]));
    assert_eq!(learned(&folder("run")), train("whole", &["length=140 steps", "probe.length=100 steps"]));
}

#[test]
fn what_is_wrong_with_a_later_stage_is_said_before_the_first_begins() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run(toy(dir.path(), &["--config", "toy.yaml", "--out", "run", "probe.batch_size=1000000"]));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("1000000"), "{}", text(&refused.stderr));
    assert!(!dir.path().join("run").exists());
}
