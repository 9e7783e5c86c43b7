//! A list of augmentations with its normaliser, applied to batches.

use std::borrow::Cow;

use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::crop::{Window, windows};
use super::pca::{self, PcaNoise};
use super::{
    Augment, Centre, Crop, Fill, Flip, affine, auto_augment, blur, colour, cutout, mix, random_erasing, resized_crop,
    upload,
};
use crate::data::Images;
use crate::data::normalise::Normaliser;
use crate::random::{rng, uniform};
use crate::{Result, user};

/// What is done to the pictures of each training batch, in the order of the list.
#[derive(Debug)]
pub struct Pipeline {
    /// With centring at its place.
    list: Vec<Entry>,
    normaliser: Normaliser,
    /// Done before everything else by the threads that cut photos.
    early: Option<Flip>,
}

/// An augmentation, and the name of the stream that its parameters are drawn from.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) augment: Augment,
    /// The name of its kind; from the second of a kind on with a number, as in `crop#2`.
    pub(super) stream: String,
}

/// Where the randomness of a batch comes from.
#[derive(Debug, Clone, Copy)]
pub struct Draws<'a> {
    /// The run's seed.
    pub seed: u64,
    /// The training step, counted from the start of the run.
    pub step: u64,
    /// What tells the views of a picture apart, such as `weak` and `strong`: those of different salts are independent. Empty where there is
    /// one view.
    pub salt: &'a str,
    /// The epoch that each picture is seen in, and its number: its place in the set, and for each copy of it that the epoch saw before (see
    /// [`crate::data::Cursor::repeats`]) the length of the set more.
    pub samples: &'a [(u64, i64)],
}

impl Draws<'_> {
    /// What `draw` makes of the stream `name` on each picture.
    pub(super) fn each<T>(&self, name: &str, mut draw: impl FnMut(&mut ChaCha8Rng) -> T) -> Vec<T> {
        let name = salted(name, self.salt);
        self.samples.iter().map(|(epoch, sample)| draw(&mut rng(self.seed, *epoch, *sample as u64, &name))).collect()
    }
}

/// The name of a stream in the view that `salt` stands for.
pub(in crate::data) fn salted<'a>(name: &'a str, salt: &str) -> Cow<'a, str> {
    if salt.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{name}@{salt}")) }
}

/// A list with the names of its streams.
pub(super) fn entries(list: Vec<Augment>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
    for augment in list {
        let kind = augment.operation();
        let before = entries.iter().filter(|entry| entry.augment.operation() == kind).count();
        let stream = if before == 0 { kind.to_string() } else { format!("{kind}#{}", before + 1) };
        entries.push(Entry { augment, stream });
    }
    entries
}

impl Pipeline {
    /// For pictures `[C, H, W]`. A list without `centre` is centred right after the last of its kinds that change colours, or else first.
    ///
    /// # Errors
    /// What [`Augment::check_all`] finds; `pca_noise` without numbers (see [`Augment::settle_all`]); `centre` where nothing centres; a mean
    /// picture that is smaller than the pictures that it centres.
    pub fn new(mut list: Vec<Augment>, normaliser: Normaliser, shape: [i64; 3]) -> Result<Self> {
        Augment::check_all(&list, shape)?;
        if list.iter().any(|one| matches!(one, Augment::PcaNoise(PcaNoise { values: None, .. }))) {
            return Err(pca::unsettled());
        }
        let place = match list.iter().position(|one| matches!(one, Augment::Centre(_))) {
            Some(_) if normaliser.is_none() => {
                return Err(user!(
                    "augment: `centre` has no numbers to centre by, because nothing centres these pictures; remove it"
                ));
            }
            Some(place) => place,
            None => {
                let place = list.iter().rposition(Augment::colours).map_or(0, |last| last + 1);
                list.insert(place, Augment::Centre(Centre {}));
                place
            }
        };
        let [height, width] = list[..place].iter().fold([shape[1], shape[2]], |size, one| one.size_after(size));
        if let Some([most_high, most_wide]) = normaliser.mean_size()
            && (height > most_high || width > most_wide)
        {
            return Err(user!(
                "augment: pictures of {height}×{width} pixels are centred by a mean picture of {most_high}×{most_wide}; put `centre` before \
                 what makes them larger"
            ));
        }
        Ok(Self { list: entries(list), normaliser, early: None })
    }

    /// As [`Self::new`] for the squares of photos: a flip that alone moves pixels is left to the threads that cut ([`Self::early_flip`]).
    pub(in crate::data) fn of_squares(mut list: Vec<Augment>, normaliser: Normaliser, shape: [i64; 3]) -> Result<Self> {
        Augment::check_all(&list, shape)?;
        let early = Augment::take_lone_flip(&mut list);
        Ok(Self { early, ..Self::new(list, normaliser, shape)? })
    }

    /// The same, centred by other numbers.
    pub(in crate::data) fn centred_by(self, normaliser: Normaliser) -> Self {
        Self { normaliser, ..self }
    }

    /// The flip that is not done here, but before.
    pub(in crate::data) fn early_flip(&self) -> Option<&Flip> {
        self.early.as_ref()
    }

    /// One view of pictures in [0, 1]: augmented and centred.
    ///
    /// # Errors
    /// An odd number of pictures to mix in pairs; libtorch's.
    pub fn view(&self, images: &Images, draws: Draws) -> Result<Images> {
        self.run(&self.list, images, draws)
    }

    /// Whether centring is the first thing that is done.
    pub(in crate::data) fn centres_first(&self) -> bool {
        matches!(self.list[..], [Entry { augment: Augment::Centre(_), .. }, ..])
    }

    /// What [`Self::view`] makes of pictures that are centred already, if it [`Self::centres_first`].
    pub(in crate::data) fn view_centred(&self, images: &Images, draws: Draws) -> Result<Images> {
        self.run(&self.list[1..], images, draws)
    }

    fn run(&self, mut list: &[Entry], images: &Images, draws: Draws) -> Result<Images> {
        let Images { mut image, label, mix } = images.shallow_clone();
        while let Some((entry, mut after)) = list.split_first() {
            image = match (&entry.augment, after) {
                (Augment::Centre(_), _) => self.normaliser.apply(&image)?,
                // In one pass, not two.
                (Augment::Crop(crop), [Entry { augment: Augment::Flip(flip), stream }, rest @ ..]) => {
                    after = rest;
                    crop_and_flip(&image, Some((crop, &entry.stream)), Some((flip, stream)), draws)?
                }
                (one, _) if one.mixes() => return mix::apply(list, Images { image, label, mix }, draws),
                _ => entry.apply(&image, draws)?,
            };
            list = after;
        }
        Ok(Images { image, label, mix })
    }

    /// Centring alone, as evaluation has it.
    pub fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }
}

impl Entry {
    /// Augments those of `image`, `[N, C, H, W]`, float32, that are drawn with the kind's probability, each picture by itself.
    fn apply(&self, image: &Tensor, draws: Draws) -> Result<Tensor> {
        let p = self.augment.p();
        if p == 1.0 {
            return self.change(image, draws);
        }
        let chosen = draws.each(&format!("{}.p", self.stream), |rng| uniform(rng, 0.0, 1.0) < p);
        let places: Vec<i64> = (0..).zip(&chosen).filter(|(_, chosen)| **chosen).map(|(place, _)| place).collect();
        if places.is_empty() {
            return Ok(image.shallow_clone());
        }
        let samples: Vec<(u64, i64)> = places.iter().map(|place| draws.samples[*place as usize]).collect();
        let index = upload(&places, image.device())?;
        let part = self.change(&image.f_index_select(0, &index)?, Draws { samples: &samples, ..draws })?;
        Ok(image.f_index_copy(0, &index, &part)?)
    }

    fn change(&self, image: &Tensor, draws: Draws) -> Result<Tensor> {
        let (_, _, h, w) = image.size4()?;
        let name = &self.stream;
        match &self.augment {
            Augment::ColorJitter(jitter) => colour::jitter(image, &draws.each(name, |rng| jitter.draw(rng))),
            Augment::RandAugment(list) => list.apply(image, &draws.each(name, |rng| list.draw(rng))),
            Augment::RandAugmentTimm(list) => list.apply(image, &draws.each(name, |rng| list.draw(rng))),
            Augment::AutoAugment(list) => auto_augment::apply(image, &draws.each(name, |rng| list.draw(rng))),
            Augment::PcaNoise(noise) => {
                let shifts: Result<Vec<_>> = draws.each(name, |rng| noise.draw(rng)).into_iter().collect();
                pca::add(image, &shifts?)
            }
            Augment::Grey(_) => colour::desaturated(image),
            Augment::Blur(blur) => blur::blur(image, blur.kernel, &draws.each(name, |rng| blur.draw(rng))),
            Augment::Affine(affine) => affine::distort(image, &draws.each(name, |rng| affine.draw(rng))),
            Augment::Crop(crop) => crop_and_flip(image, Some((crop, name)), None, draws),
            Augment::RandomResizedCrop(crop) => {
                let parts = draws.each(name, |rng| crop.draw(rng, [h, w]));
                resized_crop::resize(image, &parts, crop.cut([h, w]), crop.filter)
            }
            Augment::Flip(flip) => crop_and_flip(image, None, Some((flip, name)), draws),
            Augment::Cutout(cutout) => cutout::cut(image, &draws.each(name, |rng| cutout.draw(rng, [h, w]))),
            Augment::RandomErasing(erasing) => {
                random_erasing::erase(image, &draws.each(name, |rng| erasing.draw(rng, [h, w])))
            }
            // Of the whole batch; see Pipeline::run.
            Augment::Centre(_) | Augment::Mixup(_) | Augment::CutMix(_) => Ok(image.shallow_clone()),
        }
    }
}

/// Crops, then mirrors, each picture as it is drawn from the streams of these names.
fn crop_and_flip(
    image: &Tensor,
    crop: Option<(&Crop, &str)>,
    flip: Option<(&Flip, &str)>,
    draws: Draws,
) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    let mut plans = vec![Window { row: 0, column: 0, mirrored: false }; draws.samples.len()];
    if let Some((crop, name)) = crop {
        for (plan, corner) in plans.iter_mut().zip(draws.each(name, |rng| crop.draw(rng, [h, w]))) {
            [plan.row, plan.column] = corner;
        }
    }
    if let Some((flip, name)) = flip {
        for (plan, mirrored) in plans.iter_mut().zip(draws.each(name, |rng| flip.draw(rng))) {
            plan.mirrored = mirrored;
        }
    }
    let (pad, fill) = crop.map_or((0, Fill::Zero), |(crop, _)| (crop.pad as i64, crop.fill));
    windows(image, pad, fill, crop.map_or([h, w], |(crop, _)| crop.cut([h, w])), &plans)
}
