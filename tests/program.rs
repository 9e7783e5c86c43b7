//! Runs a paper's binary as a user would.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A command in `folder`, with one thread, so that tests beside each other do not fight for cores.
pub(crate) fn lenet<S: AsRef<OsStr>>(folder: &Path, words: impl IntoIterator<Item = S>) -> Command {
    program("lenet", folder, words)
}

/// The same, of any of the workspace's binaries.
pub(crate) fn program<S: AsRef<OsStr>>(name: &str, folder: &Path, words: impl IntoIterator<Item = S>) -> Command {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join(name);
    assert!(
        binary.exists(),
        "{} is missing: run scripts/test.sh, or cargo build --release --workspace first",
        binary.display()
    );
    let mut command = Command::new(binary);
    command.current_dir(folder).args(words).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

/// The smoke experiment and further words.
pub(crate) fn smoke(words: &[&str]) -> Vec<String> {
    let yaml = root().join("experiments/lenet/smoke.yaml").display().to_string();
    ["--config", &yaml].iter().chain(words).map(|w| w.to_string()).collect()
}

/// The smoke experiment with everything that makes exactness hard: distortion, averages, accumulation.
pub(crate) fn hard(words: &[&str]) -> Vec<String> {
    let hard = [
        "length=90 steps",
        "checkpoint.every=20 steps",
        "eval.every=never",
        "log.every=10 steps",
        "ema={decay: 0.9}",
        "batch_size=32",
        "compute.micro_batch=12",
        "compute.device=cpu",
        "augment=[{kind: affine, rotate: 10, scale: 0.1, squeeze: 0.1, shear: 10, shift: 2}]",
    ];
    smoke(&[&hard, words].concat())
}

/// Runs it to its end.
pub(crate) fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

/// Runs it and insists on success; returns what stood on stdout.
pub(crate) fn succeed(command: Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn result(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("result.json")).unwrap()).unwrap()
}

/// What stands for all that a finished run has learned: the hash of its weights and of its averaged weights.
pub(crate) fn weights_hash(folder: &Path) -> String {
    let result = result(folder);
    assert_eq!(result["status"], "done", "{result:#}");
    let (averages, _) = repro::weights::read(&folder.join("weights-ema.safetensors")).unwrap();
    format!("{} {}", result["weights_sha256"], repro::weights::hash(&averages).unwrap())
}

/// Changes a run's `result.json`.
pub(crate) fn change_result(folder: &Path, change: impl Fn(&mut Value)) {
    let mut changed = result(folder);
    change(&mut changed);
    std::fs::write(folder.join("result.json"), changed.to_string()).unwrap();
}

/// Waits until `ready` holds; fails the test after a minute.
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

/// The folders of runs in `runs/<paper>/<config>`: all but `latest`.
pub(crate) fn run_folders(home: &Path) -> Vec<PathBuf> {
    files(home).into_iter().filter(|path| !path.ends_with("latest")).collect()
}

/// `metrics.jsonl` without what depends on the clock.
pub(crate) fn rows(run: &Path) -> Vec<Value> {
    let mut rows: Vec<Value> = repro::trainer::read_metrics(run).unwrap().into_iter().map(Value::Object).collect();
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|name, _| !name.ends_with("per_second"));
    }
    rows
}

/// The hash of the uninterrupted `hard` run, and the hash of its averaged weights' file.
pub(crate) fn uninterrupted() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        succeed(lenet(dir.path(), hard(&["--out", "run", "-q"])));
        weights_hash(&dir.path().join("run"))
    })
}

pub(crate) fn quietly(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A run's checkpoints, newest first.
pub(crate) fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let mut found = files(&run.join("checkpoints"));
    found.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    found.sort();
    found.reverse();
    found
}

/// Name of the newest checkpoint; empty if there is none.
pub(crate) fn newest(run: &Path) -> String {
    checkpoints(run).first().map_or(String::new(), |p| p.file_name().unwrap().to_string_lossy().into_owned())
}

/// Sends a signal by its name: `INT`.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

/// The command that a run has told to go on with, as a user pastes it into a shell.
pub(crate) fn pasted(folder: &Path, said: &str) -> Command {
    let line = said.lines().find_map(|l| l.split_once("go on with: ")).map(|(_, command)| command);
    let mut command = Command::new("sh");
    command.arg("-c").arg(line.unwrap_or_else(|| panic!("no command in {said}")));
    command.current_dir(folder).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

/// The files below a folder and its folders, with their bytes.
pub(crate) fn all_files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let below = |path: PathBuf| match path.is_dir() {
        true => all_files(&path),
        false => BTreeMap::from([(path.clone(), std::fs::read(&path).unwrap())]),
    };
    files(folder).into_iter().flat_map(below).collect()
}
