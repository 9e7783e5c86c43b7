//! Where runs lie: new folders, the lock by which a process group owns one, all runs of a paper, and `latest`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::result::{RunResult, Status, read_result};
use crate::files::{PARTIAL, cannot_create, create_folder};
use crate::{Error, Result, user};

/// The folder beside a config's runs that stands for the newest of them.
const LATEST: &str = "latest";
/// Held by the process group that owns a run.
pub(super) const LOCK: &str = "run.lock";

/// `runs/<paper>/<config>`.
fn home(paper: &str, config: &str) -> PathBuf {
    Path::new("runs").join(paper).join(config)
}

/// A new folder `runs/<paper>/<config>/<UTC time>-<config hash>`.
pub(super) fn fresh_folder(paper: &str, config: &str, hash: &str) -> Result<PathBuf> {
    let home = home(paper, config);
    create_folder(&home)?;
    let stamp = format!("{}-{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), &hash[..8]);
    for attempt in 1..1000 {
        let name = if attempt == 1 { stamp.clone() } else { format!("{stamp}-{attempt}") };
        // `create_dir` and not `create_dir_all`: of two processes in one second, one gets the name.
        match fs::create_dir(home.join(&name)) {
            Ok(()) => return Ok(home.join(name)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(cannot_create(&home.join(name), e)),
        }
    }
    Err(user!("{} is full of runs of this second", home.display()))
}

/// Takes a run folder for this process group, until the file is closed.
///
/// # Errors
/// Another process has it; the disk refuses.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            user!("cannot write in {}: {e}; choose another folder with --out", folder.display())
        }
        _ => Error::io("write", &path)(e),
    })?;
    file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => user!(
            "another process is using {}; wait for it, or give this run a folder of its own with --out",
            folder.display()
        ),
        TryLockError::Error(e) => Error::io("lock", &path)(e),
    })?;
    Ok(file)
}

/// Whether a folder holds a run, be it one that was killed before its first result.
pub(crate) fn holds_run(folder: &Path) -> bool {
    folder.join("result.json").is_file() || folder.join("config.yaml").is_file() && folder.join(LOCK).is_file()
}

/// Refuses a folder for a new run that holds anything but what a run, killed before its first result, leaves there.
///
/// # Errors
/// Names what is there.
pub(crate) fn check_free(folder: &Path) -> Result<()> {
    const OWN: [&str; 7] = ["config.yaml", "env.json", LOCK, "log.txt", "metrics.jsonl", "checkpoints", "figures"];
    if folder.join("result.json").exists() {
        let folder = folder.display();
        return Err(user!(
            "{folder} holds a run already; go on with it by --resume {folder}, or choose another folder"
        ));
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let begun = names.iter().any(|name| name == LOCK);
    names.retain(|name| !begun || !OWN.contains(&name.as_str()) && !name.starts_with(PARTIAL));
    names.sort();
    match &names[..] {
        [] => Ok(()),
        [first, ..] => Err(user!(
            "{} holds files that are not of a run, such as {first}; choose a folder of its own for the run with --out",
            folder.display()
        )),
    }
}

/// The run folders of a paper with their results, oldest first. One that says `running` and is owned by nobody is told as killed.
pub(crate) fn all(paper: &str) -> Vec<(PathBuf, RunResult)> {
    let folders = |path: PathBuf| {
        let own = |path: &PathBuf| path.is_dir() && !path.is_symlink() && !path.ends_with(LATEST);
        fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).filter(own)
    };
    // A sweep's runs lie one folder deeper than the others.
    let (runs, sweeps): (Vec<_>, Vec<_>) =
        folders(Path::new("runs").join(paper)).flat_map(folders).partition(|f| f.join("result.json").exists());
    let told = |folder: PathBuf| {
        let mut result = read_result(&folder).ok()?;
        if result.status == Status::Running && !is_owned(&folder) {
            result.status = Status::Killed;
        }
        Some((folder, result))
    };
    let mut runs: Vec<_> = runs.into_iter().chain(sweeps.into_iter().flat_map(folders)).filter_map(told).collect();
    runs.sort_by_key(|(folder, _)| folder.file_name().map(|n| n.to_owned()));
    runs
}

/// Whether a process has the lock of a folder.
fn is_owned(folder: &Path) -> bool {
    match File::open(folder.join(LOCK)) {
        // A shared lock, so that two who look do not take each other for the owner.
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// The newest run of this configuration that is not done.
pub(crate) fn newest_unfinished(paper: &str, config_sha256: &str) -> Option<PathBuf> {
    let unfinished = |(_, r): &(PathBuf, RunResult)| r.status != Status::Done && r.config_sha256 == config_sha256;
    all(paper).into_iter().rfind(unfinished).map(|(folder, _)| folder)
}

/// The run folder that `latest` stands for; every other path as it is. What names a run for good (a command to be pasted, `init` in
/// `result.json`) must not name what the next run moves.
pub fn real_folder(path: &Path) -> PathBuf {
    let config = path.join("config.yaml");
    if !path.is_symlink() && !config.is_symlink() {
        return path.to_owned();
    }
    let Some(real) = fs::canonicalize(&config).ok().and_then(|file| Some(file.parent()?.to_owned())) else {
        return path.to_owned();
    };
    let here = std::env::current_dir().unwrap_or_default();
    real.strip_prefix(&here).map(Path::to_owned).unwrap_or(real)
}

/// Makes `latest` beside a run folder stand for it: a folder of links to what lies in the run. It is no link itself, since TensorBoard follows
/// links to folders and would list the run twice; so the event files, and the folders that later stages keep theirs in, are left out.
/// What cannot be linked (some shared folders have no links) is no reason to stop.
pub(super) fn point_latest(run: &Path, stages: &[String]) {
    let Some(home) = run.parent() else { return };
    let (new, old) = (home.join(format!(".latest-{}", std::process::id())), home.join(LATEST));
    if fs::create_dir(&new).is_err() {
        return;
    }
    link_entries(run, &new, stages);
    if new.join("config.yaml").is_symlink() {
        // Of earlier versions it is a link.
        let _ = if old.is_symlink() { fs::remove_file(&old) } else { remove_links(&old) };
        let _ = fs::rename(&new, &old);
    }
    // Still there where the other could not be moved away.
    let _ = remove_links(&new);
}

/// Adds to `latest`, if it stands for this run, what has come into the run's folder since.
pub(super) fn fill_latest(run: &Path, stages: &[String]) {
    let latest = run.with_file_name(LATEST);
    if fs::read_link(latest.join("config.yaml")).is_ok_and(|link| Some(link) == target(run, "config.yaml")) {
        link_entries(run, &latest, stages);
    }
}

/// What a link in `latest` holds.
fn target(run: &Path, entry: &str) -> Option<PathBuf> {
    Some(Path::new("..").join(run.file_name()?).join(entry))
}

fn link_entries(run: &Path, folder: &Path, stages: &[String]) {
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') || name.contains("tfevents") || stages.contains(&name);
        if let (false, Some(target)) = (hidden, target(run, &name)) {
            // One that is there already stays.
            let _ = symlink(target, folder.join(name));
        }
    }
}

/// Removes a folder of links; what is no link is somebody's, and keeps the folder there.
fn remove_links(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_symlink()) {
        fs::remove_file(entry.path())?;
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(home: &Path, name: &str, entries: &[&str]) -> PathBuf {
        let folder = home.join(name);
        fs::create_dir_all(folder.join("probe")).unwrap();
        entries.iter().for_each(|entry| fs::write(folder.join(entry), name).unwrap());
        folder
    }

    #[test]
    fn latest_holds_links_to_the_newest_run_and_no_events() {
        let home = tempfile::tempdir().unwrap();
        let latest = home.path().join(LATEST);
        let read = |entry: &str| fs::read_to_string(latest.join(entry)).ok();
        let stages = ["train".to_string(), "probe".to_string()];
        let first = run(home.path(), "first", &["config.yaml", "events.out.tfevents.1", ".partial-x"]);
        // As an earlier version left it.
        symlink("first", &latest).unwrap();
        point_latest(&first, &stages);
        assert!(!latest.is_symlink() && latest.is_dir());
        assert_eq!(fs::read_dir(&latest).unwrap().count(), 1);
        assert_eq!(read("config.yaml").as_deref(), Some("first"));
        fs::write(first.join("weights.safetensors"), "first").unwrap();
        fill_latest(&first, &stages);
        assert_eq!(read("weights.safetensors").as_deref(), Some("first"));

        let second = run(home.path(), "second", &["config.yaml"]);
        point_latest(&second, &stages);
        assert_eq!((read("config.yaml").as_deref(), read("weights.safetensors")), (Some("second"), None));
        // The first run is not the latest any more.
        fill_latest(&first, &stages);
        assert_eq!(read("weights.safetensors"), None);
        assert_eq!(real_folder(&latest), fs::canonicalize(&second).unwrap());
        assert_eq!(real_folder(&first), first);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3, "nothing is left over");
    }

    #[test]
    fn a_folder_of_other_files_is_not_free_and_one_of_a_killed_start_is() {
        let home = tempfile::tempdir().unwrap();
        check_free(&home.path().join("none")).unwrap();
        check_free(home.path()).unwrap();
        let begun = run(home.path(), "begun", &[LOCK, "config.yaml", ".partial-1"]);
        fs::remove_dir(begun.join("probe")).unwrap();
        check_free(&begun).unwrap();
        assert!(holds_run(&begun) && !holds_run(home.path()));
        fs::write(begun.join("thesis.tex"), "").unwrap();
        fs::remove_file(home.path().join("begun/run.lock")).unwrap();
        for (folder, named) in [(&begun, "config.yaml"), (&home.path().to_owned(), "begun")] {
            let error = check_free(folder).unwrap_err();
            assert!(error.exit_code() == 2 && (error.to_string().contains(named) || named == "config.yaml"), "{error}");
        }
        fs::write(begun.join("result.json"), "").unwrap();
        assert!(check_free(&begun).unwrap_err().to_string().contains("--resume"));
    }
}
