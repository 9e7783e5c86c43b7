//! A training set that lies on the device: shuffling and augmentation are batched tensor operations there.

#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};
use tch::Tensor;

use super::augment::{Augment, Draws, Pipeline};
use super::normalise::{Normalise, Normaliser};
use super::{Cursor, ImageSet, Images, Source, Split, Splits, order};
use crate::Result;

/// Pictures on the device, augmented as they are handed out.
#[derive(Debug)]
pub struct Resident {
    /// What is trained on.
    pub set: ImageSet,
    /// What is held out of it, never augmented.
    pub validation: Option<ImageSet>,
    /// What is tested on, never augmented.
    pub test: ImageSet,
    /// Applied to each training batch.
    pub pipeline: Pipeline,
}

impl Resident {
    /// A source over `splits`; the pictures stay in [0, 1] without `normalise`.
    ///
    /// # Errors
    /// An augmentation with parameters out of range (see [`Augment::check_all`]), numbers that do not fit the channels.
    pub fn new(splits: Splits, augment: Vec<Augment>, normalise: Option<&Normalise>) -> Result<Self> {
        let Splits { train, validation, test } = splits;
        let [channels, ..] = train.shape();
        let normaliser = match normalise {
            Some(kind) => kind.of(Some(&train), channels, train.device())?,
            None => Normaliser::none(),
        };
        let augment = Augment::settle_all(augment, &train)?;
        let pipeline = Pipeline::new(augment, normaliser, train.shape())?;
        Ok(Self { set: train, validation, test, pipeline })
    }

    /// What is evaluated on; a validation split that there is not is the test split.
    pub fn split(&self, split: Split) -> &ImageSet {
        match (split, &self.validation) {
            (Split::Train, _) => &self.set,
            (Split::Validation, Some(validation)) => validation,
            _ => &self.test,
        }
    }
}

impl Source for Resident {
    type Batch = Images;

    fn len(&self) -> u64 {
        self.set.len()
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Images>> + '_> {
        self.seen(from, |images, draws| self.pipeline.view(&images, draws))
    }

    /// SHA-256 in hexadecimal over the hashes of training and test split, and of what was held out if anything was, as text.
    fn sha256(&self) -> String {
        let mut all = Sha256::new().chain_update(self.set.sha256()).chain_update(self.test.sha256());
        if let Some(validation) = &self.validation {
            all.update(validation.sha256());
        }
        all.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Resident {
    /// Another list for the training pictures, centred as they are.
    pub(super) fn pipeline_of(&self, list: Vec<Augment>) -> Result<Pipeline> {
        let list = Augment::settle_all(list, &self.set)?;
        Pipeline::new(list, self.pipeline.normaliser().shallow_clone(), self.set.shape())
    }

    /// What `see` makes of the pictures, in [0, 1], of step after step.
    pub(super) fn seen<'a, T: 'a>(
        &'a self,
        from: Cursor,
        see: impl Fn(Images, Draws) -> Result<T> + 'a,
    ) -> Box<dyn Iterator<Item = Result<T>> + 'a> {
        match from.check(self.len()) {
            Ok(()) => Box::new(Batches { set: &self.set, see, at: from, orders: Vec::new() }),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

/// The endless iteration.
struct Batches<'a, See> {
    set: &'a ImageSet,
    see: See,
    at: Cursor,
    /// Those of the epochs that the last step saw.
    orders: Vec<Order>,
}

/// The order of one epoch, on the host and on the device.
struct Order {
    epoch: u64,
    /// The pictures' numbers; see [`Draws::samples`].
    samples: Vec<i64>,
    /// Their places in the set.
    index: Tensor,
}

impl<T, See: Fn(Images, Draws) -> Result<T>> Batches<'_, See> {
    /// The share of this process in the batch of step `self.at.step`.
    fn batch(&mut self) -> Result<T> {
        let (set, Cursor { seed, step, .. }) = (self.set, self.at);
        let places = self.at.places(set.len());
        self.orders.retain(|order| places.iter().any(|(epoch, _)| *epoch == order.epoch));
        let (mut samples, mut parts) = (Vec::new(), Vec::with_capacity(places.len()));
        for (epoch, places) in places {
            let known = self.orders.iter().position(|order| order.epoch == epoch);
            let at = match known {
                Some(at) => at,
                None => {
                    let samples = order::of_epoch(&self.at, epoch, set.len());
                    let places: Vec<i64> = samples.iter().map(|number| number % set.len() as i64).collect();
                    let index = Tensor::f_from_slice(&places)?.f_to_device(set.device())?;
                    self.orders.push(Order { epoch, samples, index });
                    self.orders.len() - 1
                }
            };
            let order = &self.orders[at];
            parts.push(order.index.f_narrow(0, places.start as i64, places.len() as i64)?);
            samples.extend(order.samples[places].iter().map(|sample| (epoch, *sample)));
        }
        let images = set.select(&Tensor::f_cat(&parts, 0)?);
        (self.see)(images, Draws { seed, step, salt: "", samples: &samples })
    }
}

impl<T, See: Fn(Images, Draws) -> Result<T>> Iterator for Batches<'_, See> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let batch = self.batch();
        self.at.step += 1;
        Some(batch)
    }
}
