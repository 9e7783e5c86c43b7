//! A training set that lies on the device: shuffling and augmentation are batched tensor operations there.

use sha2::{Digest, Sha256};
use tch::Tensor;

use super::augment::Augment;
use super::random::order;
use super::{Cursor, ImageSet, Images, Source, Splits};
use crate::Result;

/// Pictures on the device, augmented as they are handed out.
#[derive(Debug)]
pub struct Resident {
    /// What is trained on.
    pub set: ImageSet,
    /// What is tested on, never augmented.
    pub test: ImageSet,
    /// Applied to each training batch, in this order.
    pub augment: Vec<Augment>,
}

impl Resident {
    /// A source over `splits`.
    ///
    /// # Errors
    /// An augmentation with parameters out of range (see [`Augment::check_all`]).
    pub fn new(splits: Splits, augment: Vec<Augment>) -> Result<Self> {
        Augment::check_all(&augment, splits.train.shape())?;
        Ok(Self {
            set: splits.train,
            test: splits.test,
            augment,
        })
    }
}

impl Source for Resident {
    type Batch = Images;

    fn len(&self) -> u64 {
        self.set.len()
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Images>> + '_> {
        match from.check(self.len()) {
            Ok(()) => Box::new(Batches {
                source: self,
                at: from,
                order: None,
            }),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    /// SHA-256 in hexadecimal over the hashes of both splits, as text.
    fn sha256(&self) -> String {
        let both = Sha256::new()
            .chain_update(self.set.sha256())
            .chain_update(self.test.sha256());
        both.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The endless iteration.
struct Batches<'a> {
    source: &'a Resident,
    at: Cursor,
    order: Option<Order>,
}

/// The order of one epoch, on the host and on the device.
struct Order {
    epoch: u64,
    samples: Vec<i64>,
    index: Tensor,
}

impl Batches<'_> {
    /// The share of this process in the batch of step `self.at.step`: a contiguous slice of the global batch.
    fn batch(&mut self) -> Result<Images> {
        let set = &self.source.set;
        let Cursor {
            seed,
            step,
            rank,
            world,
            batch,
        } = self.at;
        let steps = self.at.steps_per_epoch(set.len());
        let epoch = step / steps;
        let order = match self.order.take() {
            Some(order) if order.epoch == epoch => order,
            _ => {
                let samples = order(seed, epoch, set.len());
                let index = Tensor::f_from_slice(&samples)?.f_to_device(set.device())?;
                Order {
                    epoch,
                    samples,
                    index,
                }
            }
        };
        let share = batch / world;
        let start = (step % steps) * batch + rank * share;
        let samples = &order.samples[start as usize..(start + share) as usize];
        let mut images = set.select(&order.index.f_narrow(0, start as i64, share as i64)?);
        for augment in &self.source.augment {
            images.image = augment.apply(&images.image, seed, epoch, samples)?;
        }
        self.order = Some(order);
        Ok(images)
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Images>;

    fn next(&mut self) -> Option<Result<Images>> {
        let images = self.batch();
        self.at.step += 1;
        Some(images)
    }
}
