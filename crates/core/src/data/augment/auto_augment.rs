//! AutoAugment (arXiv:1805.09501): sub-policies that were searched for, with the operations of torchvision.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::always;
use super::colour::one_or_three;
use super::rand_augment::{Operation, Step, on_bytes, take};
use crate::Result;
use crate::random::{below, uniform};

/// Marks on the scale of magnitudes.
const BINS: u64 = 10;

/// torchvision's `AutoAugment`: for each picture one of the sub-policies, two operations one after the other, each with a probability and a
/// magnitude of its own; signs are drawn. Pixels are rounded to bytes first; places are read from the nearest pixel, zero (black) outside.
/// In YAML: `{kind: auto_augment, policy: cifar10}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct AutoAugment {
    /// The list of sub-policies.
    pub policy: Policy,
    /// The share of the pictures that are changed, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

/// A list of sub-policies.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The 25 of CIFAR-10 (Table 7 of the paper).
    Cifar10,
}

/// An operation, the probability that it is applied and its mark on the scale of magnitudes, 0 where it has none.
pub(super) type Part = (Operation, f64, u64);

use Operation::*;

/// torchvision's list, in its order.
pub(super) const CIFAR10: [[Part; 2]; 25] = [
    [(Invert, 0.1, 0), (Contrast, 0.2, 6)],
    [(Rotate, 0.7, 2), (TranslateX, 0.3, 9)],
    [(Sharpness, 0.8, 1), (Sharpness, 0.9, 3)],
    [(ShearY, 0.5, 8), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.5, 0), (Equalize, 0.9, 0)],
    [(ShearY, 0.2, 7), (Posterize, 0.3, 7)],
    [(Color, 0.4, 3), (Brightness, 0.6, 7)],
    [(Sharpness, 0.3, 9), (Brightness, 0.7, 9)],
    [(Equalize, 0.6, 0), (Equalize, 0.5, 0)],
    [(Contrast, 0.6, 7), (Sharpness, 0.6, 5)],
    [(Color, 0.7, 7), (TranslateX, 0.5, 8)],
    [(Equalize, 0.3, 0), (AutoContrast, 0.4, 0)],
    [(TranslateY, 0.4, 3), (Sharpness, 0.2, 6)],
    [(Brightness, 0.9, 6), (Color, 0.2, 8)],
    [(Solarize, 0.5, 2), (Invert, 0.0, 0)],
    [(Equalize, 0.2, 0), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.2, 0), (Equalize, 0.6, 0)],
    [(Color, 0.9, 9), (Equalize, 0.6, 0)],
    [(AutoContrast, 0.8, 0), (Solarize, 0.2, 8)],
    [(Brightness, 0.1, 3), (Color, 0.7, 0)],
    [(Solarize, 0.4, 5), (AutoContrast, 0.9, 0)],
    [(TranslateY, 0.9, 9), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.9, 0), (Solarize, 0.8, 3)],
    [(Equalize, 0.8, 0), (Invert, 0.1, 0)],
    [(TranslateY, 0.7, 9), (AutoContrast, 0.9, 0)],
];

/// What is done to one picture: each operation with its mark and sign.
pub(super) type Plan = [(Operation, u64, bool); 2];

impl AutoAugment {
    pub(super) fn check(&self, [channels, ..]: [i64; 3]) -> Result<()> {
        one_or_three("auto_augment", channels)
    }

    /// Always five draws: the sub-policy, then for each of its operations whether it is applied, and the sign.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Plan {
        let list = match self.policy {
            Policy::Cifar10 => &CIFAR10,
        };
        list[below(rng, list.len() as u64) as usize].map(|(operation, p, mark)| {
            let applied = uniform(rng, 0.0, 1.0) < p;
            (if applied { operation } else { Identity }, mark, below(rng, 2) == 1)
        })
    }
}

/// Each picture's operations, one after the other. `image` has values in [0, 1], the result k / 255.
pub(super) fn apply(image: &Tensor, plans: &[Plan]) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    on_bytes(image, |mut bytes| {
        for place in 0..2 {
            let step = |plan: &Plan| {
                let (operation, mark, negative) = plan[place];
                operation.step(mark, BINS, negative, [h, w])
            };
            bytes = take(&bytes, &plans.iter().map(step).collect::<Result<Vec<Step>>>()?)?;
        }
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;

    #[test]
    fn sub_policies_are_uniform_and_their_operations_have_their_probabilities() {
        let augment = AutoAugment { policy: Policy::Cifar10, p: 1.0 };
        let n = 50_000;
        let (mut applied, mut negative) = (std::collections::BTreeMap::new(), 0_i64);
        for sample in 0..n {
            for (place, (operation, mark, sign)) in
                augment.draw(&mut rng(5, 0, sample, "auto_augment")).into_iter().enumerate()
            {
                *applied.entry((place, operation as usize, mark)).or_insert(0_i64) += 1;
                negative += i64::from(sign);
            }
        }
        let mut expected = std::collections::BTreeMap::new();
        for sub in CIFAR10 {
            for (place, (operation, p, mark)) in sub.into_iter().enumerate() {
                *expected.entry((place, operation as usize, mark)).or_insert(0.0) += p * n as f64 / 25.0;
                *expected.entry((place, Identity as usize, mark)).or_insert(0.0) += (1.0 - p) * n as f64 / 25.0;
            }
        }
        for (key, expected) in expected {
            let found = applied.remove(&key).unwrap_or(0) as f64;
            // Binomial: four and a half standard deviations.
            let p = expected / n as f64;
            let most = 4.5 * (expected * (1.0 - p)).sqrt();
            assert!((found - expected).abs() <= most, "{key:?}: {found} of {expected}");
        }
        assert!(applied.is_empty(), "{applied:?}");
        // Expected 50,000 with a standard deviation of 158.
        assert!((negative - n as i64).abs() < 700, "{negative}");
    }
}
