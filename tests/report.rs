//! A run becomes evidence, evidence becomes a table, and what does not agree is found.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::program::{lenet, program, root, run, succeed, text};

const LAYOUT: &str = "
title: Tiny
about: A table of one row.
tables:
  - name: tiny
    title: Table 1
    metric: test/error
    test_examples: 100
    rows: [{row: one, label: One, paper: 0.9}]
  - name: curves
    title: Figure 1
    metric: test/error
    curves: {x: passes, y: error, curve: monitor/error, lines: [{label: One, config: tiny}]}
";

/// A checkout with one experiment, which takes a second.
fn checkout(folder: &Path) {
    let smoke = fs::read_to_string(root().join("experiments/lenet/smoke.yaml")).unwrap();
    let claim = "paper: {table: tiny, row: one, metric: test/error, value: 0.9}\n";
    fs::create_dir_all(folder.join("experiments/lenet")).unwrap();
    fs::create_dir_all(folder.join("results")).unwrap();
    fs::write(folder.join("experiments/lenet/tiny.yaml"), smoke + claim).unwrap();
    fs::write(folder.join("results/lenet.yaml"), LAYOUT).unwrap();
    for name in ["experiments/groups", "crates", "CITATION.md"] {
        symlink(root().join(name), folder.join(name)).unwrap();
    }
}

fn refused(folder: &Path, words: &[&str], code: i32, parts: &[&str]) {
    let output = run(program("report", folder, words));
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}\n{said}");
    for part in parts {
        assert!(said.contains(part), "{words:?} should say {part:?}:\n{said}");
    }
}

#[test]
fn from_a_run_to_a_table_that_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    checkout(folder);
    let report = |words: &[&str]| succeed(program("report", folder, words));
    let train = |seed: &str, out: &str, more: &[&str]| {
        let words = ["--config", "experiments/lenet/tiny.yaml", seed, "--out", out, "compute.device=cpu", "-q"];
        run(lenet(folder, [&words, more].concat()))
    };
    assert_eq!(report(&["todo", "lenet/tiny", "--seeds", "2"]), "tiny 1\ntiny 2\n");
    // How often a run is evaluated is no part of what it is.
    let often = "eval.every=20 steps";
    assert!(train("seed=1", "one", &[often]).status.success());
    assert!(train("seed=2", "two", &[often, "checkpoint.keep=1", "log.every=5 steps"]).status.success());
    assert_eq!(report(&["add", "one", "two"]).matches("added results/runs/lenet/tiny/seed").count(), 2);
    assert!(report(&["add", "one"]).contains("there already"));
    assert_eq!(report(&["todo", "lenet/tiny", "--seeds", "2"]), "");

    // A shortened schedule is no run of the experiment; neither is one that was cut off.
    assert!(train("seed=3", "short", &["length=3 steps"]).status.success());
    refused(folder, &["add", "short"], 2, &["short", "tiny.yaml", "a YAML of its own"]);
    train("seed=3", "cut", &["limit=0.01 seconds"]);
    refused(folder, &["add", "cut"], 2, &["not done", "--resume cut"]);

    // One that was cut after its last step is, once it has gone on; `latest` is named by its own folder.
    let words = ["--config", "experiments/lenet/tiny.yaml", "seed=4", "compute.device=cpu", "-q"];
    succeed(lenet(folder, [&words[..], &["limit=0.01 seconds"]].concat()));
    refused(folder, &["add", "runs/lenet/tiny/latest"], 2, &["not done", "lenet train --resume runs/lenet/tiny/2"]);
    succeed(lenet(folder, ["--resume", "runs/lenet/tiny/latest", "limit=10 minutes", "-q"]));
    crate::program::change_result(&folder.join("runs/lenet/tiny/latest"), |result| {
        result["status"] = "running".into();
        result["stages"] = serde_json::json!({});
    });
    succeed(lenet(folder, ["--resume", "runs/lenet/tiny/latest", "-q"]));
    assert!(report(&["add", "runs/lenet/tiny/latest"]).contains("added results/runs/lenet/tiny/seed4.json"));
    fs::remove_file(folder.join("results/runs/lenet/tiny/seed4.json")).unwrap();

    refused(folder, &["check"], 1, &["results/lenet.md", "report write"]);
    assert!(report(&[]).contains("wrote results/figures/lenet-curves.png"));
    let table = report(&["show", "lenet/tiny"]);
    assert!(table.contains("([2 seeds](runs/lenet/tiny)) | partial: 2 of 3 seeds | 2 | 60,000"), "{table}");
    assert!(train("seed=3", "three", &[often]).status.success());
    assert!(report(&["add", "three"]).contains("added"));
    report(&[]);
    let table = report(&["show", "lenet/tiny"]);
    assert!(table.contains("([3 seeds](runs/lenet/tiny)) | **reproduced** | 2 | 60,000"), "{table}");
    assert!(fs::read_to_string(folder.join("results/lenet.md")).unwrap().contains(&table));
    assert!(report(&["check"]).contains("agree"));
    assert!(report(&["noise", "lenet/tiny"]).contains("smallest difference"));

    // A corrected value asks for new pages, and for no new run.
    let correct = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(from), "{file}: {text}");
        fs::write(folder.join(file), text.replace(from, to)).unwrap();
    };
    correct("experiments/lenet/tiny.yaml", "value: 0.9}", "value: 0.89}");
    refused(folder, &["check"], 1, &["1 finding", "paper.value is 0.89"]);
    refused(folder, &["write"], 2, &["paper.value"]);
    correct("results/lenet.yaml", "paper: 0.9}", "paper: 0.89}");
    assert!(report(&[]).contains("wrote results/lenet.md"));
    assert!(report(&["check"]).contains("agree"));
    assert!(report(&["show", "lenet/tiny"]).contains("| 89.00 % |"));

    // A row whose method draws nothing asks for one seed.
    correct("results/lenet.yaml", "{row: one,", "{row: one, deterministic: true,");
    fs::remove_dir_all(folder.join("results/runs/lenet/tiny")).unwrap();
    assert_eq!(report(&["todo", "lenet/tiny"]), "tiny 1\n");
}

#[test]
fn wrong_words_are_answered_with_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    refused(dir.path(), &["write"], 2, &["root of the checkout"]);
    checkout(dir.path());
    refused(dir.path(), &["todo", "lenet"], 2, &["lenet", "PAPER/TABLE", "lenet/figure9"]);
    refused(dir.path(), &["todo", "lenett/tiny"], 2, &["lenett", "papers: lenet"]);
    refused(dir.path(), &["show", "lenet/tinny"], 2, &["tinny", "lenet/tiny"]);
    refused(dir.path(), &["todo", "lenet/tiny", "--row", "two"], 2, &["two", "one, tiny"]);
    refused(dir.path(), &["todo", "lenet/tiny", "--seeds", "0"], 2, &["--seeds"]);
    refused(dir.path(), &["noise", "lenet/two"], 2, &["two", "tiny"]);
    refused(dir.path(), &["add", "no/such/run"], 2, &["no/such/run"]);
    fs::write(dir.path().join("results/lenet.yaml"), LAYOUT.replace("rows:", "raws:")).unwrap();
    refused(dir.path(), &["write"], 2, &["results/lenet.yaml", "raws"]);
}
