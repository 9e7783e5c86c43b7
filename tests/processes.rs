//! Several processes give the result of one, but for the order of summation.

use std::path::Path;

use repro::weights;
use repro::weights::Named;

use crate::program::{checkpoints, lenet, pasted, result, run, signal, smoke, succeed, text, wait_until};

fn trained(folder: &Path, words: &[&str]) -> Named {
    succeed(lenet(folder, smoke(&[&["length=12 steps", "batch_size=64", "compute.device=cpu", "-q"], words].concat())));
    weights::read(&folder.join(words[1]).join("weights.safetensors")).unwrap().0
}

#[test]
fn two_processes_train_as_one_and_one_keeps_the_books() {
    let dir = tempfile::tempdir().unwrap();
    let augment = "augment=[{kind: affine, rotate: 10, scale: 0.1, squeeze: 0.1, shear: 10, shift: 2}]";
    let one = trained(dir.path(), &["--out", "one", augment]);
    let two = trained(dir.path(), &["--out", "two", augment, "--processes", "2"]);
    assert_eq!(result(&dir.path().join("two"))["world_size"], 2);
    for (name, weight) in &one {
        let gap = (weight - &two[name]).abs().max().double_value(&[]);
        assert!(gap < 1e-5, "{name} differs by {gap}");
    }
    // Had the processes seen equal halves, or not exchanged gradients, the weights would differ by far more than that.
    let other = trained(dir.path(), &["--out", "other", augment, "batch_size=32"]);
    let gap = (&one["c1.weight"] - &other["c1.weight"]).abs().max().double_value(&[]);
    assert!(gap > 1e-4, "the test cannot tell: {gap}");
}

#[test]
fn a_batch_that_the_processes_cannot_share_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(lenet(dir.path(), smoke(&["--processes", "2", "batch_size=33", "-q"])));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("batch_size 33"), "{}", text(&output.stderr));
}

#[test]
fn ctrl_c_stops_all_processes_and_tells_once_how_to_go_on_with_as_many() {
    let dir = tempfile::tempdir().unwrap();
    let words = smoke(&[
        "--out",
        "run",
        "--processes",
        "2",
        "length=400 steps",
        "checkpoint.every=1 steps",
        "eval.every=never",
    ]);
    let child = lenet(dir.path(), words).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let folder = dir.path().join("run");
    wait_until("a checkpoint", || !checkpoints(&folder).is_empty());
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert_eq!(said.matches("go on with: ").count(), 1, "{said}");
    assert!(said.contains("--resume run --processes 2"), "{said}");
    assert_eq!(result(&folder)["status"], "interrupted");
    succeed(pasted(dir.path(), &said));
    assert_eq!(result(&folder)["status"], "done");
    assert_eq!(result(&folder)["world_size"], 2);
}

#[test]
fn processes_end_with_the_command_that_started_them() {
    let dir = tempfile::tempdir().unwrap();
    let words = smoke(&[
        "--out",
        "run",
        "--processes",
        "2",
        "length=100000 steps",
        "checkpoint.every=1 steps",
        "eval.every=never",
    ]);
    let mut child = crate::program::quietly(lenet(dir.path(), words));
    let folder = dir.path().join("run");
    wait_until("a checkpoint", || !checkpoints(&folder).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever owns the run holds its lock.
    let lock = std::fs::File::open(folder.join("run.lock")).unwrap();
    wait_until("the processes' end", || lock.try_lock().is_ok());
}
