//! Data sets, order, augmentation.

use crate::Result;

/// Where an iteration over a source starts, and which share of it this process takes.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// The run's seed.
    pub seed: u64,
    /// The first step to deliver, counted from the start of the run.
    pub step: u64,
    /// This process among `world`.
    pub rank: u64,
    /// Number of processes.
    pub world: u64,
    /// Examples a step over all processes.
    pub batch: u64,
}

/// A training set that can start anywhere: the order is a pure function of (seed, epoch).
pub trait Source {
    /// What one step sees.
    type Batch: Send;
    /// Examples in the set.
    fn len(&self) -> u64;
    /// Whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The batches of this process from `from` on, without end: epoch follows epoch.
    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Self::Batch>> + '_>;
    /// SHA-256 over everything that is trained and tested on.
    fn sha256(&self) -> String;
}
