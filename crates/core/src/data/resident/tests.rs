//! Orders, shares, views and pairs of sets that lie on the device.

use super::*;
use crate::Error;
use crate::data::{Affine, ColorJitter, Crop, CutMix, Cutout, Fill, Flip, Mixup, RandAugment, RandomErasing};
use crate::data::{Counted, Mix, Pair, Pass, Pictures, Views};
use crate::random::order;
use proptest::prelude::*;
use tch::{Device, Kind};

const BATCH: u64 = 8;

/// 29 pictures of 5×6 whose pixels tell them apart, so 3 steps of 8 in an epoch.
fn source(augment: Vec<Augment>) -> Resident {
    let set = |n: usize| {
        let pixels: Vec<u8> = (0..n * 30).map(|i| (i * 89 % 251) as u8).collect();
        let labels: Vec<u8> = (0..n).map(|i| i as u8).collect();
        let names: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        ImageSet::new(&pixels, [1, 5, 6], &labels, &names).unwrap()
    };
    Resident::new(Splits { train: set(29), validation: None, test: set(3) }, augment, None).unwrap()
}

/// Those that act on each picture by itself, and after them those that mix pairs.
fn all_augmentations() -> Vec<Augment> {
    let mut list = single_augmentations();
    list.extend([Augment::Mixup(Mixup { alpha: 0.5, p: None }), Augment::CutMix(CutMix { alpha: 1.0, p: None })]);
    list
}

fn single_augmentations() -> Vec<Augment> {
    vec![
        Augment::ColorJitter(ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 1.0 }),
        Augment::RandAugment(RandAugment { ops: 2, magnitude: 15, bins: 31, p: 1.0 }),
        Augment::Affine(Affine { rotate: 20.0, scale: 0.2, squeeze: 0.1, shear: 10.0, shift: 1.0, p: 1.0 }),
        Augment::Crop(Crop { pad: 1, fill: Fill::Zero, size: None }),
        Augment::Flip(Flip { p: 0.5 }),
        Augment::Cutout(Cutout { size: 2, p: 1.0 }),
        Augment::RandomErasing(RandomErasing { scale: [0.1, 0.5], ratio: [0.5, 2.0], p: 0.5 }),
    ]
}

fn cursor(seed: u64, step: u64) -> Cursor {
    Cursor { seed, step, rank: 0, world: 1, batch: BATCH, pass: Pass::DropRest, repeats: 1 }
}

fn take(source: &Resident, from: Cursor, steps: usize) -> Vec<Images> {
    source.batches(from).take(steps).collect::<Result<_>>().unwrap()
}

fn labels(batches: &[Images]) -> Vec<i64> {
    batches.iter().flat_map(|images| Vec::<i64>::try_from(&images.label).unwrap()).collect()
}

#[test]
fn an_epoch_is_the_order_without_its_rest() {
    let source = source(vec![]);
    let seen = labels(&take(&source, cursor(3, 0), 6));
    assert_eq!(seen[..24], order(3, 0, 29)[..24]);
    assert_eq!(seen[24..], order(3, 1, 29)[..24]);
    assert_ne!(seen[..24], seen[24..]);
    assert_eq!(cursor(3, 0).steps_per_epoch(29), 3);
}

#[test]
fn pictures_stay_with_their_labels() {
    let source = source(vec![]);
    for images in take(&source, cursor(3, 1), 2) {
        assert_eq!(images.image, source.set.select(&images.label).image);
    }
}

#[test]
fn seeds_differ() {
    let source = source(single_augmentations());
    let (a, b) = (take(&source, cursor(1, 0), 3), take(&source, cursor(2, 0), 3));
    assert_ne!(labels(&a), labels(&b));
    // The same picture in another epoch or under another seed is distorted otherwise.
    let image = source.set.select(&Tensor::from_slice(&[4_i64])).image;
    let apply = |seed, epoch| {
        let images =
            Images { image: image.shallow_clone(), label: Tensor::zeros([1], (Kind::Int64, Device::Cpu)), mix: None };
        source.pipeline.view(&images, Draws { seed, step: 0, salt: "", samples: &[(epoch, 4)] }).unwrap().image
    };
    assert_eq!(apply(1, 0), apply(1, 0));
    assert_ne!(apply(1, 0), apply(2, 0));
    assert_ne!(apply(1, 0), apply(1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn ranks_together_are_the_single_process(seed: u64, step in 0_u64..40, doublings in 0_u32..3) {
        let world = 2_u64.pow(doublings);
        let source = source(all_augmentations());
        let whole = take(&source, cursor(seed, step), 4);
        let shares: Vec<Vec<Images>> =
            (0..world).map(|rank| take(&source, Cursor { rank, world, ..cursor(seed, step) }, 4)).collect();
        for (i, images) in whole.iter().enumerate() {
            let parts: Vec<&Tensor> = shares.iter().map(|share| &share[i].image).collect();
            prop_assert_eq!(&Tensor::cat(&parts, 0), &images.image);
            let parts: Vec<&Tensor> = shares.iter().map(|share| &share[i].label).collect();
            prop_assert_eq!(&Tensor::cat(&parts, 0), &images.label);
            let mixes: Vec<&Mix> = shares.iter().filter_map(|share| share[i].mix.as_ref()).collect();
            let parts: Vec<&Tensor> = mixes.iter().map(|mix| &mix.label).collect();
            let whole = images.mix.as_ref().unwrap();
            prop_assert_eq!(&Tensor::cat(&parts, 0), &whole.label);
            prop_assert!(mixes.iter().all(|mix| mix.share == whole.share));
        }
    }

    #[test]
    fn starting_later_is_skipping(seed: u64, step in 0_u64..10) {
        let source = source(all_augmentations());
        let all = take(&source, cursor(seed, 0), step as usize + 4);
        let late = take(&source, cursor(seed, step), 4);
        for (a, b) in all[step as usize..].iter().zip(&late) {
            prop_assert_eq!(&a.image, &b.image);
            prop_assert_eq!(&a.label, &b.label);
        }
    }
}

#[test]
fn batches_that_do_not_fit_are_refused_once() {
    let source = source(vec![]);
    for (batch, rank, world, word) in [
        (0, 0, 1, "batch_size is 0"),
        (30, 0, 1, "larger than the training set of 29"),
        (9, 0, 2, "multiple of 2"),
        (8, 2, 2, "process 2 of 2"),
    ] {
        let mut batches =
            source.batches(Cursor { seed: 1, step: 0, rank, world, batch, pass: Pass::DropRest, repeats: 1 });
        match batches.next() {
            Some(Err(Error::User(text))) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        }
        assert!(batches.next().is_none());
    }
}

#[test]
fn the_hash_covers_both_splits() {
    let base = source(vec![]);
    let mut fewer = source(vec![]);
    fewer.test = fewer.test.limit(2, false).unwrap();
    assert_eq!(base.sha256(), source(all_augmentations()).sha256());
    assert_ne!(base.sha256(), fewer.sha256());
}

#[test]
fn copies_are_seen_otherwise_each_time() {
    let source = source(single_augmentations());
    let seen = &take(&source, Cursor { batch: 6, repeats: 3, ..cursor(3, 0) }, 1)[0];
    let first = order(3, 0, 29);
    let [a, b] = [first[0], first[1]];
    assert_eq!(labels(std::slice::from_ref(seen)), [a, b, a, b, a, b]);
    for (one, other) in [(0, 2), (0, 4), (2, 4), (1, 3), (1, 5), (3, 5)] {
        assert_ne!(seen.image.get(one), seen.image.get(other));
    }
    // The first copy is the picture as an epoch without repeats sees it.
    let once = &take(&source, Cursor { batch: 2, ..cursor(3, 0) }, 1)[0];
    assert_eq!(seen.image.narrow(0, 0, 2), once.image);
}

#[test]
fn an_endless_pass_goes_round() {
    let source = source(vec![]);
    // 40 places a step over 29 pictures: epochs begin within steps, and a step sees a picture twice.
    let cursor = |step| Cursor { batch: 40, pass: Pass::Endless, ..cursor(3, step) };
    let expected: Vec<i64> = (0..7).flat_map(|epoch| order(3, epoch, 29)).collect();
    assert_eq!(labels(&take(&source, cursor(0), 5)), expected[..200]);
    assert_eq!(labels(&take(&source, cursor(2), 2)), expected[80..160]);
    // The same picture in another epoch is another view.
    let flips = self::source(single_augmentations());
    let step = &take(&flips, cursor(0), 1)[0];
    let seen: Vec<i64> = Vec::try_from(&step.label).unwrap();
    let again = seen[..29].iter().position(|label| *label == seen[29]).unwrap();
    assert_ne!(step.image.get(29), step.image.get(again as i64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn repeats_are_exact_from_any_step_and_over_ranks(seed: u64, step in 0_u64..10, repeats in 2_u64..5) {
        let source = source(all_augmentations());
        let at = |step| Cursor { repeats, ..cursor(seed, step) };
        let all = take(&source, at(0), step as usize + 3);
        let late = take(&source, at(step), 3);
        let halves = [0, 1].map(|rank| take(&source, Cursor { rank, world: 2, ..at(step) }, 3));
        for (i, whole) in all[step as usize..].iter().enumerate() {
            prop_assert_eq!(&late[i].image, &whole.image);
            prop_assert_eq!(&Tensor::cat(&[&halves[0][i].image, &halves[1][i].image], 0), &whole.image);
            prop_assert_eq!(&Tensor::cat(&[&halves[0][i].label, &halves[1][i].label], 0), &whole.label);
            let mix = whole.mix.as_ref().unwrap();
            prop_assert!(!bool::try_from(mix.label.eq_tensor(&whole.label).any()).unwrap(), "a picture is mixed with itself");
        }
    }

    #[test]
    fn a_pair_starts_anywhere_and_is_the_sum_of_its_ranks(seed: u64, step in 0_u64..20, ratio in 1_u64..7, second: bool) {
        let counted = if second { Counted::Second } else { Counted::First };
        let pair = Pair::new(source(single_augmentations()), source(all_augmentations()), ratio, counted).unwrap();
        let at = Cursor { batch: 4, ..cursor(seed, 0) };
        let from = |at: Cursor, n: usize| pair.batches(at).take(n).collect::<Result<Vec<_>>>().unwrap();
        let all = from(at, step as usize + 3);
        let late = from(Cursor { step, ..at }, 3);
        let halves = [0, 1].map(|rank| from(Cursor { step, rank, world: 2, ..at }, 3));
        for (i, (a, b)) in all[step as usize..].iter().enumerate() {
            prop_assert_eq!(b.label.size(), [4 * ratio as i64]);
            for (whole, of) in [(a, 0), (b, 1)] {
                let side = |pair: &(Images, Images)| if of == 0 { pair.0.shallow_clone() } else { pair.1.shallow_clone() };
                prop_assert_eq!(&side(&late[i]).image, &whole.image);
                let parts = [side(&halves[0][i]), side(&halves[1][i])];
                prop_assert_eq!(&Tensor::cat(&[&parts[0].image, &parts[1].image], 0), &whole.image);
                prop_assert_eq!(&Tensor::cat(&[&parts[0].label, &parts[1].label], 0), &whole.label);
            }
        }
        // The counted side is the source by itself; the other has another order.
        if !second {
            let alone = source(single_augmentations()).batches(at).take(3).collect::<Result<Vec<_>>>().unwrap();
            prop_assert!(alone.iter().zip(from(at, 3)).all(|(alone, (first, _))| alone.image == first.image));
        }
    }

    #[test]
    fn views_are_of_the_same_pictures(seed: u64, step in 0_u64..9) {
        let list = single_augmentations();
        let views = || Views::new(Pictures::Resident(source(list.clone())), &[("", &list), ("weak", &list), ("strong", &[])]).unwrap();
        let from = |at, n: usize| views().batches(at).take(n).collect::<Result<Vec<_>>>().unwrap();
        let (all, late) = (from(cursor(seed, 0), step as usize + 2), from(cursor(seed, step), 2));
        let halves = [0, 1].map(|rank| from(Cursor { rank, world: 2, ..cursor(seed, step) }, 2));
        // Without a salt: what the source itself hands out.
        let today = take(&source(list.clone()), cursor(seed, step), 2);
        for (i, whole) in all[step as usize..].iter().enumerate() {
            prop_assert_eq!(&whole[0].image, &today[i].image);
            prop_assert_ne!(&whole[0].image, &whole[1].image);
            for (view, images) in whole.iter().enumerate() {
                prop_assert_eq!(&images.label, &whole[0].label);
                prop_assert_eq!(&late[i][view].image, &images.image);
                prop_assert_eq!(&Tensor::cat(&[&halves[0][i][view].image, &halves[1][i][view].image], 0), &images.image);
            }
        }
    }
}

#[test]
fn steps_of_a_pair_are_counted_by_the_stated_one() {
    let pair = |counted| Pair::new(source(vec![]), source(vec![]), 3, counted).unwrap();
    let at = Cursor { batch: 2, ..cursor(1, 0) };
    assert_eq!(at.steps_per_epoch(pair(Counted::First).len()), 14);
    // 29 pictures by 6.
    let second = pair(Counted::Second);
    assert_eq!(at.steps_per_epoch(second.len()), 4);
    let seen: Vec<i64> = second.batches(at).take(4).flat_map(|both| labels(&[both.unwrap().1])).collect();
    assert_eq!(seen.len(), 24);
    assert_eq!(seen.iter().collect::<std::collections::BTreeSet<_>>().len(), 24, "an epoch sees none twice");
    assert!(Pair::new(source(vec![]), source(vec![]), 0, Counted::First).is_err());
    let same = Views::new(Pictures::Resident(source(vec![])), &[("a", &[]), ("a", &[])]);
    assert!(matches!(same, Err(Error::User(text)) if text.contains("two views are called `a`")));
}
