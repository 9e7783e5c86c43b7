//! The list as a whole.

mod slow;
mod timm;
mod torchvision;

use super::*;
use crate::data::normalise::Normaliser;
use crate::data::{Images, Mix};
use crate::random::{below, rng};
use proptest::prelude::*;
use tch::Kind;

fn affine() -> Affine {
    Affine { rotate: 10.0, scale: 0.1, squeeze: 0.2, shear: 15.0, shift: 2.0, p: 1.0 }
}

fn resized_crop() -> RandomResizedCrop {
    RandomResizedCrop { scale: [0.2, 1.0], ratio: [0.75, 1.25], filter: Filter::Bicubic, size: None }
}

fn timm() -> RandAugmentTimm {
    RandAugmentTimm { ops: 2, magnitude: 9.0, std: 0.5, fill: [124, 116, 104], p: 1.0 }
}

fn erasing() -> RandomErasing {
    RandomErasing { scale: [0.02, 0.4], ratio: [0.3, 3.0], p: 0.5 }
}

/// That of [`all`].
fn of_kind(kind: &str) -> Augment {
    all().into_iter().find(|one| one.operation() == kind).unwrap()
}

/// One of each kind but `centre`.
fn all() -> Vec<Augment> {
    let half = [0.5; 3];
    vec![
        Augment::ColorJitter(ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 1.0 }),
        Augment::RandAugment(RandAugment { ops: 2, magnitude: 9, bins: 31, p: 1.0 }),
        Augment::RandAugmentTimm(timm()),
        Augment::AutoAugment(AutoAugment { policy: Policy::Cifar10, p: 1.0 }),
        Augment::PcaNoise(PcaNoise { std: 0.1, values: Some(half), vectors: Some([[0.6, 0.8, 0.0]; 3]) }),
        Augment::Grey(Grey { p: 0.5 }),
        Augment::Blur(Blur { kernel: 5, sigma: [0.1, 2.0], p: 0.5 }),
        Augment::RandomResizedCrop(resized_crop()),
        Augment::Affine(affine()),
        Augment::Crop(Crop { pad: 2, fill: Fill::Reflect, size: None }),
        Augment::Flip(Flip { p: 0.5 }),
        Augment::Cutout(Cutout { size: 4, p: 0.5 }),
        Augment::RandomErasing(erasing()),
        Augment::Mixup(Mixup { alpha: 0.2, p: None }),
        Augment::CutMix(CutMix { alpha: 1.0, p: None }),
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
  - {kind: rand_augment_timm, ops: 2, magnitude: 9, std: 0.5, fill: [124, 116, 104]}
  - {kind: auto_augment, policy: cifar10}
  - {kind: pca_noise, std: 0.1, values: [0.5, 0.5, 0.5], vectors: [[0.6, 0.8, 0], [0.6, 0.8, 0], [0.6, 0.8, 0]]}
  - {kind: grey, p: 0.5}
  - {kind: blur, kernel: 5, sigma: [0.1, 2], p: 0.5}
  - {kind: random_resized_crop, scale: [0.2, 1], ratio: [0.75, 1.25], filter: bicubic}
  - {kind: affine, rotate: 10, scale: 0.1, squeeze: 0.2, shear: 15, shift: 2}
  - {kind: crop, pad: 2, fill: reflect}
  - {kind: flip}
  - {kind: cutout, size: 4, p: 0.5}
  - {kind: random_erasing, scale: [0.02, 0.4], ratio: [0.3, 3], p: 0.5}
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
    for one in [
        Augment::RandAugment(RandAugment { ops: 2, magnitude: 9, bins: 31, p: 1.0 }),
        Augment::PcaNoise(PcaNoise { std: 0.1, values: None, vectors: None }),
        Augment::Grey(Grey { p: 1.0 }),
        Augment::Blur(Blur { kernel: 5, sigma: [0.1, 2.0], p: 1.0 }),
        Augment::Crop(Crop { pad: 2, fill: Fill::Zero, size: None }),
        Augment::Cutout(Cutout { size: 4, p: 1.0 }),
        Augment::RandomErasing(RandomErasing { p: 1.0, ..erasing() }),
    ] {
        let place = expected.iter().position(|other| other.operation() == one.operation()).unwrap();
        expected[place] = one;
    }
    let (from, to) = CONFIG.split_once(", values").unwrap();
    let short = format!("{from}}}{}", &to[to.find('\n').unwrap()..]);
    let short = [", bins: 31", ", fill: reflect", ", p: 0.5"].iter().fold(short, |text, key| text.replace(key, ""));
    assert_eq!(read(&short).unwrap(), expected);
    for (from, to, words) in [
        ("fill: reflect", "fill: mirror", "zero, reflect"),
        ("size: 4", "edge: 4", "augment[11].size: missing"),
        ("[[0.6, 0.8, 0], ", "[", "must be a list of 3 values"),
        ("hue: 0.1", "hues: 0.1", "did you mean hue?"),
        ("policy: cifar10", "policy: imagenet", "cifar10"),
        ("fill: [124,", "fill: [256,", "augment[2].fill"),
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

    let centre = || Augment::Centre(Centre {});
    refused_in([3, 28, 28], &[centre(), Augment::Flip(Flip { p: 0.5 }), centre()], "`centre` stands twice");
    for colour in ["color_jitter", "rand_augment", "rand_augment_timm", "auto_augment", "pca_noise", "grey", "blur"] {
        let words = format!("`{colour}` changes colours in [0, 1]");
        refused_in([3, 28, 28], &[centre(), of_kind(colour)], &words);
        let words = format!("`{colour}` stands after `random_erasing`");
        refused_in([3, 28, 28], &[of_kind("random_erasing"), of_kind(colour)], &words);
    }
    refused_in([3, 28, 28], &[of_kind("random_erasing"), centre()], "`centre` stands after `random_erasing`");
    for (mixture, one) in [("mixup", centre()), ("cutmix", of_kind("flip")), ("mixup", of_kind("color_jitter"))] {
        let words = format!("`{}` stands after `{mixture}`", one.operation());
        refused_in([3, 28, 28], &[of_kind(mixture), one], &words);
    }
    refused(Augment::Flip(Flip { p: 0.0 }), "`flip.p` is 0");
    refused(Augment::Grey(Grey { p: 1.5 }), "`grey.p` is 1.5; choose a number above 0 and at most 1");
    refused(Augment::Blur(Blur { kernel: 4, sigma: [0.1, 2.0], p: 1.0 }), "`blur.kernel` is 4; choose an odd number");
    refused(Augment::Blur(Blur { kernel: 57, sigma: [0.1, 2.0], p: 1.0 }), "`blur.kernel` is 57");
    refused(Augment::Blur(Blur { kernel: 5, sigma: [0.0, 2.0], p: 1.0 }), "`blur.sigma` is [0, 2]");
    let crop = |change: fn(&mut RandomResizedCrop)| {
        let mut crop = resized_crop();
        change(&mut crop);
        Augment::RandomResizedCrop(crop)
    };
    refused(crop(|crop| crop.scale = [0.5, 1.5]), "`random_resized_crop.scale` is [0.5, 1.5]");
    refused(crop(|crop| crop.ratio = [2.0, 1.0]), "`random_resized_crop.ratio` is [2, 1]");
    refused(crop(|crop| crop.size = Some(0)), "`random_resized_crop.size` is 0");
    for (kind, words) in [
        ("color_jitter", "not those of 2 channels"),
        ("rand_augment", "not those of 2 channels"),
        ("auto_augment", "not those of 2 channels"),
        ("rand_augment_timm", "is for RGB pictures"),
        ("pca_noise", "is for RGB pictures"),
        ("grey", "is for RGB pictures"),
    ] {
        refused_in([2, 28, 28], &[of_kind(kind)], words);
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
    refused(
        Augment::RandAugmentTimm(RandAugmentTimm { ops: 16, ..timm() }),
        "`rand_augment_timm.ops` is 16; choose a whole number from 1 to 15",
    );
    refused(
        Augment::RandAugmentTimm(RandAugmentTimm { magnitude: 10.5, ..timm() }),
        "`rand_augment_timm.magnitude` is 10.5; choose a number from 0 to 10",
    );
    refused(Augment::RandAugmentTimm(RandAugmentTimm { std: -0.5, ..timm() }), "`rand_augment_timm.std` is -0.5");
    let erasing = |scale, ratio, p| Augment::RandomErasing(RandomErasing { scale, ratio, p });
    refused(erasing([0.0, 0.3], [0.3, 3.3], 0.25), "`random_erasing.scale` is [0, 0.3]");
    refused(erasing([0.02, 0.3], [3.3, 0.3], 0.25), "`random_erasing.ratio` is [3.3, 0.3]");
    refused(erasing([0.02, 0.3], [0.3, 3.3], 1.5), "`random_erasing.p` is 1.5");
    refused(Augment::Mixup(Mixup { alpha: 0.0, p: None }), "`mixup.alpha` is 0; choose a number above 0");
    refused(Augment::CutMix(CutMix { alpha: f64::NAN, p: None }), "`cutmix.alpha` is NaN");
    refused(Augment::CutMix(CutMix { alpha: 1.0, p: Some(1.2) }), "shares of the steps");
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
        let alone: Vec<Augment> = all().into_iter().filter(|one| !one.mixes()).collect();
        let pipeline = Pipeline::new(alone, Normaliser::given(Tensor::from(0.5_f32).view([1, 1, 1, 1]), None), [3, 12, 14]).unwrap();
        let samples = [40, 41, 7, 0, 99, 3, 12, 5, 1_000].map(|sample| (epoch, sample));
        let whole = pipeline.view(&pictures(9), Draws { seed, step: 0, salt: "a", samples: &samples }).unwrap();
        let places = &order[..left];
        let index = Tensor::from_slice(places);
        let part = Images { image: pictures(9).image.index_select(0, &index), label: index.shallow_clone(), mix: None };
        let samples: Vec<(u64, i64)> = places.iter().map(|place| samples[*place as usize]).collect();
        let part = pipeline.view(&part, Draws { seed, step: 5, salt: "a", samples: &samples }).unwrap();
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
            let draws = Draws { seed, step: 0, salt: "", samples: &[(0, 5), (0, 8)] };
            let usual = pipeline.view(&pictures(2), draws).unwrap();
            let image = torch_ext::channels_last(&pictures(2).image).unwrap();
            let found = pipeline.view(&Images { image, ..pictures(2) }, draws).unwrap();
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
        let samples: Vec<(u64, i64)> = (0..8).map(|sample| (0, sample)).collect();
        let draws = |seed| Draws { seed, step: 0, salt: "", samples: &samples };
        let one = pipeline.view(&set(), draws(1)).unwrap();
        assert_ne!(one.image, set().image, "{augment:?}");
        assert_ne!(one.image, pipeline.view(&set(), draws(2)).unwrap().image, "{augment:?}");
        assert_eq!(one.image.size(), set().image.size());
        assert_eq!((one.image.kind(), one.mix.is_some()), (Kind::Float, augment.mixes()));
    }
}

#[test]
fn mixtures_come_after_everything_else() {
    let samples = [(2, 3), (2, 9), (2, 4), (2, 1)];
    let draws = Draws { seed: 3, step: 9, salt: "", samples: &samples };
    let run = |list: Vec<Augment>| {
        let mean = Normaliser::given(Tensor::from(0.5_f32).view([1, 1, 1, 1]), None);
        Pipeline::new(list, mean, [3, 12, 14]).unwrap().view(&pictures(4), draws).unwrap()
    };
    let mut list = all();
    list.retain(|one| !one.mixes());
    let before = run(list.clone());
    list.push(Augment::Mixup(Mixup { alpha: 1.0, p: None }));
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
    let samples = [(2, 7), (2, 0), (2, 31), (2, 5)];
    let draws = Draws { seed: 3, step: 9, salt: "", samples: &samples };
    let list = vec![Augment::Crop(Crop { pad: 2, fill: Fill::Zero, size: None }), Augment::Flip(Flip { p: 0.5 })];
    let found = Pipeline::new(list, Normaliser::none(), [3, 8, 8]).unwrap().view(&images(), draws).unwrap().image;
    let padded = images().image.constant_pad_nd([2; 4]);
    for (i, (_, sample)) in samples.into_iter().enumerate() {
        let stream = &mut rng(3, 2, sample as u64, "crop");
        let (row, column) = (below(stream, 5) as i64, below(stream, 5) as i64);
        let mut expected = padded.get(i as i64).narrow(1, row, 8).narrow(2, column, 8);
        if below(&mut rng(3, 2, sample as u64, "flip"), 2) == 1 {
            expected = expected.flip([2]);
        }
        assert_eq!(found.get(i as i64), expected);
    }
}

/// Half of what is seen is subtracted, so that black becomes -0.5 and the mean 0.
fn half() -> Normaliser {
    Normaliser::given(Tensor::from(0.5_f32).view([1, 1, 1, 1]), None)
}

fn seen(list: Vec<Augment>, draws: Draws) -> Tensor {
    Pipeline::new(list, half(), [3, 12, 14]).unwrap().view(&pictures(4), draws).unwrap().image
}

#[test]
fn a_list_acts_as_it_is_written() {
    let samples = [(2, 3), (2, 9), (0, 4), (2, 1)];
    let draws = Draws { seed: 3, step: 9, salt: "", samples: &samples };
    let (crop, flip) = (Crop { pad: 2, fill: Fill::Zero, size: None }, Flip { p: 0.5 });
    let (crop, flip, centre) = (Augment::Crop(crop), Augment::Flip(flip), Augment::Centre(Centre {}));
    let (grey, jitter) = (Augment::Grey(Grey { p: 0.5 }), all()[0].clone());
    // Where centring stands that nobody wrote: after the last colours.
    for (short, long) in [
        (vec![], vec![centre.clone()]),
        (vec![crop.clone(), flip.clone()], vec![centre.clone(), crop.clone(), flip.clone()]),
        (
            vec![jitter.clone(), grey.clone(), flip.clone()],
            vec![jitter.clone(), grey.clone(), centre.clone(), flip.clone()],
        ),
        (vec![crop.clone(), grey.clone(), flip.clone()], vec![crop.clone(), grey, centre.clone(), flip.clone()]),
    ] {
        assert_eq!(seen(short, draws), seen(long, draws));
    }
    // Black before it, the mean after it.
    let (black, mean) = (seen(vec![crop.clone(), centre.clone()], draws), seen(vec![centre, crop.clone()], draws));
    let outside = mean.eq(0.0).logical_and(&black.eq(-0.5));
    assert!(bool::try_from(outside.any()).unwrap());
    assert_eq!(black.masked_fill(&outside, 0.0), mean);
    // Twice is one after the other, with other draws.
    let twice = seen(vec![crop.clone(), crop.clone()], draws);
    let once = seen(vec![crop.clone()], draws);
    assert_ne!(twice, once);
    let streams: Vec<String> =
        pipeline::entries(vec![crop.clone(), flip, crop.clone(), crop]).into_iter().map(|entry| entry.stream).collect();
    assert_eq!(streams, ["crop", "flip", "crop#2", "crop#3"]);
}

#[test]
fn a_share_of_the_pictures_is_changed_and_views_differ() {
    let list = || vec![Augment::Grey(Grey { p: 0.3 })];
    let pipeline = Pipeline::new(list(), Normaliser::none(), [3, 1, 1]).unwrap();
    let n = 10_000;
    let image = Tensor::from_slice(&[0.9_f32, 0.1, 0.4]).view([1, 3, 1, 1]).expand([n, -1, -1, -1], false);
    let images = Images { image, label: Tensor::zeros([n], (Kind::Int64, Device::Cpu)), mix: None };
    let samples: Vec<(u64, i64)> = (0..n).map(|sample| (0, sample)).collect();
    let grey = |salt| {
        let found = pipeline.view(&images, Draws { seed: 5, step: 0, salt, samples: &samples }).unwrap().image;
        found.select(1, 0).eq_tensor(&found.select(1, 1)).view(-1)
    };
    let count = |which: &Tensor| i64::try_from(which.sum(Kind::Int64)).unwrap();
    let (plain, weak) = (grey(""), grey("weak"));
    // Expected 3000 with a standard deviation of 46, and 900 with one of 29 in both.
    assert!((count(&plain) - 3000).abs() < 190 && (count(&weak) - 3000).abs() < 190);
    assert!((count(&plain.logical_and(&weak)) - 900).abs() < 120);
    assert_eq!(plain, grey(""));
}

#[test]
fn centring_needs_something_to_centre_by() {
    match Pipeline::new(vec![Augment::Centre(Centre {})], Normaliser::none(), [1, 28, 28]) {
        Err(crate::Error::User(text)) => assert!(text.contains("`centre` has no numbers"), "{text}"),
        other => panic!("{other:?}"),
    }
    let mean = Normaliser::given(Tensor::zeros([1, 3, 8, 8], (Kind::Float, Device::Cpu)), None);
    let large = RandomResizedCrop { size: Some(9), ..resized_crop() };
    match Pipeline::new(vec![Augment::RandomResizedCrop(large), Augment::Centre(Centre {})], mean, [3, 8, 8]) {
        Err(crate::Error::User(text)) => assert!(text.contains("put `centre` before"), "{text}"),
        other => panic!("{other:?}"),
    }
}
