//! `scripts/bench/gpu.sh` can be started at once where there is a GPU: without one it is tried on the CPU.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::program::{root, run, text};

#[test]
fn the_gpu_script_has_all_papers_and_runs_through() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let mut command = Command::new("bash");
    command.arg(root().join("scripts/bench/gpu.sh")).args(["--dry-run", "--bin"]).arg(binaries);
    command.arg("--out").arg(dir.path()).env("OMP_NUM_THREADS", "1");
    let output = run(command);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");

    let lines = fs::read_to_string(dir.path().join("gpu.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ran = |paper: &str, part: &str| {
        let line = lines.iter().find(|line| line["paper"] == paper && line["part"] == part);
        line.is_some_and(|line| line["status"] == "done" && line["found"].is_object())
    };
    let papers: BTreeSet<String> = fs::read_dir(root().join("experiments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("smoke.yaml").exists())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(papers.len() >= 3, "{papers:?}");
    for paper in &papers {
        for part in ["train", "parity", "step-f32", "step-bf16"] {
            assert!(ran(paper, part), "{paper} {part}: {said}");
        }
    }
}
