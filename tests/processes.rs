//! Several processes give the result of one, but for the order of summation.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use repro::weights;
use repro::weights::Named;

use crate::program::{
    checkpoints, hard, lenet, pasted, program, quietly, result, root, rows, run, signal, smoke, succeed, text,
    wait_until,
};

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
    // What is logged is the mean over the processes, and not what one of them saw.
    let losses = |name: &str| -> Vec<f64> {
        rows(&dir.path().join(name)).iter().filter_map(|row| row.get("train/loss")?.as_f64()).collect()
    };
    let (ours, theirs) = (losses("two"), losses("one"));
    assert!(!ours.is_empty() && ours.len() == theirs.len());
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-5 * b), "{ours:?} {theirs:?}");
    // Had the processes seen equal halves, or not exchanged gradients, the weights would differ by far more than that.
    let other = trained(dir.path(), &["--out", "other", augment, "batch_size=32"]);
    let gap = (&one["c1.weight"] - &other["c1.weight"]).abs().max().double_value(&[]);
    assert!(gap > 1e-4, "the test cannot tell: {gap}");
}

/// The losses are divided by what all processes have, however their boxes fall to them. Of fewer photos than processes one evaluates all, and the
/// others wait for nothing.
#[test]
fn two_processes_detect_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = root().join("experiments/detr/smoke.yaml").display().to_string();
    let trained = |out: &str, words: &[&str]| {
        let own = ["--config", &config, "--out", out, "--device", "cpu", "-q", "length=3 steps", "batch_size=6"];
        // Else batch norms and dropout average and draw for each process, and AdamW makes whole steps of what is rounded.
        let alike = [
            "model.dropout=0",
            "model.frozen_norm=true",
            "optim={kind: sgd, base_lr: 1, momentum: 0, weight_decay: 0}",
            "schedule.warmup=null",
        ];
        succeed(program("detr", dir.path(), [&own[..], &alike, words].concat()));
        weights::read(&dir.path().join(out).join("weights.safetensors")).unwrap().0
    };
    let one = trained("one", &["data.limit_test=7"]);
    let two = trained("two", &["data.limit_test=7", "--processes", "2"]);
    for (name, weight) in &one {
        let gap = (weight - &two[name]).abs().max().double_value(&[]);
        assert!(gap < 1e-5, "{name} differs by {gap}");
    }
    // Half the pictures, as if the processes had seen equal ones.
    let other = trained("few", &["data.limit_test=1", "--processes", "2", "batch_size=2"]);
    assert_eq!(result(&dir.path().join("few"))["status"], "done");
    let moved = (&one["class_embed.weight"] - &other["class_embed.weight"]).abs().max().double_value(&[]);
    assert!(moved > 1e-3, "the test cannot tell: {moved}");
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

/// Two processes in the folder `run` that train on and on.
fn endless(folder: &Path) -> Command {
    let words = ["--out", "run", "--processes", "2", "length=100000 steps", "checkpoint.every=1 steps"];
    lenet(folder, smoke(&[&words[..], &["eval.every=never"]].concat()))
}

#[test]
fn processes_end_with_the_command_that_started_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = quietly(endless(dir.path()));
    let folder = dir.path().join("run");
    wait_until("a checkpoint", || !checkpoints(&folder).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever owns the run holds its lock.
    let lock = std::fs::File::open(folder.join("run.lock")).unwrap();
    wait_until("the processes' end", || lock.try_lock().is_ok());
}

/// The processes of rank 1 that a command started.
fn second_rank(parent: u32) -> Vec<u32> {
    let of_parent = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The second word behind the name in brackets.
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&parent.to_string())
    };
    let second = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"RANK=1")
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(of_parent).filter(second).collect()
}

#[test]
fn a_process_that_is_killed_is_named_and_the_others_end() {
    let dir = tempfile::tempdir().unwrap();
    let child = endless(dir.path()).arg("-q").stderr(Stdio::piped()).spawn().unwrap();
    let folder = dir.path().join("run");
    wait_until("a checkpoint", || !checkpoints(&folder).is_empty());
    let second = second_rank(child.id());
    assert_eq!(second.len(), 1);
    assert!(Command::new("kill").args(["-9", &second[0].to_string()]).status().unwrap().success());
    let begun = std::time::Instant::now();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the process of rank 1 was ended by signal 9; the others were stopped"), "{said}");
}

/// Two ranks started by hand, each with words of its own.
fn ranks(folder: &Path, words: [&[&str]; 2]) -> [Output; 2] {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let children = [0, 1].map(|rank: usize| {
        let mut command =
            lenet(folder, smoke(&[&["length=6 steps", "compute.device=cpu", "-q"], words[rank]].concat()));
        command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string()).env("WORLD_SIZE", "2");
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    children.map(|child| child.wait_with_output().unwrap())
}

#[test]
fn processes_that_are_not_of_one_configuration_or_data_are_refused_and_make_no_run() {
    let dir = tempfile::tempdir().unwrap();
    crate::refusals::mnist(&dir.path().join("a"), |_, bytes| bytes);
    crate::refusals::mnist(&dir.path().join("b"), |name, mut bytes| {
        if name.starts_with("train-images") {
            bytes[1000] ^= 1;
        }
        bytes
    });
    let mnist = ["data=mnist", "data.root=a", "--out", "run"];
    let cases: [([&[&str]; 2], &str); 3] = [
        ([&["--out", "run"], &["--out", "run", "seed=2"]], "process 1 has another configuration than process 0"),
        (
            [&["--out", "run"], &["--out", "run", "length=7 steps"]],
            "process 1 has another configuration than process 0",
        ),
        ([&mnist, &["data=mnist", "data.root=b", "--out", "run"]], "process 1 has another data than process 0"),
    ];
    for (words, named) in cases {
        for output in ranks(dir.path(), words) {
            assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
            assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
        }
        assert!(!dir.path().join("run").exists());
    }
}

#[test]
fn all_processes_begin_with_what_process_0_has() {
    let dir = tempfile::tempdir().unwrap();
    for seed in ["5", "6"] {
        succeed(lenet(dir.path(), smoke(&["length=1 steps", "--out", seed, &format!("seed={seed}"), "-q"])));
    }
    let hash = |name: &str| result(&dir.path().join(name))["weights_sha256"].clone();
    for (out, inits) in [("same", ["5", "5"]), ("mixed", ["5", "6"]), ("other", ["6", "5"])] {
        let words = inits.map(|init| ["--init", init, "--out", out]);
        for output in ranks(dir.path(), [&words[0], &words[1]]) {
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
    }
    assert_eq!(hash("same"), hash("mixed"));
    assert_ne!(hash("same"), hash("other"));
}

#[test]
fn means_over_processes_survive_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let two = ["--processes", "2", "compute.micro_batch=16", "log.every=7 steps", "length=30 steps", "-q", "--out"];
    succeed(lenet(dir.path(), hard(&[&two[..], &["whole"]].concat())));
    succeed(lenet(dir.path(), hard(&[&two[..], &["cut", "limit=0.0001 seconds"]].concat())));
    succeed(lenet(dir.path(), ["train", "--resume", "cut", "--processes", "2", "-q"]));
    succeed(lenet(dir.path(), ["train", "--resume", "cut", "--processes", "2", "-q", "limit=10 minutes"]));
    let [whole, cut] = ["whole", "cut"].map(|name| dir.path().join(name));
    assert_eq!(result(&cut)["weights_sha256"], result(&whole)["weights_sha256"]);
    assert_eq!(rows(&cut), rows(&whole));
}

#[test]
fn two_quick_signals_end_all_processes_and_the_run_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let words =
        ["--out", "run", "--processes", "2", "length=100000 steps", "checkpoint.every=1 steps", "eval.every=never"];
    let mut child = quietly(lenet(dir.path(), smoke(&words)));
    let folder = dir.path().join("run");
    wait_until("a checkpoint", || !checkpoints(&folder).is_empty());
    for name in ["STOP", "INT", "TERM", "CONT"] {
        signal(&child, name);
    }
    assert!(matches!(child.wait().unwrap().code(), Some(130 | 143)));
    assert_eq!(result(&folder)["status"], "interrupted");
    let lock = std::fs::File::open(folder.join("run.lock")).unwrap();
    wait_until("the processes' end", || lock.try_lock().is_ok());
}
