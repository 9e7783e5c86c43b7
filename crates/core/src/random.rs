//! Counter-based randomness: every draw of the data path is a pure function of (seed, epoch, sample, operation).
//!
//! So a draw depends neither on the batch that a sample falls into, nor on the number of processes, nor on where a run was cut.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The stream of one operation on one sample in one epoch.
///
/// The 32-byte ChaCha8 key is the four values themselves, 8 bytes each, little-endian, the operation's name as its 64-bit FNV-1a
/// hash: distinct values have distinct keys, nothing is mixed down to a smaller seed.
pub fn rng(seed: u64, epoch: u64, sample: u64, operation: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, value) in key.chunks_exact_mut(8).zip([seed, epoch, sample, fnv1a(operation)]) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The order in which `epoch` visits a set of `n` examples: a permutation of `0..n`.
pub fn order(seed: u64, epoch: u64, n: u64) -> Vec<i64> {
    permutation(&mut rng(seed, epoch, 0, "order"), n)
}

/// A uniform permutation of `0..n` (Fisher and Yates, from the last place down).
pub(crate) fn permutation(rng: &mut ChaCha8Rng, n: u64) -> Vec<i64> {
    let mut places: Vec<i64> = (0..n as i64).collect();
    for last in (1..places.len()).rev() {
        let other = below(rng, last as u64 + 1) as usize;
        places.swap(last, other);
    }
    places
}

/// The first `n` of `order` that have as many of each class, as far as that divides and the classes reach: the first of every class in
/// their order, then the second of every class, and so on. `label` is the class of an example.
pub(crate) fn balanced(order: &[i64], n: u64, label: impl Fn(i64) -> i64) -> Vec<i64> {
    let mut seen = std::collections::HashMap::new();
    let mut rounds: Vec<(u64, i64)> = order
        .iter()
        .map(|&place| {
            let count = seen.entry(label(place)).or_insert(0);
            *count += 1;
            (*count, place)
        })
        .collect();
    rounds.sort_by_key(|&(round, _)| round);
    rounds.truncate(n as usize);
    rounds.into_iter().map(|(_, place)| place).collect()
}

/// A uniform number in `[low, high)`, or `low` where both are equal: the upper 53 bits of the next 64, times 2⁻⁵³, scaled.
pub fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    let unit = (rng.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64);
    // The product may round up to `high` itself.
    (low + (high - low) * unit).min(high.next_down()).max(low)
}

/// The next 64 bits.
pub(crate) fn word(rng: &mut ChaCha8Rng) -> u64 {
    rng.next_u64()
}

/// A uniform integer in `0..n`: the upper 64 bits of the next 64 times `n`. The bias is below `n`·2⁻⁶⁴.
pub fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

/// A normal number of mean 0 and variance 1 (Box and Muller): √(−2 ln u)·cos 2πv with u in (0, 1] and v in [0, 1), the next two uniform
/// numbers. The sine that would give a second one is left, so that each number takes two draws.
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let u = 1.0 - uniform(rng, 0.0, 1.0);
    let v = uniform(rng, 0.0, 1.0);
    (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
}

/// A number of the distribution Beta(`a`, `b`), both above 0: x / (x + y) of two gamma numbers, x drawn first.
pub fn beta(rng: &mut ChaCha8Rng, a: f64, b: f64) -> f64 {
    let x = ln_gamma(rng, a);
    let y = ln_gamma(rng, b);
    1.0 / (1.0 + (y - x).exp())
}

/// The logarithm of a gamma number of scale 1 (Marsaglia and Tsang 2000, ACM TOMS 26:363): in logarithms, because for small shapes the
/// numbers themselves underflow.
///
/// Each trial draws a [`normal`] number x, and, if (1 + cx)³ is positive, a uniform one. A shape below 1 takes a number of shape + 1,
/// times u^(1/shape) with the next uniform u in (0, 1].
fn ln_gamma(rng: &mut ChaCha8Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let raised = ln_gamma(rng, shape + 1.0);
        return raised + (1.0 - uniform(rng, 0.0, 1.0)).ln() / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - uniform(rng, 0.0, 1.0)).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

/// 64-bit FNV-1a.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fnv1a_has_the_published_values() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }

    proptest! {
        /// As many of each class as the classes reach, the first of each, and smaller numbers are the start of larger ones.
        #[test]
        fn balanced_is_even_nested_and_in_order(labels in proptest::collection::vec(0_i64..4, 1..60), n in 0_u64..60) {
            let order: Vec<i64> = (0..labels.len() as i64).rev().collect();
            let label = |place: i64| labels[place as usize];
            let chosen = balanced(&order, n, label);
            prop_assert_eq!(chosen.len(), labels.len().min(n as usize));
            prop_assert!(balanced(&order, n + 1, label).starts_with(&chosen));
            for class in 0..4 {
                let of = |places: &[i64]| places.iter().copied().filter(|&place| label(place) == class).collect::<Vec<_>>();
                let (all, some) = (of(&order), of(&chosen));
                prop_assert!(all.starts_with(&some));
                // A class that has more than it gives gives no fewer than any other, but for one.
                let most = (0..4).map(|c| chosen.iter().filter(|&&p| label(p) == c).count()).max().unwrap_or(0);
                prop_assert!(some.len() == all.len() || some.len() + 1 >= most);
            }
        }
    }

    #[test]
    fn the_key_is_the_four_values() {
        // The first block of ChaCha8 under the all-zero key and nonce, as eSTREAM published it: 3e00ef2f895f40d6…
        let mut zero = ChaCha8Rng::from_seed([0; 32]);
        assert_eq!(zero.next_u64(), u64::from_le_bytes([0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6]));
        let mut key = [0; 32];
        key[0] = 1;
        key[8] = 2;
        key[16] = 3;
        key[24..].copy_from_slice(&0xaf63_dc4c_8601_ec8c_u64.to_le_bytes());
        assert_eq!(rng(1, 2, 3, "a"), ChaCha8Rng::from_seed(key));
    }

    /// These values may never change: every published result rests on them. An implementation of ChaCha8 in Python gave the same.
    #[test]
    fn the_streams_are_fixed() {
        let stream = &mut rng(1, 2, 3, "affine");
        assert_eq!([stream.next_u64(), stream.next_u64()], [0x4bcf_c6e3_a9af_4d05, 0x94a6_1706_347e_57ab]);
        assert_eq!(uniform(stream, -1.0, 3.0), -0.6394662541436871);
        assert_eq!(below(stream, 1_000_000), 217167);
        assert_eq!(order(1, 0, 10), [8, 6, 1, 4, 0, 3, 9, 2, 5, 7]);
        assert_eq!(order(1, 1, 10), [9, 3, 6, 1, 8, 4, 2, 0, 5, 7]);
    }

    /// The same formulas in Python, on the numbers of its own ChaCha8, gave these.
    #[test]
    fn normal_and_beta_numbers_are_fixed() {
        let stream = &mut rng(1, 2, 3, "normal");
        let found = [normal(stream), normal(stream), beta(stream, 1.0, 1.0), beta(stream, 0.2, 0.2)];
        let expected = [-1.0019011363212142, 0.45618962969210747, 0.5764189528361965, 0.9502265098946177];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{found:?}");
    }

    /// The largest gap between the distribution of `values` and `cumulative`, as a multiple of 1/√n (Kolmogorov and Smirnov).
    fn gap(mut values: Vec<f64>, cumulative: impl Fn(f64) -> f64) -> f64 {
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        let gaps = values.iter().enumerate().map(|(k, value)| ((k as f64 + 0.5) / n - cumulative(*value)).abs());
        gaps.fold(0.0, f64::max) * n.sqrt()
    }

    fn draws(operation: &str, draw: impl Fn(&mut ChaCha8Rng) -> f64) -> Vec<f64> {
        (0..10_000).map(|sample| draw(&mut rng(5, 0, sample, operation))).collect()
    }

    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64)
    }

    #[test]
    fn normal_numbers_are_normal() {
        let values = draws("normal", normal);
        let (mean, variance) = moments(&values);
        // Standard errors 0.01 and 0.014; of the fourth moment, 3, √96 / 100.
        assert!(mean.abs() < 0.04 && (variance - 1.0).abs() < 0.056, "{mean} {variance}");
        let fourth = values.iter().map(|x| x.powi(4)).sum::<f64>() / 1e4;
        assert!((fourth - 3.0).abs() < 0.4, "{fourth}");
        // By Simpson's rule from 0; 1.95 is exceeded once in a thousand samples.
        let cumulative = |x: f64| {
            let density = |k: i32| (-0.5 * (x * f64::from(k) / 64.0).powi(2)).exp() / TAU.sqrt();
            let sum: f64 = (0..64).step_by(2).map(|k| density(k) + 4.0 * density(k + 1) + density(k + 2)).sum();
            0.5 + x / 64.0 * sum / 3.0
        };
        assert!(gap(values, cumulative) < 1.95);
    }

    #[test]
    fn beta_numbers_follow_beta() {
        for alpha in [0.2, 0.5, 1.0, 2.0] {
            let values = draws("beta", |rng| beta(rng, alpha, alpha));
            assert!(values.iter().all(|x| (0.0..=1.0).contains(x)));
            let (mean, variance) = moments(&values);
            let expected = 0.25 / (2.0 * alpha + 1.0);
            // Four standard errors of the mean; those of the variance are at most as large.
            let error = 4.0 * (expected / 1e4).sqrt();
            assert!((mean - 0.5).abs() < error && (variance - expected).abs() < error, "{alpha}: {mean} {variance}");
        }
        // Where the distribution has a closed form: arcsine, uniform, a cubic.
        let of = |a, b| draws("beta", move |rng| beta(rng, a, b));
        assert!(gap(of(0.5, 0.5), |x| x.sqrt().asin() / (TAU / 4.0)) < 1.95);
        assert!(gap(of(1.0, 1.0), |x| x) < 1.95);
        assert!(gap(of(2.0, 2.0), |x| x * x * (3.0 - 2.0 * x)) < 1.95);
        assert!(gap(of(3.0, 1.0), |x| x.powi(3)) < 1.95);
        // Shapes so small that gamma numbers underflow give 0 or 1, not NaN.
        assert!(draws("beta", |rng| beta(rng, 1e-4, 1e-4)).iter().all(|x| (0.0..=1.0).contains(x)));
    }

    #[test]
    fn every_value_changes_the_stream() {
        let first = |seed, epoch, sample, operation| rng(seed, epoch, sample, operation).next_u64();
        let base = first(1, 2, 3, "affine");
        for other in [
            first(0, 2, 3, "affine"),
            first(1, 0, 3, "affine"),
            first(1, 2, 0, "affine"),
            first(1, 2, 3, "crop"),
            first(2, 1, 3, "affine"),
        ] {
            assert_ne!(base, other);
        }
    }

    proptest! {
        #[test]
        fn an_order_is_a_permutation(seed: u64, epoch: u64, n in 0_u64..500) {
            let mut sorted = order(seed, epoch, n);
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..n as i64).collect::<Vec<_>>());
        }

        #[test]
        fn uniform_stays_in_its_range(seed: u64, low in -1e3_f64..1e3, width in 0.0_f64..1e3) {
            let x = uniform(&mut rng(seed, 0, 0, "x"), low, low + width);
            prop_assert!(x == low || (low..low + width).contains(&x));
        }

        #[test]
        fn below_stays_below(seed: u64, n in 1_u64..) {
            prop_assert!(below(&mut rng(seed, 0, 0, "x"), n) < n);
        }
    }

    #[test]
    fn all_orders_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..24_000 {
            *counts.entry(order(7, epoch, 4)).or_insert(0_i64) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Each of the 24 is expected 1000 times, with a standard deviation of 31.
        assert!(counts.values().all(|count| (count - 1000).abs() < 155), "{counts:?}");
    }
}
