//! Pulling the plug in the middle loses nothing: kills, damaged checkpoints, full disks, clocks that jump, folders of another version.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use repro::random::uniform;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::program::{
    all_files, checkpoints, files, hard, lenet, newest, pasted, quietly, result, run, run_folders, succeed, text,
    uninterrupted, wait_until, weights_hash,
};

/// A sitting of one step: stopped by its limit, it leaves a checkpoint.
const ONE_STEP: &str = "limit=0.0001 seconds";
const NO_LIMIT: &str = "limit=10 minutes";

/// A run of which two steps are done, with a checkpoint of each.
fn begun(folder: &Path, words: &[&str]) -> PathBuf {
    succeed(lenet(folder, hard(&[&["--out", "run", "-q", ONE_STEP], words].concat())));
    succeed(lenet(folder, ["train", "--resume", "run", "-q"]));
    let run = folder.join("run");
    assert_eq!(checkpoints(&run).len(), 2);
    run
}

fn resume(folder: &Path) -> Command {
    lenet(folder, ["train", "--resume", "run", NO_LIMIT])
}

/// A half-written file anywhere in a run.
fn partial(run: &Path) -> bool {
    let folders = [run.to_owned(), run.join("checkpoints"), run.join("figures")];
    folders.iter().flat_map(|f| files(f)).any(|p| p.file_name().unwrap().to_string_lossy().starts_with(".partial-"))
}

/// Every checkpoint of the run can be read.
fn all_whole(run: &Path) {
    assert!(!partial(run), "half-written files are cleared away");
    let found = checkpoints(run);
    assert!(!found.is_empty());
    for file in found {
        repro::weights::read(&file).unwrap();
    }
}

#[test]
fn twenty_kills_at_random_moments_lose_nothing() {
    const KILLS: u64 = 20;
    const STEPS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let words = ["length=200 steps", "log.every=5 steps", "-q", "--out"];
    succeed(lenet(dir.path(), hard(&[&words[..], &["whole"]].concat())));
    let folder = dir.path().join("run");
    let step = || newest(&folder).trim_end_matches(".safetensors").rsplit('-').next().unwrap_or_default().parse();
    let step = || step().unwrap_or(0u64);

    let mut child = quietly(lenet(dir.path(), hard(&[&words[..], &["run", "checkpoint.every=1 steps"]].concat())));
    let begun = Instant::now();
    wait_until("the first checkpoint", || step() > 0);
    let startup = begun.elapsed();
    let mut half_written = 0;
    for kill in 0..KILLS {
        let mut rng = repro::random::rng(1998, kill, 0, "kill");
        let mut random = || uniform(&mut rng, 0.0, 1.0);
        let before = step();
        // Moments follow what the run does and not the clock alone, so that a fast machine is hit as often as a slow one. Where it has
        // come far, only its start is hit, so that it cannot end before the last kill.
        match if step() > STEPS / 2 { 0 } else { kill % 3 } {
            // The first start may be the slowest of all, so a few steps end the wait, too.
            0 => {
                let until = Instant::now() + startup.mul_f64(random());
                while Instant::now() < until && step() < before + 3 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            1 => {
                wait_until("a step", || step() > before || child.try_wait().unwrap().is_some());
                std::thread::sleep(Duration::from_micros((6000.0 * random()) as u64));
            }
            _ => {
                wait_until("a step", || step() > before || child.try_wait().unwrap().is_some());
                wait_until("a half-written file", || partial(&folder) || child.try_wait().unwrap().is_some());
            }
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "kill {kill} at step {} came too late", step());
        half_written += u64::from(partial(&folder));
        child = quietly(lenet(dir.path(), ["train", "--resume", "run", "-q"]));
    }
    assert!(child.wait().unwrap().success());
    assert!(half_written > 0, "no kill hit a half-written file");
    all_whole(&folder);
    assert_eq!(weights_hash(&folder), weights_hash(&dir.path().join("whole")));
    let rows = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = rows
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .filter_map(|row| row.get("train/loss").and_then(|_| row["step"].as_u64()))
        .collect();
    assert_eq!(steps, (1..=STEPS / 5).map(|n| 5 * n).collect::<Vec<_>>(), "each step is logged once, in order");
}

/// A checkpoint whose header `change` has edited, with a checksum that holds again.
fn reheaded(file: &Path, change: impl Fn(&mut Value)) {
    let (state, meta) = repro::weights::read(file).unwrap();
    let mut header: Value = serde_json::from_str(&meta.unwrap()).unwrap();
    change(&mut header);
    let field = |name: &str| header[name].as_str().unwrap().to_string();
    let seconds = header["seconds"].as_f64().unwrap().to_bits();
    let fields = [
        header["format"].to_string(),
        field("stage"),
        header["step"].to_string(),
        seconds.to_string(),
        field("config_sha256"),
    ];
    let mut pending = String::new();
    for (name, sums) in header["pending"].as_object().into_iter().flatten() {
        pending += &format!("\0{name}");
        for sum in sums.as_array().unwrap() {
            pending += &format!("\0{}\0{}", sum[0].as_f64().unwrap().to_bits(), sum[1]);
        }
    }
    let data = field("data_sha256");
    let whole = fields.join("\0") + "\0" + &data + &pending + &repro::weights::hash(&state).unwrap();
    header["sha256"] = repro::weights::hex(&Sha256::digest(whole)).into();
    repro::weights::write(file, &state, Some(&header.to_string())).unwrap();
}

/// One way to spoil a checkpoint.
type Spoil = fn(&Path);

/// With what the message says of it.
fn spoilt() -> [(&'static str, Spoil); 8] {
    let cut: Spoil = |file| {
        let whole = fs::read(file).unwrap();
        fs::write(file, &whole[..whole.len() - 1000]).unwrap();
    };
    let flipped: Spoil = |file| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(file, bytes).unwrap();
    };
    let of_another_model: Spoil = |file| {
        let (mut state, meta) = repro::weights::read(file).unwrap();
        let narrow = state["model.c1.weight"].narrow(0, 0, 3);
        state.insert("model.c1.weight".into(), narrow);
        repro::weights::write(file, &state, meta.as_deref()).unwrap();
        reheaded(file, |_| {});
    };
    [
        ("not a whole safetensors file", cut),
        ("checksum", flipped),
        ("another configuration", |file| reheaded(file, |header| header["config_sha256"] = "0".repeat(64).into())),
        ("model.c1.weight is [3, ", of_another_model),
        ("checkpoint format 2", |file| reheaded(file, |header| header["format"] = 2.into())),
        ("not a whole safetensors file", |file| fs::write(file, b"").unwrap()),
        ("is a folder", |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        }),
        ("no checkpoint header", |file| {
            let (state, _) = repro::weights::read(file).unwrap();
            repro::weights::write(file, &state, None).unwrap();
        }),
    ]
}

fn copied(from: &Path, to: &Path) {
    for (path, bytes) in all_files(from) {
        let copy = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, bytes).unwrap();
    }
}

#[test]
fn a_checkpoint_that_cannot_be_used_is_named_and_the_one_before_is_used_or_the_run_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = begun(dir.path(), &[]);
    for (what, spoil) in spoilt() {
        let case = tempfile::tempdir().unwrap();
        let folder = case.path().join("run");
        copied(&good, &folder);
        let [second, first] = checkpoints(&folder).try_into().unwrap();
        let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_string();
        spoil(&second);
        // It comes to the spoilt one's step again, and needs its name.
        let output = run(lenet(case.path(), ["train", "--resume", "run"]));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{what}: {said}");
        assert!(said.contains(what) && said.contains(&name(&second)), "{what}: {said}");
        assert!(said.contains("goes on from step 1 of 90"), "{what}: {said}");
        assert!(second.is_file() && second.with_extension("set-aside").exists(), "{what}");

        spoil(&second);
        spoil(&first);
        let before = all_files(&folder);
        let output = run(resume(case.path()));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{what}: {said}");
        assert!(said.contains(what) && said.contains(&name(&first)) && said.contains(&name(&second)), "{what}: {said}");
        untouched(&before, &folder);
    }
    // The one before gives the same weights.
    flip_newest(&good);
    succeed(resume(dir.path()));
    assert_eq!(weights_hash(&good), uninterrupted());
}

fn flip_newest(run: &Path) {
    spoilt()[1].1(&checkpoints(run)[0]);
}

/// A refusal adds a line to log.txt, and changes nothing else.
fn untouched(before: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path) {
    let kept = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        let log = |path: &PathBuf| path.ends_with("log.txt") || path.ends_with("run.lock");
        files.iter().filter(|(path, _)| !log(path)).map(|(p, b)| (p.clone(), b.clone())).collect::<Vec<_>>()
    };
    assert!(kept(before) == kept(&all_files(folder)), "a refused run was changed");
}

#[test]
fn a_run_of_another_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let folder = begun(dir.path(), &[]);
    let good = all_files(&folder);
    let restore = || good.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let cases: [(&[&str], &dyn Fn()); 4] = [
        (&["run/result.json", "commit"], &|| {
            let mut old = result(&folder);
            old.as_object_mut().unwrap().remove("commit");
            fs::write(folder.join("result.json"), old.to_string()).unwrap();
        }),
        (&["run/result.json", "damaged"], &|| fs::write(folder.join("result.json"), b"{\"paper\": \"le").unwrap()),
        (&["run/config.yaml", "momentun_of_old"], &|| {
            let yaml = fs::read_to_string(folder.join("config.yaml")).unwrap();
            fs::write(folder.join("config.yaml"), yaml + "momentun_of_old: 3\n").unwrap();
        }),
        (&["format 0", "run/checkpoints/train-000000002", "run/checkpoints/train-000000001"], &|| {
            checkpoints(&folder).iter().for_each(|file| reheaded(file, |header| header["format"] = 0.into()));
        }),
    ];
    for (named, spoil) in cases {
        spoil();
        let before = all_files(&folder);
        let output = run(resume(dir.path()));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{named:?}: {said}");
        assert!(named.iter().all(|part| said.contains(part)), "{named:?}: {said}");
        untouched(&before, &folder);
        restore();
    }
    succeed(resume(dir.path()));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn a_clock_that_was_set_back_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let words = hard(&["-q", ONE_STEP]);
    succeed(lenet(dir.path(), &words));
    succeed(lenet(dir.path(), [&["--resume".to_string()], &words[..]].concat()));
    // As if the first sitting had been in 2040: the stamp of the folder, the times of all files, the name of its TensorBoard file.
    let home = dir.path().join("runs/lenet/smoke");
    let made = run_folders(&home).remove(0);
    let hash = made.file_name().unwrap().to_str().unwrap().rsplit('-').next().unwrap().to_string();
    let folder = home.join(format!("20400101T000000Z-{hash}"));
    fs::rename(made, &folder).unwrap();
    fs::write(folder.join("events.out.tfevents.2208988800.1.0000"), b"").unwrap();
    let future = SystemTime::now() + Duration::from_secs(14 * 365 * 86_400);
    for path in all_files(&folder).keys() {
        File::options().write(true).open(path).unwrap().set_modified(future).unwrap();
    }
    let newest = &checkpoints(&folder)[0];
    File::options().write(true).open(newest).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();

    let output = run(lenet(dir.path(), hard(&["--resume", ONE_STEP])));
    assert!(text(&output.stderr).contains("goes on from step 2 of 90"), "{}", text(&output.stderr));
    let last = files(&folder).into_iter().filter(|p| p.to_string_lossy().contains("tfevents")).max().unwrap();
    assert!(last.metadata().unwrap().len() > 0, "TensorBoard reads the newest file last");
    succeed(lenet(dir.path(), ["train", "--resume", folder.to_str().unwrap(), "-q", NO_LIMIT]));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn divergence_keeps_the_good_checkpoints_and_comes_again_at_the_same_step() {
    // Such a decay multiplies the weights from step to step. Found by the weights where each step is saved, else by the loss.
    for (every, named, kept) in [("1 steps", " holds values that are no numbers", 2), ("12 steps", "(loss = ", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let every = format!("checkpoint.every={every}");
        let words = ["--out", "run", "optim.base_lr=1", "optim.weight_decay=100", "log.every=100 steps", &every];
        let first = run(lenet(dir.path(), hard(&words)));
        let message = |said: String| said.lines().find(|l| l.starts_with("error: ")).unwrap_or(&said).to_string();
        let said = message(text(&first.stderr));
        assert_eq!(first.status.code(), Some(1), "{said}");
        assert!(said.contains("diverged at step ") && said.contains(named) && said.contains("base_lr"), "{said}");
        let folder = dir.path().join("run");
        assert_eq!(result(&folder)["status"], "diverged");
        all_whole(&folder);
        let good = all_files(&folder.join("checkpoints"));
        assert_eq!(good.len(), kept);
        let again = run(resume(dir.path()));
        assert_eq!((again.status.code(), message(text(&again.stderr))), (Some(1), said));
        assert!(good == all_files(&folder.join("checkpoints")));
    }
}

#[test]
fn what_was_started_from_other_weights_goes_on_from_them() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), hard(&["--out", "before", "-q", "seed=5", "length=3 steps"])));
    let words = ["--init", "before", "-q", "checkpoint.every=never", "length=60 steps", "--out"];
    succeed(lenet(dir.path(), hard(&[&words[..], &["whole"]].concat())));
    let mut child = quietly(lenet(dir.path(), hard(&[&words[..], &["run"]].concat())));
    wait_until("the run to start", || dir.path().join("run/metrics.jsonl").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(result(&dir.path().join("run"))["status"], "running");
    succeed(lenet(dir.path(), ["train", "--resume", "run", "-q"]));
    assert_eq!(weights_hash(&dir.path().join("run")), weights_hash(&dir.path().join("whole")));
}

#[test]
fn two_signals_within_a_second_are_one_and_the_run_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = quietly(lenet(dir.path(), hard(&["--out", "run", "checkpoint.every=5 steps"])));
    let folder = dir.path().join("run");
    wait_until("a checkpoint", || !checkpoints(&folder).is_empty());
    // While the process is stopped both signals wait for it, so that they arrive together on any machine.
    for name in ["STOP", "INT", "TERM", "CONT"] {
        crate::program::signal(&child, name);
    }
    assert!(matches!(child.wait().unwrap().code(), Some(130 | 143)));
    assert_eq!(result(&folder)["status"], "interrupted");
    succeed(resume(dir.path()));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn a_second_signal_after_a_second_leaves_at_once_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // A pipe in place of the pictures: the program waits for somebody to write there, as it would for a step that never ends.
    let data = dir.path().join("mnist");
    crate::refusals::mnist(&data, |_, bytes| bytes);
    let pipe = data.join("train-images-idx3-ubyte");
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let root = format!("data.root={}", data.display());
    let words = hard(&["data=mnist", &root, "--out", "run"]);
    let child = lenet(dir.path(), words).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let listens = || fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    wait_until("the program to wait", || {
        // Bit 2 − 1 of the signals that it has a handler for.
        let caught = listens().lines().find_map(|l| l.strip_prefix("SigCgt:\t").map(str::to_string)).unwrap();
        u64::from_str_radix(&caught, 16).unwrap() & 2 != 0
    });
    std::thread::sleep(Duration::from_millis(300));
    crate::program::signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(Path::new(&format!("/proc/{}/fd", child.id())).exists(), "the first signal waits for the step");
    crate::program::signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("\nleft at once at a second signal"), "{}", text(&output.stderr));
}

/// `lenet` with a limit on the size of the files that it writes, which fails as a full disk does.
fn limited(folder: &Path, bytes: u64, words: &[&str]) -> Command {
    let inner = lenet(folder, words);
    let mut command = Command::new("prlimit");
    command.arg(format!("--fsize={bytes}")).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(folder).env("OMP_NUM_THREADS", "1").stdin(std::process::Stdio::null());
    command
}

fn pad(file: &Path, row: impl Fn(usize) -> String, to: usize) {
    let mut bytes = fs::read(file).unwrap();
    let empty = row(0).len();
    bytes.extend(row(to - bytes.len() - empty).bytes());
    assert_eq!(bytes.len(), to);
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_file_that_cannot_grow_ends_the_run_in_words_and_it_goes_on_when_it_can() {
    const LIMIT: usize = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let good = begun(dir.path(), &["eval.every=50 steps"]);
    type Case<'a> = (&'a str, usize, &'a [&'a str], fn(&Path));
    let cases: [Case; 4] = [
        ("run/checkpoints/train-000000020.safetensors", 300_000, &[], |_| {}),
        ("run/log.txt", LIMIT, &[], |run| pad(&run.join("log.txt"), |n| "x".repeat(n) + "\n", LIMIT - 300)),
        ("run/metrics.jsonl", LIMIT, &[], |run| {
            pad(
                &run.join("metrics.jsonl"),
                |n| format!("{{\"stage\":\"other\",\"x\":\"{}\"}}\n", "x".repeat(n)),
                LIMIT - 600,
            )
        }),
        ("run/events.out.tfevents.", 16_500, &["checkpoint.every=never", "log.every=1 steps"], |_| {}),
    ];
    for (named, limit, words, prepare) in cases {
        let case = tempfile::tempdir().unwrap();
        let folder = case.path().join("run");
        copied(&good, &folder);
        prepare(&folder);
        let words = [&["train", "--resume", "run", NO_LIMIT], words].concat();
        let output = run(limited(case.path(), limit as u64, &words));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{named}: {said}");
        assert!(said.contains(&format!("cannot write {named}")), "{named}: {said}");
        assert!(said.contains("File too large") && said.contains("ulimit -f"), "{named}: {said}");
        assert_eq!(result(&folder)["status"], "failed", "{named}");
        all_whole(&folder);
        succeed(pasted(case.path(), &said));
        assert_eq!(weights_hash(&folder), uninterrupted(), "{named}");
    }
}
