//! Brightness, contrast, saturation, hue and their absence, as torchvision's tensor path reckons them.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::{always, demand, grouped, upload};
use crate::random::{permutation, uniform};
use crate::{Result, user};

/// torchvision's `ColorJitter`: the four changes in an order drawn for each picture, each with a factor drawn for it; values are clipped
/// to [0, 1] after each. Grey pictures keep saturation and hue. A 0 switches its change off.
/// In YAML: `{kind: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ColorJitter {
    /// b, at least 0: pixels by a factor uniform in [max(0, 1 − b), 1 + b].
    pub brightness: f64,
    /// As brightness: the distance of pixels from the mean grey of the picture.
    pub contrast: f64,
    /// As brightness: the distance of pixels from their own grey.
    pub saturation: f64,
    /// h from 0 to 0.5: a turn on the circle of hues, uniform in [−h, h] of a full turn.
    pub hue: f64,
    /// The share of the pictures that are changed, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

/// torchvision's `RandomGrayscale`: all three channels become the grey of the picture. In YAML: `{kind: grey, p: 0.2}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Grey {
    /// The share of the pictures that lose their colours, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

/// One change of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    None,
    Brightness(f64),
    Contrast(f64),
    Saturation(f64),
    Hue(f64),
}

/// What values a pixel may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Levels {
    /// All from 0 to 1.
    Unit,
    /// Whole numbers from 0 to 255, in float32; what lies between is cut down.
    Bytes,
}

impl ColorJitter {
    pub(super) fn check(&self, [channels, ..]: [i64; 3]) -> Result<()> {
        one_or_three("color_jitter", channels)?;
        for (key, value) in [
            ("color_jitter.brightness", self.brightness),
            ("color_jitter.contrast", self.contrast),
            ("color_jitter.saturation", self.saturation),
        ] {
            demand(value >= 0.0 && value.is_finite(), key, value, "a number of at least 0")?;
        }
        demand((0.0..=0.5).contains(&self.hue), "color_jitter.hue", self.hue, "a number from 0 to 0.5")
    }

    /// The changes of one picture in their order. Always seven draws: three for the order, then the four factors.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> [Change; 4] {
        let order = permutation(rng, 4);
        let mut factor = |range: f64| uniform(rng, (1.0 - range).max(0.0), 1.0 + range);
        let factors = [factor(self.brightness), factor(self.contrast), factor(self.saturation)];
        let hue = uniform(rng, -self.hue, self.hue);
        let on = |range: f64, change: Change| if range == 0.0 { Change::None } else { change };
        let changes = [
            on(self.brightness, Change::Brightness(factors[0])),
            on(self.contrast, Change::Contrast(factors[1])),
            on(self.saturation, Change::Saturation(factors[2])),
            on(self.hue, Change::Hue(hue)),
        ];
        [0, 1, 2, 3].map(|place| changes[order[place] as usize])
    }
}

impl Grey {
    pub(super) fn check(&self, [channels, ..]: [i64; 3]) -> Result<()> {
        match channels {
            3 => Ok(()),
            _ => Err(user!("augment: `grey` is for RGB pictures, not those of {channels} channels; remove it")),
        }
    }
}

/// Refuses pictures that are neither grey nor RGB.
pub(super) fn one_or_three(kind: &str, channels: i64) -> Result<()> {
    match channels {
        1 | 3 => Ok(()),
        _ => Err(user!("augment: `{kind}` changes grey and RGB pictures, not those of {channels} channels; remove it")),
    }
}

/// Each picture's changes, one after the other, of values in [0, 1].
pub(super) fn jitter(image: &Tensor, plans: &[[Change; 4]]) -> Result<Tensor> {
    (0..4).try_fold(image.shallow_clone(), |image, place| {
        let changes: Vec<Change> = plans.iter().map(|plan| plan[place]).collect();
        grouped(&image, &changes, std::mem::discriminant, |part, changes| {
            let factors: Vec<f64> = changes.iter().map(|change| change.factor()).collect();
            match changes[0] {
                Change::None => Ok(part.shallow_clone()),
                Change::Brightness(_) => brightness(part, &factors, Levels::Unit),
                Change::Contrast(_) => contrast(part, &factors, Levels::Unit),
                Change::Saturation(_) => saturation(part, &factors, Levels::Unit),
                Change::Hue(_) => hue(part, &factors),
            }
        })
    })
}

impl Change {
    fn factor(self) -> f64 {
        match self {
            Change::None => 1.0,
            Change::Brightness(x) | Change::Contrast(x) | Change::Saturation(x) | Change::Hue(x) => x,
        }
    }
}

impl Levels {
    fn fit(self, mut image: Tensor) -> Result<Tensor> {
        Ok(match self {
            Levels::Unit => image.f_clamp_(0.0, 1.0)?,
            Levels::Bytes => image.f_clamp_(0.0, 255.0)?.f_floor_()?,
        })
    }
}

/// One number for each picture: `[N, 1, 1, 1]`.
pub(super) fn column(values: impl Iterator<Item = f64>, image: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    Ok(upload(&values, image.device())?.f_view([-1, 1, 1, 1])?)
}

/// `factor · image + (1 − factor) · other`: from `other` at 0 over the picture itself at 1 to its contrary above.
pub(super) fn blend(image: &Tensor, other: &Tensor, factors: &[f64], levels: Levels) -> Result<Tensor> {
    let rest = column(factors.iter().map(|factor| 1.0 - factor), image)?;
    levels.fit(image.f_mul(&column(factors.iter().copied(), image)?)?.f_add_(&other.f_mul(&rest)?)?)
}

/// A blend with black.
pub(super) fn brightness(image: &Tensor, factors: &[f64], levels: Levels) -> Result<Tensor> {
    levels.fit(image.f_mul(&column(factors.iter().copied(), image)?)?)
}

/// A blend with the mean grey of the picture.
pub(super) fn contrast(image: &Tensor, factors: &[f64], levels: Levels) -> Result<Tensor> {
    let grey = grey(image, levels)?;
    let (_, _, h, w) = grey.size4()?;
    // Line by line: a sum over all pixels of a single picture would be split over threads, so that it would round otherwise than in a
    // batch. Of bytes the sums are exact up to 65,793 pixels.
    let sum = grey.f_sum_dim_intlist([3].as_slice(), true, grey.kind())?;
    let mean = sum.f_sum_dim_intlist([2].as_slice(), true, grey.kind())?.f_div_scalar((h * w) as f64)?;
    blend(image, &mean, factors, levels)
}

/// A blend with the picture's grey; grey pictures stay.
pub(super) fn saturation(image: &Tensor, factors: &[f64], levels: Levels) -> Result<Tensor> {
    if image.size()[1] == 1 {
        return Ok(image.shallow_clone());
    }
    blend(image, &grey(image, levels)?, factors, levels)
}

/// `[N, 1, H, W]` of grey and RGB pictures.
fn grey(image: &Tensor, levels: Levels) -> Result<Tensor> {
    match image.size()[1] {
        1 => Ok(image.shallow_clone()),
        _ => levels.fit(luma(image)?),
    }
}

/// `[N, 1, H, W]` of RGB pictures, with the weights that torchvision rounds ITU-R 601 to.
fn luma(image: &Tensor) -> Result<Tensor> {
    let [r, g, b] = channels(image)?;
    Ok(r.f_mul_scalar(0.2989)?.f_add_(&g.f_mul_scalar(0.587)?)?.f_add_(&b.f_mul_scalar(0.114)?)?)
}

/// RGB pictures whose channels are their grey.
pub(super) fn desaturated(image: &Tensor) -> Result<Tensor> {
    Ok(luma(image)?.f_expand_as(image)?)
}

fn channels(image: &Tensor) -> Result<[Tensor; 3]> {
    Ok([image.f_narrow(1, 0, 1)?, image.f_narrow(1, 1, 1)?, image.f_narrow(1, 2, 1)?])
}

/// A turn of the hue in HSV, by fractions of the full circle; grey pictures stay.
fn hue(image: &Tensor, turns: &[f64]) -> Result<Tensor> {
    if image.size()[1] == 1 {
        return Ok(image.shallow_clone());
    }
    let [r, g, b] = channels(image)?;
    let value = image.f_amax([1].as_slice(), true)?;
    let chroma = value.f_sub(&image.f_amin([1].as_slice(), true)?)?;
    // The hue in sixths of the circle: 0 red, 2 green, 4 blue, where the highest channel is. Grey pixels have none, and none is needed.
    let (red, green) = (value.f_eq_tensor(&r)?, value.f_eq_tensor(&g)?);
    let start = Tensor::f_where_scalar(&green, 2.0, 4.0)?.f_masked_fill_(&red, 0.0)?;
    let beside = b.f_sub(&r)?.f_where_self(&green, &r.f_sub(&g)?)?;
    let beside = g.f_sub(&b)?.f_where_self(&red, &beside)?;
    let hue = beside.f_div(&chroma.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?.f_add_(&start)?;
    let hue = hue.f_add(&column(turns.iter().map(|turn| 6.0 * turn), image)?)?;
    // How far the hue is from red, green and blue, at most half the circle. Each channel is the value up to one sixth from its own
    // colour, and the value less the chroma from two sixths on.
    let mut away = hue.f_sub(&upload(&[0.0_f32, 2.0, 4.0], image.device())?.f_view([1, 3, 1, 1])?)?;
    let circles = away.f_div_scalar(6.0)?.f_round_()?.f_mul_scalar_(6.0)?;
    let less = away.f_sub_(&circles)?.f_abs_()?.f_sub_scalar_(1.0)?.f_clamp_(0.0, 1.0)?.f_mul_(&chroma)?;
    Levels::Unit.fit(value.f_sub(&less)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;
    use std::collections::BTreeMap;

    #[test]
    fn orders_and_factors_are_uniform() {
        let jitter = ColorJitter { brightness: 0.4, contrast: 0.5, saturation: 1.5, hue: 0.1, p: 1.0 };
        let n = 10_000;
        let (mut orders, mut factors) = (BTreeMap::new(), [const { Vec::new() }; 4]);
        for sample in 0..n {
            let plan = jitter.draw(&mut rng(5, 0, sample, "color_jitter"));
            let order = plan.map(|change| match change {
                Change::Brightness(_) => 0,
                Change::Contrast(_) => 1,
                Change::Saturation(_) => 2,
                Change::Hue(_) => 3,
                Change::None => panic!("all are on"),
            });
            *orders.entry(order).or_insert(0_i64) += 1;
            for (which, change) in order.into_iter().zip(plan) {
                factors[which].push(change.factor());
            }
        }
        // Each of 24 is expected 417 times, with a standard deviation of 20.
        assert!(orders.len() == 24 && orders.values().all(|count| (count - 417).abs() < 90), "{orders:?}");
        for (factors, (low, high)) in factors.iter_mut().zip([(0.6, 1.4), (0.5, 1.5), (0.0, 2.5), (-0.1, 0.1)]) {
            factors.sort_by(f64::total_cmp);
            let gap = |(k, x): (usize, &f64)| ((k as f64 + 0.5) / n as f64 - (x - low) / (high - low)).abs();
            // Kolmogorov and Smirnov: exceeded once in a thousand uniform samples.
            let largest = factors.iter().enumerate().map(gap).fold(0.0, f64::max);
            assert!(largest < 1.95 / (n as f64).sqrt(), "{low} to {high}: {largest}");
        }
    }

    #[test]
    fn what_is_off_moves_no_other_number() {
        let all = ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 1.0 };
        let less = ColorJitter { brightness: 0.0, saturation: 0.0, ..all.clone() };
        let (all, less) = [all, less].map(|jitter| jitter.draw(&mut rng(1, 2, 3, "color_jitter"))).into();
        for (a, b) in all.into_iter().zip(less) {
            let off = matches!(a, Change::Brightness(_) | Change::Saturation(_));
            assert_eq!(b, if off { Change::None } else { a });
        }
    }

    #[test]
    fn large_pictures_do_not_depend_on_their_batch_either() {
        let image = Tensor::rand([3, 3, 200, 224], (tch::Kind::Float, tch::Device::Cpu));
        let plans = [Change::Contrast(0.7), Change::Hue(0.2), Change::Contrast(1.4)]
            .map(|change| [change, Change::Saturation(1.3), Change::None, Change::None]);
        let together = jitter(&image, &plans).unwrap();
        for place in 0..3 {
            let alone = jitter(&image.narrow(0, place, 1), &plans[place as usize..=place as usize]).unwrap();
            assert_eq!(alone, together.narrow(0, place, 1));
        }
    }
}
