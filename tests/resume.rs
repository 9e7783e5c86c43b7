//! One run of a config, cut anywhere and resumed, ends in the hash of the uninterrupted run.

use crate::program::{
    change_result, checkpoints, hard, lenet, newest, pasted, quietly, result, rows, run, run_folders, signal, succeed,
    text, uninterrupted, wait_until, weights_hash,
};

#[test]
fn the_same_command_twice_gives_the_same_weights_and_another_seed_gives_others() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), hard(&["--out", "again", "-q"])));
    assert_eq!(weights_hash(&dir.path().join("again")), uninterrupted());
    succeed(lenet(dir.path(), hard(&["--out", "other", "-q", "seed=77"])));
    assert_ne!(weights_hash(&dir.path().join("other")), uninterrupted());
}

#[test]
fn ctrl_c_saves_and_tells_how_to_go_on() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("it's a run");
        let words = hard(&["--out", "it's a run", "checkpoint.every=1 steps"]);
        let child = lenet(dir.path(), words).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_until("the first checkpoint", || !checkpoints(&folder).is_empty());
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(result(&folder)["status"], "interrupted");
        succeed(pasted(dir.path(), &text(&output.stderr)));
        assert_eq!(weights_hash(&folder), uninterrupted());
    }
}

#[test]
fn a_wall_clock_limit_is_no_failure_and_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let output = run(lenet(dir.path(), hard(&["--out", "run", "limit=0.01 seconds"])));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(result(&folder)["status"], "interrupted");
    succeed(lenet(dir.path(), ["train", "--resume", "run", "limit=10 minutes", "-q"]));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn adamw_and_levenberg_marquardt_resume_as_exactly() {
    let adamw = "optim={kind: adamw, base_lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01}";
    let lm = "optim={kind: levenberg_marquardt, base_lr: 5e-4, mu: 0.02, samples: 20}";
    for words in [&[adamw][..], &[lm, "batch_size=2", "compute.micro_batch=1", "model.init=lecun"]] {
        let dir = tempfile::tempdir().unwrap();
        succeed(lenet(dir.path(), hard(&[&["--out", "whole", "-q"], words].concat())));
        // Two sittings of one step, and the rest.
        succeed(lenet(dir.path(), hard(&[&["--out", "cut", "-q", "limit=0.0001 seconds"], words].concat())));
        succeed(lenet(dir.path(), ["train", "--resume", "cut", "-q"]));
        assert_eq!(checkpoints(&dir.path().join("cut")).len(), 2);
        succeed(lenet(dir.path(), ["train", "--resume", "cut", "-q", "limit=10 minutes"]));
        assert_eq!(weights_hash(&dir.path().join("cut")), weights_hash(&dir.path().join("whole")), "{words:?}");
    }
}

#[test]
fn resume_without_a_folder_finds_the_newest_unfinished_run_of_the_config() {
    let dir = tempfile::tempdir().unwrap();
    run(lenet(dir.path(), hard(&["-q", "limit=0.01 seconds"])));
    run(lenet(dir.path(), hard(&["-q", "limit=0.01 seconds", "seed=3"])));
    succeed(lenet(dir.path(), hard(&["--resume", "-q"])));
    let done: Vec<_> = run_folders(&dir.path().join("runs/lenet/smoke"))
        .into_iter()
        .filter(|p| result(p)["status"] == "done")
        .collect();
    assert_eq!(done.len(), 1);
    assert_eq!(weights_hash(&done[0]), uninterrupted());
}

#[test]
fn a_resumed_run_keeps_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    run(lenet(dir.path(), hard(&["--out", "run", "-q", "limit=0.01 seconds"])));
    for word in ["optim.base_lr=0.5", "compute.micro_batch=8"] {
        let output = run(lenet(dir.path(), ["train", "--resume", "run", word]));
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(word.split('=').next().unwrap()), "{}", text(&output.stderr));
    }
    let mut sly = lenet(dir.path(), ["train", "--resume", "run"]);
    sly.env("REPRO__optim__base_lr", "0.5");
    assert_eq!(run(sly).status.code(), Some(2));
    // Nothing of that has harmed the run.
    succeed(lenet(dir.path(), ["train", "--resume", "run", "limit=10 minutes", "-q"]));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn a_folder_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = quietly(lenet(dir.path(), hard(&["--out", "run", "length=5000 steps"])));
    wait_until("the run to start", || dir.path().join("run/result.json").exists());
    let output = run(lenet(dir.path(), ["train", "--resume", "run"]));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("another process"), "{}", text(&output.stderr));
}

/// The claim and the evaluation times are no part of what a run is.
#[test]
fn a_corrected_claim_goes_on_with_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let claim = "paper={table: t, row: r, metric: test/error, value: 0.5}";
    run(lenet(dir.path(), hard(&["--out", "run", "-q", "limit=0.01 seconds", claim])));
    let words = ["train", "--resume", "run", "paper.value=0.25", "eval.every=30 steps", "limit=10 minutes", "-q"];
    succeed(lenet(dir.path(), words));
    assert_eq!(weights_hash(&folder), uninterrupted());
    assert_eq!(result(&folder)["paper_value"], 0.25);
}

#[test]
fn a_run_whose_hash_is_of_an_earlier_version_is_refused_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    run(lenet(dir.path(), hard(&["--out", "run", "-q", "limit=0.01 seconds"])));
    let mut old = result(&folder);
    old["config_sha256"] = "ab".repeat(32).into();
    std::fs::write(folder.join("result.json"), old.to_string()).unwrap();
    let output = run(lenet(dir.path(), ["train", "--resume", "run"]));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("abababab") && said.contains("earlier version") && said.contains("start a new run"),
        "{said}"
    );
}

#[test]
fn curves_are_those_of_a_run_that_was_never_cut() {
    // No cadence meets another, so that every cut lies within the steps of a mean.
    let words = ["log.every=7 steps", "checkpoint.every=5 steps", "eval.every=11 steps", "-q", "--out"];
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), hard(&[&words[..], &["whole"]].concat())));
    let folder = dir.path().join("cut");
    succeed(lenet(dir.path(), hard(&[&words[..], &["cut", "limit=0.0001 seconds"]].concat())));
    for _ in 0..3 {
        succeed(lenet(dir.path(), ["train", "--resume", "cut", "-q"]));
    }
    let mut child = quietly(lenet(dir.path(), ["train", "--resume", "cut", "limit=10 minutes"]));
    wait_until("a later checkpoint", || newest(&folder).as_str() > "train-000000030");
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(lenet(dir.path(), ["train", "--resume", "cut", "limit=10 minutes", "-q"]));
    assert_eq!(weights_hash(&folder), weights_hash(&dir.path().join("whole")));
    assert_eq!(rows(&folder), rows(&dir.path().join("whole")));
}

#[test]
fn a_run_that_was_cut_after_its_last_step_tells_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    succeed(lenet(dir.path(), hard(&["--out", "run", "-q"])));
    let whole = result(&folder);
    // As a kill between the last checkpoint and the end leaves it.
    change_result(&folder, |result| {
        result["status"] = "running".into();
        (result["steps"], result["seconds"]) = (80.into(), 0.5.into());
        result["stages"] = serde_json::json!({});
    });
    std::fs::remove_file(folder.join("weights.safetensors")).unwrap();
    succeed(lenet(dir.path(), ["train", "--resume", "run", "-q"]));
    let after = result(&folder);
    for key in ["steps", "epochs", "seconds", "examples_per_second", "metrics", "weights_sha256", "effective_batch"] {
        assert_eq!(after[key], whole[key], "{key}");
    }
    assert_eq!(after["steps"], 90);
    assert!(after["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn one_command_begins_a_run_goes_on_with_it_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let command = |limit: &str| run(lenet(dir.path(), hard(&["--out", "run", "--resume", "-q", limit])));
    for step in [1, 2] {
        assert!(command("limit=0.0001 seconds").status.success());
        assert_eq!(result(&folder)["steps"], step);
    }
    for _ in 0..2 {
        let output = command("limit=10 minutes");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(weights_hash(&folder), uninterrupted());
    }
    // A folder in which a run was killed before its first result is begun in.
    std::fs::create_dir_all(dir.path().join("killed/checkpoints")).unwrap();
    std::fs::write(dir.path().join("killed/run.lock"), b"").unwrap();
    succeed(lenet(dir.path(), hard(&["--out", "killed", "--resume", "-q"])));
    assert_eq!(weights_hash(&dir.path().join("killed")), uninterrupted());
    let refused = run(lenet(dir.path(), hard(&["--out", "run", "--resume", "killed"])));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("leave --out away"), "{}", text(&refused.stderr));
    // Another configuration is not taken for this one.
    let refused = run(lenet(dir.path(), hard(&["--out", "run", "--resume", "optim.base_lr=0.5"])));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}
