//! Ctrl-C and kind kills: the first asks the run to stop after its step, the second leaves at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

use crate::{Error, Result};

/// Remembers that SIGINT or SIGTERM arrived.
#[derive(Debug, Clone, Default)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Takes over SIGINT and SIGTERM for the rest of the process.
    pub fn install() -> Result<Self> {
        let signals = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let fail = |e: std::io::Error| Error::Failed(format!("cannot listen for signals: {e}"));
            // In this order: at the first signal the flag is still down, so the shutdown waits for the second.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, again.clone()).map_err(fail)?;
            signal_hook::flag::register(signal, again.clone()).map_err(fail)?;
            signal_hook::flag::register_usize(signal, signals.0.clone(), 128 + signal as usize).map_err(fail)?;
        }
        Ok(signals)
    }

    /// Lets a write beyond the limit on file sizes (`ulimit -f`) fail as one on a full disk does, with an error, instead of killing the
    /// process.
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
