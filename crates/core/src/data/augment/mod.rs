//! Augmentation of a batch on its device. The parameters of each picture are drawn on the host from its own stream.

mod affine;
mod crop;

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

pub use affine::Affine;
pub use crop::{Crop, Fill, Flip};

use self::affine::{Distortion, distort};
use self::crop::{Window, windows};
use super::Images;
use super::normalise::Normaliser;
use super::random::rng;
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

impl Draws<'_> {
    /// The stream of `operation` on each picture.
    fn streams(&self, operation: &str) -> impl Iterator<Item = ChaCha8Rng> {
        self.samples.iter().map(move |sample| rng(self.seed, self.epoch, *sample as u64, operation))
    }
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
        let (colour, mut space) = self.list.split_at(self.list.partition_point(|one| one.phase() == Phase::Colour));
        for augment in colour {
            images.image = augment.apply(&images.image, draws)?;
        }
        images.image = self.normaliser.apply(&images.image)?;
        while let Some((augment, after)) = space.split_first() {
            (images.image, space) = match space {
                // In one pass, not two.
                [Augment::Crop(crop), Augment::Flip(flip), after @ ..] => {
                    (crop_and_flip(&images.image, Some(crop), Some(flip), draws)?, after)
                }
                _ => (augment.apply(&images.image, draws)?, after),
            };
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
    fn apply(&self, image: &Tensor, draws: Draws) -> Result<Tensor> {
        match self {
            Augment::Affine(affine) => {
                let plans: Vec<Distortion> =
                    draws.streams(self.operation()).map(|mut rng| affine.draw(&mut rng)).collect();
                distort(image, &plans)
            }
            Augment::Crop(crop) => crop_and_flip(image, Some(crop), None, draws),
            Augment::Flip(flip) => crop_and_flip(image, None, Some(flip), draws),
        }
    }
}

/// Crops, then mirrors, each picture as it is drawn.
fn crop_and_flip(image: &Tensor, crop: Option<&Crop>, flip: Option<&Flip>, draws: Draws) -> Result<Tensor> {
    let mut plans = vec![Window { row: 0, column: 0, mirrored: false }; draws.samples.len()];
    if let Some(crop) = crop {
        for (plan, mut rng) in plans.iter_mut().zip(draws.streams("crop")) {
            [plan.row, plan.column] = crop.draw(&mut rng);
        }
    }
    if let Some(flip) = flip {
        for (plan, mut rng) in plans.iter_mut().zip(draws.streams("flip")) {
            plan.mirrored = flip.draw(&mut rng);
        }
    }
    let (pad, fill) = crop.map_or((0, Fill::Zero), |crop| (crop.pad as i64, crop.fill));
    windows(image, pad, fill, &plans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::below;

    #[test]
    fn what_cannot_act_is_refused() {
        let affine = Affine { rotate: 10.0, scale: 0.1, squeeze: 0.2, shear: 15.0, shift: 2.0 };
        let refused = |list: &[Augment], word: &str| match Augment::check_all(list, [1, 28, 28]) {
            Err(crate::Error::User(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        };
        Augment::check_all(
            &[
                Augment::Affine(affine.clone()),
                Augment::Crop(Crop { pad: 2, fill: Fill::Zero }),
                Augment::Flip(Flip {}),
            ],
            [1, 28, 28],
        )
        .unwrap();
        refused(&[Augment::Flip(Flip {}), Augment::Flip(Flip {})], "`flip` stands twice");
        refused(&[Augment::Affine(Affine { scale: 1.0, ..affine.clone() })], "`affine.scale` is 1");
        refused(&[Augment::Affine(Affine { shear: f64::NAN, ..affine.clone() })], "`affine.shear` is NaN");
        refused(&[Augment::Affine(Affine { shift: -1.0, ..affine })], "`affine.shift` is -1");
        refused(&[Augment::Crop(Crop { pad: 28, fill: Fill::Zero })], "`crop.pad` is 28");
    }

    #[test]
    fn a_crop_and_the_flip_after_it_are_one_after_the_other() {
        let images = || Images {
            image: Tensor::arange(4 * 3 * 8 * 8, (tch::Kind::Float, tch::Device::Cpu)).view([4, 3, 8, 8]) - 300.0,
            label: Tensor::zeros([4], (tch::Kind::Int64, tch::Device::Cpu)),
            mix: None,
        };
        let samples = [7, 0, 31, 5];
        let draws = Draws { seed: 3, epoch: 2, step: 9, samples: &samples };
        let list = vec![Augment::Crop(Crop { pad: 2, fill: Fill::Zero }), Augment::Flip(Flip {})];
        let found = Pipeline::new(list, Normaliser::none(), [3, 8, 8]).unwrap().apply(images(), draws).unwrap().image;
        let padded = images().image.constant_pad_nd([2; 4]);
        for (i, sample) in samples.into_iter().enumerate() {
            let stream = &mut rng(3, 2, sample as u64, "crop");
            let (row, column) = (below(stream, 5) as i64, below(stream, 5) as i64);
            let mut expected = padded.get(i as i64).narrow(1, row, 8).narrow(2, column, 8);
            if below(&mut rng(3, 2, sample as u64, "flip"), 2) == 1 {
                expected = expected.flip([2]);
            }
            assert_eq!(found.get(i as i64), expected);
        }
    }
}
