//! Ctrl-C and kind kills: the first asks the run to stop after its step, a later one leaves at once.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals as Arriving;

use crate::{Error, Result};

/// Signals so close to the first are the same wish: a key that was hit twice, one sent to the group and to the process.
const SAME: Duration = Duration::from_secs(1);

/// Remembers that SIGINT or SIGTERM arrived.
#[derive(Debug, Clone, Default)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Takes over SIGINT and SIGTERM for the rest of the process. Who leaves at once says so, unless `quiet`: of several processes one speaks.
    ///
    /// # Errors
    /// The system refuses.
    pub fn install(quiet: bool) -> Result<Self> {
        let signals = Self::default();
        let fail = |e: std::io::Error| Error::Failed(format!("cannot listen for signals: {e}"));
        let mut arriving = Arriving::new([SIGINT, SIGTERM]).map_err(fail)?;
        let code = signals.0.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut first: Option<Instant> = None;
                for signal in arriving.forever() {
                    match first {
                        None => {
                            first = Some(Instant::now());
                            code.store(128 + signal as usize, Ordering::Relaxed);
                        }
                        Some(first) if first.elapsed() < SAME => {}
                        Some(_) => leave(128 + signal, quiet),
                    }
                }
            })
            .map_err(fail)?;
        Ok(signals)
    }

    /// Lets a write beyond the limit on file sizes (`ulimit -f`) fail as one on a full disk does, with an error, instead of killing the
    /// process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn keep_size_limit_from_killing() -> Result<()> {
        // A handler is enough; nobody reads the flag.
        signal_hook::flag::register(SIGXFSZ, Arc::default())
            .map(drop)
            .map_err(|e| Error::Failed(format!("cannot listen for signals: {e}")))
    }

    /// The exit code that the signal asks for, if one came: 130 or 143.
    pub fn received(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            code => Some(code as u8),
        }
    }
}

/// Ends the process without waiting for the threads at work.
fn leave(code: i32, quiet: bool) {
    if !quiet {
        // A line of its own, whatever the bar has left of the last.
        let _ = writeln!(
            std::io::stderr(),
            "\nleft at once at a second signal: what was done since the last checkpoint is lost; go on with --resume"
        );
    }
    signal_hook::low_level::exit(code);
}
