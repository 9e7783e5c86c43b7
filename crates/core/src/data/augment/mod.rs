//! Augmentation of a batch on its device. The parameters of each picture are drawn on the host from its own stream, so that they depend
//! neither on the rest of the batch nor on the number of processes; those of mixup and cutmix from the stream of the step.
//!
//! In YAML `augment:` is a list of blocks in the order in which they act: colours (`color_jitter`, `rand_augment`, `pca_noise`), then, after
//! centring, places (`affine`, `crop`, `flip`, `cutout`), then mixtures of two pictures (`mixup`, `cutmix`). The keys of each kind are the
//! fields of its struct.

mod affine;
mod colour;
mod crop;
mod cutout;
mod equalize;
mod mix;
mod pca;
mod rand_augment;
mod ten_crop;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Device, Tensor, kind};

pub use affine::Affine;
pub use colour::ColorJitter;
pub use crop::{Crop, Fill, Flip};
pub use cutout::Cutout;
pub use mix::{CutMix, Mixup};
pub use pca::PcaNoise;
pub use rand_augment::RandAugment;
pub use ten_crop::ten_crop;

use self::crop::{Window, windows};
use super::normalise::Normaliser;
use super::{ImageSet, Images};
use crate::random::rng;
use crate::{Result, user};

/// One kind of augmentation. In YAML a list of blocks: `- {kind: affine, rotate: 10, …}`, `- {kind: crop, pad: 4}`, `- {kind: flip}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// Brightness, contrast, saturation and hue.
    ColorJitter(ColorJitter),
    /// A few of fourteen operations.
    RandAugment(RandAugment),
    /// Noise along the principal components of the colours.
    PcaNoise(PcaNoise),
    /// Planar distortion.
    Affine(Affine),
    /// Padding, then a crop.
    Crop(Crop),
    /// A mirror image, left and right exchanged.
    Flip(Flip),
    /// A square of zeros.
    Cutout(Cutout),
    /// A weighted mean of two pictures.
    Mixup(Mixup),
    /// A box of another picture.
    #[serde(rename = "cutmix")]
    CutMix(CutMix),
}

/// What a kind acts on. A list is in this order, so that its reader sees what happens to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Colours in [0, 1], before centring.
    Colour,
    /// Places of pixels, after centring, so that the zeros that come in are the mean.
    Space,
    /// Pairs of pictures and their labels.
    Mix,
}

/// What is done to the pictures of each training batch: colours, centring, places, mixtures.
#[derive(Debug)]
pub struct Pipeline {
    list: Vec<Augment>,
    normaliser: Normaliser,
}

/// Where the randomness of a batch comes from.
#[derive(Debug, Clone, Copy)]
pub struct Draws<'a> {
    /// The run's seed.
    pub seed: u64,
    /// The epoch that the batch belongs to.
    pub epoch: u64,
    /// The training step, counted from the start of the run.
    pub step: u64,
    /// The place of each picture in the set.
    pub samples: &'a [i64],
}

impl Draws<'_> {
    /// What `draw` makes of the stream of `operation` on each picture.
    fn each<T>(&self, operation: &str, mut draw: impl FnMut(&mut ChaCha8Rng) -> T) -> Vec<T> {
        let stream = |sample: &i64| rng(self.seed, self.epoch, *sample as u64, operation);
        self.samples.iter().map(|sample| draw(&mut stream(sample))).collect()
    }
}

impl Pipeline {
    /// For pictures `[C, H, W]`.
    ///
    /// # Errors
    /// What [`Augment::check_all`] finds; `pca_noise` without numbers (see [`Augment::settle_all`]).
    pub fn new(list: Vec<Augment>, normaliser: Normaliser, shape: [i64; 3]) -> Result<Self> {
        Augment::check_all(&list, shape)?;
        if list.iter().any(|one| matches!(one, Augment::PcaNoise(PcaNoise { values: None, .. }))) {
            return Err(pca::unsettled());
        }
        Ok(Self { list, normaliser })
    }

    /// Augments and centres pictures in [0, 1].
    ///
    /// # Errors
    /// An odd number of pictures to mix in pairs; libtorch's.
    pub fn apply(&self, mut images: Images, draws: Draws) -> Result<Images> {
        for augment in &self.list[..self.until(Phase::Colour)] {
            images.image = augment.apply(&images.image, draws)?;
        }
        images.image = self.normaliser.apply(&images.image)?;
        self.apply_centred(images, draws)
    }

    /// What [`Self::apply`] does after centring.
    pub(super) fn apply_centred(&self, mut images: Images, draws: Draws) -> Result<Images> {
        let (colour, mix) = (self.until(Phase::Colour), self.until(Phase::Space));
        let mut space = &self.list[colour..mix];
        while let Some((augment, after)) = space.split_first() {
            (images.image, space) = match space {
                // In one pass, not two.
                [Augment::Crop(crop), Augment::Flip(flip), after @ ..] => {
                    (crop_and_flip(&images.image, Some(crop), Some(flip), draws)?, after)
                }
                _ => (augment.apply(&images.image, draws)?, after),
            };
        }
        mix::apply(&self.list[mix..], images, draws)
    }

    /// Whether colours are changed, which is done before centring.
    pub(super) fn has_colours(&self) -> bool {
        self.until(Phase::Colour) > 0
    }

    fn until(&self, phase: Phase) -> usize {
        self.list.partition_point(|augment| augment.phase() <= phase)
    }

    /// Centring alone, as evaluation has it.
    pub fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }
}

impl Augment {
    /// Refuses what cannot act on pictures `[C, H, W]`, a kind that stands twice (both would draw the same numbers), and a list that is not
    /// in the order in which its kinds act.
    ///
    /// # Errors
    /// Names the parameter and its range.
    pub fn check_all(list: &[Augment], mut shape: [i64; 3]) -> Result<()> {
        for (place, augment) in list.iter().enumerate() {
            let kind = augment.operation();
            if list[..place].iter().any(|other| other.operation() == kind) {
                return Err(user!("augment: `{kind}` stands twice; keep one"));
            }
            if let Some(later) = list[..place].iter().find(|other| other.phase() > augment.phase()) {
                return Err(user!(
                    "augment: `{kind}` acts before `{}`; put it before that in the list",
                    later.operation()
                ));
            }
            match augment {
                Augment::ColorJitter(jitter) => jitter.check(shape)?,
                Augment::RandAugment(list) => list.check(shape)?,
                Augment::PcaNoise(noise) => noise.check(shape)?,
                Augment::Affine(affine) => affine.check(shape)?,
                Augment::Crop(crop) => {
                    crop.check(shape)?;
                    [shape[1], shape[2]] = crop.cut([shape[1], shape[2]]);
                }
                Augment::Flip(Flip {}) => {}
                Augment::Cutout(cutout) => cutout.check(shape)?,
                Augment::Mixup(Mixup { alpha }) => mix::check_alpha("mixup.alpha", *alpha)?,
                Augment::CutMix(CutMix { alpha }) => mix::check_alpha("cutmix.alpha", *alpha)?,
            }
        }
        Ok(())
    }

    /// Edge of training pictures that were squares of `edge` pixels.
    pub fn edge_after(list: &[Augment], edge: i64) -> i64 {
        let cut = |edge, augment: &Augment| match augment {
            Augment::Crop(crop) => crop.cut([edge; 2])[0],
            _ => edge,
        };
        list.iter().fold(edge, cut)
    }

    /// The list with what its kinds take from the training set: the colour statistics of `pca_noise` where none are given.
    ///
    /// # Errors
    /// libtorch's.
    pub fn settle_all(mut list: Vec<Augment>, set: &ImageSet) -> Result<Vec<Augment>> {
        for augment in &mut list {
            if let Augment::PcaNoise(noise) = augment {
                noise.settle(set)?;
            }
        }
        Ok(list)
    }

    /// Whether it blends pictures and their labels, so that a loss must take [`Images::mix`].
    pub fn mixes(&self) -> bool {
        self.phase() == Phase::Mix
    }

    /// Takes the flip out of the list if nothing else in it moves pixels: then it may be done before the colours just as well.
    pub(super) fn take_lone_flip(list: &mut Vec<Augment>) -> bool {
        let moves = |augment: &Augment| augment.phase() == Phase::Space || matches!(augment, Augment::RandAugment(_));
        let mut moving = list.iter().enumerate().filter(|(_, augment)| moves(augment));
        match (moving.next(), moving.next()) {
            (Some((place, Augment::Flip(_))), None) => {
                list.remove(place);
                true
            }
            _ => false,
        }
    }

    /// The name under which the parameters are drawn.
    fn operation(&self) -> &'static str {
        match self {
            Augment::ColorJitter(_) => "color_jitter",
            Augment::RandAugment(_) => "rand_augment",
            Augment::PcaNoise(_) => "pca_noise",
            Augment::Affine(_) => "affine",
            Augment::Crop(_) => "crop",
            Augment::Flip(_) => "flip",
            Augment::Cutout(_) => "cutout",
            Augment::Mixup(_) => "mixup",
            Augment::CutMix(_) => "cutmix",
        }
    }

    fn phase(&self) -> Phase {
        match self {
            Augment::ColorJitter(_) | Augment::RandAugment(_) | Augment::PcaNoise(_) => Phase::Colour,
            Augment::Affine(_) | Augment::Crop(_) | Augment::Flip(_) | Augment::Cutout(_) => Phase::Space,
            Augment::Mixup(_) | Augment::CutMix(_) => Phase::Mix,
        }
    }

    /// Augments `image`, `[N, C, H, W]`, float32, each picture by itself.
    fn apply(&self, image: &Tensor, draws: Draws) -> Result<Tensor> {
        let (_, _, h, w) = image.size4()?;
        let name = self.operation();
        match self {
            Augment::ColorJitter(jitter) => colour::jitter(image, &draws.each(name, |rng| jitter.draw(rng))),
            Augment::RandAugment(list) => list.apply(image, &draws.each(name, |rng| list.draw(rng))),
            Augment::PcaNoise(noise) => {
                let shifts: Result<Vec<_>> = draws.each(name, |rng| noise.draw(rng)).into_iter().collect();
                pca::add(image, &shifts?)
            }
            Augment::Affine(affine) => affine::distort(image, &draws.each(name, |rng| affine.draw(rng))),
            Augment::Crop(crop) => crop_and_flip(image, Some(crop), None, draws),
            Augment::Flip(flip) => crop_and_flip(image, None, Some(flip), draws),
            Augment::Cutout(cutout) => cutout::cut(image, &draws.each(name, |rng| cutout.draw(rng, [h, w]))),
            // Of pairs; see mix::apply.
            Augment::Mixup(_) | Augment::CutMix(_) => Ok(image.shallow_clone()),
        }
    }
}

/// Crops, then mirrors, each picture as it is drawn.
fn crop_and_flip(image: &Tensor, crop: Option<&Crop>, flip: Option<&Flip>, draws: Draws) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    let mut plans = vec![Window { row: 0, column: 0, mirrored: false }; draws.samples.len()];
    if let Some(crop) = crop {
        for (plan, corner) in plans.iter_mut().zip(draws.each("crop", |rng| crop.draw(rng, [h, w]))) {
            [plan.row, plan.column] = corner;
        }
    }
    if let Some(flip) = flip {
        for (plan, mirrored) in plans.iter_mut().zip(draws.each("flip", |rng| flip.draw(rng))) {
            plan.mirrored = mirrored;
        }
    }
    let (pad, fill) = crop.map_or((0, Fill::Zero), |crop| (crop.pad as i64, crop.fill));
    windows(image, pad, fill, crop.map_or([h, w], |crop| crop.cut([h, w])), &plans)
}

/// Refuses the value of a parameter unless it `fits`; `key` is `kind.name`.
fn demand(fits: bool, key: &str, value: impl Display, range: &str) -> Result<()> {
    if fits { Ok(()) } else { Err(user!("augment: `{key}` is {value}; choose {range}")) }
}

/// Host numbers on `device`, without waiting for it: they are copied out of the slice before this returns.
fn upload<T: kind::Element>(values: &[T], device: Device) -> Result<Tensor> {
    let host = Tensor::f_from_slice(values)?;
    Ok(host.f_to_device_(device, host.kind(), true, false)?)
}

/// Applies `change` to the pictures of `[N, C, H, W]` whose plans have one key, all at once, and puts them back in their places.
fn grouped<P: Copy, K: PartialEq>(
    image: &Tensor,
    plans: &[P],
    key: impl Fn(&P) -> K,
    change: impl Fn(&Tensor, &[P]) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut groups: Vec<(K, Vec<i64>)> = Vec::new();
    for (place, plan) in plans.iter().enumerate() {
        let key = key(plan);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, places)) => places.push(place as i64),
            None => groups.push((key, vec![place as i64])),
        }
    }
    if groups.len() == 1 {
        return change(image, plans);
    }
    let places: Vec<i64> = groups.iter().flat_map(|(_, places)| places).copied().collect();
    let mut back = vec![0; places.len()];
    for (at, place) in places.iter().enumerate() {
        back[*place as usize] = at as i64;
    }
    let sorted = image.f_index_select(0, &upload(&places, image.device())?)?;
    let (mut parts, mut start) = (Vec::with_capacity(groups.len()), 0);
    for (_, places) in &groups {
        let plans: Vec<P> = places.iter().map(|place| plans[*place as usize]).collect();
        parts.push(change(&sorted.f_narrow(0, start, places.len() as i64)?, &plans)?);
        start += places.len() as i64;
    }
    Ok(Tensor::f_cat(&parts, 0)?.f_index_select(0, &upload(&back, image.device())?)?)
}
