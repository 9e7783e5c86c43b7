//! Augmentation of a batch on its device. The parameters of each picture are drawn on the host from its own stream, so that they depend
//! neither on the rest of the batch nor on the number of processes; those of mixup and cutmix from the stream of the step.
//!
//! In YAML `augment:` is a list of blocks, which act in the order in which they are written:
//!
//! ```yaml
//! augment:
//!   - {kind: random_resized_crop, scale: [0.2, 1], ratio: [0.75, 1.3333], filter: bilinear}
//!   - {kind: flip}
//!   - {kind: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8}
//!   - {kind: grey, p: 0.2}
//!   - {kind: centre}
//!   - {kind: cutout, size: 16}
//! ```
//!
//! - `centre` is the place of `normalise`. Places (`affine`, `crop`, `random_resized_crop`, `flip`, `cutout`) may stand on either side: what
//!   they bring in is zero, which is black before it and the mean after it.
//! - Colours (`color_jitter`, `rand_augment`, `rand_augment_timm`, `auto_augment`, `pca_noise`, `grey`, `blur`) are those of pixels in [0, 1]
//!   and stand before it. Without the word pictures are centred right after the last colours, or first if there are none.
//! - The noise of `random_erasing` is that of centred pictures: neither `centre` nor colours may stand after it.
//! - Mixtures of two pictures (`mixup`, `cutmix`) come last; of several each step takes one. Their `p` is a share of the steps.
//! - A kind may stand more than once; each time it draws anew: the second `crop` from the stream `crop#2`, the third from `crop#3`.
//! - `p` is the share of the pictures that are changed; all if it is left away, but half of them by `flip`.
//!
//! The keys of each kind are the fields of its struct.

mod affine;
mod auto_augment;
mod blur;
mod colour;
mod crop;
mod cutout;
mod equalize;
mod mix;
mod pca;
mod pillow;
mod pipeline;
mod rand_augment;
mod rand_augment_timm;
mod random_erasing;
mod resized_crop;
mod ten_crop;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use serde::Deserialize;
use tch::{Device, Tensor, kind};

pub use affine::Affine;
pub use auto_augment::{AutoAugment, Policy};
pub use blur::Blur;
pub use colour::{ColorJitter, Grey};
pub use crop::{Crop, Fill, Flip};
pub use cutout::Cutout;
pub use mix::{CutMix, Mixup};
pub use pca::PcaNoise;
pub use pipeline::{Draws, Pipeline};
pub use rand_augment::RandAugment;
pub use rand_augment_timm::RandAugmentTimm;
pub use random_erasing::RandomErasing;
pub use resized_crop::{Filter, RandomResizedCrop};
pub use ten_crop::ten_crop;

pub(super) use pipeline::salted;
pub(super) use resized_crop::random_part;

use super::ImageSet;
use crate::{Result, user};

/// One kind of augmentation. In YAML a list of blocks: `- {kind: affine, rotate: 10, …}`, `- {kind: crop, pad: 4}`, `- {kind: flip}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// Brightness, contrast, saturation and hue.
    ColorJitter(ColorJitter),
    /// A few of fourteen operations.
    RandAugment(RandAugment),
    /// A few of timm's fifteen operations.
    RandAugmentTimm(RandAugmentTimm),
    /// Two operations that were searched for.
    AutoAugment(AutoAugment),
    /// Noise along the principal components of the colours.
    PcaNoise(PcaNoise),
    /// Colours taken away.
    Grey(Grey),
    /// Gaussian blur.
    Blur(Blur),
    /// The place of centring, if it is not right after the colours.
    Centre(Centre),
    /// Planar distortion.
    Affine(Affine),
    /// Padding, then a crop.
    Crop(Crop),
    /// A part of random area and shape, resized.
    RandomResizedCrop(RandomResizedCrop),
    /// A mirror image, left and right exchanged.
    Flip(Flip),
    /// A square of zeros.
    Cutout(Cutout),
    /// A rectangle of noise.
    RandomErasing(RandomErasing),
    /// A weighted mean of two pictures.
    Mixup(Mixup),
    /// A box of another picture.
    #[serde(rename = "cutmix")]
    CutMix(CutMix),
}

/// Pixels in [0, 1] become centred here. In YAML: `{kind: centre}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Centre {}

impl Augment {
    /// Refuses what cannot act on pictures `[C, H, W]`, alone or at its place in the list.
    ///
    /// # Errors
    /// Names the parameter and its range, or the kinds that cannot follow each other.
    pub fn check_all(list: &[Augment], [channels, mut height, mut width]: [i64; 3]) -> Result<()> {
        for (place, augment) in list.iter().enumerate() {
            let (kind, before) = (augment.operation(), &list[..place]);
            if let Some(mixture) = before.iter().find(|other| other.mixes() && !augment.mixes()) {
                return Err(user!(
                    "augment: `{kind}` stands after `{}`, which mixes pictures that are finished; put it before",
                    mixture.operation()
                ));
            }
            if before.iter().any(|other| matches!(other, Augment::Centre(_))) {
                match augment {
                    Augment::Centre(_) => return Err(user!("augment: `centre` stands twice; keep one")),
                    _ if augment.colours() => {
                        return Err(user!(
                            "augment: `{kind}` changes colours in [0, 1], so it cannot stand after `centre`; put it before"
                        ));
                    }
                    _ => {}
                }
            }
            let tones = augment.colours() || matches!(augment, Augment::Centre(_));
            if tones && before.iter().any(|other| matches!(other, Augment::RandomErasing(_))) {
                return Err(user!(
                    "augment: `{kind}` stands after `random_erasing`, whose noise is that of centred pictures; put it before"
                ));
            }
            augment.check([channels, height, width])?;
            let p = augment.p();
            demand(p > 0.0 && p <= 1.0, &format!("{kind}.p"), p, "a number above 0 and at most 1")?;
            [height, width] = augment.size_after([height, width]);
        }
        mix::check_shares(list)
    }

    fn check(&self, shape: [i64; 3]) -> Result<()> {
        match self {
            Augment::ColorJitter(jitter) => jitter.check(shape),
            Augment::RandAugment(list) => list.check(shape),
            Augment::RandAugmentTimm(list) => list.check(shape),
            Augment::AutoAugment(list) => list.check(shape),
            Augment::PcaNoise(noise) => noise.check(shape),
            Augment::Grey(grey) => grey.check(shape),
            Augment::Blur(blur) => blur.check(shape),
            Augment::Affine(affine) => affine.check(shape),
            Augment::Crop(crop) => crop.check(shape),
            Augment::RandomResizedCrop(crop) => crop.check(),
            Augment::Flip(flip) => flip.check(),
            Augment::Cutout(cutout) => cutout.check(shape),
            Augment::RandomErasing(erasing) => erasing.check(),
            Augment::Mixup(Mixup { alpha, .. }) => mix::check_alpha("mixup.alpha", *alpha),
            Augment::CutMix(CutMix { alpha, .. }) => mix::check_alpha("cutmix.alpha", *alpha),
            Augment::Centre(Centre {}) => Ok(()),
        }
    }

    /// Edge of training pictures that were squares of `edge` pixels.
    pub fn edge_after(list: &[Augment], edge: i64) -> i64 {
        list.iter().fold(edge, |edge, augment| augment.size_after([edge; 2])[0])
    }

    /// Height and width of what were pictures of this height and width.
    fn size_after(&self, picture: [i64; 2]) -> [i64; 2] {
        match self {
            Augment::Crop(crop) => crop.cut(picture),
            Augment::RandomResizedCrop(crop) => crop.cut(picture),
            _ => picture,
        }
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

    /// Whether it blends pictures and their labels, so that a loss must take [`crate::data::Images::mix`].
    pub fn mixes(&self) -> bool {
        matches!(self, Augment::Mixup(_) | Augment::CutMix(_))
    }

    /// Whether it changes colours, which it must find in [0, 1].
    fn colours(&self) -> bool {
        matches!(
            self,
            Augment::ColorJitter(_)
                | Augment::RandAugment(_)
                | Augment::RandAugmentTimm(_)
                | Augment::AutoAugment(_)
                | Augment::PcaNoise(_)
                | Augment::Grey(_)
                | Augment::Blur(_)
        )
    }

    /// Whether what a pixel becomes depends on where it stands.
    fn moves(&self) -> bool {
        match self {
            Augment::Affine(_) | Augment::Crop(_) | Augment::RandomResizedCrop(_) | Augment::Flip(_) => true,
            Augment::Cutout(_) | Augment::RandomErasing(_) | Augment::Blur(_) => true,
            Augment::RandAugment(_) | Augment::RandAugmentTimm(_) | Augment::AutoAugment(_) => true,
            Augment::ColorJitter(_) | Augment::PcaNoise(_) | Augment::Grey(_) | Augment::Centre(_) => false,
            Augment::Mixup(_) | Augment::CutMix(_) => false,
        }
    }

    /// The share of the pictures that are changed; 1 for a kind that is always there, or draws by itself whether it is.
    fn p(&self) -> f64 {
        match self {
            Augment::ColorJitter(ColorJitter { p, .. }) | Augment::RandAugment(RandAugment { p, .. }) => *p,
            Augment::RandAugmentTimm(RandAugmentTimm { p, .. }) | Augment::AutoAugment(AutoAugment { p, .. }) => *p,
            Augment::Grey(Grey { p }) | Augment::Blur(Blur { p, .. }) | Augment::Affine(Affine { p, .. }) => *p,
            Augment::RandomErasing(RandomErasing { p, .. }) => *p,
            _ => 1.0,
        }
    }

    /// The share of the steps that a mixture takes, if it is given.
    fn share(&self) -> Option<f64> {
        match self {
            Augment::Mixup(Mixup { p, .. }) | Augment::CutMix(CutMix { p, .. }) => *p,
            _ => None,
        }
    }

    /// Takes the flip out of the list if nothing else in it moves pixels: then it may be done before the colours just as well.
    fn take_lone_flip(list: &mut Vec<Augment>) -> Option<Flip> {
        let mut moving = list.iter().enumerate().filter(|(_, augment)| augment.moves());
        match (moving.next(), moving.next()) {
            (Some((place, Augment::Flip(flip))), None) => {
                let flip = flip.clone();
                list.remove(place);
                Some(flip)
            }
            _ => None,
        }
    }

    /// The name under which the parameters are drawn.
    fn operation(&self) -> &'static str {
        match self {
            Augment::ColorJitter(_) => "color_jitter",
            Augment::RandAugment(_) => "rand_augment",
            Augment::RandAugmentTimm(_) => "rand_augment_timm",
            Augment::AutoAugment(_) => "auto_augment",
            Augment::PcaNoise(_) => "pca_noise",
            Augment::Grey(_) => "grey",
            Augment::Blur(_) => "blur",
            Augment::Centre(_) => "centre",
            Augment::Affine(_) => "affine",
            Augment::Crop(_) => "crop",
            Augment::RandomResizedCrop(_) => "random_resized_crop",
            Augment::Flip(_) => "flip",
            Augment::Cutout(_) => "cutout",
            Augment::RandomErasing(_) => "random_erasing",
            Augment::Mixup(_) => "mixup",
            Augment::CutMix(_) => "cutmix",
        }
    }
}

/// Refuses the value of a parameter unless it `fits`; `key` is `kind.name`.
fn demand(fits: bool, key: &str, value: impl Display, range: &str) -> Result<()> {
    if fits { Ok(()) } else { Err(user!("augment: `{key}` is {value}; choose {range}")) }
}

/// A share that is left away.
fn always() -> f64 {
    1.0
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
