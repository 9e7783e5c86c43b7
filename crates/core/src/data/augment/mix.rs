//! Pictures blended of two.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::cutout::{Area, mask};
use super::pipeline::{Entry, salted};
use super::{Augment, Draws, demand};
use crate::data::{Images, Mix};
use crate::random::{below, beta, rng, uniform};
use crate::{Result, user};

/// mixup (arXiv:1710.09412): each picture becomes λ·itself + (1 − λ)·its partner, λ ~ Beta(`alpha`, `alpha`) once for each step; the
/// loss is mixed alike. Partners are neighbours in the shuffled order of the epoch, the first with the second, the third with the fourth,
/// and so on. In YAML: `{kind: mixup, alpha: 0.2}`.
///
/// Of several mixtures in the list each step takes one, or none: timm's `prob` P and `switch_prob` s are a `p` of P·(1 − s) here and of P·s
/// for [`CutMix`].
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Mixup {
    /// α, above 0: small ones give pairs that are almost one of the two, 1 gives all shares alike.
    pub alpha: f64,
    /// The share of the steps that are mixed so, above 0 and at most 1. `None`: what the others in the list leave, in even parts.
    pub p: Option<f64>,
}

/// CutMix (arXiv:1905.04899): a box of the partner's pixels, about 1 − λ of the picture, λ ~ Beta(`alpha`, `alpha`), and its centre
/// uniform, both once for each step; what counts in the loss is the area that is left of it within the picture. Partners as in
/// [`Mixup`]. In YAML: `{kind: cutmix, alpha: 1}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct CutMix {
    /// α, above 0, as in mixup.
    pub alpha: f64,
    /// The share of the steps that are mixed so, as in mixup.
    pub p: Option<f64>,
}

/// How the pictures of one step are mixed. It is drawn from the seed, the step and the view alone, so it is the same in all processes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plan {
    /// The share of each picture itself.
    Blend(f64),
    /// Where the partner shows.
    Paste(Area),
}

pub(super) fn check_alpha(key: &str, alpha: f64) -> Result<()> {
    demand(alpha > 0.0 && alpha.is_finite(), key, alpha, "a number above 0")
}

/// Refuses shares of the steps that are together more than all of them.
pub(super) fn check_shares(list: &[Augment]) -> Result<()> {
    let mixtures: Vec<&Augment> = list.iter().filter(|one| one.mixes()).collect();
    let given: Vec<f64> = mixtures.iter().filter_map(|one| one.share()).collect();
    let (sum, rest) = (given.iter().sum::<f64>(), mixtures.len() - given.len());
    if given.iter().any(|p| !(*p > 0.0 && *p <= 1.0)) || sum > 1.0 + 1e-9 {
        return Err(user!(
            "augment: the `p` of mixtures are shares of the steps, above 0 and together at most 1; here they are {given:?}"
        ));
    }
    if rest > 0 && sum > 1.0 - 1e-9 {
        return Err(user!(
            "augment: the `p` of mixtures leave no steps for the one without; give it one, or remove it"
        ));
    }
    Ok(())
}

/// The share of the steps that each of a list of mixtures takes.
fn shares(list: &[Entry]) -> Vec<f64> {
    let given: Vec<Option<f64>> = list.iter().map(|entry| entry.augment.share()).collect();
    let (sum, rest) = (given.iter().flatten().sum::<f64>(), given.iter().filter(|p| p.is_none()).count());
    given.into_iter().map(|p| p.unwrap_or((1.0 - sum) / rest as f64)).collect()
}

impl Mixup {
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Plan {
        Plan::Blend(beta(rng, self.alpha, self.alpha))
    }
}

impl CutMix {
    /// λ, then row and column of the centre.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng, [height, width]: [i64; 2]) -> Plan {
        let edge = (1.0 - beta(rng, self.alpha, self.alpha)).sqrt();
        let centre = [height, width].map(|size| below(rng, size as u64) as i64);
        // Half the box to each side of the centre, in whole pixels, as its authors' program has it.
        let size = [height, width].map(|size| (edge * size as f64) as i64 / 2 * 2);
        Plan::Paste(Area::around(centre, size, [height, width]))
    }
}

/// What one of a list of mixtures, or none, does to a batch.
pub(super) fn apply(list: &[Entry], images: Images, Draws { seed, step, salt, samples }: Draws) -> Result<Images> {
    let (_, _, h, w) = images.image.size4()?;
    let stream = |name: &str| rng(seed, step, 0, &salted(name, salt));
    let Some(first) = list.first() else { return Ok(images) };
    if samples.len() % 2 != 0 {
        return Err(user!(
            "augment: `{}` mixes pairs, but each process has {} pictures in a step; choose a batch_size that gives each an even number",
            first.augment.operation(),
            samples.len()
        ));
    }
    let mut left = uniform(&mut stream("mix"), 0.0, 1.0);
    let taken = list.iter().zip(shares(list)).find(|(_, share)| {
        left -= share;
        left < 0.0
    });
    match taken.map(|(entry, _)| (&entry.augment, &entry.stream)) {
        Some((Augment::Mixup(mixup), name)) => mix(images, mixup.draw(&mut stream(name))),
        Some((Augment::CutMix(cutmix), name)) => mix(images, cutmix.draw(&mut stream(name), [h, w])),
        _ => Ok(images),
    }
}

/// Each picture with its neighbour.
pub(super) fn mix(Images { image, label, .. }: Images, plan: Plan) -> Result<Images> {
    let (_, _, h, w) = image.size4()?;
    let other = partners(&image)?;
    let (image, share) = match plan {
        Plan::Blend(share) => (other.f_lerp(&image, share)?, share),
        Plan::Paste(area) => {
            let mask = mask(&[area], [h, w], image.device())?;
            (other.f_where_self(&mask, &image)?, 1.0 - area.pixels() as f64 / (h * w) as f64)
        }
    };
    let mix = Some(Mix { label: partners(&label)?, share });
    Ok(Images { image, label, mix })
}

/// At each place what stands at the other place of its pair: i at i XOR 1.
fn partners(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_unflatten(0, [x.size()[0] / 2, 2])?.f_flip([1])?.f_flatten(0, 1)?)
}

#[cfg(test)]
mod tests {
    use super::super::pipeline::entries;
    use super::*;
    use tch::{Device, Kind};

    fn images(n: i64) -> Images {
        Images {
            image: Tensor::arange(n * 2 * 4 * 6, (Kind::Float, Device::Cpu)).view([n, 2, 4, 6]),
            label: Tensor::arange(n, (Kind::Int64, Device::Cpu)) + 10,
            mix: None,
        }
    }

    fn labels(images: &Images) -> (Vec<i64>, Vec<i64>, f64) {
        let mix = images.mix.as_ref().unwrap();
        (Vec::try_from(&images.label).unwrap(), Vec::try_from(&mix.label).unwrap(), mix.share)
    }

    #[test]
    fn mixup_is_a_weighted_mean_of_neighbours() {
        let mixed = mix(images(4), Plan::Blend(0.3)).unwrap();
        assert_eq!(labels(&mixed), (vec![10, 11, 12, 13], vec![11, 10, 13, 12], 0.3));
        let at = |n: i64, k: i64| (48 * n + k) as f64;
        for (n, k) in (0..4).flat_map(|n| (0..48).map(move |k| (n, k))) {
            let expected = 0.3 * at(n, k) + 0.7 * at(n ^ 1, k);
            assert!((mixed.image.double_value(&[n, k / 24, k / 6 % 4, k % 6]) - expected).abs() < 1e-4);
        }
        assert_eq!(mix(images(4), Plan::Blend(1.0)).unwrap().image, images(4).image);
    }

    #[test]
    fn cutmix_pastes_a_box_and_counts_its_pixels() {
        let area = Area { rows: [1, 3], columns: [4, 6] };
        let mixed = mix(images(2), Plan::Paste(area)).unwrap();
        assert_eq!(labels(&mixed), (vec![10, 11], vec![11, 10], 1.0 - 4.0 / 24.0));
        for (n, c, row, column) in (0..96_i64).map(|i| (i / 48, i / 24 % 2, i / 6 % 4, i % 6)) {
            let from = if (1..3).contains(&row) && (4..6).contains(&column) { n ^ 1 } else { n };
            let expected = (48 * from + 24 * c + 6 * row + column) as f64;
            assert_eq!(mixed.image.double_value(&[n, c, row, column]), expected);
        }
    }

    #[test]
    fn shares_and_boxes_follow_beta() {
        let (mut shares, mut sides, mut centres) = (Vec::new(), Vec::new(), [0.0; 2]);
        for step in 0..10_000 {
            let Plan::Blend(share) = (Mixup { alpha: 1.0, p: None }).draw(&mut rng(5, step, 0, "mixup")) else {
                panic!("mixup blends")
            };
            shares.push(share);
            // In a picture so large that whole pixels do not matter.
            let Plan::Paste(area) =
                (CutMix { alpha: 1.0, p: None }).draw(&mut rng(5, step, 0, "cutmix"), [1 << 20, 1 << 20])
            else {
                panic!("cutmix pastes")
            };
            let Area { rows, columns } = area;
            // A box that no border cuts shows its whole edge √(1 − λ), λ uniform, and its centre.
            if rows[0] > 0 && rows[1] < 1 << 20 && columns[0] > 0 && columns[1] < 1 << 20 {
                assert_eq!(rows[1] - rows[0], columns[1] - columns[0]);
                sides.push((rows[1] - rows[0]) as f64 / f64::from(1 << 20));
                centres[0] += (rows[0] + rows[1]) as f64 / f64::from(1 << 21);
                centres[1] += (columns[0] + columns[1]) as f64 / f64::from(1 << 21);
            }
        }
        let gap = |mut values: Vec<f64>, cumulative: &dyn Fn(f64) -> f64| {
            values.sort_by(f64::total_cmp);
            let n = values.len() as f64;
            let gaps = values.iter().enumerate().map(|(k, x)| ((k as f64 + 0.5) / n - cumulative(*x)).abs());
            gaps.fold(0.0, f64::max) * n.sqrt()
        };
        // Kolmogorov and Smirnov: 1.95 is exceeded once in a thousand samples.
        assert!(gap(shares, &|x| x) < 1.95);
        // A side s has the density 2s, and lies inside with probability (1 − s)²: one box in six.
        let (inside, n) = (sides.len(), sides.len() as f64);
        assert!((n - 10_000.0 / 6.0).abs() < 150.0, "{inside}");
        assert!(gap(sides, &|s| 6.0 * s * s - 8.0 * s.powi(3) + 3.0 * s.powi(4)) < 1.95);
        // Standard deviation below 0.29 each.
        assert!(centres.iter().all(|sum| (sum / n - 0.5).abs() < 0.03), "{centres:?}");
    }

    #[test]
    fn with_both_each_step_takes_one() {
        let list = entries(vec![
            Augment::Mixup(Mixup { alpha: 1.0, p: None }),
            Augment::CutMix(CutMix { alpha: 1.0, p: None }),
        ]);
        let mut pasted = 0;
        for step in 0..400 {
            let draws = Draws { seed: 2, step, salt: "", samples: &[(0, 0), (0, 1)] };
            let image = apply(&list, images(2), draws).unwrap().image;
            // Of the first picture, 0 to 47, a box is whole numbers.
            pasted += i64::from(image.get(0).equal(&image.get(0).round()));
        }
        // Expected 200 with a standard deviation of 10.
        assert!((pasted - 200).abs() < 45, "{pasted}");
    }

    #[test]
    fn shares_of_the_steps_are_kept_and_the_rest_is_unmixed() {
        let mixup = |p| Augment::Mixup(Mixup { alpha: 1.0, p });
        let cutmix = |p| Augment::CutMix(CutMix { alpha: 1.0, p });
        for (list, shares) in [
            (vec![mixup(Some(0.2)), cutmix(Some(0.5))], [0.2, 0.5]),
            (vec![mixup(None), cutmix(Some(0.7))], [0.3, 0.7]),
            (vec![mixup(Some(0.4))], [0.4, 0.0]),
            (vec![cutmix(None)], [0.0, 1.0]),
        ] {
            check_shares(&list).unwrap();
            let list = entries(list);
            let mut counts = [0_i64; 2];
            for step in 0..2_000 {
                let draws = Draws { seed: 2, step, salt: "", samples: &[(0, 0), (0, 1)] };
                let mixed = apply(&list, images(2), draws).unwrap();
                match &mixed.mix {
                    None => assert_eq!(mixed.image, images(2).image),
                    // A box is whole numbers.
                    Some(_) => counts[usize::from(mixed.image.equal(&mixed.image.round()))] += 1,
                }
            }
            // Expected share · 2000 with a standard deviation of at most 22.4.
            for (count, share) in counts.into_iter().zip(shares) {
                let exact = share == 0.0 || share == 1.0;
                assert!((count as f64 - 2000.0 * share).abs() <= if exact { 0.0 } else { 90.0 }, "{counts:?}");
            }
        }
        for (list, words) in [
            (vec![mixup(Some(0.6)), cutmix(Some(0.5))], "together at most 1; here they are [0.6, 0.5]"),
            (vec![mixup(Some(0.0))], "above 0"),
            (vec![mixup(Some(1.0)), cutmix(None)], "no steps for the one without"),
        ] {
            match check_shares(&list) {
                Err(crate::Error::User(text)) => assert!(text.contains(words), "{text}"),
                other => panic!("{words}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_odd_share_is_refused_and_nothing_to_mix_changes_nothing() {
        let draws = Draws { seed: 2, step: 0, salt: "", samples: &[(0, 0), (0, 1), (0, 2)] };
        match apply(&entries(vec![Augment::Mixup(Mixup { alpha: 1.0, p: None })]), images(3), draws) {
            Err(crate::Error::User(text)) => assert!(text.contains("`mixup`") && text.contains("3 pictures"), "{text}"),
            other => panic!("{other:?}"),
        }
        let same = apply(&[], images(3), draws).unwrap();
        assert!(same.image == images(3).image && same.mix.is_none());
    }
}
