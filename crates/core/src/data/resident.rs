//! A training set that lies on the device: shuffling and augmentation are batched tensor operations there.

use sha2::{Digest, Sha256};
use tch::Tensor;

use super::augment::{Augment, Draws, Pipeline};
use super::normalise::{Normalise, Normaliser};
use super::{Cursor, ImageSet, Images, Source, Splits};
use crate::Result;
use crate::random::order;

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
    samples: Vec<i64>,
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
                    let samples = order(seed, epoch, set.len());
                    let index = Tensor::f_from_slice(&samples)?.f_to_device(set.device())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::data::{Affine, ColorJitter, Crop, CutMix, Cutout, Fill, Flip, Mixup, RandAugment};
    use crate::data::{Mix, Pass};
    use proptest::prelude::*;
    use tch::{Device, Kind};

    const BATCH: u64 = 8;

    /// 29 pictures of 5×6 whose pixels tell them apart, so 3 steps of 8 in an epoch.
    fn source(augment: Vec<Augment>) -> Resident {
        let set = |n: usize| {
            let pixels: Vec<u8> = (0..n * 30).map(|i| (i * 89 % 251) as u8).collect();
            let labels: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let names: Vec<String> = (0..n).map(|i| i.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            ImageSet::new(&pixels, [1, 5, 6], &labels, &names).unwrap()
        };
        Resident::new(Splits { train: set(29), validation: None, test: set(3) }, augment, None).unwrap()
    }

    /// Those that act on each picture by itself, and after them those that mix pairs.
    fn all_augmentations() -> Vec<Augment> {
        let mut list = single_augmentations();
        list.extend([Augment::Mixup(Mixup { alpha: 0.5 }), Augment::CutMix(CutMix { alpha: 1.0 })]);
        list
    }

    fn single_augmentations() -> Vec<Augment> {
        vec![
            Augment::ColorJitter(ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 1.0 }),
            Augment::RandAugment(RandAugment { ops: 2, magnitude: 15, bins: 31, p: 1.0 }),
            Augment::Affine(Affine { rotate: 20.0, scale: 0.2, squeeze: 0.1, shear: 10.0, shift: 1.0, p: 1.0 }),
            Augment::Crop(Crop { pad: 1, fill: Fill::Zero, size: None }),
            Augment::Flip(Flip { p: 0.5 }),
            Augment::Cutout(Cutout { size: 2, p: 1.0 }),
        ]
    }

    fn cursor(seed: u64, step: u64) -> Cursor {
        Cursor { seed, step, rank: 0, world: 1, batch: BATCH, pass: Pass::DropRest }
    }

    fn take(source: &Resident, from: Cursor, steps: usize) -> Vec<Images> {
        source.batches(from).take(steps).collect::<Result<_>>().unwrap()
    }

    fn labels(batches: &[Images]) -> Vec<i64> {
        batches.iter().flat_map(|images| Vec::<i64>::try_from(&images.label).unwrap()).collect()
    }

    #[test]
    fn an_epoch_is_the_order_without_its_rest() {
        let source = source(vec![]);
        let seen = labels(&take(&source, cursor(3, 0), 6));
        assert_eq!(seen[..24], order(3, 0, 29)[..24]);
        assert_eq!(seen[24..], order(3, 1, 29)[..24]);
        assert_ne!(seen[..24], seen[24..]);
        assert_eq!(cursor(3, 0).steps_per_epoch(29), 3);
    }

    #[test]
    fn pictures_stay_with_their_labels() {
        let source = source(vec![]);
        for images in take(&source, cursor(3, 1), 2) {
            assert_eq!(images.image, source.set.select(&images.label).image);
        }
    }

    #[test]
    fn seeds_differ() {
        let source = source(single_augmentations());
        let (a, b) = (take(&source, cursor(1, 0), 3), take(&source, cursor(2, 0), 3));
        assert_ne!(labels(&a), labels(&b));
        // The same picture in another epoch or under another seed is distorted otherwise.
        let image = source.set.select(&Tensor::from_slice(&[4_i64])).image;
        let apply = |seed, epoch| {
            let images = Images {
                image: image.shallow_clone(),
                label: Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
                mix: None,
            };
            source.pipeline.view(&images, Draws { seed, step: 0, salt: "", samples: &[(epoch, 4)] }).unwrap().image
        };
        assert_eq!(apply(1, 0), apply(1, 0));
        assert_ne!(apply(1, 0), apply(2, 0));
        assert_ne!(apply(1, 0), apply(1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn ranks_together_are_the_single_process(seed: u64, step in 0_u64..40, doublings in 0_u32..3) {
            let world = 2_u64.pow(doublings);
            let source = source(all_augmentations());
            let whole = take(&source, cursor(seed, step), 4);
            let shares: Vec<Vec<Images>> =
                (0..world).map(|rank| take(&source, Cursor { rank, world, ..cursor(seed, step) }, 4)).collect();
            for (i, images) in whole.iter().enumerate() {
                let parts: Vec<&Tensor> = shares.iter().map(|share| &share[i].image).collect();
                prop_assert_eq!(&Tensor::cat(&parts, 0), &images.image);
                let parts: Vec<&Tensor> = shares.iter().map(|share| &share[i].label).collect();
                prop_assert_eq!(&Tensor::cat(&parts, 0), &images.label);
                let mixes: Vec<&Mix> = shares.iter().filter_map(|share| share[i].mix.as_ref()).collect();
                let parts: Vec<&Tensor> = mixes.iter().map(|mix| &mix.label).collect();
                let whole = images.mix.as_ref().unwrap();
                prop_assert_eq!(&Tensor::cat(&parts, 0), &whole.label);
                prop_assert!(mixes.iter().all(|mix| mix.share == whole.share));
            }
        }

        #[test]
        fn starting_later_is_skipping(seed: u64, step in 0_u64..10) {
            let source = source(all_augmentations());
            let all = take(&source, cursor(seed, 0), step as usize + 4);
            let late = take(&source, cursor(seed, step), 4);
            for (a, b) in all[step as usize..].iter().zip(&late) {
                prop_assert_eq!(&a.image, &b.image);
                prop_assert_eq!(&a.label, &b.label);
            }
        }
    }

    #[test]
    fn batches_that_do_not_fit_are_refused_once() {
        let source = source(vec![]);
        for (batch, rank, world, word) in [
            (0, 0, 1, "batch_size is 0"),
            (30, 0, 1, "larger than the training set of 29"),
            (9, 0, 2, "multiple of 2"),
            (8, 2, 2, "process 2 of 2"),
        ] {
            let mut batches = source.batches(Cursor { seed: 1, step: 0, rank, world, batch, pass: Pass::DropRest });
            match batches.next() {
                Some(Err(Error::User(text))) => assert!(text.contains(word), "{text}"),
                other => panic!("{word}: {other:?}"),
            }
            assert!(batches.next().is_none());
        }
    }

    #[test]
    fn the_hash_covers_both_splits() {
        let base = source(vec![]);
        let mut fewer = source(vec![]);
        fewer.test = fewer.test.limit(2).unwrap();
        assert_eq!(base.sha256(), source(all_augmentations()).sha256());
        assert_ne!(base.sha256(), fewer.sha256());
    }
}
