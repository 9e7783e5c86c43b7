//! What goes wrong with files.

use std::os::unix::fs::symlink;

use super::*;
use crate::random::order;

/// A folder with the picture `train/a/03.JPEG` replaced by these bytes.
fn with_bad(bytes: &[u8]) -> TempDir {
    let dir = folder();
    fs::write(dir.path().join("train/a/03.JPEG"), bytes).unwrap();
    dir
}

fn epoch(stream: &Stream) -> Result<Vec<Images>> {
    stream.batches(cursor(0, 19)).take(1).collect()
}

/// What is said about the bad picture.
fn reason(bytes: &[u8]) -> String {
    let dir = with_bad(bytes);
    let text = refusal(epoch(&open(data("folder", dir.path()), 2).unwrap()));
    assert!(text.contains("1 bad pictures") && text.contains("train/a/03.JPEG: "), "{text}");
    text.rsplit("03.JPEG: ").next().unwrap().to_string()
}

#[test]
fn bad_pictures_are_refused_with_path_and_reason() {
    let mut jpeg = Vec::new();
    picture(3).write_to(&mut std::io::Cursor::new(&mut jpeg), ImageFormat::Jpeg).unwrap();
    let mut png = Vec::new();
    picture(3).write_to(&mut std::io::Cursor::new(&mut png), ImageFormat::Png).unwrap();
    assert_eq!(reason(b""), "the file is empty");
    assert!(reason(b"GIF89a, say").contains("neither JPEG, PNG, WebP nor BMP"));
    for length in [3, 20, jpeg.len() / 2, jpeg.len() - 30, jpeg.len() - 2] {
        assert_eq!(reason(&jpeg[..length]), "JPEG: cut off", "{length} of {}", jpeg.len());
    }
    for length in [10, 30, png.len() / 2] {
        assert!(reason(&png[..length]).starts_with("PNG: "), "{length}");
    }
    for (format, called) in [(ImageFormat::WebP, "WebP: "), (ImageFormat::Bmp, "Bmp: ")] {
        let mut whole = Vec::new();
        picture(3).write_to(&mut std::io::Cursor::new(&mut whole), format).unwrap();
        for length in [14, 30, whole.len() / 2, whole.len() - 10] {
            assert!(reason(&whole[..length]).starts_with(called), "{called}{length}");
        }
        // Whole, they are the same pixels as a PNG.
        let of = |bytes: &[u8]| {
            let dir = with_bad(bytes);
            epoch(&open(data("folder", dir.path()), 2).unwrap()).unwrap()
        };
        assert!(same(&of(&whole), &of(&png)), "{called}");
    }
    // Width and height of a JPEG's frame say 65500×65500, which nobody has the memory for; those of a PNG likewise.
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let mut bomb = jpeg.clone();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    assert!(reason(&bomb).contains("65500×65500 pixels are more than the 178956970"));
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    assert!(reason(&bomb).contains("65535×65535 pixels"));
    // A PNG under a JPEG's name is a picture, as it is for Pillow.
    let dir = with_bad(&png);
    assert_eq!(epoch(&open(data("folder", dir.path()), 2).unwrap()).unwrap().len(), 1);
}

#[test]
fn the_next_in_the_order_takes_the_place_of_a_bad_one() {
    let dir = with_bad(b"no picture");
    fs::write(dir.path().join("train/b/2.jpg"), b"").unwrap();
    let config = |workers| DataConfig { max_bad: Some(2), workers: Some(workers), ..data("folder", dir.path()) };
    let stream = open(config(2), 2).unwrap();
    let batch = &epoch(&stream).unwrap()[0];
    let order = order(3, 0, 19);
    let bad = |sample: i64| sample == 3 || stream.train.index.told(sample) == "train/b/2.jpg";
    let mut good = 0;
    for place in 0..19 {
        let sample = (0..19).map(|next| order[(place + next) % 19]).find(|sample| !bad(*sample)).unwrap();
        good += i64::from(sample == order[place]);
        let mut square = vec![0; stream.train.square_bytes()];
        stream.train.read(sample, Some(&drawn(0)), &mut Worker::default(), std::iter::once(&mut square[..])).unwrap();
        let unit = Tensor::from_data_size(&square, &[1, EDGE, EDGE, 3], Kind::Uint8)
            .permute([0, 3, 1, 2])
            .to_kind(Kind::Float)
            / 255.0;
        assert!(stream.normaliser().apply(&unit).unwrap().equal(&batch.image.narrow(0, place as i64, 1)), "{place}");
    }
    assert_eq!(good, 17);
    assert!(same(std::slice::from_ref(batch), &epoch(&open(config(5), 2).unwrap()).unwrap()));
    // Told once each, however many epochs there are.
    take(&stream, cursor(0, 19), 3);
    let notes = stream.notes();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("replaced by the next: train/a/03.JPEG: neither")), "{notes:?}");
    assert!(stream.notes().is_empty());
}

#[test]
fn evaluation_leaves_bad_pictures_out_and_shows_the_right_ones() {
    let dir = folder();
    fs::write(dir.path().join("val/a/1.Png"), b"").unwrap();
    fs::write(dir.path().join("val/b/4.Png"), b"").unwrap();
    let all = |most| {
        let stream = open(DataConfig { max_bad: Some(most), ..data("folder", dir.path()) }, 2).unwrap();
        let found: Result<Vec<Images>> = stream.in_order(Split::Test, 0..stream.split_len(Split::Test), 2).collect();
        found.map(|found| (stream, found))
    };
    let text = refusal(all(1));
    assert!(
        text.contains("2 bad pictures, but data.max_bad is 1") && text.contains("val/b/4.Png: the file is empty"),
        "{text}"
    );
    let (stream, batches) = all(2).unwrap();
    // 0 and the empty 1, 2 and 3, the empty 4 alone.
    assert_eq!(batches.iter().map(labels).collect::<Vec<_>>(), [vec![0], vec![0, 1]]);
    let shown = stream.normaliser().apply(&stream.show(Split::Test, &[1, 2]).unwrap()).unwrap();
    assert!(shown.equal(&batches[1].image));
    assert!(stream.notes()[0].contains("left out: val/a/1.Png"));
}

#[test]
fn files_that_go_or_change_under_the_run_are_bad() {
    let dir = folder();
    let stream = open(data("folder", dir.path()), 2).unwrap();
    let path = dir.path().join("train/a/01.png");
    fs::remove_file(&path).unwrap();
    assert!(refusal(epoch(&stream)).contains("train/a/01.png: it is gone since the run began"));
    write(&path, 1);
    let stream = open(data("folder", dir.path()), 2).unwrap();
    let path = dir.path().join("train/a/02.png");
    let size = fs::metadata(&path).unwrap().len();
    fs::write(&path, b"shorter").unwrap();
    let text = refusal(epoch(&stream));
    assert!(
        text.contains(&format!("train/a/02.png: it has changed since the run began: {size} bytes then, 7 now")),
        "{text}"
    );
    fs::remove_file(&path).unwrap();
    symlink("/nowhere/at/all.png", &path).unwrap();
    assert!(refusal(epoch(&open(data("folder", dir.path()), 2).unwrap())).contains("02.png: it is gone"));
}

#[test]
fn a_set_without_a_readable_picture_ends() {
    let dir = folder();
    for path in ["train/a", "train/b", "train/b/inner"].map(|name| dir.path().join(name)) {
        for entry in fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            fs::write(entry, b"").unwrap();
        }
    }
    let with = |max_bad| open(DataConfig { max_bad, ..data("folder", dir.path()) }, 2).unwrap();
    assert!(refusal(epoch(&with(Some(100)))).contains("no picture of the training set can be read"));
    assert!(refusal(epoch(&with(None))).contains("data.max_bad is 0"));
    // An iteration ends with its error.
    assert_eq!(with(None).batches(cursor(0, 4)).count(), 1);
}

#[test]
fn folders_that_are_no_sets_say_what_is_missing() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    let refused = |words: &[&str]| {
        let text = refusal(open(data("folder", dir.path()), 2));
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    fs::create_dir(at("train/c")).unwrap();
    refused(&["train/c holds no pictures (.jpg, .jpeg, .png, .webp and .bmp)"]);
    fs::remove_dir(at("train/c")).unwrap();
    write(&at("val/c/1.png"), 1);
    refused(&["val: c is a class that `train` lacks", "`train` has a, b; here are a, b, c"]);
    fs::remove_dir_all(at("val/c")).unwrap();
    symlink("..", at("train/b/up")).unwrap();
    refused(&["folders deep; is there a link"]);
    fs::remove_file(at("train/b/up")).unwrap();
    fs::rename(at("val"), at("other")).unwrap();
    refused(&["has neither `val` nor `test`"]);
    fs::create_dir(at("val")).unwrap();
    refused(&["val holds no folders with pictures"]);
    fs::rename(at("train"), at("training")).unwrap();
    refused(&["has no folder `train`", "data.root"]);
    let text = refusal(open(DataConfig { root: None, ..data("folder", dir.path()) }, 2));
    assert!(text.contains("data.root is missing"), "{text}");
    fs::rename(at("training"), at("train")).unwrap();
    fs::rename(at("other"), at("test")).unwrap();
    fs::remove_dir(at("val")).unwrap();
    let text = refusal(open(data("folder", dir.path()), 3));
    assert!(text.contains("model.num_classes is 3") && text.contains("2 classes"), "{text}");
    let normalise = crate::data::Normalise::Channels { mean: vec![0.0; 3], std: vec![1.0; 3] };
    let form = Form { edge: EDGE, channels: 3, classes: 2, augment: &[], normalise: &normalise, view: None };
    assert!(refusal(Pictures::open(&form, &setup(data("folder", dir.path())))).contains("view is missing"));
    let view = view();
    let form = Form { view: Some(&view), ..form };
    let synthetic = DataConfig { root: None, workers: None, ..data("synthetic_colour", dir.path()) };
    assert!(refusal(Pictures::open(&form, &setup(synthetic))).contains("view cannot act on synthetic_colour"));
}

#[test]
fn a_thread_that_panics_is_an_error_that_names_the_picture() {
    let dir = folder();
    let stream = open(data("folder", dir.path()), 2).unwrap();
    // A task that no iteration makes: chance without a seed.
    let order: Arc<[i64]> = (0..19).collect();
    let task = Task { order, places: (5, 2), draws: None, last: true };
    let mut loader = Loader::start(&stream.train, 2, 2, Box::new(std::iter::once(task))).unwrap();
    match loader.next() {
        Some(Err(Error::Failed(text))) => assert!(text.contains("died at train/a/"), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// Dropping an iteration does not wait for work that nobody wants.
#[test]
fn an_iteration_that_is_dropped_ends_its_threads() {
    let dir = folder();
    let stream = open(DataConfig { workers: Some(4), ..data("folder", dir.path()) }, 2).unwrap();
    for step in 0..20 {
        let mut batches = stream.batches(cursor(step, 16));
        batches.next().unwrap().unwrap();
    }
    // Every thread holds the reader as long as it lives.
    assert_eq!(Arc::strong_count(&stream.train), 1);
}
