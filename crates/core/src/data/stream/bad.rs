//! Pictures that cannot be used: counted once each, told, and too many of them refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::{Result, user};

/// Why a picture cannot be used, for the list of bad ones.
pub(super) type Reason = String;

/// How many are listed by name.
const LISTED: usize = 20;

/// The bad pictures of a set that have come up.
#[derive(Debug)]
pub(super) struct Bad {
    most: u64,
    found: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Path → reason.
    all: BTreeMap<String, String>,
    /// Those that nobody has asked for yet.
    untold: Vec<String>,
}

impl Bad {
    pub(super) fn new(most: u64) -> Self {
        Self { most, found: Mutex::default() }
    }

    /// How many are put up with (`data.max_bad`).
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Writes down a bad picture.
    ///
    /// # Errors
    /// There are more than are put up with.
    pub(super) fn add(&self, path: String, what: &str, reason: &str) -> Result<()> {
        let mut found = self.lock();
        if found.all.contains_key(&path) {
            return Ok(());
        }
        found.untold.push(format!("bad picture, {what}: {path}: {reason}"));
        found.all.insert(path, reason.to_string());
        if found.all.len() as u64 <= self.most {
            return Ok(());
        }
        let count = found.all.len();
        let mut list: Vec<String> =
            found.all.iter().take(LISTED).map(|(path, reason)| format!("  {path}: {reason}")).collect();
        if count > LISTED {
            list.push(format!("  and {} more", count - LISTED));
        }
        Err(user!(
            "{count} bad pictures, but data.max_bad is {}; mend or remove them, or set data.max_bad higher:\n{}",
            self.most,
            list.join("\n")
        ))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().all.is_empty()
    }

    pub(super) fn holds(&self, path: &str) -> bool {
        self.lock().all.contains_key(path)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.found.lock().unwrap_or_else(|dead| dead.into_inner())
    }

    /// What came up since the last call.
    pub(super) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().untold)
    }
}
