//! Augmentation of a batch on its device. The parameters of each picture are drawn on the host from its own stream.

mod affine;
mod spatial;

use serde::Deserialize;
use tch::Tensor;

pub use affine::Affine;
pub use spatial::{Crop, Flip};

use self::affine::{Distortion, distort};
use self::spatial::{mirror, padded_crop};
use super::Images;
use super::normalise::Normaliser;
use super::random::{below, rng};
use crate::{Result, user};

/// One kind of augmentation. In YAML a list of blocks: `- {kind: affine, rotate: 10, …}`, `- {kind: crop, pad: 4}`, `- {kind: flip}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// Planar distortion.
    Affine(Affine),
    /// Padding, then a crop of the first size.
    Crop(Crop),
    /// A mirror image, left and right exchanged.
    Flip(Flip),
}

/// What a kind acts on. A list is in this order, so that its reader sees what happens to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Colours in [0, 1], before centring.
    Colour,
    /// Places of pixels, after centring, so that the zeros that come in are the mean.
    Space,
}

/// What is done to the pictures of each training batch: colours, centring, places.
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

impl Pipeline {
    /// For pictures `[C, H, W]`.
    ///
    /// # Errors
    /// What [`Augment::check_all`] finds.
    pub fn new(list: Vec<Augment>, normaliser: Normaliser, shape: [i64; 3]) -> Result<Self> {
        Augment::check_all(&list, shape)?;
        Ok(Self { list, normaliser })
    }

    /// Augments and centres pictures in [0, 1].
    ///
    /// # Errors
    /// libtorch's.
    pub fn apply(&self, mut images: Images, draws: Draws) -> Result<Images> {
        let (colour, space): (Vec<_>, Vec<_>) = self.list.iter().partition(|augment| augment.phase() == Phase::Colour);
        for augment in colour {
            images.image = augment.apply(&images.image, draws)?;
        }
        images.image = self.normaliser.apply(&images.image)?;
        for augment in space {
            images.image = augment.apply(&images.image, draws)?;
        }
        Ok(images)
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
    pub fn check_all(list: &[Augment], [_, height, width]: [i64; 3]) -> Result<()> {
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
            let range = |name: &str, value: f64, limit: f64| {
                let fits = (0.0..limit).contains(&value);
                if fits {
                    Ok(())
                } else {
                    Err(user!("augment: `{kind}.{name}` is {value}; choose a number from 0 to below {limit}"))
                }
            };
            match augment {
                Augment::Affine(affine) => {
                    range("rotate", affine.rotate, 360.0)?;
                    range("scale", affine.scale, 1.0)?;
                    range("squeeze", affine.squeeze, 1.0)?;
                    range("shear", affine.shear, 90.0)?;
                    range("shift", affine.shift, height.min(width) as f64)?;
                }
                Augment::Crop(crop) => range("pad", crop.pad as f64, height.min(width) as f64)?,
                Augment::Flip(Flip {}) => {}
            }
        }
        Ok(())
    }

    /// The name under which the parameters are drawn.
    fn operation(&self) -> &'static str {
        match self {
            Augment::Affine(_) => "affine",
            Augment::Crop(_) => "crop",
            Augment::Flip(_) => "flip",
        }
    }

    fn phase(&self) -> Phase {
        match self {
            Augment::Affine(_) | Augment::Crop(_) | Augment::Flip(_) => Phase::Space,
        }
    }

    /// Augments `image`, `[N, C, H, W]`, float32.
    fn apply(&self, image: &Tensor, Draws { seed, epoch, samples, .. }: Draws) -> Result<Tensor> {
        let draws = samples.iter().map(|sample| rng(seed, epoch, *sample as u64, self.operation()));
        match self {
            Augment::Affine(affine) => {
                let plans: Vec<Distortion> = draws.map(|mut rng| affine.draw(&mut rng)).collect();
                distort(image, &plans)
            }
            Augment::Crop(crop) => {
                let corners: Vec<[i64; 2]> = draws.map(|mut rng| crop.draw(&mut rng)).collect();
                padded_crop(image, crop.pad as i64, &corners)
            }
            Augment::Flip(Flip {}) => {
                let mirrored: Vec<bool> = draws.map(|mut rng| below(&mut rng, 2) == 1).collect();
                mirror(image, &mirrored)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_act_is_refused() {
        let affine = Affine { rotate: 10.0, scale: 0.1, squeeze: 0.2, shear: 15.0, shift: 2.0 };
        let refused = |list: &[Augment], word: &str| match Augment::check_all(list, [1, 28, 28]) {
            Err(crate::Error::User(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        };
        Augment::check_all(
            &[Augment::Affine(affine.clone()), Augment::Crop(Crop { pad: 2 }), Augment::Flip(Flip {})],
            [1, 28, 28],
        )
        .unwrap();
        refused(&[Augment::Flip(Flip {}), Augment::Flip(Flip {})], "`flip` stands twice");
        refused(&[Augment::Affine(Affine { scale: 1.0, ..affine.clone() })], "`affine.scale` is 1");
        refused(&[Augment::Affine(Affine { shear: f64::NAN, ..affine.clone() })], "`affine.shear` is NaN");
        refused(&[Augment::Affine(Affine { shift: -1.0, ..affine })], "`affine.shift` is -1");
        refused(&[Augment::Crop(Crop { pad: 28 })], "`crop.pad` is 28");
    }
}
