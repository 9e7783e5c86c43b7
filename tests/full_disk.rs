//! A disk that is full or read-only: a small file system in memory, where the machine lets the test mount one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::program::{
    checkpoints, hard, lenet, pasted, result, run, smoke, succeed, text, uninterrupted, weights_hash,
};

/// A file system of a given size, gone when dropped.
struct Disk(TempDir);

impl Disk {
    /// `None`, with a line that says so, where mounting is not permitted.
    fn new(size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = disk.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        if !mounted {
            println!("skipped: no permission to mount a small disk");
        }
        mounted.then_some(disk)
    }

    fn mount(&self, words: &[&str]) -> bool {
        let mut command = Command::new("mount");
        command.args(words).arg(self.path()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn remount(&self, option: &str) {
        assert!(self.mount(&["-o", &format!("remount,{option}")]));
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).stderr(Stdio::null()).status();
    }
}

/// Runs, and insists on a message about a full disk; returns it.
fn full(command: Command) -> String {
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write ") && said.contains("No space left") && said.contains("make room"), "{said}");
    said
}

#[test]
fn a_checkpoint_that_has_no_room_leaves_the_ones_before() {
    // Two checkpoints fit, the third does not.
    let Some(disk) = Disk::new("2m") else { return };
    let said = full(lenet(disk.path(), hard(&["--out", "run"])));
    assert!(said.contains("run/checkpoints/train-000000060.safetensors"), "{said}");
    let folder = disk.path().join("run");
    assert_eq!(result(&folder)["status"], "failed");
    let names: Vec<PathBuf> = [40, 20].map(|n| folder.join(format!("checkpoints/train-{n:09}.safetensors"))).into();
    assert_eq!(checkpoints(&folder), names);
    disk.remount("size=32m");
    succeed(pasted(disk.path(), &said));
    assert_eq!(weights_hash(&folder), uninterrupted());
    let rows = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(rows.matches("\"test/error\"").count(), 1, "the final test stands there once:\n{rows}");
}

#[test]
fn weights_that_have_no_room_at_the_end_are_written_when_there_is_some() {
    let Some(disk) = Disk::new("32m") else { return };
    succeed(lenet(disk.path(), hard(&["--out", "run", "-q"])));
    let folder = disk.path().join("run");
    // As if it had been killed after its last checkpoint.
    let mut before = result(&folder);
    before["status"] = "running".into();
    fs::write(folder.join("result.json"), before.to_string()).unwrap();
    let weights = fs::metadata(folder.join("weights.safetensors")).unwrap().len();
    for name in ["weights.safetensors", "weights-ema.safetensors"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    // Room for the start of another TensorBoard file, not for the weights.
    let used = Command::new("df").args(["-B1", "--output=used"]).arg(disk.path()).output().unwrap();
    let used: u64 = text(&used.stdout).lines().last().unwrap().trim().parse().unwrap();
    disk.remount(&format!("size={}", used + weights / 2));
    let said = full(lenet(disk.path(), ["train", "--resume", "run"]));
    assert!(said.contains("cannot write run/weights.safetensors"), "{said}");
    assert_eq!(result(&folder)["status"], "failed");
    disk.remount("size=32m");
    succeed(pasted(disk.path(), &said));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn logs_that_fill_the_disk_leave_room_to_say_so() {
    let Some(disk) = Disk::new("64k") else { return };
    let said = full(lenet(disk.path(), hard(&["--out", "run", "log.every=1 steps", "checkpoint.every=never"])));
    let folder = disk.path().join("run");
    assert_eq!(result(&folder)["status"], "failed", "{said}");
    assert!(result(&folder)["steps"].as_u64().unwrap() > 0, "{said}");
    disk.remount("size=32m");
    succeed(pasted(disk.path(), &said));
    assert_eq!(weights_hash(&folder), uninterrupted());
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named_and_the_same_command_works_later() {
    let Some(disk) = Disk::new("4m") else { return };
    let filler = disk.path().join("filler");
    let _ = fs::write(&filler, vec![0; 8 << 20]);
    let words = smoke(&["--out", "run", "length=2 steps", "-q"]);
    assert!(full(lenet(disk.path(), &words)).contains("cannot write run/"));
    fs::remove_file(filler).unwrap();
    succeed(lenet(disk.path(), &words));
    assert_eq!(result(&disk.path().join("run"))["status"], "done");
}

#[test]
fn a_read_only_disk_is_refused_and_changes_nothing() {
    let Some(disk) = Disk::new("16m") else { return };
    succeed(lenet(disk.path(), smoke(&["--out", "run", "length=4 steps", "limit=0.0001 seconds", "-q"])));
    fs::create_dir_all(disk.path().join("runs/lenet/smoke")).unwrap();
    let before = crate::program::all_files(disk.path());
    disk.remount("ro");
    for words in [vec!["train".into(), "--resume".into(), "run".into()], smoke(&["--out", "other"]), smoke(&[])] {
        let output = run(lenet(disk.path(), &words));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains("Read-only") && said.contains("--out"), "{words:?}: {said}");
    }
    assert!(before == crate::program::all_files(disk.path()));
    disk.remount("rw");
    succeed(lenet(disk.path(), ["train", "--resume", "run", "-q", "limit=10 minutes"]));
}
