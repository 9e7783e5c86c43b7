//! A run that is made longer ends as one that was as long from the start, or is refused where its schedule looks at the length.

use std::fs;
use std::path::Path;

use crate::program::{
    all_files, change_result, checkpoints, hard, lenet, result, rows, run, smoke, succeed, text, weights_hash,
};

/// The hard run, with a rate that knows no end, and a log whose means cross every cut.
fn constant(words: &[&str]) -> Vec<String> {
    hard(&[&["schedule.kind=constant", "log.every=7 steps", "-q"], words].concat())
}

fn whole(folder: &Path) {
    succeed(lenet(folder, constant(&["--out", "whole", "length=90 steps"])));
}

/// Weights, averages, configuration, identity and curves are those of the whole run.
fn same(folder: &Path, name: &str) {
    let [ours, whole] = [name, "whole"].map(|name| folder.join(name));
    assert_eq!(weights_hash(&ours), weights_hash(&whole), "{name}");
    assert_eq!(rows(&ours), rows(&whole), "{name}");
    for key in ["config_sha256", "data_sha256", "steps", "epochs", "metrics"] {
        assert_eq!(result(&ours)[key], result(&whole)[key], "{name}: {key}");
    }
    let config = |run: &Path| fs::read_to_string(run.join("config.yaml")).unwrap().replace("limit: 10 minutes\n", "");
    assert_eq!(config(&ours), config(&whole), "{name}");
}

#[test]
fn a_longer_run_ends_as_one_that_was_as_long_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    whole(dir.path());
    let train = |words: &[&str]| succeed(lenet(dir.path(), constant(words)));
    let resume = |words: &[&str]| succeed(lenet(dir.path(), [&["train", "-q", "--resume"], words].concat()));
    // Finished at a step that is no multiple of anything, and made longer twice.
    train(&["--out", "finished", "length=33 steps"]);
    resume(&["finished", "length=51 steps"]);
    resume(&["finished", "length=90 steps"]);
    same(dir.path(), "finished");
    // Cut on the way; and cut again on the way to the new length, after which the run keeps that length by itself.
    train(&["--out", "cut", "length=40 steps", "limit=0.0001 seconds"]);
    resume(&["cut", "length=90 steps"]);
    assert_eq!(result(&dir.path().join("cut"))["status"], "interrupted");
    resume(&["cut", "limit=10 minutes"]);
    same(dir.path(), "cut");
    // Epochs are lengths as well, and a run may be made shorter than it was to be.
    train(&["--out", "shorter", "length=50 epochs", "limit=0.0001 seconds"]);
    train(&["--out", "shorter", "--resume", "length=90 steps", "limit=10 minutes"]);
    same(dir.path(), "shorter");
    assert!(resume(&["finished", "length=90 steps"]).contains("done already"));
}

#[test]
fn a_kill_between_the_files_of_a_new_length_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    whole(dir.path());
    succeed(lenet(dir.path(), constant(&["--out", "run", "length=33 steps"])));
    let folder = dir.path().join("run");
    let config = fs::read(folder.join("config.yaml")).unwrap();
    let longer = ["train", "-q", "--resume", "run", "length=90 steps"];
    succeed(lenet(dir.path(), [&longer[..], &["limit=0.0001 seconds"]].concat()));
    // The result has the new length, the configuration still the old one.
    fs::write(folder.join("config.yaml"), config).unwrap();
    change_result(&folder, |result| result["status"] = "running".into());
    let refused = run(lenet(dir.path(), ["train", "--resume", "run"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("the length that it was last resumed with"), "{}", text(&refused.stderr));
    succeed(lenet(dir.path(), longer));
    same(dir.path(), "run");
}

fn refused(folder: &Path, words: &[&str], parts: &[&str]) {
    let before = all_files(folder);
    let output = run(lenet(folder, [&["train", "--resume", "run"], words].concat()));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words:?}\n{said}");
    for part in parts {
        assert!(said.contains(part), "{words:?} should say {part:?}:\n{said}");
    }
    let kept = |(path, _): &(std::path::PathBuf, Vec<u8>)| !path.ends_with("log.txt") && !path.ends_with("run.lock");
    let (before, after): (Vec<_>, Vec<_>) =
        (before.into_iter().filter(kept).collect(), all_files(folder).into_iter().filter(kept).collect());
    assert!(before == after, "{words:?} changed the run");
}

#[test]
fn a_schedule_that_looks_at_the_length_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), smoke(&["--out", "run", "length=8 steps", "-q"])));
    refused(
        dir.path(),
        &["length=20 steps"],
        &["length cannot change", "schedule.kind is cosine", "new run", "constant"],
    );
    refused(dir.path(), &["length=20 steps", "schedule.kind=constant"], &["schedule.kind"]);
    refused(dir.path(), &["length=20 steps", "seed=5"], &["seed", "length where the schedule"]);
    refused(dir.path(), &["length=20"], &["length", "epochs"]);
}

#[test]
fn a_length_that_is_behind_the_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), constant(&["--out", "run", "length=30 steps"])));
    refused(dir.path(), &["length=20 steps"], &["has done 30 steps", "20"]);
    assert_eq!(checkpoints(&dir.path().join("run")).len(), 2);
}

#[test]
fn networks_that_learn_in_turns_keep_their_length() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["model.name=boosted_lenet4", "schedule.kind=constant", "length=6 steps", "--out", "run", "-q"];
    succeed(lenet(dir.path(), smoke(&[&words[..], &["limit=0.0001 seconds"]].concat())));
    refused(dir.path(), &["length=9 steps"], &["train cannot have another length", "three networks"]);
}
