//! What a run leaves behind.

use std::fs;

use crate::program::{files, lenet, result, root, run_folders, smoke, succeed};

#[test]
fn a_run_leaves_everything_that_is_promised() {
    let dir = tempfile::tempdir().unwrap();
    let said = succeed(lenet(dir.path(), smoke(&["--json", "ema={decay: 0.9}", "eval.every=1 epochs"])));
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let latest = dir.path().join("runs/lenet/smoke/latest");
    let result = result(&latest);
    assert_eq!(result, last);
    let [own] = run_folders(&dir.path().join("runs/lenet/smoke")).try_into().unwrap();
    for name in
        ["config.yaml", "env.json", "log.txt", "metrics.jsonl", "weights.safetensors", "weights-ema.safetensors"]
    {
        assert!(latest.join(name).metadata().unwrap().len() > 0, "{name}");
    }
    assert!(files(&own).iter().any(|p| p.to_string_lossy().contains("tfevents")));
    assert!(files(&latest.join("figures")).iter().any(|p| p.to_string_lossy().contains("confusion")));
    assert!(files(&latest.join("figures")).iter().any(|p| p.ends_with("loss.png")));
    for key in [
        "paper",
        "config",
        "seed",
        "status",
        "metrics",
        "steps",
        "epochs",
        "seconds",
        "examples_per_second",
        "effective_batch",
        "lr",
        "device",
        "world_size",
        "commit",
        "config_sha256",
        "weights_sha256",
        "data_sha256",
        "parameters",
    ] {
        assert!(!result[key].is_null(), "result.json has no {key}");
    }
    let metrics = result["metrics"].as_object().unwrap();
    for name in ["test/accuracy", "test/error", "test-ema/accuracy", "test-ema/error"] {
        let value = metrics[name].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&value), "{name} is a fraction: {value}");
    }
    let rows = fs::read_to_string(latest.join("metrics.jsonl")).unwrap();
    assert!(rows.contains("monitor/error") && rows.contains("train/loss"), "{rows}");
    // Running the stored configuration repeats the run.
    let again = latest.join("config.yaml").display().to_string();
    succeed(lenet(dir.path(), ["--config", &again, "--out", "again", "-q"]));
    assert_eq!(crate::program::result(&dir.path().join("again"))["weights_sha256"], result["weights_sha256"]);
}

#[test]
fn smoke_learns() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), smoke(&["--out", "run", "-q"])));
    let accuracy = result(&dir.path().join("run"))["metrics"]["test/accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.5, "chance is 0.1; got {accuracy}");
}

#[test]
fn group_files_and_variables_override_the_config() {
    let dir = tempfile::tempdir().unwrap();
    let file = root().join("experiments/lenet/lenet5.yaml").display().to_string();
    let mut command = lenet(dir.path(), ["--config", &file, "data=fashion_mnist", "--print-config"]);
    command.env("REPRO__optim__base_lr", "0.125");
    let said = succeed(command);
    assert!(said.contains("name: fashion_mnist") && said.contains("base_lr: 0.125"), "{said}");
    assert!(said.contains("REPRO__optim__base_lr"), "{said}");
}
