//! How long a stage lasts, on how many examples a step, and how fast it learns.

use std::collections::BTreeMap;

use crate::config::{Length, Settings};

/// How long a stage lasts, on how many examples a step, and how fast it learns.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How long it trains. `None`: it trains nothing, and its evaluation is all there is (a k-nearest-neighbour probe).
    pub length: Option<Length>,
    /// Global batch.
    pub batch_size: u64,
    /// Learning rate as configured, and after `optim.lr_scaling`.
    pub lr: (f64, f64),
}

impl Plan {
    /// Of the stage that the top-level keys describe; `lr` as configured, and for the batch.
    pub fn first(settings: &Settings, lr: (f64, f64)) -> Self {
        Plan { length: Some(settings.length), batch_size: settings.batch_size, lr }
    }

    /// Steps of the stage.
    pub(super) fn steps(&self, steps_per_epoch: u64) -> u64 {
        self.length.map_or(0, |length| length.steps(steps_per_epoch))
    }

    /// As `result.json` has the rates.
    pub(super) fn rates(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([("base".into(), self.lr.0), ("scaled".into(), self.lr.1)])
    }
}
