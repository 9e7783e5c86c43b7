//! Data sets, order, augmentation.

mod augment;
mod cifar;
mod idx;
mod images;
mod load;
mod normalise;
mod pictures;
mod resident;
mod root;
mod stream;
mod synthetic;

pub use crate::config::DataConfig;
pub use augment::{
    Affine, Augment, ColorJitter, Crop, CutMix, Cutout, Draws, Fill, Flip, Mixup, PcaNoise, Pipeline, RandAugment,
    ten_crop,
};
pub use images::{ImageSet, Images, Mix, Splits, overlap};
pub use load::load;
pub use normalise::{Normalise, Normaliser};
pub use pictures::{Form, Part, Pictures};
pub use resident::Resident;
pub use stream::{Filter, JPEG_DECODER, Packed, Stream, TestView, TrainView, View, pack};

use crate::setup::Setup;
use crate::{Result, user};

/// Which examples an evaluation sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Held out of the training set, where the paper does so.
    Validation,
    /// The published test set.
    Test,
}

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

impl Cursor {
    /// The share of this process in the batches of its stage, from a step on.
    pub fn of(setup: &Setup, step: u64) -> Self {
        let Setup { ref settings, rank, world, .. } = *setup;
        Self { seed: settings.seed, step, rank, world, batch: settings.batch_size }
    }

    /// Whether a set of `len` examples can be iterated so.
    ///
    /// # Errors
    /// A batch that is empty, larger than the set, or not divisible by the number of processes.
    pub fn check(&self, len: u64) -> Result<()> {
        let Self { rank, world, batch, .. } = *self;
        if batch == 0 {
            return Err(user!("batch_size is 0; choose at least 1"));
        }
        if batch > len {
            return Err(user!(
                "batch_size {batch} is larger than the training set of {len} examples; choose at most {len}"
            ));
        }
        if world == 0 || rank >= world {
            return Err(user!("process {rank} of {world} does not exist; ranks count from 0"));
        }
        if batch % world != 0 {
            return Err(user!(
                "batch_size {batch} cannot be shared evenly by {world} processes; choose a multiple of {world}"
            ));
        }
        Ok(())
    }

    /// Steps in an epoch over `len` examples: the last partial batch is dropped.
    pub fn steps_per_epoch(&self, len: u64) -> u64 {
        len.checked_div(self.batch).unwrap_or(0)
    }
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
    /// What the reader of the result must know and came up since the last call, such as pictures that could not be read.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}
