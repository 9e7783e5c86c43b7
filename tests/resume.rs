//! One run of a config, cut anywhere and resumed, ends in the hash of the uninterrupted run.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use crate::program::{files, hard, lenet, result, run, succeed, text, wait_until, weights_hash};

/// The hash of the uninterrupted run, and the hash of its averaged weights' file.
fn uninterrupted() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        succeed(lenet(dir.path(), hard(&["--out", "run", "-q"])));
        weights_hash(&dir.path().join("run"))
    })
}

fn quietly(mut command: Command) -> Child {
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
}

fn checkpoints(run: &Path) -> usize {
    files(&run.join("checkpoints")).iter().filter(|p| p.extension().is_some_and(|e| e == "safetensors")).count()
}

fn signal(child: &Child, number: i32) {
    let sent = Command::new("kill").arg(format!("-{number}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

#[test]
fn the_same_command_twice_gives_the_same_weights_and_another_seed_gives_others() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), hard(&["--out", "again", "-q"])));
    assert_eq!(weights_hash(&dir.path().join("again")), uninterrupted());
    succeed(lenet(dir.path(), hard(&["--out", "other", "-q", "seed=77"])));
    assert_ne!(weights_hash(&dir.path().join("other")), uninterrupted());
}

#[test]
fn killed_in_the_middle_of_steps_it_resumes_to_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let mut child = quietly(lenet(dir.path(), hard(&["--out", "run"])));
    for pause in [37, 81, 12] {
        // After the next checkpoint and a little later: inside an epoch, and most often inside the accumulation of a batch.
        let before = newest(&folder);
        wait_until("the next checkpoint", || newest(&folder) > before || child.try_wait().unwrap().is_some());
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(result(&folder)["status"], "running", "the kill came too late to prove anything");
        child = quietly(lenet(dir.path(), ["train", "--resume", "run"]));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(weights_hash(&folder), uninterrupted());
    let rows = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = rows
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .filter_map(|row| row.get("train/loss").and_then(|_| row["step"].as_u64()))
        .collect();
    assert!(steps.len() > 10 && steps.is_sorted_by(|a, b| a < b), "each step is logged once, in order: {steps:?}");
}

/// Name of the newest checkpoint; empty if there is none.
fn newest(run: &Path) -> String {
    let names = files(&run.join("checkpoints")).into_iter().filter_map(|p| Some(p.file_name()?.to_str()?.to_string()));
    names.filter(|n| n.starts_with("train-")).max().unwrap_or_default()
}

#[test]
fn killed_while_a_checkpoint_is_written_it_resumes_to_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let partial = || {
        files(&folder.join("checkpoints"))
            .iter()
            .any(|p| p.file_name().unwrap().to_string_lossy().starts_with(".partial-"))
    };
    let mut child = quietly(lenet(dir.path(), hard(&["checkpoint.every=1 steps", "--out", "run"])));
    let mut caught = 0;
    for _ in 0..5 {
        let before = newest(&folder);
        wait_until("a checkpoint of this sitting", || newest(&folder) > before || child.try_wait().unwrap().is_some());
        wait_until("a half-written checkpoint", || partial() || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        caught += usize::from(partial());
        assert!(checkpoints(&folder) >= 1);
        child = quietly(lenet(dir.path(), ["train", "--resume", "run"]));
    }
    assert!(child.wait().unwrap().success());
    assert!(caught > 0, "no kill hit a half-written file: the test proves nothing");
    assert!(!partial(), "left-overs are cleared away");
    // `checkpoint.*` is no part of what the run stands for.
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn ctrl_c_saves_and_tells_how_to_go_on() {
    for (number, code) in [(2, 130), (15, 143)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let child = lenet(dir.path(), hard(&["--out", "run"])).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_until("the first checkpoint", || checkpoints(&folder) > 0);
        signal(&child, number);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(text(&output.stderr).contains("--resume run"), "{}", text(&output.stderr));
        assert_eq!(result(&folder)["status"], "interrupted");
        succeed(lenet(dir.path(), ["train", "--resume", "run", "-q"]));
        assert_eq!(weights_hash(&folder), uninterrupted());
    }
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // A batch so large that a step takes long.
    let words = hard(&["--out", "run", "batch_size=2000", "compute.micro_batch=1", "length=1000 steps"]);
    let mut child = quietly(lenet(dir.path(), words));
    wait_until("the stage to start", || dir.path().join("run/metrics.jsonl").exists());
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, 2);
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, 2);
    let begun = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    // It left without saving: a single signal would have written a checkpoint and said interrupted.
    assert_eq!(result(&dir.path().join("run"))["status"], "running");
    assert_eq!(checkpoints(&dir.path().join("run")), 0);
}

#[test]
fn a_wall_clock_limit_is_no_failure_and_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let output = run(lenet(dir.path(), hard(&["--out", "run", "limit=0.3 seconds"])));
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
        let mut child = quietly(lenet(dir.path(), hard(&[&["--out", "cut"], words].concat())));
        wait_until("a checkpoint", || checkpoints(&dir.path().join("cut")) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        succeed(lenet(dir.path(), ["train", "--resume", "cut", "-q"]));
        assert_eq!(weights_hash(&dir.path().join("cut")), weights_hash(&dir.path().join("whole")), "{words:?}");
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let mut child = quietly(lenet(dir.path(), hard(&["--out", "run", "checkpoint.every=1 steps"])));
    wait_until("two checkpoints", || checkpoints(&folder) == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let last = folder.join("checkpoints").join(newest(&folder));
    let mut bytes = std::fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&last, bytes).unwrap();
    let output = run(lenet(dir.path(), ["train", "--resume", "run"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(last.file_name().unwrap().to_str().unwrap()), "{}", text(&output.stderr));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn resume_without_a_folder_finds_the_newest_unfinished_run_of_the_config() {
    let dir = tempfile::tempdir().unwrap();
    run(lenet(dir.path(), hard(&["-q", "limit=0.2 seconds"])));
    run(lenet(dir.path(), hard(&["-q", "limit=0.2 seconds", "seed=3"])));
    succeed(lenet(dir.path(), hard(&["--resume", "-q"])));
    let done: Vec<_> = files(&dir.path().join("runs/lenet/smoke"))
        .into_iter()
        .filter(|p| !p.is_symlink() && result(p)["status"] == "done")
        .collect();
    assert_eq!(done.len(), 1);
    assert_eq!(weights_hash(&done[0]), uninterrupted());
}

#[test]
fn a_resumed_run_keeps_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    run(lenet(dir.path(), hard(&["--out", "run", "-q", "limit=0.2 seconds"])));
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
