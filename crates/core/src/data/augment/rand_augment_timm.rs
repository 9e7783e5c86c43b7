//! RandAugment (arXiv:1909.13719) with the operations and magnitudes of timm, as DeiT (arXiv:2012.12877) trains with it.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::equalize::{equalize, invert, posterize, solarize};
use super::pillow::{autocontrast, brightness, color, contrast, read, sharpness, solarize_add};
use super::rand_augment::on_bytes;
use super::{always, demand, grouped};
use crate::random::{below, normal, uniform};
use crate::{Result, user};

/// The strongest magnitude.
const MOST: f64 = 10.0;
/// The share of the operations drawn that are applied.
const APPLIED: f64 = 0.5;

/// RandAugment as timm 1.0.31 reads `rand-m9-mstd0.5-inc1`: `ops` of its 15 operations that grow with the magnitude, drawn for each picture with
/// replacement; each is applied to half of the pictures, at a magnitude of its own, normal around `magnitude` and cut off at 0 and 10; signs
/// are drawn. Pixels are rounded to bytes first; places are read by Pillow's bicubic. For RGB pictures.
/// In YAML: `{kind: rand_augment_timm, ops: 2, magnitude: 9, std: 0.5, fill: [124, 116, 104]}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct RandAugmentTimm {
    /// N, operations one after the other, from 1 to 15.
    pub ops: u64,
    /// M, the mean of the magnitudes, from 0 to 10.
    pub magnitude: f64,
    /// Standard deviation of the magnitudes, at least 0; where it is 0 all are M.
    pub std: f64,
    /// Red, green and blue from 0 to 255 of what comes in from outside. timm takes the mean that pictures are centred by.
    pub fill: [u8; 3],
    /// The share of the pictures that operations are drawn for, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

/// timm's list of those that grow, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

use Operation::*;

pub(super) const OPERATIONS: [Operation; 15] = [
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
];

/// One of the operations drawn for a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drawn {
    pub(super) operation: Operation,
    pub(super) applied: bool,
    /// From 0 to 10.
    pub(super) magnitude: f64,
    pub(super) negative: bool,
}

/// What is done to one picture in one of its operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    Nothing,
    AutoContrast,
    Equalize,
    Invert,
    /// The map of [`read`].
    Move([f64; 6]),
    /// Bits kept.
    Posterize(f64),
    /// Values from here on are inverted.
    Solarize(f64),
    /// Values below 128 grow by this.
    SolarizeAdd(f64),
    /// A blend by this factor.
    Color(f64),
    Contrast(f64),
    Brightness(f64),
    Sharpness(f64),
}

impl RandAugmentTimm {
    pub(super) fn check(&self, [channels, ..]: [i64; 3]) -> Result<()> {
        if channels != 3 {
            return Err(user!(
                "augment: `rand_augment_timm` is for RGB pictures, not those of {channels} channels; take `rand_augment`"
            ));
        }
        demand((1..=15).contains(&self.ops), "rand_augment_timm.ops", self.ops, "a whole number from 1 to 15")?;
        let fits = (0.0..=MOST).contains(&self.magnitude);
        demand(fits, "rand_augment_timm.magnitude", self.magnitude, "a number from 0 to 10")?;
        let fits = self.std >= 0.0 && self.std.is_finite();
        demand(fits, "rand_augment_timm.std", self.std, "a number of at least 0")
    }

    /// For each of `ops` always five draws: operation, whether it is applied, two for the magnitude, sign.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<Drawn> {
        let one = |_| Drawn {
            operation: OPERATIONS[below(rng, 15) as usize],
            applied: uniform(rng, 0.0, 1.0) < APPLIED,
            magnitude: (self.magnitude + self.std * normal(rng)).clamp(0.0, MOST),
            negative: below(rng, 2) == 1,
        };
        (0..self.ops).map(one).collect()
    }

    /// Each picture's operations, one after the other. `image` has values in [0, 1], the result k / 255.
    pub(super) fn apply(&self, image: &Tensor, plans: &[Vec<Drawn>]) -> Result<Tensor> {
        let (_, _, h, w) = image.size4()?;
        on_bytes(image, |mut bytes| {
            for place in 0..self.ops as usize {
                let steps: Vec<Step> = plans.iter().map(|plan| plan[place].step([h, w])).collect();
                bytes = take(&bytes, &steps, self.fill)?;
            }
            Ok(bytes)
        })
    }
}

impl Drawn {
    /// What it does to a picture of this height and width.
    pub(super) fn step(&self, [h, w]: [i64; 2]) -> Step {
        if !self.applied {
            return Step::Nothing;
        }
        let level = self.magnitude / MOST;
        let signed = |most: f64| if self.negative { -level * most } else { level * most };
        let factor = || (1.0 + signed(0.9)).max(0.1);
        let (height, width) = (h as f64, w as f64);
        match self.operation {
            AutoContrast => Step::AutoContrast,
            Equalize => Step::Equalize,
            Invert => Step::Invert,
            // Counter-clockwise on the screen, about the middle.
            Rotate => {
                let (sin, cos) = signed(30.0).to_radians().sin_cos();
                let (x, y) = (width / 2.0, height / 2.0);
                Step::Move([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])
            }
            // At 10 no bit is left, and the picture is black, as Pillow made it until its version 13 refused that.
            Posterize => Step::Posterize(4.0 - (level * 4.0).trunc()),
            Solarize => Step::Solarize(256.0 - (level * 256.0).trunc()),
            SolarizeAdd => Step::SolarizeAdd((level * 110.0).trunc()),
            Color => Step::Color(factor()),
            Contrast => Step::Contrast(factor()),
            Brightness => Step::Brightness(factor()),
            Sharpness => Step::Sharpness(factor()),
            ShearX => Step::Move([1.0, signed(0.3), 0.0, 0.0, 1.0, 0.0]),
            ShearY => Step::Move([1.0, 0.0, 0.0, signed(0.3), 1.0, 0.0]),
            TranslateX => Step::Move([1.0, 0.0, signed(0.45) * width, 0.0, 1.0, 0.0]),
            TranslateY => Step::Move([1.0, 0.0, 0.0, 0.0, 1.0, signed(0.45) * height]),
        }
    }
}

/// One step of each picture, of bytes in float32.
pub(super) fn take(image: &Tensor, steps: &[Step], fill: [u8; 3]) -> Result<Tensor> {
    grouped(image, steps, std::mem::discriminant, |part, steps| {
        let numbers = || -> Vec<f64> { steps.iter().filter_map(Step::number).collect() };
        match steps[0] {
            Step::Nothing => Ok(part.shallow_clone()),
            Step::AutoContrast => autocontrast(part),
            Step::Equalize => equalize(part),
            Step::Invert => invert(part),
            Step::Move(_) => {
                let maps = steps.iter().filter_map(|step| match step {
                    Step::Move(map) => Some(*map),
                    _ => None,
                });
                read(part, &maps.collect::<Vec<_>>(), fill)
            }
            Step::Posterize(_) => posterize(part, &numbers()),
            Step::Solarize(_) => solarize(part, &numbers()),
            Step::SolarizeAdd(_) => solarize_add(part, &numbers()),
            Step::Color(_) => color(part, &numbers()),
            Step::Contrast(_) => contrast(part, &numbers()),
            Step::Brightness(_) => brightness(part, &numbers()),
            Step::Sharpness(_) => sharpness(part, &numbers()),
        }
    })
}

impl Step {
    /// What a step other than a move has of its own.
    fn number(&self) -> Option<f64> {
        match self {
            Step::Posterize(x) | Step::Solarize(x) | Step::SolarizeAdd(x) => Some(*x),
            Step::Color(x) | Step::Contrast(x) | Step::Brightness(x) | Step::Sharpness(x) => Some(*x),
            Step::Nothing | Step::AutoContrast | Step::Equalize | Step::Invert | Step::Move(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;

    #[test]
    fn half_are_applied_at_normal_magnitudes_cut_off_at_ten() {
        let augment = RandAugmentTimm { ops: 2, magnitude: 9.0, std: 0.5, fill: [0; 3], p: 1.0 };
        let (mut counts, mut applied, mut negative, mut cut) = ([[0_i64; 15]; 2], 0_i64, 0_i64, 0_i64);
        let (mut sum, mut squares, mut below_mean) = (0.0, 0.0, 0_i64);
        for sample in 0..10_000 {
            for (place, drawn) in augment.draw(&mut rng(5, 0, sample, "rand_augment_timm")).into_iter().enumerate() {
                counts[place][drawn.operation as usize] += 1;
                applied += i64::from(drawn.applied);
                negative += i64::from(drawn.negative);
                cut += i64::from(drawn.magnitude == 10.0);
                below_mean += i64::from(drawn.magnitude < 9.0);
                // The lower half is a half normal: nothing is cut off below the mean.
                let below = (9.0 - drawn.magnitude).max(0.0);
                (sum, squares) = (sum + below, squares + below * below);
            }
        }
        // Of 10,000 each of 15 is expected 667 times with a standard deviation of 25; of 20,000 a half is 10,000 with one of 71.
        assert!(counts.iter().flatten().all(|count| (count - 667).abs() < 100), "{counts:?}");
        for half in [applied, negative, below_mean] {
            assert!((half - 10_000).abs() < 284, "{applied} {negative} {below_mean}");
        }
        // Two deviations above the mean lie 2.275 % of a normal distribution: 455 with a standard deviation of 21.
        assert!((cut - 455).abs() < 85, "{cut}");
        // The mean of a normal number's lower half is σ/√(2π), its second moment σ²/2.
        assert!((sum / 20_000.0 - 0.5 / std::f64::consts::TAU.sqrt()).abs() < 0.009, "{sum}");
        assert!((squares / 20_000.0 - 0.125).abs() < 0.008, "{squares}");
    }

    #[test]
    fn without_a_deviation_all_magnitudes_are_the_mean() {
        let augment = RandAugmentTimm { ops: 3, magnitude: 4.0, std: 0.0, fill: [0; 3], p: 1.0 };
        let drawn = augment.draw(&mut rng(5, 0, 0, "rand_augment_timm"));
        assert!(drawn.len() == 3 && drawn.iter().all(|drawn| drawn.magnitude == 4.0));
    }

    #[test]
    fn without_a_bit_the_picture_is_black() {
        let image = Tensor::rand([1, 3, 4, 5], (tch::Kind::Float, tch::Device::Cpu));
        let drawn = Drawn { operation: Posterize, applied: true, magnitude: 10.0, negative: false };
        let augment = RandAugmentTimm { ops: 1, magnitude: 9.0, std: 0.5, fill: [0; 3], p: 1.0 };
        assert_eq!(augment.apply(&image, &[vec![drawn]]).unwrap(), image.zeros_like());
    }

    #[test]
    fn what_is_not_applied_changes_nothing_and_magnitudes_have_their_arguments() {
        let step =
            |operation, magnitude, negative| Drawn { operation, applied: true, magnitude, negative }.step([10, 20]);
        assert_eq!(
            Drawn { operation: Invert, applied: false, magnitude: 9.0, negative: true }.step([10, 20]),
            Step::Nothing
        );
        assert_eq!([9.0, 10.0, 0.0].map(|m| step(Posterize, m, false)), [1.0, 0.0, 4.0].map(Step::Posterize));
        assert_eq!([9.0, 10.0, 0.0].map(|m| step(Solarize, m, false)), [26.0, 0.0, 256.0].map(Step::Solarize));
        assert_eq!([9.0, 10.0, 0.0].map(|m| step(SolarizeAdd, m, true)), [99.0, 110.0, 0.0].map(Step::SolarizeAdd));
        // Blends keep at least a tenth of the picture.
        assert_eq!([true, false].map(|negative| step(Color, 10.0, negative)), [0.1, 1.9].map(Step::Color));
        assert_eq!(step(TranslateX, 10.0, true), Step::Move([1.0, 0.0, -9.0, 0.0, 1.0, 0.0]));
        assert_eq!(step(TranslateY, 10.0, false), Step::Move([1.0, 0.0, 0.0, 0.0, 1.0, 4.5]));
    }
}
