//! How long a stage lasts, and on how many examples a step.

use crate::config::{Length, Settings};
use crate::data::{Cursor, Pass};
use crate::setup::Setup;

/// How long a stage trains, and on how many examples a step.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The stage's name: `train`, `pretrain`, `probe`.
    pub stage: &'static str,
    /// Whether metrics carry the stage's name: all stages but the first.
    pub later: bool,
    /// How long.
    pub length: Length,
    /// Global batch.
    pub batch_size: u64,
    /// Learning rate as configured, and after `optim.lr_scaling`.
    pub lr: (f64, f64),
}

impl Plan {
    /// Of the one stage of a paper that has no other, called `train`; `lr` as configured, and for the batch.
    pub fn only(settings: &Settings, lr: (f64, f64)) -> Self {
        Plan { stage: "train", later: false, length: settings.length, batch_size: settings.batch_size, lr }
    }

    pub(super) fn cursor(&self, setup: &Setup, step: u64) -> Cursor {
        Cursor {
            seed: setup.settings.seed,
            step,
            rank: setup.rank,
            world: setup.world,
            batch: self.batch_size,
            pass: Pass::DropRest,
        }
    }

    pub(super) fn prefix(&self, split: &str) -> String {
        if self.later { format!("{}/{split}", self.stage) } else { split.to_string() }
    }
}
