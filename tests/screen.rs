//! What stands on the screen while runs go on and when they have ended, and what `latest` stands for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::{
    checkpoints, files, hard, lenet, pasted, quietly, result, run, run_folders, smoke, succeed, text, wait_until,
};

/// A command on a terminal of its own, which `script` makes; what is shown there goes to its stdout.
fn on_a_terminal(folder: &Path, words: &[String]) -> Command {
    let inner = lenet(folder, words);
    let word = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy());
    let line: Vec<_> = [inner.get_program()].into_iter().chain(inner.get_args()).map(word).collect();
    let mut command = Command::new("script");
    command.args(["-qec", &line.join(" "), "/dev/null"]).current_dir(folder);
    command.env("OMP_NUM_THREADS", "1").env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Lines as a terminal shows them: each with what was last drawn over it.
fn shown(said: &str) -> Vec<String> {
    let plain = |line: &str| {
        let drawn = line.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default();
        let mut text = String::new();
        let mut letters = drawn.chars();
        while let Some(letter) = letters.next() {
            if letter == '\u{1b}' {
                // A sequence ends with its first letter.
                letters.by_ref().find(|c| c.is_ascii_alphabetic());
            } else {
                text.push(letter);
            }
        }
        text.trim_end().to_string()
    };
    said.split('\n').map(plain).collect()
}

#[test]
fn the_bar_stands_there_from_step_0_and_ends_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let words = smoke(&["--out", "run", "length=12 steps", "eval.every=never"]);
    let output = run(on_a_terminal(dir.path(), &words));
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" 0/12"), "{said:?}");
    let lines = shown(&said);
    let bar = lines.iter().position(|line| line.contains(" 12/12 ")).unwrap_or_else(|| panic!("{lines:?}"));
    assert!(!lines[bar].contains("test/accuracy  "), "{lines:?}");
    assert!(lines[bar + 1..].iter().any(|line| line.starts_with("test/accuracy  ")), "{lines:?}");
}

#[test]
fn the_bar_moves_while_a_step_lasts_and_ends_before_the_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let words = hard(&["--out", "run", "length=100000 steps", "log.every=1000 steps", "checkpoint.every=never"]);
    let child = on_a_terminal(dir.path(), &words).spawn().unwrap();
    wait_until("the run", || dir.path().join("run/metrics.jsonl").exists());
    std::thread::sleep(std::time::Duration::from_millis(1500));
    // Of the run itself: `script` has made a terminal and a group for it.
    let lock = std::fs::canonicalize(dir.path().join("run/run.lock")).unwrap();
    let owner = processes().into_iter().find(|pid| opened(*pid).contains(&lock)).unwrap();
    assert!(Command::new("kill").args(["-INT", &owner.to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{said}");
    // Steps are shown one by one, though the log is a thousand apart.
    let steps: std::collections::BTreeSet<&str> =
        said.split("/100000").filter_map(|before| before.rsplit(' ').next()).collect();
    assert!(steps.len() > 5, "{steps:?}");
    let lines = shown(&said);
    assert!(lines.iter().any(|line| line.starts_with("stopped and saved; go on with: ")), "{lines:?}");
}

fn processes() -> Vec<u32> {
    let name = |path: PathBuf| path.file_name()?.to_str()?.parse().ok();
    files(Path::new("/proc")).into_iter().filter_map(name).collect()
}

fn opened(process: u32) -> Vec<PathBuf> {
    let files = files(Path::new(&format!("/proc/{process}/fd")));
    files.iter().filter_map(|file| std::fs::read_link(file).ok()).collect()
}

#[test]
fn a_run_that_was_killed_is_shown_as_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = quietly(lenet(dir.path(), hard(&["length=100000 steps", "checkpoint.every=1 steps"])));
    let home = dir.path().join("runs/lenet/smoke");
    wait_until("a checkpoint", || run_folders(&home).first().is_some_and(|run| !checkpoints(run).is_empty()));
    let table = || succeed(lenet(dir.path(), ["runs"]));
    let json = || serde_json::from_str::<serde_json::Value>(&succeed(lenet(dir.path(), ["runs", "--json"]))).unwrap();
    assert!(table().contains(" running ") && json()["status"] == "running", "{}", table());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(table().contains(" killed ") && json()["status"] == "killed", "{}", table());
    assert_eq!(table().lines().count(), 2, "latest is no run of its own: {}", table());
    assert_eq!(result(&run_folders(&home)[0])["status"], "running", "who looks changes nothing");
    let words = hard(&["length=100000 steps", "checkpoint.every=1 steps", "--resume", "limit=0.0001 seconds", "-q"]);
    succeed(lenet(dir.path(), words));
    assert!(table().contains(" interrupted "), "{}", table());
}

#[test]
fn latest_is_read_as_the_run_and_what_names_a_run_names_its_own_folder() {
    let dir = tempfile::tempdir().unwrap();
    let latest = "runs/lenet/smoke/latest";
    let first = run(lenet(dir.path(), smoke(&["length=40 steps", "checkpoint.every=never", "limit=0.0001 seconds"])));
    let own = run_folders(&dir.path().join("runs/lenet/smoke")).remove(0);
    let name = own.strip_prefix(dir.path()).unwrap().display().to_string();
    assert!(text(&first.stderr).contains(&format!("--resume {name}")), "{}", text(&first.stderr));
    // An unfinished run has no weights, and it is said.
    let eval = |weights: &str| {
        lenet(dir.path(), [vec!["eval".into(), "--weights".into(), weights.into()], smoke(&[])].concat())
    };
    let refused = run(eval(latest));
    assert!(text(&refused.stderr).contains("this run is not finished"), "{}", text(&refused.stderr));
    let second = run(lenet(dir.path(), ["--resume", latest]));
    assert!(text(&second.stderr).contains(&format!("--resume {name}")), "{}", text(&second.stderr));
    succeed(pasted(dir.path(), &text(&second.stderr)));
    succeed(lenet(dir.path(), ["--resume", latest, "limit=10 minutes", "-q"]));
    assert_eq!(result(&own)["status"], "done");
    assert_eq!(result(&dir.path().join(latest)), result(&own));
    assert_eq!(succeed(eval(latest)), succeed(eval(&name)));
    assert!(!succeed(lenet(dir.path(), ["verify", latest])).contains("DIFFERS"));
    succeed(lenet(dir.path(), smoke(&["--init", latest, "length=1 steps", "--out", "next", "-q"])));
    assert_eq!(result(&dir.path().join("next"))["init"]["path"], name.as_str());
    // TensorBoard lists each folder with event files, and follows links to folders.
    let events: Vec<_> = files(&dir.path().join(latest))
        .into_iter()
        .flat_map(|entry| [files(&entry), vec![entry]].concat())
        .filter(|path| path.to_string_lossy().contains("tfevents"))
        .collect();
    assert!(events.is_empty(), "{events:?}");
    // The next run takes it over.
    succeed(lenet(dir.path(), smoke(&["length=2 steps", "-q"])));
    assert_eq!(result(&dir.path().join(latest))["steps"], 2);
}
