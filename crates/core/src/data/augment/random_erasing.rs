//! Rectangles of noise.

use std::sync::OnceLock;

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::cutout::{Area, mask};
use super::{always, demand, upload};
use crate::Result;
use crate::random::{below, uniform, word};

/// Rectangles that are tried before a picture is left as it is.
const TRIES: usize = 10;

/// Random erasing (arXiv:1708.04896) as timm 1.0.31 has it in its mode `pixel`: a rectangle of random area, shape and place within the picture
/// becomes noise N(0, 1), drawn for each pixel of each channel. It is that of centred pictures, so neither `centre` nor colours may stand after it.
/// In YAML: `{kind: random_erasing, scale: [0.02, 0.3333], ratio: [0.3, 3.3333], p: 0.25}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct RandomErasing {
    /// Smallest and largest share of the picture's area, in (0, 1].
    pub scale: [f64; 2],
    /// Smallest and largest height by width, above 0; the logarithm is uniform.
    pub ratio: [f64; 2],
    /// The share of the pictures that lose a rectangle, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

/// The rectangle of one picture, without pixels where none of the tries fits, and the key of its noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Erased {
    pub(super) area: Area,
    pub(super) key: u64,
}

impl RandomErasing {
    pub(super) fn check(&self) -> Result<()> {
        let told = |[low, high]: [f64; 2]| format!("[{low}, {high}]");
        let [low, high] = self.scale;
        let rule = "two shares of the area, 0 < low ≤ high ≤ 1";
        demand(0.0 < low && low <= high && high <= 1.0, "random_erasing.scale", told(self.scale), rule)?;
        let [low, high] = self.ratio;
        let rule = "height by width, 0 < low ≤ high";
        demand(0.0 < low && low <= high && high.is_finite(), "random_erasing.ratio", told(self.ratio), rule)
    }

    /// The key of the noise; then each try draws the share of the area and the logarithm of the ratio; one that fits, which is smaller than the
    /// picture both ways, then top and left.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng, [height, width]: [i64; 2]) -> Erased {
        let key = word(rng);
        for _ in 0..TRIES {
            let share = uniform(rng, self.scale[0], self.scale[1]);
            let shape = uniform(rng, self.ratio[0].ln(), self.ratio[1].ln()).exp();
            if let Some([high, wide]) = size(share, shape, [height, width]) {
                let top = below(rng, (height - high) as u64 + 1) as i64;
                let left = below(rng, (width - wide) as u64 + 1) as i64;
                return Erased { area: Area { rows: [top, top + high], columns: [left, left + wide] }, key };
            }
        }
        Erased { area: Area { rows: [0, 0], columns: [0, 0] }, key }
    }
}

/// Height and width of a rectangle of this share of the area and this height by width, if it is smaller than the picture both ways.
pub(super) fn size(share: f64, shape: f64, [height, width]: [i64; 2]) -> Option<[i64; 2]> {
    let area = share * (height * width) as f64;
    let [high, wide] = [area * shape, area / shape].map(|square| square.sqrt().round_ties_even() as i64);
    (high < height && wide < width).then_some([high, wide])
}

/// Noise in each picture's rectangle.
pub(super) fn erase(image: &Tensor, plans: &[Erased]) -> Result<Tensor> {
    let (_, c, h, w) = image.size4()?;
    let (areas, keys): (Vec<Area>, Vec<u64>) = plans.iter().map(|plan| (plan.area, plan.key)).unzip();
    let noise = noise(&keys, [c, h, w], image.device())?;
    Ok(noise.f_where_self(&mask(&areas, [h, w], image.device())?, image)?)
}

/// `[N, C, H, W]` of N(0, 1), float32: of each picture a function of its key and the place alone, so that it depends neither on the rest of
/// the batch nor on a generator's state, and is the same on all devices. One of 65,536 numbers, within ±4.4.
pub(super) fn noise(keys: &[u64], [c, h, w]: [i64; 3], device: Device) -> Result<Tensor> {
    let bits = logical_shift(&words(keys, c * h * w, device)?, 48)?;
    let numbers = upload(quantiles()?, device)?.f_index_select(0, &bits.f_view(-1)?)?;
    Ok(numbers.f_view([keys.len() as i64, c, h, w])?)
}

/// The middles, in probability, of 65,536 parts of N(0, 1) that are alike likely. They are made once.
fn quantiles() -> Result<&'static [f32]> {
    static MADE: OnceLock<Vec<f32>> = OnceLock::new();
    if let Some(made) = MADE.get() {
        return Ok(made);
    }
    let middles = Tensor::f_arange(1 << 16, (Kind::Double, Device::Cpu))?.f_add_scalar(0.5)?;
    let numbers = middles.f_div_scalar(f64::from(1 << 16))?.f_special_ndtri()?.f_to_kind(Kind::Float)?;
    let numbers = Vec::<f32>::try_from(numbers)?;
    Ok(MADE.get_or_init(|| numbers))
}

/// The first `count` numbers of SplitMix64 (Steele, Lea and Flood 2014) from each key: `[N, count]`, 64 bits each.
fn words(keys: &[u64], count: i64, device: Device) -> Result<Tensor> {
    let keys: Vec<i64> = keys.iter().map(|key| key.cast_signed()).collect();
    let places = Tensor::f_arange_start(1, count + 1, (Kind::Int64, device))?;
    let golden = places.f_mul_scalar(0x9e37_79b9_7f4a_7c15_u64.cast_signed())?;
    let mut z = upload(&keys, device)?.f_view([-1, 1])?.f_add(&golden)?;
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb)] {
        z = z.f_bitwise_xor_tensor(&logical_shift(&z, shift)?)?.f_mul_scalar(factor.cast_signed())?;
    }
    Ok(z.f_bitwise_xor_tensor(&logical_shift(&z, 31)?)?)
}

/// Zeros come in from above; libtorch's own shift of signed numbers repeats the sign.
fn logical_shift(x: &Tensor, bits: i64) -> Result<Tensor> {
    Ok(x.f_bitwise_right_shift_tensor_scalar(bits)?.f_bitwise_and((1_i64 << (64 - bits)) - 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;

    const TIMM: RandomErasing = RandomErasing { scale: [0.02, 1.0 / 3.0], ratio: [0.3, 1.0 / 0.3], p: 0.25 };

    #[test]
    fn rectangles_have_uniform_areas_shapes_and_places() {
        // So large that whole pixels do not matter; shares and shapes that always fit.
        let erasing = RandomErasing { scale: [0.02, 0.3], ratio: [0.4, 2.5], p: 1.0 };
        let edge = 1 << 20;
        let mut drawn = [const { Vec::new() }; 4];
        for sample in 0..10_000 {
            let Area { rows, columns } = erasing.draw(&mut rng(5, 0, sample, "random_erasing"), [edge, edge]).area;
            let [high, wide] = [rows, columns].map(|[from, to]| (to - from) as f64);
            let edge = edge as f64;
            drawn[0].push((high * wide / (edge * edge) - 0.02) / 0.28);
            drawn[1].push((high / wide).ln() / (2.0 * 2.5_f64.ln()) + 0.5);
            drawn[2].push(rows[0] as f64 / (edge - high));
            drawn[3].push(columns[0] as f64 / (edge - wide));
        }
        for (which, mut values) in drawn.into_iter().enumerate() {
            values.sort_by(f64::total_cmp);
            let gap = |(k, x): (usize, &f64)| ((k as f64 + 0.5) / 1e4 - x).abs();
            // Kolmogorov and Smirnov: exceeded once in a thousand uniform samples.
            let largest = values.iter().enumerate().map(gap).fold(0.0, f64::max);
            assert!(largest < 1.95 / 100.0, "{which}: {largest}");
        }
    }

    #[test]
    fn rectangles_lie_within_and_none_is_as_long_as_the_picture() {
        for sample in 0..2_000 {
            let Area { rows, columns } = TIMM.draw(&mut rng(5, 1, sample, "random_erasing"), [7, 12]).area;
            for ([from, to], edge) in [(rows, 7), (columns, 12)] {
                assert!(0 <= from && from <= to && to <= edge && to - from < edge, "{rows:?} {columns:?}");
            }
        }
        // Nothing fits: the picture stays.
        let whole = RandomErasing { scale: [1.0, 1.0], ratio: [1.0, 1.0], p: 1.0 };
        assert_eq!(whole.draw(&mut rng(1, 0, 0, "random_erasing"), [8, 8]).area.pixels(), 0);
    }

    #[test]
    fn noise_stands_in_the_rectangle_and_nothing_else_changes() {
        let image = Tensor::rand([2, 3, 6, 9], (Kind::Float, Device::Cpu));
        let area = Area { rows: [1, 4], columns: [5, 9] };
        let none = Area { rows: [0, 0], columns: [0, 0] };
        let plans = [Erased { area, key: 7 }, Erased { area: none, key: 8 }];
        let (found, noise) = (erase(&image, &plans).unwrap(), noise(&[7, 8], [3, 6, 9], Device::Cpu).unwrap());
        assert_eq!(found.get(1), image.get(1));
        for (c, row, column) in (0..162_i64).map(|i| (i / 54, i / 9 % 6, i % 9)) {
            let inside = (1..4).contains(&row) && (5..9).contains(&column);
            let at = [0, c, row, column];
            assert_eq!(found.double_value(&at), if inside { &noise } else { &image }.double_value(&at), "{at:?}");
        }
    }

    /// SplitMix64 in plain integers.
    fn split_mix(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn the_bits_are_split_mix() {
        // The first number from 0, as published with the generator.
        assert_eq!(split_mix(&mut 0), 0xe220_a839_7b1d_cdaf);
        let keys = [0, 1, u64::MAX, 0x0123_4567_89ab_cdef];
        let found = words(&keys, 50, Device::Cpu).unwrap();
        for (row, key) in keys.into_iter().enumerate() {
            let mut state = key;
            let expected: Vec<i64> = (0..50).map(|_| split_mix(&mut state).cast_signed()).collect();
            assert_eq!(Vec::<i64>::try_from(found.get(row as i64)).unwrap(), expected);
        }
    }

    #[test]
    fn the_noise_is_normal_and_unrelated() {
        let keys: Vec<u64> = (0..40).map(|sample| word(&mut rng(3, 0, sample, "random_erasing"))).collect();
        let noise = noise(&keys, [3, 20, 30], Device::Cpu).unwrap();
        let mut values = Vec::<f64>::try_from(noise.to_kind(Kind::Double).reshape([-1])).unwrap();
        let n = values.len() as f64;
        let moment = |k: i32| values.iter().map(|x| x.powi(k)).sum::<f64>() / n;
        // Standard deviations of the first four moments over √n: 1, √2, √15, √96; four of them.
        for (k, expected, deviation) in [(1, 0.0, 1.0), (2, 1.0, 2.0_f64), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            assert!((moment(k) - expected).abs() < 4.0 * (deviation / n).sqrt(), "moment {k}: {}", moment(k));
        }
        // Neighbours in the row, in the column, in the channels and among pictures.
        for dim in 0..4 {
            let size = noise.size()[dim as usize];
            let product = noise.narrow(dim, 0, size - 1) * noise.narrow(dim, 1, size - 1);
            let correlation = product.mean(Kind::Double).double_value(&[]);
            assert!(correlation.abs() < 4.0 / (product.numel() as f64).sqrt(), "{dim}: {correlation}");
        }
        values.sort_by(f64::total_cmp);
        let cumulative = Tensor::from_slice(&values).special_ndtr();
        let ranks = (Tensor::arange(n as i64, (Kind::Double, Device::Cpu)) + 0.5) / n;
        // Kolmogorov and Smirnov: exceeded once in a thousand samples.
        let largest = (cumulative - ranks).abs().max().double_value(&[]);
        assert!(largest < 1.95 / n.sqrt(), "{largest}");
    }
}
