//! Batches are a pure function of seed, epoch and files.

use super::*;
use crate::data::{Centre, Views};
use crate::random::order;

#[test]
fn a_folder_is_read_as_torchvision_reads_it() {
    let dir = folder();
    write(&dir.path().join("train/a/inner-most/x.jpeg"), 60);
    write(&dir.path().join("train/a/inner/y.jpeg"), 61);
    write(&dir.path().join("train/a/inner/deep/z.jpeg"), 62);
    let stream = open(data("folder", dir.path()), 2).unwrap();
    assert_eq!(stream.classes(), ["a", "b"]);
    assert_eq!(stream.class_counts(), [(14, 3), (8, 2)]);
    let told: Vec<String> = (0..22).map(|sample| stream.train.index.told(sample)).collect();
    assert_eq!(told[0], "train/a/00.JPEG");
    assert_eq!(told[10], "train/a/10.png");
    // Python sorts the folders' paths: '-' comes before '/'.
    let inner = ["train/a/inner/y.jpeg", "train/a/inner-most/x.jpeg", "train/a/inner/deep/z.jpeg"];
    assert_eq!(told[11..14], inner);
    assert_eq!(told[21], "train/b/inner/7.jpg");
}

#[test]
fn batches_are_the_order_cut_and_mirrored_by_its_draws() {
    let dir = folder();
    let stream = open(data("folder", dir.path()), 2).unwrap();
    // 19 pictures: 4 steps of 4 in an epoch.
    let batches = take(&stream, cursor(3, 4), 2);
    for (images, (epoch, start)) in batches.iter().zip([(0, 12), (1, 0)]) {
        let order = &order(3, epoch, 19)[start..start + 4];
        let expected: Vec<i64> = order.iter().map(|sample| i64::from(*sample >= 11)).collect();
        assert_eq!(labels(images), expected);
        assert_eq!(images.image.size(), [4, 3, EDGE, EDGE]);
        assert!(torch_ext::is_channels_last(&images.image).unwrap());
        for (row, sample) in order.iter().enumerate() {
            let mut square = vec![0; stream.train.square_bytes()];
            stream
                .train
                .read(*sample, Some(&drawn(epoch)), &mut Worker::default(), std::iter::once(&mut square[..]))
                .unwrap();
            let bytes = Tensor::from_data_size(&square, &[1, EDGE, EDGE, 3], Kind::Uint8).permute([0, 3, 1, 2]);
            let unit = bytes.to_kind(Kind::Float) / 255.0;
            // To the bit: the table holds the numbers that the operations make.
            assert!(stream.normaliser().apply(&unit).unwrap().equal(&images.image.narrow(0, row as i64, 1)));
        }
    }
}

#[test]
fn a_flip_in_the_threads_is_the_flip_of_the_pipeline() {
    let dir = folder();
    let flipped = open(data("folder", dir.path()), 2).unwrap();
    let cutout = Augment::Cutout(serde_json::from_str(r#"{"size": 4}"#).unwrap());
    let plain = open_with(data("folder", dir.path()), 2, &view(), &[]).unwrap();
    assert!(flipped.pipeline.early_flip().is_some());
    let together =
        open_with(data("folder", dir.path()), 2, &view(), &[Augment::Flip(Flip { p: 0.5 }), cutout]).unwrap();
    assert!(together.pipeline.early_flip().is_none());
    let pipeline = Pipeline::new(vec![Augment::Flip(Flip { p: 0.5 })], Normaliser::none(), [3, EDGE, EDGE]).unwrap();
    let (ours, plain) = (take(&flipped, cursor(0, 4), 4), take(&plain, cursor(0, 4), 4));
    let order = order(3, 0, 19);
    let mut mirrored = 0;
    for (step, (ours, plain)) in ours.iter().zip(plain).enumerate() {
        let samples: Vec<(u64, i64)> = order[4 * step..4 * step + 4].iter().map(|sample| (0, *sample)).collect();
        mirrored += i64::from(!ours.image.equal(&plain.image));
        let draws = crate::data::Draws { seed: 3, step: step as u64, salt: "", samples: &samples };
        assert!(pipeline.view(&plain, draws).unwrap().image.equal(&ours.image));
    }
    assert!(mirrored > 0);
}

#[test]
fn neither_threads_nor_processes_nor_a_restart_change_a_batch() {
    let dir = folder();
    let with = |workers| open(DataConfig { workers: Some(workers), ..data("folder", dir.path()) }, 2).unwrap();
    let one = take(&with(1), cursor(0, 6), 9);
    for workers in [2, 5] {
        assert!(same(&one, &take(&with(workers), cursor(0, 6), 9)), "{workers} workers");
    }
    let stream = with(2);
    for step in [1, 2, 3, 5] {
        let rest = take(&stream, cursor(step, 6), 9 - step as usize);
        assert!(same(&one[step as usize..], &rest), "from step {step}");
    }
    for world in [2, 3] {
        let share = |rank| take(&stream, Cursor { rank, world, ..cursor(0, 6) }, 9);
        let shares: Vec<Vec<Images>> = (0..world).map(share).collect();
        for (step, whole) in one.iter().enumerate() {
            let cat =
                |of: fn(&Images) -> &Tensor| Tensor::cat(&shares.iter().map(|s| of(&s[step])).collect::<Vec<_>>(), 0);
            assert!(cat(|i| &i.image).equal(&whole.image) && cat(|i| &i.label).equal(&whole.label));
        }
    }
    assert!(!same(&one[..1], &take(&stream, Cursor { seed: 4, ..cursor(0, 6) }, 1)));
}

#[test]
fn copies_are_cut_anew_and_depend_on_neither_threads_nor_a_restart() {
    let dir = folder();
    let with = |workers| open(DataConfig { workers: Some(workers), ..data("folder", dir.path()) }, 2).unwrap();
    let at = |step| Cursor { repeats: 3, ..cursor(step, 6) };
    let one = take(&with(1), at(0), 6);
    assert!(same(&one, &take(&with(3), at(0), 6)));
    assert!(same(&one[4..], &take(&with(2), at(4), 2)));
    let first = order(3, 0, 19);
    for (step, images) in one[..3].iter().enumerate() {
        let pair = [first[2 * step], first[2 * step + 1]].map(|sample| i64::from(sample >= 11));
        assert_eq!(labels(images), [pair; 3].concat());
        let copy = |place: i64| images.image.narrow(0, place, 1);
        assert!(!copy(0).equal(&copy(2)) && !copy(2).equal(&copy(4)) && !copy(0).equal(&copy(4)));
    }
    // The first copies are cut as without repeats.
    let once = take(&with(2), cursor(0, 2), 1);
    assert!(one[0].image.narrow(0, 0, 2).equal(&once[0].image));
}

#[test]
fn evaluation_keeps_order_and_rest() {
    let dir = folder();
    let stream = open(data("folder", dir.path()), 2).unwrap();
    let all: Vec<Images> =
        stream.in_order(Split::Test, 0..stream.split_len(Split::Test), 2).collect::<Result<_>>().unwrap();
    assert_eq!(all.iter().map(labels).collect::<Vec<_>>(), [vec![0, 0], vec![0, 1], vec![1]]);
    let shown = stream.show(Split::Test, &[3, 0]).unwrap();
    let told = |place: i64| stream.part(Split::Test).index.told(place);
    for (place, file) in [3, 0].into_iter().zip(stream.files(Split::Test, &[3, 0])) {
        assert!(!file.contains('/') && told(place).ends_with(&format!("/{file}")), "{file} of {}", told(place));
    }
    let centred = stream.normaliser().apply(&shown).unwrap();
    assert!(centred.get(0).equal(&all[1].image.get(1)) && centred.get(1).equal(&all[0].image.get(0)));
    // A whole picture at the test view, by libtorch's own resize of floats.
    let picture = picture(40);
    let bytes = Tensor::from_data_size(picture.as_raw(), &[1, 20, 29, 3], Kind::Uint8).permute([0, 3, 1, 2]);
    assert_eq!((picture.height(), picture.width()), (20, 29));
    let middle = bytes.narrow(2, 2, EDGE).narrow(3, 6, EDGE).to_kind(Kind::Float) / 255.0;
    assert!(mean_difference(&middle, &shown.narrow(0, 1, 1)) < 1e-6);
}

#[test]
fn limits_and_held_out_parts_are_those_of_resident_sets() {
    let dir = folder();
    let with = |change: fn(&mut DataConfig)| {
        let mut config = data("folder", dir.path());
        change(&mut config);
        open(config, 2)
    };
    let told = |index: &Index| (0..index.len() as i64).map(|sample| index.told(sample)).collect::<Vec<_>>();
    let all = told(&with(|_| {}).unwrap().train.index);
    let fixed: Vec<String> = fixed_order(19).iter().map(|place| all[*place as usize].clone()).collect();
    let limited = with(|data| data.limit_train = Some(7)).unwrap();
    assert_eq!(told(&limited.train.index), fixed[..7]);
    let held = with(|data| data.validation = Some(5)).unwrap();
    assert_eq!(told(&held.train.index), fixed[..14]);
    assert_eq!(told(&held.validation.as_ref().unwrap().index), fixed[14..]);
    assert!(held.has_validation() && !limited.has_validation());
    assert_ne!(limited.sha256(), held.sha256());
    for change in [
        (|data| data.limit_train = Some(20)) as fn(&mut DataConfig),
        |data| data.limit_test = Some(0),
        |data| data.validation = Some(19),
    ] {
        assert!(refusal(with(change)).contains("choose 1 to"));
    }
}

#[test]
fn a_set_with_val_and_test_has_a_validation_split() {
    let dir = folder();
    write(&dir.path().join("test/b/0.png"), 1);
    let stream = open(data("folder", dir.path()), 2).unwrap();
    assert_eq!(stream.class_counts(), [(11, 0), (8, 1)]);
    assert_eq!(
        stream
            .in_order(Split::Validation, 0..stream.split_len(Split::Validation), 9)
            .next()
            .unwrap()
            .unwrap()
            .label
            .size(),
        [5]
    );
    let text = refusal(open(DataConfig { validation: Some(2), ..data("folder", dir.path()) }, 2));
    assert!(text.contains("data.validation cannot act"), "{text}");
}

#[test]
fn moments_are_those_of_the_pixels() {
    let dir = folder();
    let stream = open(data("folder", dir.path()), 2).unwrap();
    let places: Vec<i64> = (0..19).collect();
    let reader =
        Reader { index: stream.train.index.clone(), view: Cutting::Test(view().test), edge: EDGE as u32, max_bad: 0 };
    let mut squares = vec![0; 19 * reader.square_bytes()];
    for (sample, square) in places.iter().zip(squares.chunks_exact_mut(reader.square_bytes())) {
        reader.read(*sample, None, &mut Worker::default(), std::iter::once(square)).unwrap();
    }
    let pixels = Tensor::from_slice(&squares).view([-1, 3]).to_kind(Kind::Double) / 255.0;
    let expected =
        (pixels.mean_dim([0_i64].as_slice(), false, Kind::Double), pixels.std_dim([0_i64].as_slice(), false, false));
    for (channel, (mean, std)) in stream.mean_std().unwrap().into_iter().enumerate() {
        let at = [channel as i64];
        assert!(
            (mean - expected.0.double_value(&at)).abs() < 1e-9 && (std - expected.1.double_value(&at)).abs() < 1e-9
        );
    }
}

/// However long it runs, no more buffers are made than tasks are out.
#[test]
fn buffers_are_used_again() {
    let dir = folder();
    let stream = open(data("folder", dir.path()), 2).unwrap();
    let order: Arc<[i64]> = (0..19).collect();
    let task =
        |_| Task { order: order.clone(), places: (3, 8), draws: Some(Drawn { seed: 1, ..drawn(0) }), last: true };
    let mut loader = Loader::start(&stream.train, 2, 5, Box::new((0..400).map(task))).unwrap();
    let mut count = 0;
    while let Some(done) = loader.next() {
        loader.recycle(done.unwrap().bytes);
        count += 1;
    }
    assert_eq!(count, 400);
    assert!(loader.buffers <= 5, "{}", loader.buffers);
}

#[test]
fn views_of_a_photo_are_cut_anew_from_the_same_pictures() {
    let dir = folder();
    let flip = [Augment::Flip(Flip { p: 0.5 })];
    let jitter: Augment = serde_json::from_str(
        r#"{"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}}"#,
    )
    .unwrap();
    let strong = [jitter, Augment::Centre(Centre {}), flip[0].clone()];
    let stream = || open(data("folder", dir.path()), 2).unwrap();
    let views = Views::new(Pictures::Stream(stream()), &[("", &flip), ("weak", &flip), ("strong", &strong)]).unwrap();
    for pass in [Pass::DropRest, Pass::Endless] {
        let at = |step| Cursor { pass, ..cursor(step, 6) };
        let from = |at, n: usize| views.batches(at).take(n).collect::<Result<Vec<_>>>().unwrap();
        let (all, late, plain) = (from(at(0), 8), from(at(5), 3), take(&stream(), at(0), 8));
        let halves = [0, 1].map(|rank| from(Cursor { rank, world: 2, ..at(0) }, 8));
        for (step, whole) in all.iter().enumerate() {
            assert!(whole[0].image.equal(&plain[step].image) && whole[0].label.equal(&plain[step].label));
            assert!(!whole[1].image.equal(&whole[0].image) && !whole[2].image.equal(&whole[1].image));
            assert!(step < 5 || same(whole, &late[step - 5]));
            for (view, images) in whole.iter().enumerate() {
                assert!(images.label.equal(&whole[0].label));
                let both = [&halves[0][step][view].image, &halves[1][step][view].image];
                assert!(Tensor::cat(&both, 0).equal(&images.image));
            }
        }
    }
    // 48 places over 19 pictures: two epochs and a half, in their orders.
    let orders: Vec<i64> = (0..3).flat_map(|epoch| order(3, epoch, 19)).map(|sample| i64::from(sample >= 11)).collect();
    let seen = take(&stream(), Cursor { pass: Pass::Endless, ..cursor(0, 24) }, 2);
    assert_eq!(seen.iter().flat_map(labels).collect::<Vec<i64>>(), orders[..48]);
}
