//! Annotations of every kind, in tiny sets.

use super::*;

/// COCO's JSON with gaps between its categories: 2, 5 and 90.
pub(super) fn coco() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    for (folder, first) in [("train2017", 0), ("val2017", 4)] {
        for number in first..first + 4_u32 {
            save(&root.join(format!("{folder}/{number}.png")), number, [40, 30]);
        }
    }
    let file = |first: u32, annotations: &str| {
        let image = |id: u32| format!(r#"{{"id": {}, "file_name": "{id}.png", "width": 40, "height": 30}}"#, 100 - id);
        let images: Vec<String> = (first..first + 4).map(image).collect();
        format!(
            r#"{{"info": {{}}, "images": [{}], "annotations": [{annotations}],
                "categories": [{{"id": 90, "name": "brush"}}, {{"id": 2, "name": "cat"}}, {{"id": 5, "name": "bus", "supercategory": "x"}}]}}"#,
            images.join(", ")
        )
    };
    let train = r#"{"id": 1, "image_id": 99, "category_id": 5, "bbox": [4, 6, 10.5, 12], "area": 100, "iscrowd": 0, "segmentation": [[1, 2, 3]]},
        {"id": 2, "image_id": 99, "category_id": 90, "bbox": [0, 0, 40, 30], "area": 900.5, "iscrowd": 1, "segmentation": {"counts": [1], "size": [30, 40]}},
        {"id": 3, "image_id": 98, "category_id": 2, "bbox": [30, 20, 20, 20], "area": 7, "iscrowd": 0},
        {"id": 4, "image_id": 98, "category_id": 2, "bbox": [5, 5, 0, 8], "area": 0, "iscrowd": 0}"#;
    let test = r#"{"id": 5, "image_id": 95, "category_id": 90, "bbox": [1, 2, 3, 4]},
        {"id": 6, "image_id": 95, "category_id": 2, "bbox": [1, 2, 0, 4], "iscrowd": 0},
        {"id": 7, "image_id": 94, "category_id": 2, "bbox": [-3, 2, 50, 4], "area": 3, "iscrowd": 1}"#;
    write(&root.join("annotations/instances_train2017.json"), &file(0, train));
    write(&root.join("annotations/instances_val2017.json"), &file(4, test));
    dir
}

#[test]
fn coco_is_numbered_both_ways() {
    let dir = coco();
    let dense = open(data("coco", dir.path())).unwrap();
    assert_eq!(dense.classes(), ["cat", "bus", "brush"]);
    assert_eq!([0, 1, 2].map(|class| dense.category_id(class)), [2, 5, 90]);
    let (sparse, notes) = open_as(data("coco", dir.path()), Ids::Category, (&plain(), &[]), |setup| setup).unwrap();
    assert_eq!(sparse.classes().len(), 91);
    assert_eq!([2, 5, 90, 0, 89].map(|class| &*sparse.classes()[class]), ["cat", "bus", "brush", "N/A", "N/A"]);
    assert_eq!(sparse.category_id(90), 90);
    assert!(notes.iter().any(|note| note.starts_with("1 boxes of the training set have no area")), "{notes:?}");
    // In the order of the ids: 97, 98, 99, 100 and 93 to 96.
    let ids = |split| (0..4).map(|index| dense.photo_id(split, index)).collect::<Vec<_>>();
    assert_eq!((ids(Split::Train), ids(Split::Test)), (vec![97, 98, 99, 100], vec![93, 94, 95, 96]));
    assert_eq!(
        (0..4).map(|index| dense.file(Split::Test, index)).collect::<Vec<_>>(),
        ["7.png", "6.png", "5.png", "4.png"]
    );
    // Truths are as they are written.
    let truth = |class, rect, area, crowd| Truth { class, rect, area, crowd, difficult: false };
    let expected = [truth(1, [4.0, 6.0, 10.5, 12.0], 100.0, false), truth(2, [0.0, 0.0, 40.0, 30.0], 900.5, true)];
    assert_eq!(dense.truths(Split::Train, 2), expected);
    assert_eq!(sparse.truths(Split::Train, 2)[1].class, 90);
    assert_eq!(dense.truths(Split::Test, 1), [truth(0, [-3.0, 2.0, 50.0, 4.0], 3.0, true)]);
    let without = [truth(2, [1.0, 2.0, 3.0, 4.0], 12.0, false), truth(0, [1.0, 2.0, 0.0, 4.0], 0.0, false)];
    assert_eq!(dense.truths(Split::Test, 2), without);
    assert_eq!(dense.class_counts(), [(2, 2), (1, 0), (1, 1)]);
    // What is learned from: neither the crowd nor the box without area, and of the third what lies in the photo.
    let all = dense.in_order(Split::Train, 0..4, 4).next().unwrap().unwrap();
    assert_eq!(all.targets.counts, [0, 1, 1, 0]);
    assert_eq!(Vec::<i64>::try_from(&all.targets.labels).unwrap(), [0, 1]);
    // 40 × 30 in 32 × 32 is 32 × 24 from row 4 on: 0.8 of the size. 30..50 ends at 40, 20..40 at 30.
    let expected =
        [35.0 * 0.8, 25.0 * 0.8 + 4.0, 10.0 * 0.8, 10.0 * 0.8, 9.25 * 0.8, 12.0 * 0.8 + 4.0, 10.5 * 0.8, 12.0 * 0.8];
    for (ours, expected) in numbers(&all.targets.boxes).into_iter().zip(expected) {
        assert!((f64::from(ours) - expected / 32.0).abs() < 1e-6, "{ours} {expected}");
    }
    // A batch in which nothing is to be found.
    let none = dense.in_order(Split::Train, 0..1, 1).next().unwrap().unwrap().targets;
    assert_eq!((none.boxes.size(), none.labels.size(), none.counts), (vec![0, 4], vec![0], vec![0]));
    assert_ne!(dense.sha256(), sparse.sha256());
    assert_eq!(dense.sha256(), open(data("coco", dir.path())).unwrap().sha256());
}

#[test]
fn files_may_have_other_names() {
    let dir = coco();
    let named = |folder: &str, file: &str| AnnotatedFiles { annotations: file.into(), photos: folder.into() };
    let val = named("val2017", "annotations/instances_val2017.json");
    let of = |train: Option<AnnotatedFiles>, validation| DataConfig {
        files: Some(SplitFiles { train, validation, test: val.clone() }),
        ..data("coco", dir.path())
    };
    let scenes = open(of(Some(val.clone()), None)).unwrap();
    assert_eq!((scenes.len(), scenes.split_len(Split::Test), scenes.has_validation()), (4, 4, false));
    let train = named("train2017", "annotations/instances_train2017.json");
    let scenes = open(of(Some(train.clone()), Some(val.clone()))).unwrap();
    assert_eq!(scenes.photo_id(Split::Validation, 0), 93);
    assert!(refusal(open(of(None, None))).contains("data.files.train is missing"));
    // Weights are tested without what they learned from.
    let card = r#"{"classes": ["cat", "bus", "brush"], "mean": null, "std": null}"#;
    fs::remove_file(dir.path().join("annotations/instances_train2017.json")).unwrap();
    let tested = |card: &str| {
        let given = |setup: Setup| setup.with_given(Some(card.to_string()));
        open_as(data("coco", dir.path()), Ids::Dense, (&plain(), &[]), given)
    };
    let (scenes, _) = tested(card).unwrap();
    assert_eq!((scenes.len(), scenes.split_len(Split::Test)), (0, 4));
    assert!(
        refusal(tested(&card.replace("bus", "tram"))).contains("the classes of coco are not those of these weights")
    );
    assert!(refusal(open(data("coco", dir.path()))).contains("no annotations/instances_train2017.json to train on"));
}

#[test]
fn voc_has_its_lists_and_sorted_names() {
    let dir = voc();
    let scenes = open(data("voc", dir.path())).unwrap();
    assert_eq!(scenes.classes(), ["ant", "cat"]);
    assert_eq!((scenes.len(), scenes.split_len(Split::Test)), (8, 2));
    let truth =
        |class, rect: [f64; 4], difficult| Truth { class, rect, area: rect[2] * rect[3], crowd: false, difficult };
    let expected = [truth(1, [1.0, 2.0, 14.0, 12.0], false), truth(0, [33.0, 2.0, 6.0, 10.0], true)];
    assert_eq!(scenes.truths(Split::Train, 3), expected);
    // Difficult ones are known to the evaluation, and not learned.
    let batch = scenes.in_order(Split::Train, 3..4, 1).next().unwrap().unwrap();
    assert_eq!(batch.targets.counts, [1]);
    assert_eq!(
        (scenes.photo_id(Split::Train, 5), scenes.category_id(1), scenes.file(Split::Test, 0)),
        (5, 1, "p8.png".into())
    );
    // `val` is held out where there is a `test`, and tested on where there is none; `trainval` is trained on without `train`.
    let lists = dir.path().join("ImageSets/Main");
    fs::copy(lists.join("test.txt"), lists.join("val.txt")).unwrap();
    assert!(open(data("voc", dir.path())).unwrap().has_validation());
    fs::remove_file(lists.join("test.txt")).unwrap();
    fs::rename(lists.join("train.txt"), lists.join("trainval.txt")).unwrap();
    let scenes = open(data("voc", dir.path())).unwrap();
    assert_eq!((scenes.len(), scenes.split_len(Split::Test), scenes.has_validation()), (8, 2, false));
    // Weights know their classes in their own order, and one that is not here, too.
    let given = |setup: Setup| {
        setup.with_given(Some(r#"{"classes": ["elk", "cat", "ant"], "mean": null, "std": null}"#.into()))
    };
    let (scenes, _) = open_as(data("voc", dir.path()), Ids::Dense, (&plain(), &[]), given).unwrap();
    assert_eq!((scenes.classes()[0].as_str(), scenes.truths(Split::Train, 3)[1].class), ("elk", 2));
    // A box without area is dropped with a note.
    write(
        &dir.path().join("Annotations/p0.xml"),
        &xml([30, 40], &[("cat", false, [5.0, 5.0, 5.0, 9.0]), ("cat", false, [1.0, 1.0, 9.0, 9.0])]),
    );
    let (scenes, notes) = open_as(data("voc", dir.path()), Ids::Dense, (&plain(), &[]), |setup| setup).unwrap();
    assert_eq!(scenes.truths(Split::Train, 0).len(), 1);
    assert!(notes.iter().any(|note| note.starts_with("1 boxes without area are dropped")), "{notes:?}");
}

/// YOLO's layout, with names in a map.
pub(super) fn yolo() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    for (place, name) in ["train/a.png", "train/inner/b.png", "train/c.png", "val/d.png"].into_iter().enumerate() {
        save(&root.join("images").join(name), place as u32, [40, 20]);
    }
    write(&root.join("labels/train/a.txt"), "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.2 0.4 \n");
    write(&root.join("labels/train/inner/b.txt"), "0 0.9 0.5 0.4 0.1\n1 0.5 0.5 0 0.1\n");
    write(&root.join("labels/val/d.txt"), "1 .5 .5 1 1");
    write(&root.join("data.yaml"), "path: ../x\nnames: {0: cat, 1: ant}\n");
    dir
}

#[test]
fn yolo_has_fractions() {
    let dir = yolo();
    let (scenes, notes) = open_as(data("yolo", dir.path()), Ids::Dense, (&plain(), &[]), |setup| setup).unwrap();
    assert_eq!(scenes.classes(), ["cat", "ant"]);
    assert_eq!((scenes.len(), scenes.split_len(Split::Test)), (3, 1));
    let rects =
        |index| scenes.truths(Split::Train, index).iter().map(|truth| (truth.class, truth.rect)).collect::<Vec<_>>();
    assert_eq!(rects(0)[0], (1, [15.0, 5.0, 10.0, 10.0]));
    assert_eq!((scenes.file(Split::Train, 1), rects(1).len(), rects(2).len()), ("c.png".into(), 0, 1));
    // It reaches beyond the photo, and stays so for the evaluation.
    assert_eq!((rects(2)[0].1[0] + rects(2)[0].1[2]).round(), 44.0);
    assert!(notes.iter().any(|note| note.starts_with("1 boxes without area")), "{notes:?}");
    assert_eq!(scenes.truths(Split::Test, 0)[0].rect, [0.0, 0.0, 40.0, 20.0]);
    for (file, text) in [("data.yaml", "names: [cat, ant]"), ("classes.txt", "cat\nant\n"), ("obj.names", "cat\r\nant")]
    {
        fs::remove_file(dir.path().join("data.yaml")).unwrap_or(());
        fs::remove_file(dir.path().join("classes.txt")).unwrap_or(());
        write(&dir.path().join(file), text);
        assert_eq!(open(data("yolo", dir.path())).unwrap().classes(), ["cat", "ant"], "{file}");
    }
}

#[test]
fn canvases_have_tight_boxes_and_do_not_depend_on_the_seed() {
    let view = SceneView { train: letterbox(96, 64), test: letterbox(96, 64), multi_scale: None };
    let config = DataConfig { root: None, ..data("synthetic_canvases", Path::new("")) };
    let drawn = |config: DataConfig| open_as(config, Ids::Dense, (&view, &[]), |setup| setup).map(|(scenes, _)| scenes);
    let scenes = drawn(config.clone()).unwrap();
    assert_eq!((scenes.len(), scenes.split_len(Split::Test)), (256, 64));
    let mut counts = [0; 4];
    for index in 0..64 {
        let (image, truths) = (scenes.show(Split::Test, index).unwrap(), scenes.truths(Split::Test, index));
        assert_eq!((image.width(), image.height()), (96, 64));
        counts[truths.len()] += 1;
        // All ink lies in some box, and every side of a box touches ink.
        let ink = |x: u32, y: u32| image.get_pixel(x, y)[0] > 0;
        let inside = |x: u32, y: u32| {
            truths.iter().any(|Truth { rect: [l, t, w, h], .. }| {
                (*l..l + w).contains(&f64::from(x)) && (*t..t + h).contains(&f64::from(y))
            })
        };
        assert!(image.enumerate_pixels().all(|(x, y, _)| !ink(x, y) || inside(x, y)), "canvas {index}");
        for Truth { rect, area, .. } in truths {
            let [l, t, w, h] = rect.map(|side| side as u32);
            assert!((t..t + h).any(|y| ink(l, y)) && (t..t + h).any(|y| ink(l + w - 1, y)));
            assert!((l..l + w).any(|x| ink(x, t)) && (l..l + w).any(|x| ink(x, t + h - 1)));
            assert_eq!(*area, f64::from(w * h));
            assert!(l + w <= 96 && t + h <= 64 && w.max(h) <= 32);
        }
        // No two boxes share more than a tenth of the smaller.
        for (a, b) in truths.iter().enumerate().flat_map(|(at, a)| truths[at + 1..].iter().map(move |b| (a, b))) {
            let span = |axis: usize| {
                (a.rect[axis] + a.rect[axis + 2]).min(b.rect[axis] + b.rect[axis + 2]) - a.rect[axis].max(b.rect[axis])
            };
            assert!(span(0).max(0.0) * span(1).max(0.0) <= 0.1 * a.area.min(b.area), "canvas {index}");
        }
    }
    assert!(counts[0] == 0 && counts[1..].iter().all(|n| *n > 8), "{counts:?}");
    // The network is shown the canvas itself.
    let batch = scenes.in_order(Split::Test, 3..4, 1).next().unwrap().unwrap();
    assert_eq!(batch.targets.counts[0] as usize, scenes.truths(Split::Test, 3).len());
    for (found, truth) in numbers(&batch.targets.boxes).chunks(4).zip(scenes.truths(Split::Test, 3)) {
        let placed = batch.photos[0].to_photo(std::array::from_fn(|at| f64::from(found[at])));
        assert!(placed.iter().zip(truth.rect).all(|(a, b)| (a - b).abs() < 1e-4), "{placed:?} {truth:?}");
    }
    // Another seed, another run: the same pictures. A limit takes some of them, with their own boxes.
    let limited = drawn(DataConfig { limit_test: Some(5), ..config.clone() }).unwrap();
    let number = limited.photo_id(Split::Test, 2);
    assert_eq!(limited.truths(Split::Test, 2), scenes.truths(Split::Test, number as u64));
    assert_ne!(scenes.show(Split::Train, 0).unwrap(), scenes.show(Split::Test, 0).unwrap());
    let canvases = CanvasConfig { train: 10, test: 5, objects: [1, 5], size: [20, 40] };
    let asked = |name: &str, canvases: Option<CanvasConfig>| {
        refusal(drawn(DataConfig { name: name.into(), canvases, ..config.clone() }))
    };
    assert!(
        asked("synthetic_canvases", Some(canvases.clone())).contains("data.canvases cannot act on synthetic_canvases")
    );
    assert!(asked("canvases", None).contains("data.canvases is missing"));
}

/// MNIST's own files, in small.
#[test]
fn canvases_are_strewn_with_mnist() {
    let dir = TempDir::new().unwrap();
    for (part, count) in [("train", 3_u8), ("t10k", 2)] {
        // Bars of the digit's own height.
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28];
        let bar = |label: u8| {
            (0..28 * 28).map(move |at| {
                if (10..12).contains(&(at % 28)) && (4..8 + label as usize).contains(&(at / 28)) { 255 } else { 0 }
            })
        };
        (0..count).for_each(|label| images.extend(bar(label)));
        fs::write(dir.path().join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        let labels: Vec<u8> = [0, 0, 8, 1, 0, 0, 0, count].into_iter().chain(0..count).collect();
        fs::write(dir.path().join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
    let canvases = CanvasConfig { train: 40, test: 20, objects: [1, 4], size: [28, 28] };
    let scenes =
        open(DataConfig { canvases: Some(canvases.clone()), max_bad: None, ..data("canvases", dir.path()) }).unwrap();
    assert_eq!((scenes.len(), scenes.split_len(Split::Test)), (40, 20));
    for index in 0..40 {
        for Truth { class, rect, .. } in scenes.truths(Split::Train, index) {
            assert_eq!(rect[2..], [2.0, 4.0 + *class as f64]);
        }
    }
    // Two digits are to be tested with.
    assert!(scenes.class_counts()[2..].iter().enumerate().all(|(at, (_, test))| at > 7 || *test == 0));
    let large = CanvasConfig { size: [20, 60], ..canvases };
    let text = refusal(open(DataConfig { canvases: Some(large), ..data("canvases", dir.path()) }));
    assert!(text.contains("data.canvases.size is [20, 60]") && text.contains("at most 32"), "{text}");
}
