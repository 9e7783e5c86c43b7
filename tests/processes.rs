//! Several processes give the result of one, but for the order of summation.

use std::path::Path;

use repro::trainer::Named;
use repro::weights;

use crate::program::{lenet, result, run, smoke, succeed, text};

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
