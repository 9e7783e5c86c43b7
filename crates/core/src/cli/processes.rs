//! `--processes N`: starts N local ranks with torchrun's variables, and stands between them and the user.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::trainer::Signals;
use crate::{Error, Result};

/// How often the children are looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// What the others get, when one has failed, to notice it themselves.
const GRACE: Duration = Duration::from_secs(2);

/// The variable by which a child knows the process that started it, with which it ends.
const PARENT: &str = "REPRO_PARENT";

/// Of a child: ends with the command that started it.
///
/// # Errors
/// That command has ended already.
pub(super) fn end_with_parent() -> Result<()> {
    match std::env::var(PARENT).ok().and_then(|parent| parent.parse().ok()) {
        Some(parent) => Ok(torch_ext::end_with_parent(parent)?),
        None => Ok(()),
    }
}

/// This process's rank by torchrun's variables; 0 without them.
pub(super) fn rank() -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if number("WORLD_SIZE").unwrap_or(1) > 1 { number("RANK").unwrap_or(0) } else { 0 }
}

/// Whether this process says what concerns all that work together: the one that the user started, or rank 0.
pub(super) fn speaks() -> bool {
    rank() == 0 && std::env::var_os(PARENT).is_none()
}

/// This process's number on this machine by torchrun's variables, which picks its card; 0 without them.
pub(super) fn local_rank() -> usize {
    std::env::var("LOCAL_RANK").ok().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Starts a child in a process group of its own, so that Ctrl-C reaches it once, from here, and not twice.
pub(super) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.env(PARENT, std::process::id().to_string()).process_group(0).spawn()
}

/// Runs this command line once for each rank and waits. When one fails, the others are stopped: they would wait for it in vain.
pub(super) fn start(world: u64) -> Result<()> {
    let fail = |e: std::io::Error| Error::Failed(format!("cannot start {world} processes: {e}"));
    let program = std::env::current_exe().map_err(fail)?;
    // A port that was free a moment ago; the listener is closed before rank 0 opens it.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(fail)?.port();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let signals = Signals::install(false)?;
    let mut children = Vec::new();
    for rank in 0..world {
        let mut command = Command::new(&program);
        command.args(without_processes(std::env::args_os().skip(1)));
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", world)]
        {
            command.env(name, value.to_string());
        }
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", (cores / world).max(1).to_string());
        }
        if rank > 0 {
            command.stdout(Stdio::null());
        }
        match spawn(&mut command) {
            Ok(child) => children.push(child),
            Err(error) => {
                children.iter_mut().for_each(|child| drop(child.kill()));
                return Err(fail(error));
            }
        }
    }
    match wait(children, &signals)? {
        None => Ok(()),
        Some(End { code: 2, .. }) => Err(Error::User("the processes refused; see above".into())),
        Some(End { code: code @ (130 | 143), .. }) => Err(Error::Interrupted(code as u8)),
        Some(End { rank, how, .. }) => {
            Err(Error::Failed(format!("the process of rank {rank} {how}; the others were stopped")))
        }
    }
}

/// How a child ended that did not succeed.
pub(super) struct End {
    /// Its place among the children.
    rank: usize,
    /// Its exit code; 1 of one that was killed.
    pub(super) code: i32,
    /// In words: `failed with code 1`, `was ended by signal 9`.
    how: String,
}

/// Passes a signal on to the children, once, and waits for all; how the first ended that failed. It takes the others with it: rank 0 gets the
/// time to write its result, then they are killed.
pub(super) fn wait(mut children: Vec<Child>, signals: &Signals) -> Result<Option<End>> {
    let mut told = false;
    let mut end: Option<End> = None;
    let mut failed: Option<Instant> = None;
    loop {
        let mut running = false;
        for (rank, child) in children.iter_mut().enumerate() {
            match child.try_wait().map_err(|e| Error::Failed(format!("lost a process: {e}")))? {
                None => running = true,
                Some(status) if !status.success() && end.is_none() => {
                    let code = status.code().unwrap_or(1);
                    let how = match status.signal() {
                        Some(signal) => format!("was ended by signal {signal}"),
                        None => format!("failed with code {code}"),
                    };
                    end = Some(End { rank, code, how });
                    // After a signal all stop by themselves, each after the same step.
                    if !matches!(code, 130 | 143) {
                        failed = Some(Instant::now());
                    }
                }
                Some(_) => {}
            }
        }
        if !running {
            return Ok(end);
        }
        if failed.is_some_and(|since| since.elapsed() > GRACE) {
            children.iter_mut().for_each(|child| drop(child.kill()));
        }
        if let (false, Some(signal)) = (told, signals.received()) {
            told = true;
            let number = format!("-{}", signal - 128);
            for child in &children {
                let _ = Command::new("kill").arg(&number).arg(child.id().to_string()).status();
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// The words of the command line without `--processes N`.
fn without_processes(mut words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if word == "--processes" {
            words.next();
        } else if !word.to_string_lossy().starts_with("--processes=") {
            kept.push(word);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_children_get_the_same_words_without_the_flag() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in
            ["--processes 2 --config a seed=1", "--config a --processes=2 seed=1", "--config a seed=1 --processes 2"]
        {
            assert_eq!(without_processes(words(line).into_iter()), words("--config a seed=1"));
        }
    }
}
