//! Each operation beside timm's, and AutoAugment's beside torchvision's, on the pictures of scripts/fixtures/augment_timm.py.

use std::path::Path;

use tch::{Kind, Tensor};

use crate::classifier::mixed_cross_entropy;
use crate::data::Images;
use crate::data::augment::auto_augment::{self, CIFAR10, Part};
use crate::data::augment::cutout::Area;
use crate::data::augment::mix::{Plan, mix};
use crate::data::augment::rand_augment_timm::{Drawn, OPERATIONS, Operation, take};
use crate::data::augment::random_erasing;
use crate::weights::Named;

fn fixture(name: &str) -> Named {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    crate::weights::read(&path).unwrap().0
}

fn wrong(found: &Tensor, expected: &Tensor) -> i64 {
    assert_eq!(found.size(), expected.size());
    i64::try_from(found.ne_tensor(&expected.to_kind(Kind::Float)).sum(Kind::Int64)).unwrap()
}

#[test]
fn the_operations_of_rand_augment_are_timms_to_the_bit() {
    use Operation::*;
    let (fixture, pictures) =
        (fixture("augment_timm.safetensors"), fixture("augment.safetensors")["picture"].to_kind(Kind::Float));
    for operation in OPERATIONS {
        let step = |magnitude, negative| Drawn { operation, applied: true, magnitude, negative }.step([18, 20]);
        let cases: Vec<_> = match operation {
            AutoContrast | Equalize | Invert => vec![(0, step(0.0, false)), (1, step(0.0, false))],
            Posterize | Solarize | SolarizeAdd => {
                [2.5, 9.0, 9.9].into_iter().flat_map(|m| [(0, step(m, false)), (1, step(m, false))]).collect()
            }
            _ => [2.5, 9.0, 9.9].into_iter().flat_map(|m| [(0, step(m, false)), (0, step(m, true))]).collect(),
        };
        let (places, steps): (Vec<i64>, Vec<_>) = cases.into_iter().unzip();
        let found = take(&pictures.index_select(0, &Tensor::from_slice(&places)), &steps, [124, 116, 104]).unwrap();
        assert_eq!(wrong(&found, &fixture[&format!("rand.{operation:?}")]), 0, "{operation:?}");
    }
}

#[test]
fn the_policy_and_what_it_does_are_torchvisions_to_the_bit() {
    let (fixture, pictures) =
        (fixture("augment_timm.safetensors"), fixture("augment.safetensors")["picture"].to_kind(Kind::Float));
    let numbers = |(operation, p, mark): Part| [operation as i64 as f64, p, mark as f64];
    let policy: Vec<f64> = CIFAR10.into_iter().flatten().flat_map(numbers).collect();
    assert_eq!(policy, Vec::<f64>::try_from(fixture["auto.policy"].flatten(0, -1)).unwrap());
    let plan = |sub: [Part; 2], negative| sub.map(|(operation, _, mark)| (operation, mark, negative));
    let plans: Vec<_> = CIFAR10.into_iter().flat_map(|sub| [plan(sub, false), plan(sub, true)]).collect();
    let found = auto_augment::apply(&(pictures.narrow(0, 0, 1) / 255.0).repeat([50, 1, 1, 1]), &plans).unwrap();
    assert_eq!(wrong(&(found * 255.0).round(), &fixture["auto.pictures"]), 0);
}

/// timm mixes the first picture of a batch with the last, and so on; here they are put beside each other.
#[test]
fn mixtures_and_their_loss_are_timms() {
    let fixture = fixture("augment_timm.safetensors");
    let beside = |name: &str| fixture[name].index_select(0, &Tensor::from_slice(&[0_i64, 3, 1, 2]));
    let pasted = Area::around([2, 14], [6, 8], [12, 16]);
    for (name, plan) in [("blend", Plan::Blend(0.3)), ("paste", Plan::Paste(pasted))] {
        let images = Images { image: beside("mix.image"), label: beside("mix.label"), mix: None };
        let mixed = mix(images, plan).unwrap();
        let gap = (&mixed.image - beside(&format!("mix.{name}"))).abs().max().double_value(&[]);
        // A product and a sum of numbers below 1, rounded on each side.
        assert!(gap < 2e-7, "{name}: {gap}");
        let loss = mixed_cross_entropy(&beside("mix.logits"), &mixed, 0.1).double_value(&[]);
        let expected = fixture[&format!("mix.{name}.loss")].double_value(&[]);
        assert!((loss - expected).abs() < 2e-6, "{name}: {loss} {expected}");
    }
}

#[test]
fn rectangles_have_timms_sizes() {
    let fixture = fixture("augment_timm.safetensors");
    let given = Vec::<f64>::try_from(fixture["erase.given"].flatten(0, -1)).unwrap();
    let sizes = Vec::<i64>::try_from(fixture["erase.size"].flatten(0, -1)).unwrap();
    let mut refused = 0;
    for (given, expected) in given.as_chunks::<4>().0.iter().zip(sizes.as_chunks::<2>().0) {
        let [height, width, share, ratio] = *given;
        let found = random_erasing::size(share, ratio, [height as i64, width as i64]);
        assert_eq!(found.unwrap_or_default(), *expected, "{given:?}");
        refused += i64::from(found.is_none());
    }
    assert!(sizes.len() == 150 && refused > 0, "{refused}");
}
