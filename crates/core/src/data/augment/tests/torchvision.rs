//! Each operation beside torchvision's, on the pictures of scripts/fixtures/augment.py.

use std::path::Path;

use tch::{Kind, Tensor};

use crate::data::augment::blur::blur;
use crate::data::augment::colour::{Change, desaturated, jitter};
use crate::data::augment::rand_augment::{OPERATIONS, Operation, Step, take};
use crate::data::augment::resized_crop::{Filter, resize};
use crate::weights::Named;

fn fixture() -> Named {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/augment.safetensors");
    crate::weights::read(&path).unwrap().0
}

#[test]
fn the_operations_of_rand_augment_are_torchvisions_to_the_bit() {
    use Operation::*;
    let fixture = fixture();
    let pictures = fixture["picture"].to_kind(Kind::Float);
    for operation in OPERATIONS {
        let step = |magnitude, negative| operation.step(magnitude, 31, negative, [18, 20]).unwrap();
        let signed = |magnitudes: &[u64]| -> Vec<(i64, Step)> {
            magnitudes.iter().flat_map(|m| [(0, step(*m, false)), (0, step(*m, true))]).collect()
        };
        let both = |magnitudes: &[u64]| -> Vec<(i64, Step)> {
            magnitudes.iter().flat_map(|m| [(0, step(*m, false)), (1, step(*m, false))]).collect()
        };
        let cases = match operation {
            ShearX | ShearY | TranslateX | TranslateY | Rotate => signed(&[1, 9, 30]),
            Brightness | Color | Contrast | Sharpness => signed(&[9, 30]),
            Posterize | Solarize => both(&[1, 9, 30]),
            Identity | AutoContrast | Equalize | Invert => both(&[0]),
        };
        let (places, steps): (Vec<i64>, Vec<Step>) = cases.into_iter().unzip();
        let found = take(&pictures.index_select(0, &Tensor::from_slice(&places)), &steps).unwrap();
        let expected = fixture[&format!("rand.{operation:?}")].to_kind(Kind::Float);
        assert_eq!(found.size(), expected.size());
        let wrong = i64::try_from(found.ne_tensor(&expected).sum(Kind::Int64)).unwrap();
        assert_eq!(wrong, 0, "{operation:?}");
    }
}

#[test]
fn color_jitter_is_torchvisions() {
    let fixture = fixture();
    let image = &fixture["jitter.image"];
    let check = |name: &str, plans: &[[Change; 4]]| {
        let images = image.expand([plans.len() as i64, -1, -1, -1], false);
        let gap = (jitter(&images, plans).unwrap() - &fixture[&format!("jitter.{name}")]).abs().max().double_value(&[]);
        assert!(gap < 1e-5, "{name}: {gap}");
    };
    let alone = |change| [change, Change::None, Change::None, Change::None];
    check("brightness", &[0.6, 1.7].map(|x| alone(Change::Brightness(x))));
    check("contrast", &[0.3, 1.6].map(|x| alone(Change::Contrast(x))));
    check("saturation", &[0.0, 1.9].map(|x| alone(Change::Saturation(x))));
    check("hue", &[-0.5, -0.13, 0.31].map(|x| alone(Change::Hue(x))));
    let mixed = [Change::Brightness(1.3), Change::Contrast(0.7), Change::Saturation(1.6), Change::Hue(-0.2)];
    check("order", &[[3, 1, 0, 2], [2, 0, 3, 1]].map(|order| order.map(|place: usize| mixed[place])));
}

/// Both sides round sums of up to 49 products of numbers up to 1 in float32, each in an order of its own (a blur is two lines here, one square
/// there): 2⁻²⁴ for each of them on each side is the most that they can differ by.
fn close(found: &Tensor, expected: &Tensor, name: &str) {
    assert_eq!(found.size(), expected.size(), "{name}");
    let gap = (found - expected).abs().max().double_value(&[]);
    assert!(gap <= 2.0 * 49.0 / f64::from(1 << 24), "{name}: {gap}");
}

#[test]
fn parts_are_resized_as_torchvision_does_it() {
    let fixture = fixture();
    let parts = [[2, 1, 5, 4], [0, 0, 11, 9], [7, 3, 1, 6]];
    for (filter, name) in [(Filter::Bilinear, "bilinear"), (Filter::Bicubic, "bicubic")] {
        // Reduced, in between and enlarged.
        for edge in [4, 9, 16] {
            let found = resize(&fixture["crop.image"], &parts, [edge, edge], filter).unwrap();
            let name = format!("crop.{name}.{edge}");
            close(&found, &fixture[&name], &name);
        }
    }
}

#[test]
fn grey_and_blur_are_torchvisions() {
    let fixture = fixture();
    let image = &fixture["crop.image"];
    close(&desaturated(image).unwrap(), &fixture["grey"], "grey");
    for kernel in [3, 7] {
        close(&blur(image, kernel, &[0.1, 0.8, 2.0]).unwrap(), &fixture[&format!("blur.{kernel}")], "blur");
    }
}
