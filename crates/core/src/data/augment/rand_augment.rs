//! RandAugment (arXiv:1909.13719) with the operations and magnitudes of torchvision.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::affine::{Reading, normalised, read};
use super::colour::{Levels, brightness, contrast, one_or_three, saturation};
use super::equalize::{autocontrast, equalize, invert, posterize, sharpness, solarize};
use super::{always, demand, grouped};
use crate::Result;
use crate::random::below;

/// torchvision's `RandAugment`: `ops` of its 14 operations, drawn for each picture with replacement, all at one magnitude; signs are
/// drawn. Pixels are rounded to bytes first; places are read from the nearest pixel, zero (black) outside.
/// In YAML: `{kind: rand_augment, ops: 2, magnitude: 9}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct RandAugment {
    /// N, operations one after the other, from 1 to 14.
    pub ops: u64,
    /// M, from 0 to below `bins`: the place on a scale from no change to the strongest one.
    pub magnitude: u64,
    /// Marks on the scale of magnitudes, at least 2; 31 if it is left away.
    #[serde(default = "thirty_one")]
    pub bins: u64,
    /// The share of the pictures that are changed, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

fn thirty_one() -> u64 {
    31
}

/// Those of torchvision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    /// Of AutoAugment alone.
    Invert,
}

use Operation::*;

/// The list of torchvision's RandAugment, in its order.
pub(super) const OPERATIONS: [Operation; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

/// What is done to one picture in one of its operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    Identity,
    /// The inverse map in pixels from the middle of the picture: rows `[a b c; d e f]`.
    Move([f64; 6]),
    /// A blend by this factor.
    Brightness(f64),
    Color(f64),
    Contrast(f64),
    Sharpness(f64),
    /// Bits kept.
    Posterize(f64),
    /// Values from here on are inverted.
    Solarize(f64),
    AutoContrast,
    Equalize,
    Invert,
}

impl RandAugment {
    pub(super) fn check(&self, [channels, ..]: [i64; 3]) -> Result<()> {
        one_or_three("rand_augment", channels)?;
        demand((1..=14).contains(&self.ops), "rand_augment.ops", self.ops, "a whole number from 1 to 14")?;
        demand((2..=1000).contains(&self.bins), "rand_augment.bins", self.bins, "a whole number from 2 to 1000")?;
        demand(
            self.magnitude < self.bins,
            "rand_augment.magnitude",
            self.magnitude,
            &format!("a whole number from 0 to {}", self.bins - 1),
        )
    }

    /// Operation and sign for each of `ops`: always two draws.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<(Operation, bool)> {
        (0..self.ops).map(|_| (OPERATIONS[below(rng, 14) as usize], below(rng, 2) == 1)).collect()
    }

    /// Each picture's operations, one after the other. `image` has values in [0, 1], the result k / 255.
    pub(super) fn apply(&self, image: &Tensor, plans: &[Vec<(Operation, bool)>]) -> Result<Tensor> {
        let (_, _, h, w) = image.size4()?;
        on_bytes(image, |mut bytes| {
            for place in 0..self.ops as usize {
                let step = |plan: &Vec<(Operation, bool)>| {
                    let (operation, negative) = plan[place];
                    operation.step(self.magnitude, self.bins, negative, [h, w])
                };
                bytes = take(&bytes, &plans.iter().map(step).collect::<Result<Vec<_>>>()?)?;
            }
            Ok(bytes)
        })
    }
}

impl Operation {
    /// At mark `magnitude` of `bins` on the scale from no change to the strongest one, on pictures of this size; `negative` acts on those
    /// alone that have a sign.
    ///
    /// The scales are float32, as torchvision makes them, so that cut-off values are the same to the last bit.
    pub(super) fn step(self, magnitude: u64, bins: u64, negative: bool, [h, w]: [i64; 2]) -> Result<Step> {
        let scale = |from: f64, to: f64| -> Result<f64> {
            let scale = Tensor::f_linspace(from, to, bins as i64, (Kind::Float, Device::Cpu))?;
            Ok(scale.f_double_value(&[magnitude as i64])?)
        };
        let signed = |to: f64| -> Result<f64> { Ok(if negative { -scale(0.0, to)? } else { scale(0.0, to)? }) };
        let (half_height, half_width) = (h as f64 / 2.0, w as f64 / 2.0);
        Ok(match self {
            Identity => Step::Identity,
            // About the upper left corner.
            ShearX => {
                let lean = signed(0.3)?;
                Step::Move([1.0, lean, lean * half_height, 0.0, 1.0, 0.0])
            }
            ShearY => {
                let lean = signed(0.3)?;
                Step::Move([1.0, 0.0, 0.0, lean, 1.0, lean * half_width])
            }
            // By whole pixels.
            TranslateX => Step::Move([1.0, 0.0, -signed(150.0 / 331.0 * w as f64)?.trunc(), 0.0, 1.0, 0.0]),
            TranslateY => Step::Move([1.0, 0.0, 0.0, 0.0, 1.0, -signed(150.0 / 331.0 * h as f64)?.trunc()]),
            Rotate => {
                let (sin, cos) = signed(30.0)?.to_radians().sin_cos();
                Step::Move([cos, -sin, 0.0, sin, cos, 0.0])
            }
            Brightness => Step::Brightness(1.0 + signed(0.9)?),
            Color => Step::Color(1.0 + signed(0.9)?),
            Contrast => Step::Contrast(1.0 + signed(0.9)?),
            Sharpness => Step::Sharpness(1.0 + signed(0.9)?),
            Posterize => {
                let lost = magnitude as f32 / ((bins - 1) as f32 / 4.0);
                Step::Posterize(8.0 - f64::from(lost.round_ties_even()))
            }
            Solarize => Step::Solarize(scale(255.0, 0.0)?),
            AutoContrast => Step::AutoContrast,
            Equalize => Step::Equalize,
            Invert => Step::Invert,
        })
    }
}

/// What `change` makes of pictures in [0, 1] that are rounded to whole numbers from 0 to 255, over 255.
pub(super) fn on_bytes(image: &Tensor, change: impl FnOnce(Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let bytes = image.f_mul_scalar(255.0)?.f_round_()?.f_clamp_(0.0, 255.0)?;
    Ok(change(bytes)?.f_div_scalar(255.0)?)
}

/// One step of each picture, of bytes in float32.
pub(super) fn take(image: &Tensor, steps: &[Step]) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    grouped(image, steps, std::mem::discriminant, |part, steps| {
        let numbers = || -> Vec<f64> { steps.iter().filter_map(Step::number).collect() };
        match steps[0] {
            Step::Identity => Ok(part.shallow_clone()),
            Step::Move(_) => {
                let maps = steps.iter().filter_map(|step| match step {
                    Step::Move(map) => Some(normalised(*map, h as f64, w as f64)),
                    _ => None,
                });
                read(part, &maps.collect::<Vec<_>>(), Reading::Nearest)
            }
            Step::Brightness(_) => brightness(part, &numbers(), Levels::Bytes),
            Step::Color(_) => saturation(part, &numbers(), Levels::Bytes),
            Step::Contrast(_) => contrast(part, &numbers(), Levels::Bytes),
            Step::Sharpness(_) => sharpness(part, &numbers()),
            Step::Posterize(_) => posterize(part, &numbers()),
            Step::Solarize(_) => solarize(part, &numbers()),
            Step::AutoContrast => autocontrast(part),
            Step::Equalize => equalize(part),
            Step::Invert => invert(part),
        }
    })
}

impl Step {
    /// What a step other than a move has of its own.
    fn number(&self) -> Option<f64> {
        match self {
            Step::Brightness(x) | Step::Color(x) | Step::Contrast(x) | Step::Sharpness(x) => Some(*x),
            Step::Posterize(x) | Step::Solarize(x) => Some(*x),
            Step::Identity | Step::Move(_) | Step::AutoContrast | Step::Equalize | Step::Invert => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;

    #[test]
    fn operations_and_signs_are_uniform_and_unrelated() {
        let augment = RandAugment { ops: 2, magnitude: 9, bins: 31, p: 1.0 };
        let (mut pairs, mut negative) = ([[0_i64; 14]; 14], [0_i64; 14]);
        for sample in 0..10_000 {
            let plan = augment.draw(&mut rng(5, 0, sample, "rand_augment"));
            let [first, second] = [0, 1].map(|place: usize| plan[place].0 as usize);
            pairs[first][second] += 1;
            negative[first] += i64::from(plan[0].1);
        }
        // Each of 196 pairs is expected 51 times, each sum 714 times, and half of that with a sign: standard deviations 7, 26 and 13.
        assert!(pairs.iter().flatten().all(|count| (count - 51).abs() < 32), "{pairs:?}");
        for (row, negative) in pairs.iter().zip(negative) {
            let sum: i64 = row.iter().sum();
            assert!((sum - 714).abs() < 103 && (2 * negative - sum).abs() < 107, "{sum} {negative}");
        }
    }

    #[test]
    fn pixels_are_rounded_to_bytes() {
        let augment = RandAugment { ops: 1, magnitude: 0, bins: 31, p: 1.0 };
        let image = Tensor::from_slice(&[0.4999_f32, 0.2, 1.7, -0.3]).view([1, 1, 2, 2]);
        let found = augment.apply(&image, &[vec![(Operation::Identity, false)]]).unwrap();
        assert_eq!(found, Tensor::from_slice(&[127_f32, 51.0, 255.0, 0.0]).view([1, 1, 2, 2]) / 255.0);
    }
}
