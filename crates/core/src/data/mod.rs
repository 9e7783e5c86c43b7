//! Data sets, order, augmentation.

mod augment;
mod card;
mod cifar;
mod idx;
mod images;
mod load;
mod normalise;
mod order;
mod pair;
mod pictures;
mod resident;
mod root;
mod stream;
mod synthetic;
mod views;

pub use crate::config::{AnnotatedFiles, CanvasConfig, DataConfig, SplitFiles};
pub use augment::{
    Affine, Augment, AutoAugment, Blur, Centre, ColorJitter, Crop, CutMix, Cutout, Draws, Fill, Filter, Flip, Grey,
    Mixup, PcaNoise, Pipeline, Policy, RandAugment, RandAugmentTimm, RandomErasing, RandomResizedCrop, ten_crop,
};
pub use card::Card;
pub(crate) use card::classes_on;
pub use images::{ImageSet, Images, Mix, Splits, overlap};
pub use load::load;
pub use normalise::{Normalise, Normaliser};
pub use pair::{Counted, Pair};
pub use pictures::{Form, Part, Pictures};
pub use resident::Resident;
pub use stream::{
    Axis, Hsv, Ids, JPEG_DECODER, MultiScale, Packed, PassedOver, Placed, ResizeCrop, SceneAugment, SceneBatch,
    SceneFit, SceneForm, SceneView, Scenes, Shown, Stills, Stream, TestView, TrainView, View, count_classes, pack,
    photo_bytes, photos_in,
};
pub use views::Views;

use std::ops::Range;

use crate::setup::Setup;
use crate::{Result, user};

/// Which examples an evaluation sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What is trained on, as evaluation sees pictures: never augmented. A probe keeps it in memory.
    Train,
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
    /// How one epoch ends and the next begins.
    pub pass: Pass,
    /// How often an epoch takes each picture that it sees, at least 1: `data.repeats`.
    pub repeats: u64,
}

/// How a source goes from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Every epoch starts with a step: its last partial batch is dropped.
    DropRest,
    /// Round and round, nothing dropped: of n examples, place p of the run is place p mod n of epoch p / n. A step may reach from one epoch
    /// into the next, and a batch be larger than the set.
    Endless,
}

impl Cursor {
    /// The share of this process in the batches of its stage, from a step on.
    pub fn of(setup: &Setup, step: u64) -> Self {
        let Setup { ref settings, rank, world, .. } = *setup;
        let repeats = settings.data.repeats.unwrap_or(1);
        Self { seed: settings.seed, step, rank, world, batch: settings.batch_size, pass: Pass::DropRest, repeats }
    }

    /// Whether a set of `len` examples can be iterated so.
    ///
    /// # Errors
    /// A set or a batch that is empty, a batch that is larger than a set whose rest is dropped, or not divisible by the number of processes.
    pub fn check(&self, len: u64) -> Result<()> {
        let Self { rank, world, batch, pass, .. } = *self;
        if len == 0 {
            return Err(user!("the training set is empty; choose one with examples"));
        }
        if batch == 0 {
            return Err(user!("batch_size is 0; choose at least 1"));
        }
        if batch > len && pass == Pass::DropRest {
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

    /// Where the share of this process in the batch of step `self.step` lies in a set of `len` examples: one or more epochs, each with the
    /// places in its order. It is a contiguous slice of the global batch.
    fn places(&self, len: u64) -> Vec<(u64, Range<usize>)> {
        let Self { step, rank, world, batch, pass, .. } = *self;
        let share = batch / world;
        let run = |epoch, start: u64, end: u64| (epoch, start as usize..end as usize);
        match pass {
            Pass::DropRest => {
                let steps = self.steps_per_epoch(len);
                let start = step % steps * batch + rank * share;
                vec![run(step / steps, start, start + share)]
            }
            Pass::Endless => {
                let (start, end) = (step * batch + rank * share, step * batch + (rank + 1) * share);
                let epochs = start / len..=(end - 1) / len;
                epochs
                    .map(|epoch| {
                        run(epoch, start.max(epoch * len) - epoch * len, end.min((epoch + 1) * len) - epoch * len)
                    })
                    .collect()
            }
        }
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
