//! Batches are a function of seed, epoch and files.

use super::*;
use crate::data::{Cursor, Pass};

fn take(scenes: &Scenes, from: Cursor, steps: usize) -> Vec<SceneBatch> {
    scenes.batches(from).take(steps).collect::<Result<_>>().unwrap()
}

fn with(dir: &TempDir, workers: u64, view: &SceneView, augment: &[SceneAugment]) -> Scenes {
    let config = DataConfig { workers: Some(workers), ..data("voc", dir.path()) };
    open_as(config, Ids::Dense, (view, augment), |setup| setup).unwrap().0
}

#[test]
fn neither_threads_nor_a_cut_change_a_batch() {
    let dir = voc();
    let (mut view, augment) = chance();
    view.multi_scale = Some(MultiScale { every: 2, sizes: vec![24, 32, 40] });
    let whole = take(&with(&dir, 1, &view, &augment), cursor(0, 4), 8);
    let edges: Vec<i64> = whole.iter().map(|batch| batch.image.size()[3]).collect();
    assert!(edges.chunks(2).all(|pair| pair[0] == pair[1]) && edges.iter().any(|edge| *edge != edges[0]), "{edges:?}");
    for workers in [1, 3] {
        let scenes = with(&dir, workers, &view, &augment);
        for start in [0, 3, 6] {
            let part = take(&scenes, cursor(start as u64, 4), 2);
            assert!(part.iter().zip(&whole[start..]).all(|(a, b)| same(a, b)), "{workers} workers from {start}");
        }
        // Nor do processes: each has its half of every batch.
        for rank in 0..2 {
            let share = take(&scenes, Cursor { rank, world: 2, ..cursor(1, 4) }, 2);
            for (half, whole) in share.iter().zip(&whole[1..]) {
                let first = 2 * rank as i64;
                assert!(half.image.equal(&whole.image.narrow(0, first, 2)));
                let expected = whole.targets.part(first, 2);
                assert!(half.targets.boxes.equal(&expected.boxes) && half.targets.counts == expected.counts);
            }
        }
    }
    let other = take(&with(&dir, 2, &view, &augment), Cursor { seed: 4, ..cursor(0, 4) }, 1);
    assert!(!same(&other[0], &whole[0]));
}

#[test]
fn epochs_see_every_photo_and_draw_anew() {
    let dir = voc();
    let (view, augment) = chance();
    let scenes = with(&dir, 2, &view, &augment);
    let batches = take(&scenes, cursor(0, 4), 4);
    let seen = |batches: &[SceneBatch]| {
        let mut seen: Vec<u64> =
            batches.iter().flat_map(|batch| batch.photos.iter().map(|placed| placed.index)).collect();
        seen.sort_unstable();
        seen
    };
    assert_eq!(seen(&batches[..2]), (0..8).collect::<Vec<_>>());
    assert_eq!(seen(&batches[2..]), (0..8).collect::<Vec<_>>());
    // Where one photo is in two epochs its axes differ.
    let axes = |batches: &[SceneBatch], index| {
        batches.iter().flat_map(|batch| &batch.photos).find(|placed| placed.index == index).unwrap().axes
    };
    assert!((0..8).all(|index| axes(&batches[..2], index) != axes(&batches[2..], index)));
    // Round and round nothing is dropped.
    let endless = Cursor { pass: Pass::Endless, ..cursor(0, 5) };
    assert_eq!(seen(&take(&scenes, endless, 8)), (0..8).flat_map(|index| [index; 5]).collect::<Vec<_>>());
}

/// Sizes differ, so that batches are padded: at the right and at the bottom, with the mean.
#[test]
fn padding_is_told_and_is_zero() {
    let dir = voc();
    let view = SceneView { train: short_side(&[16, 20], None), test: short_side(&[16], Some(24)), multi_scale: None };
    let normalise = Normalise::Channels { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.3, 0.4] };
    let form = SceneForm { classes: Ids::Dense, stride: 8, view: &view, augment: &[], normalise: &normalise };
    let scenes = Scenes::open(&form, &setup(data("voc", dir.path()))).unwrap();
    let training = scenes.batches(cursor(0, 4)).take(4).collect::<Result<Vec<_>>>().unwrap();
    let still = scenes.in_order(Split::Train, 0..8, 3).collect::<Result<Vec<_>>>().unwrap();
    for batch in training.iter().chain(&still) {
        let SceneBatch { image, padding, photos, .. } = batch;
        let [n, 3, height, width] = image.size()[..] else { panic!("{:?}", image.size()) };
        assert_eq!(n as usize, photos.len());
        let largest = |axis: usize| photos.iter().map(|placed| i64::from(placed.valid[axis])).max().unwrap();
        assert_eq!([width, height], [0, 1].map(|axis| (largest(axis) as u64).next_multiple_of(8) as i64));
        let padding = padding.as_ref().unwrap();
        for (place, placed) in photos.iter().enumerate() {
            let [w, h] = placed.valid.map(i64::from);
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let beyond = padding.int64_value(&[place as i64, y, x]) == 1;
                assert_eq!(beyond, x >= w || y >= h);
                assert!(!beyond || (0..3).all(|c| image.double_value(&[place as i64, c, y, x]) == 0.0));
            }
        }
    }
    // A picture is the same whoever stands beside it, and one alone of fitting size has no padding.
    let alone = |index| scenes.in_order(Split::Train, index..index + 1, 1).next().unwrap().unwrap();
    for (index, placed) in still[0].photos.iter().enumerate() {
        let [w, h] = placed.valid.map(i64::from);
        let (beside, alone) = (still[0].image.get(index as i64), alone(index as u64).image.get(0));
        let own = |image: &Tensor| image.narrow(1, 0, h).narrow(2, 0, w);
        assert!(own(&beside).equal(&own(&alone)));
    }
    let fitting = SceneView { train: letterbox(32, 24), test: letterbox(32, 24), multi_scale: None };
    let form = SceneForm { view: &fitting, ..form };
    let scenes = Scenes::open(&form, &setup(data("voc", dir.path()))).unwrap();
    assert!(scenes.batches(cursor(0, 4)).next().unwrap().unwrap().padding.is_none());
}

/// Centred pixels of a picture that keeps its size are the file's.
#[test]
fn pixels_are_centred_by_channel() {
    let dir = voc();
    let scenes = open_as(
        data("voc", dir.path()),
        Ids::Dense,
        (&SceneView { test: short_side(&[38], None), ..plain() }, &[]),
        |s| s,
    )
    .unwrap()
    .0;
    // Photo 1 is 33 × 38, so that its short side 33 becomes 38; photo 4 is 42 × 32. Photo 0, 30 × 40, is looked at through `show`.
    let batch = scenes.in_order(Split::Train, 4..5, 1).next().unwrap().unwrap();
    assert_eq!(batch.photos[0].size, [42, 32]);
    let keeping = SceneView { test: short_side(&[32], None), ..plain() };
    let scenes = open_as(data("voc", dir.path()), Ids::Dense, (&keeping, &[]), |s| s).unwrap().0;
    let batch = scenes.in_order(Split::Train, 4..5, 1).next().unwrap().unwrap();
    let file = scenes.show(Split::Train, 4).unwrap();
    assert_eq!(file, photo(4, [42, 32]));
    for (x, y, pixel) in file.enumerate_pixels() {
        for (channel, (mean, std)) in [(0.5, 0.2), (0.4, 0.3), (0.3, 0.4)].into_iter().enumerate() {
            let expected = (f64::from(pixel[channel]) / 255.0 - mean) / std;
            let ours = batch.image.double_value(&[0, channel as i64, i64::from(y), i64::from(x)]);
            assert!((ours - expected).abs() < 1e-6, "{ours} {expected}");
        }
    }
}

#[test]
fn what_is_shown_is_what_is_trained_on() {
    let dir = voc();
    let (view, augment) = chance();
    let scenes = with(&dir, 2, &view, &augment);
    let shown = scenes.shown(cursor(0, 4), 6).unwrap();
    let batch = scenes.batches(cursor(0, 4)).next().unwrap().unwrap();
    assert_eq!(shown.len(), 6);
    for (place, (shown, (boxes, labels))) in shown.iter().zip(batch.targets.each()).enumerate() {
        let unit = scenes.normaliser().undo(&batch.image).unwrap().get(place as i64);
        for (x, y, pixel) in shown.image.enumerate_pixels() {
            let theirs = unit.double_value(&[1, i64::from(y), i64::from(x)]) * 255.0;
            assert!((f64::from(pixel[1]) - theirs).abs() < 1e-3);
        }
        assert_eq!(shown.truths.len() as i64, labels.size()[0]);
        for (at, truth) in shown.truths.iter().enumerate() {
            let centre = truth.rect[0] + truth.rect[2] / 2.0;
            assert!((centre - boxes.double_value(&[at as i64, 0]) * 32.0).abs() < 1e-4);
        }
    }
    let mean = scenes.mean_std().unwrap();
    assert!(mean.len() == 3 && mean.iter().all(|(mean, std)| (0.0..1.0).contains(mean) && *std > 0.0));
}
