//! A sweep: a run for each combination of values, known by the hash of its configuration.

use std::fs;

use crate::program::{files, lenet, result, run, smoke, succeed, text};

/// The runs that a sweep has started.
fn started(folder: &std::path::Path, words: &[&str]) -> usize {
    let words = smoke(&[&["--out", "grid", "-q"], words].concat());
    succeed(lenet(folder, words)).matches("sweep: ").count()
}

#[test]
fn sweeps_skip_what_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["--sweep", "seed=1,2", "--sweep", "batch_size=32,64", "length=5 steps"];
    assert_eq!(started(dir.path(), &words), 4);
    let runs = files(&dir.path().join("grid"));
    assert_eq!(runs.len(), 4);
    fs::remove_dir_all(&runs[0]).unwrap();
    assert_eq!(started(dir.path(), &words), 1);
    // What was cut is gone on with.
    crate::program::change_result(&runs[1], |result| result["status"] = "interrupted".into());
    assert_eq!(started(dir.path(), &words), 1);
    assert_eq!(result(&runs[1])["status"], "done");
}

#[test]
fn another_length_or_rate_is_another_run() {
    let dir = tempfile::tempdir().unwrap();
    for (words, steps) in
        [(&["length=5 steps"][..], 5), (&["length=6 steps"], 6), (&["length=6 steps", "optim.base_lr=1e-3"], 6)]
    {
        let words = [&["--sweep", "seed=1", "--json"], words].concat();
        assert_eq!(started(dir.path(), &words), 1, "{words:?}");
        let said = succeed(lenet(dir.path(), smoke(&[&["--out", "grid", "-q"], &words[..]].concat())));
        let told: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!(told["steps"], steps);
    }
    assert_eq!(files(&dir.path().join("grid")).len(), 3);
}

#[test]
fn values_of_any_length_and_letters_have_folders_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let long = "z".repeat(300);
    let sweep = format!("paper.row=a/b,a_b,'a b',{long}1,{long}2");
    let claim = "paper={table: t, row: r, metric: test/error}";
    assert_eq!(started(dir.path(), &["--sweep", &sweep, claim, "length=1 steps"]), 5);
    assert_eq!(files(&dir.path().join("grid")).len(), 5);
}

#[test]
fn what_one_run_would_refuse_is_refused_before_the_first() {
    let dir = tempfile::tempdir().unwrap();
    for (sweep, named) in [
        ("batch_size=32,1000000", "1000000"),
        ("optim.base_lr=0.1,abc", "abc"),
        ("augment=[],[{kind: crop, pad: 0, size: 20}]", "size"),
        ("schedule.warmup=1 steps,900 steps", "900"),
        ("data.limit_train=100,999999999", "limit_train"),
        ("freeze=[c1],[c9]", "c9"),
        ("compute.device=cpu,cuda:99", "cuda:99"),
        ("seed=1,1,2,,", "value is missing"),
    ] {
        let output = run(lenet(dir.path(), smoke(&["--sweep", sweep, "length=5 steps"])));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{sweep}: {said}");
        assert!(said.contains(named), "{sweep}: {said}");
        assert!(files(dir.path()).is_empty() && !text(&output.stdout).contains("sweep: "), "{sweep}");
    }
    // Neither is a run's own folder a place for many.
    succeed(lenet(dir.path(), smoke(&["--out", "run", "length=1 steps", "-q"])));
    let output = run(lenet(dir.path(), smoke(&["--out", "run", "--sweep", "seed=1,2"])));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("a run's own folder"), "{}", text(&output.stderr));
}
