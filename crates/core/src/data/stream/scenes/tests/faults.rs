//! What is wrong with data is told, or put up with.

use super::formats::{coco, yolo};
use super::*;

/// Exchanges a text in a file.
fn change(dir: &TempDir, file: &str, from: &str, to: &str) {
    let path = dir.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

const TRAIN: &str = "annotations/instances_train2017.json";

#[test]
fn coco_files_that_do_not_fit_are_refused() {
    for (from, to, words) in [
        (
            r#""bbox": [4, 6, 10.5, 12]"#,
            r#""bbox": [4, NaN, 10.5, 12]"#,
            &["instances_train2017.json", "four finite numbers"][..],
        ),
        (r#""bbox": [4, 6, 10.5, 12]"#, r#""bbox": [4, 6, 10.5]"#, &["four finite numbers", "line 1"]),
        (r#""category_id": 5"#, r#""category_id": 6"#, &["image 99", "category_id 6", "does not list"]),
        (r#""image_id": 99"#, r#""image_id": 7"#, &["image 7", "annotations name it, and `images` does not"]),
        (
            r#""file_name": "1.png""#,
            r#""file_name": "11.png""#,
            &["train2017/11.png", "it is not there", "data.max_bad is 0"],
        ),
        (r#""id": 98"#, r#""id": 99"#, &["two images have the id 99"]),
        (r#""id": 90, "name""#, r#""id": 5, "name""#, &["two categories have the id 5"]),
        (r#""name": "bus""#, r#""name": "tram""#, &["its category 5 is bus", "has tram there"]),
        (r#""annotations": ["#, r#""annotations": [1, "#, &["instances_train2017.json", "has lists"]),
    ] {
        let dir = coco();
        change(&dir, TRAIN, from, to);
        let text = refusal(open(data("coco", dir.path())));
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    let dir = coco();
    change(&dir, TRAIN, r#""id": 90, "name""#, r#""id": 900000, "name""#);
    let sparse = open_as(data("coco", dir.path()), Ids::Category, (&plain(), &[]), |setup| setup);
    assert!(refusal(sparse).contains("category brush has the id 900000"));
}

#[test]
fn missing_photos_are_put_up_with_and_told() {
    let dir = coco();
    fs::remove_file(dir.path().join("train2017/1.png")).unwrap();
    fs::remove_file(dir.path().join("val2017/5.png")).unwrap();
    let with = |max_bad| open(DataConfig { max_bad: Some(max_bad), ..data("coco", dir.path()) });
    assert!(refusal(with(1)).contains("2 bad pictures, but data.max_bad is 1"));
    let scenes = with(2).unwrap();
    assert_eq!((scenes.len(), scenes.split_len(Split::Test)), (3, 3));
    // What is left has its own boxes.
    assert_eq!(scenes.photo_id(Split::Train, 1), 98);
    assert_eq!(scenes.truths(Split::Train, 1).len(), 2);
    let notes = scenes.notes();
    assert!(notes.len() == 2 && notes.iter().all(|note| note.contains("it is not there")), "{notes:?}");
    fs::remove_dir_all(dir.path().join("val2017")).unwrap();
    assert!(refusal(open(DataConfig { max_bad: Some(9), ..data("coco", dir.path()) })).contains("none of its photos"));
}

#[test]
fn bad_photos_are_replaced_in_training_and_left_out_in_evaluation() {
    let dir = coco();
    fs::write(dir.path().join("train2017/1.png"), "no picture at all").unwrap();
    let with = |max_bad| open(DataConfig { max_bad: Some(max_bad), ..data("coco", dir.path()) }).unwrap();
    let text = refusal(with(0).batches(cursor(0, 4)).take(2).collect::<Result<Vec<_>>>());
    assert!(text.contains("train2017/1.png: neither JPEG"), "{text}");
    let scenes = with(1);
    for batch in scenes.batches(cursor(0, 4)).take(4) {
        let batch = batch.unwrap();
        let [n, ..] = batch.image.size()[..] else { panic!() };
        assert!(n == 4 && batch.photos.iter().all(|placed| placed.index != 2), "{:?}", batch.photos);
        // The boxes are those of the photos that are there.
        for (placed, (_, labels)) in batch.photos.iter().zip(batch.targets.each()) {
            assert_eq!(labels.size()[0], i64::from(placed.index == 1));
        }
    }
    let seen: Vec<u64> = scenes
        .in_order(Split::Train, 0..4, 3)
        .flat_map(|batch| batch.unwrap().photos)
        .map(|placed| placed.index)
        .collect();
    assert_eq!(seen, [0, 1, 3]);
    assert_eq!(scenes.notes().len(), 1);
}

/// A camera's note is not followed: boxes are for pixels as they lie in the file, as torchvision and pycocotools have it.
#[test]
fn photos_that_a_camera_turned() {
    let turned = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/stream/fixtures/turned.jpg");
    let dir = coco();
    fs::copy(&turned, dir.path().join("train2017/1.png")).unwrap();
    change(
        &dir,
        TRAIN,
        r#""file_name": "1.png", "width": 40, "height": 30"#,
        r#""file_name": "1.png", "width": 45, "height": 35"#,
    );
    let scenes = open(data("coco", dir.path())).unwrap();
    let batch = scenes.in_order(Split::Train, 2..3, 1).next().unwrap().unwrap();
    assert_eq!(batch.photos[0].size, [45, 35]);
    // Annotations that somebody made of the upright photo are not for these pixels.
    change(&dir, TRAIN, r#""width": 45, "height": 35"#, r#""width": 35, "height": 45"#);
    let text = refusal(open(data("coco", dir.path())).unwrap().in_order(Split::Train, 2..3, 1).next().unwrap());
    assert!(text.contains("for 35×45 pixels, and the file has 45×35") && text.contains("auto-orient"), "{text}");
    change(&dir, TRAIN, r#""width": 35, "height": 45"#, r#""width": 99, "height": 45"#);
    let text = refusal(open(data("coco", dir.path())).unwrap().in_order(Split::Train, 2..3, 1).next().unwrap());
    assert!(text.contains("for 99×45 pixels") && !text.contains("auto-orient"), "{text}");
    // Fractions do not tell which photo was meant.
    let dir = yolo();
    fs::copy(&turned, dir.path().join("images/train/e.jpg")).unwrap();
    let text = refusal(open(data("yolo", dir.path())));
    assert!(text.contains("e.jpg: a camera noted that it is turned"), "{text}");
    assert_eq!(open(DataConfig { max_bad: Some(1), ..data("yolo", dir.path()) }).unwrap().len(), 3);
}

#[test]
fn voc_files_that_do_not_fit_are_refused() {
    for (file, from, to, words) in [
        ("Annotations/p3.xml", "<name>ant", "<name>elk", &[][..]),
        ("Annotations/p8.xml", "<name>cat", "<name>dog", &["test.txt: p8 has an object dog", "known are ant, cat"]),
        ("Annotations/p1.xml", "<xmin>1<", "<xmin>NaN<", &["p1.xml", "finite numbers"]),
        ("Annotations/p1.xml", "<ymax>14<", "<ymax>x<", &["p1.xml", "no ymax"]),
        ("Annotations/p1.xml", "<bndbox>", "<box>", &["p1.xml: no XML"]),
        ("ImageSets/Main/train.txt", "p2", "q2", &["cannot read the annotations", "q2.xml"]),
    ] {
        let dir = voc();
        change(&dir, file, from, to);
        match open(data("voc", dir.path())) {
            Ok(scenes) => assert!(words.is_empty() && scenes.classes() == ["ant", "cat", "elk"]),
            Err(error) => assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}"),
        }
    }
    let dir = voc();
    fs::remove_file(dir.path().join("JPEGImages/p2.png")).unwrap();
    assert!(refusal(open(data("voc", dir.path()))).contains("JPEGImages/p2.jpg: annotations name it"));
    fs::remove_file(dir.path().join("ImageSets/Main/train.txt")).unwrap();
    assert!(refusal(open(data("voc", dir.path()))).contains("ImageSets/Main/train.txt"));
    assert!(
        refusal(open(data("voc", &dir.path().join("none")))).contains("neither ImageSets/Main/test.txt nor val.txt")
    );
}

#[test]
fn yolo_labels_that_do_not_fit_are_refused() {
    for (from, to, words) in [
        ("0 0.1", "2 0.1", &["a.txt:3: label 2 is none of the 2 classes 0 to 1"][..]),
        ("0 0.1", "-1 0.1", &["label -1"]),
        ("0.25 0.5\n", "0.25\n", &["a.txt:1", "five numbers"]),
        ("0.25 0.5\n", "0.25 nan\n", &["a.txt:1: a box is", "finite"]),
        ("1 0.5 0.5", "1 320 240", &["centre at 320, 240", "fractions"]),
    ] {
        let dir = yolo();
        change(&dir, "labels/train/a.txt", from, to);
        let text = refusal(open(data("yolo", dir.path())));
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    let dir = yolo();
    write(&dir.path().join("labels/train/z.txt"), "0 .5 .5 .1 .1");
    assert!(refusal(open(data("yolo", dir.path()))).contains("z.txt: it has labels for a photo that is not there"));
    fs::remove_file(dir.path().join("data.yaml")).unwrap();
    assert!(refusal(open(data("yolo", dir.path()))).contains("nothing names the classes"));
}

#[test]
fn keys_that_cannot_act_are_refused() {
    let dir = voc();
    let of = |config: DataConfig| refusal(open(config));
    assert!(of(DataConfig { balanced: Some(true), ..data("voc", dir.path()) }).contains("data.balanced cannot act"));
    assert!(of(data("mnist", dir.path())).contains("mnist is no set of pictures with boxes"));
    assert!(of(data("synthetic_canvases", dir.path())).contains("data.root cannot act"));
    assert!(
        of(DataConfig { limit_train: Some(9), ..data("voc", dir.path()) }).contains("data.limit_train: 9 does not fit")
    );
    let held = DataConfig { validation: Some(3), limit_train: Some(4), ..data("voc", dir.path()) };
    let scenes = open(held).unwrap();
    assert_eq!((scenes.len(), scenes.split_len(Split::Validation)), (4, 3));
    let mut ids: Vec<i64> = (0..4)
        .map(|i| scenes.photo_id(Split::Train, i))
        .chain((0..3).map(|i| scenes.photo_id(Split::Validation, i)))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7);
    let augment = [SceneAugment::Flip(Flip { p: 0.5 }), SceneAugment::Flip(Flip { p: 0.1 })];
    let twice = open_as(data("voc", dir.path()), Ids::Dense, (&plain(), &augment), |setup| setup);
    assert!(refusal(twice).contains("`flip` stands twice"));
}
