//! The list as a whole.

mod slow;
mod torchvision;

use super::*;
use crate::data::Mix;
use crate::random::below;
use proptest::prelude::*;
use tch::Kind;

fn affine() -> Affine {
    Affine { rotate: 10.0, scale: 0.1, squeeze: 0.2, shear: 15.0, shift: 2.0, p: 1.0 }
}

/// One of each kind, in order.
fn all() -> Vec<Augment> {
    let half = [0.5; 3];
    vec![
        Augment::ColorJitter(ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 1.0 }),
        Augment::RandAugment(RandAugment { ops: 2, magnitude: 9, bins: 31, p: 1.0 }),
        Augment::PcaNoise(PcaNoise { std: 0.1, values: Some(half), vectors: Some([[0.6, 0.8, 0.0]; 3]) }),
        Augment::Affine(affine()),
        Augment::Crop(Crop { pad: 2, fill: Fill::Reflect, size: None }),
        Augment::Flip(Flip { p: 0.5 }),
        Augment::Cutout(Cutout { size: 4, p: 0.5 }),
        Augment::Mixup(Mixup { alpha: 0.2 }),
        Augment::CutMix(CutMix { alpha: 1.0 }),
    ]
}

/// What every configuration has, and a list with every key.
const CONFIG: &str = "
seed: 1
length: 1 epoch
batch_size: 8
data: {name: synthetic_colour}
compute: {device: auto, precision: f32}
log: {every: 1 step}
eval: {every: never}
checkpoint: {every: never, keep: 1}
augment:
  - {kind: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}
  - {kind: rand_augment, ops: 2, magnitude: 9, bins: 31}
  - {kind: pca_noise, std: 0.1, values: [0.5, 0.5, 0.5], vectors: [[0.6, 0.8, 0], [0.6, 0.8, 0], [0.6, 0.8, 0]]}
  - {kind: affine, rotate: 10, scale: 0.1, squeeze: 0.2, shear: 15, shift: 2}
  - {kind: crop, pad: 2, fill: reflect}
  - {kind: flip}
  - {kind: cutout, size: 4, p: 0.5}
  - {kind: mixup, alpha: 0.2}
  - {kind: cutmix, alpha: 1}
";

#[derive(Debug, Deserialize)]
struct Config {
    augment: Vec<Augment>,
}

fn read(config: &str) -> Result<Vec<Augment>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("row.yaml");
    std::fs::write(&file, config).unwrap();
    Ok(crate::config::load::<Config>(&file, &[])?.paper.augment)
}

#[test]
fn a_list_is_read_from_yaml() {
    assert_eq!(read(CONFIG).unwrap(), all());
    let mut expected = all();
    expected[1] = Augment::RandAugment(RandAugment { ops: 2, magnitude: 9, bins: 31, p: 1.0 });
    expected[2] = Augment::PcaNoise(PcaNoise { std: 0.1, values: None, vectors: None });
    expected[4] = Augment::Crop(Crop { pad: 2, fill: Fill::Zero, size: None });
    expected[6] = Augment::Cutout(Cutout { size: 4, p: 1.0 });
    let (from, to) = CONFIG.split_once(", values").unwrap();
    let short = format!("{from}}}{}", &to[to.find('\n').unwrap()..]);
    let short = [", bins: 31", ", fill: reflect", ", p: 0.5"].iter().fold(short, |text, key| text.replace(key, ""));
    assert_eq!(read(&short).unwrap(), expected);
    for (from, to, words) in [
        ("fill: reflect", "fill: mirror", "zero, reflect"),
        ("size: 4", "edge: 4", "augment[6].size: missing"),
        ("[[0.6, 0.8, 0], ", "[", "must be a list of 3 values"),
        ("hue: 0.1", "hues: 0.1", "did you mean hue?"),
    ] {
        match read(&CONFIG.replace(from, to)) {
            Err(crate::Error::User(text)) => assert!(text.contains(words), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_cannot_act_is_refused() {
    let refused_in = |shape, list: &[Augment], word: &str| match Augment::check_all(list, shape) {
        Err(crate::Error::User(text)) => assert!(text.contains(word), "{text}"),
        other => panic!("{word}: {other:?}"),
    };
    let refused = |one: Augment, word: &str| refused_in([3, 28, 32], &[one], word);
    Augment::check_all(&all(), [3, 28, 32]).unwrap();

    refused_in([1, 28, 28], &[Augment::Flip(Flip { p: 0.5 }), Augment::Flip(Flip { p: 0.5 })], "`flip` stands twice");
    let list = all();
    for (later, earlier) in [(3, 0), (4, 2), (6, 1), (7, 6), (8, 0)] {
        let words = format!("`{}` acts before `{}`", list[earlier].operation(), list[later].operation());
        refused_in([3, 28, 28], &[list[later].clone(), list[earlier].clone()], &words);
    }
    for (place, words) in [(0, "not those of 2 channels"), (1, "not those of 2 channels"), (2, "is for RGB pictures")] {
        refused_in([2, 28, 28], &list[place..=place], words);
    }

    refused(Augment::Affine(Affine { scale: 1.0, ..affine() }), "`affine.scale` is 1;");
    refused(Augment::Affine(Affine { shear: f64::NAN, ..affine() }), "`affine.shear` is NaN;");
    refused(Augment::Affine(Affine { shift: -1.0, ..affine() }), "`affine.shift` is -1;");
    refused(
        Augment::Crop(Crop { pad: 28, fill: Fill::Zero, size: None }),
        "`crop.pad` is 28; choose a number from 0 to below 28",
    );
    refused(Augment::Cutout(Cutout { size: 0, p: 1.0 }), "`cutout.size` is 0; choose a whole number from 1 to 64");
    refused(Augment::Cutout(Cutout { size: 65, p: 1.0 }), "`cutout.size` is 65");
    refused(Augment::Cutout(Cutout { size: 4, p: 0.0 }), "`cutout.p` is 0; choose a number above 0 and at most 1");

    let jitter = ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 1.0 };
    refused(
        Augment::ColorJitter(ColorJitter { brightness: -0.1, ..jitter.clone() }),
        "`color_jitter.brightness` is -0.1",
    );
    refused(Augment::ColorJitter(ColorJitter { contrast: f64::INFINITY, ..jitter.clone() }), "`color_jitter.contrast`");
    refused(Augment::ColorJitter(ColorJitter { saturation: f64::NAN, ..jitter.clone() }), "`color_jitter.saturation`");
    refused(
        Augment::ColorJitter(ColorJitter { hue: 0.6, ..jitter }),
        "`color_jitter.hue` is 0.6; choose a number from 0 to 0.5",
    );

    let rand = RandAugment { ops: 2, magnitude: 9, bins: 31, p: 1.0 };
    refused(
        Augment::RandAugment(RandAugment { ops: 0, ..rand.clone() }),
        "`rand_augment.ops` is 0; choose a whole number from 1 to 14",
    );
    refused(
        Augment::RandAugment(RandAugment { magnitude: 31, ..rand.clone() }),
        "`rand_augment.magnitude` is 31; choose a whole number from 0 to 30",
    );
    refused(Augment::RandAugment(RandAugment { bins: 1, ..rand }), "`rand_augment.bins` is 1");

    let noise = PcaNoise { std: 0.1, values: Some([0.2, 0.1, 0.0]), vectors: Some([[0.6, 0.0, 0.8]; 3]) };
    refused(Augment::PcaNoise(PcaNoise { std: -1.0, ..noise.clone() }), "`pca_noise.std` is -1");
    refused(Augment::PcaNoise(PcaNoise { values: None, ..noise.clone() }), "one of `values` and `vectors`");
    refused(
        Augment::PcaNoise(PcaNoise { values: Some([0.2, -0.1, 0.0]), ..noise.clone() }),
        "`pca_noise.values` is -0.1",
    );
    refused(
        Augment::PcaNoise(PcaNoise { vectors: Some([[1.0, 1.0, 0.0]; 3]), ..noise }),
        "`pca_noise.vectors` is [1.0, 1.0, 0.0]; choose rows of length 1",
    );
    refused(Augment::Mixup(Mixup { alpha: 0.0 }), "`mixup.alpha` is 0; choose a number above 0");
    refused(Augment::CutMix(CutMix { alpha: f64::NAN }), "`cutmix.alpha` is NaN");
}

#[test]
fn colour_statistics_that_nobody_gives_are_asked_for() {
    let list = vec![Augment::PcaNoise(PcaNoise { std: 0.1, values: None, vectors: None })];
    Augment::check_all(&list, [3, 8, 8]).unwrap();
    match Pipeline::new(list, Normaliser::none(), [3, 8, 8]) {
        Err(crate::Error::User(text)) => {
            assert!(text.contains("write `values:`") && text.contains("`vectors:`"), "{text}")
        }
        other => panic!("{other:?}"),
    }
}

/// `[n, 3, 12, 14]`, bytes over 255.
fn pictures(n: i64) -> Images {
    let values: Vec<f32> = (0..n * 3 * 12 * 14).map(|i| (i * i * 7 % 256) as f32 / 255.0).collect();
    let label = Tensor::arange(n, (Kind::Int64, Device::Cpu));
    Images { image: Tensor::from_slice(&values).view([n, 3, 12, 14]), label, mix: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn a_picture_does_not_depend_on_the_rest_of_its_batch(seed: u64, epoch: u64, order in Just((0..9_i64).collect::<Vec<_>>()).prop_shuffle(), left in 1..9_usize) {
        let alone: Vec<Augment> = all().into_iter().filter(|one| one.phase() < Phase::Mix).collect();
        let pipeline = Pipeline::new(alone, Normaliser::given(Tensor::from(0.5_f32).view([1, 1, 1, 1]), None), [3, 12, 14]).unwrap();
        let samples = [40, 41, 7, 0, 99, 3, 12, 5, 1_000];
        let whole = pipeline.apply(pictures(9), Draws { seed, epoch, step: 0, samples: &samples }).unwrap();
        let places = &order[..left];
        let index = Tensor::from_slice(places);
        let part = Images { image: pictures(9).image.index_select(0, &index), label: index.shallow_clone(), mix: None };
        let samples: Vec<i64> = places.iter().map(|place| samples[*place as usize]).collect();
        let part = pipeline.apply(part, Draws { seed, epoch, step: 5, samples: &samples }).unwrap();
        prop_assert_eq!(part.image, whole.image.index_select(0, &index));
        prop_assert_eq!(part.label, index);
    }
}

/// Photos come with the channels of a pixel side by side; few pictures at a time, so that all may draw the same operation.
#[test]
fn layout_in_memory_changes_nothing() {
    for augment in all() {
        let pipeline = Pipeline::new(vec![augment.clone()], Normaliser::none(), [3, 12, 14]).unwrap();
        for seed in 0..150 {
            let draws = Draws { seed, epoch: 0, step: 0, samples: &[5, 8] };
            let usual = pipeline.apply(pictures(2), draws).unwrap();
            let image = torch_ext::channels_last(&pictures(2).image).unwrap();
            let found = pipeline.apply(Images { image, ..pictures(2) }, draws).unwrap();
            let apart = (found.image - usual.image).abs().max().double_value(&[]);
            assert!(apart < 1e-6, "{augment:?}, seed {seed}: {apart}");
        }
    }
}

#[test]
fn every_kind_changes_pictures() {
    let set = || pictures(8);
    for augment in all() {
        let pipeline = Pipeline::new(vec![augment.clone()], Normaliser::none(), [3, 12, 14]).unwrap();
        let draws = |seed| Draws { seed, epoch: 0, step: 0, samples: &[0, 1, 2, 3, 4, 5, 6, 7] };
        let one = pipeline.apply(set(), draws(1)).unwrap();
        assert_ne!(one.image, set().image, "{augment:?}");
        assert_ne!(one.image, pipeline.apply(set(), draws(2)).unwrap().image, "{augment:?}");
        assert_eq!(one.image.size(), set().image.size());
        assert_eq!((one.image.kind(), one.mix.is_some()), (Kind::Float, augment.phase() == Phase::Mix));
    }
}

#[test]
fn mixtures_come_after_everything_else() {
    let samples = [3, 9, 4, 1];
    let draws = Draws { seed: 3, epoch: 2, step: 9, samples: &samples };
    let run = |list: Vec<Augment>| {
        let mean = Normaliser::given(Tensor::from(0.5_f32).view([1, 1, 1, 1]), None);
        Pipeline::new(list, mean, [3, 12, 14]).unwrap().apply(pictures(4), draws).unwrap()
    };
    let mut list = all();
    list.truncate(7);
    let before = run(list.clone());
    list.push(Augment::Mixup(Mixup { alpha: 1.0 }));
    let after = run(list);
    let Some(Mix { label, share }) = after.mix else { panic!("nothing is mixed") };
    assert_eq!(Vec::<i64>::try_from(label).unwrap(), [1, 0, 3, 2]);
    let partners = before.image.index_select(0, &Tensor::from_slice(&[1_i64, 0, 3, 2]));
    let expected = &before.image * share + partners * (1.0 - share);
    assert!((after.image - expected).abs().max().double_value(&[]) < 1e-6);
}

#[test]
fn a_crop_and_the_flip_after_it_are_one_after_the_other() {
    let images = || Images {
        image: Tensor::arange(4 * 3 * 8 * 8, (Kind::Float, Device::Cpu)).view([4, 3, 8, 8]) - 300.0,
        label: Tensor::zeros([4], (Kind::Int64, Device::Cpu)),
        mix: None,
    };
    let samples = [7, 0, 31, 5];
    let draws = Draws { seed: 3, epoch: 2, step: 9, samples: &samples };
    let list = vec![Augment::Crop(Crop { pad: 2, fill: Fill::Zero, size: None }), Augment::Flip(Flip { p: 0.5 })];
    let found = Pipeline::new(list, Normaliser::none(), [3, 8, 8]).unwrap().apply(images(), draws).unwrap().image;
    let padded = images().image.constant_pad_nd([2; 4]);
    for (i, sample) in samples.into_iter().enumerate() {
        let stream = &mut rng(3, 2, sample as u64, "crop");
        let (row, column) = (below(stream, 5) as i64, below(stream, 5) as i64);
        let mut expected = padded.get(i as i64).narrow(1, row, 8).narrow(2, column, 8);
        if below(&mut rng(3, 2, sample as u64, "flip"), 2) == 1 {
            expected = expected.flip([2]);
        }
        assert_eq!(found.get(i as i64), expected);
    }
}
