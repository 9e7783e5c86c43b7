//! Classes by name, and files that are no pictures by theirs.

use super::*;
use crate::data::photos_in;

/// A letter with its accent in one sign, and in two: the same text.
const COMPOSED: &str = "caf\u{e9}";
const DECOMPOSED: &str = "cafe\u{301}";

fn renamed(folder: &Path, from: &str, to: &str) {
    fs::rename(folder.join(from), folder.join(to)).unwrap();
}

#[test]
fn one_name_in_two_unicode_forms_is_one_class_and_two_folders_of_it_are_refused() {
    let dir = folder();
    renamed(dir.path(), "train/b", &format!("train/{COMPOSED}"));
    renamed(dir.path(), "val/b", &format!("val/{DECOMPOSED}"));
    let stream = open(data("folder", dir.path()), 2).unwrap();
    assert_eq!(stream.classes(), ["a", COMPOSED]);
    assert_eq!(stream.class_counts(), [(11, 3), (8, 2)]);

    renamed(dir.path(), "train/a", &format!("train/{DECOMPOSED}"));
    let text = refusal(open(data("folder", dir.path()), 2));
    for part in [r#""cafe\u{301}" and "caf\u{e9}" are one class"#, "two Unicode forms", "into one folder"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn names_of_classes_survive_shards_with_ends_of_lines_in_them() {
    let dir = folder();
    let odd = ["a\r", "b\nb\\n"];
    for (plain, odd) in ["a", "b"].iter().zip(odd) {
        for split in ["train", "val"] {
            renamed(dir.path(), &format!("{split}/{plain}"), &format!("{split}/{odd}"));
        }
    }
    let out = TempDir::new().unwrap();
    pack(&data("folder", dir.path()), out.path(), 1 << 30).unwrap();
    assert_eq!(open(data("shards", out.path()), 2).unwrap().classes(), odd);
    // As editors on Windows leave the list.
    let list = out.path().join("classes.txt");
    fs::write(&list, "\u{feff}one\r\ntwo\\three\r\n").unwrap();
    assert_eq!(open(data("shards", out.path()), 2).unwrap().classes(), ["one", "two\\three"]);
    assert_eq!(count_classes(&data("shards", out.path())).unwrap(), 2);
    fs::remove_file(&list).unwrap();
    let text = refusal(count_classes(&data("shards", out.path())));
    assert!(text.contains("model.num_classes is missing") && text.contains("classes.txt"), "{text}");
}

#[test]
fn what_is_passed_over_is_counted() {
    let dir = folder();
    for name in ["train/a/x.HEIC", "train/b/inner/y.HEIC", "val/a/z.gif", "val/b/plain", "train/a/.hidden"] {
        fs::write(dir.path().join(name), "no picture").unwrap();
    }
    let setup = setup(data("folder", dir.path()));
    let (view, normalise) = (view(), Normalise::Channels { mean: vec![0.0; 3], std: vec![1.0; 3] });
    let form = Form { edge: EDGE, channels: 3, classes: 2, augment: &[], normalise: &normalise, view: Some(&view) };
    Pictures::open(&form, &setup).unwrap();
    let expected = "5 files are passed over for the ending: .HEIC (2), .gif (1), .txt (1), no ending (1); read are .jpg, .jpeg, .png, .webp and .bmp";
    assert_eq!(setup.take_notes(), [expected]);
    let (photos, passed_over) = photos_in(&dir.path().join("val")).unwrap();
    assert_eq!(photos.len(), 5);
    assert!(photos[0].ends_with("a/0.Png"), "{photos:?}");
    assert!(passed_over.note().unwrap().starts_with("2 files are passed over"));
    assert!(photos_in(&dir.path().join("val/c")).is_err());
}

/// What the weights of a test know decides: the labels, in shards and folders alike, and a set without anything to train on is enough.
#[test]
fn given_weights_decide_the_labels() {
    let card = r#"{"classes": ["z", "b", "a"], "mean": [[1, 3, 1, 1], [0, 0, 0]], "std": [[1, 3, 1, 1], [1, 1, 1]]}"#;
    let dir = folder();
    let out = TempDir::new().unwrap();
    pack(&data("folder", dir.path()), out.path(), 1 << 30).unwrap();
    let (view, normalise) = (view(), Normalise::Channels { mean: vec![0.0; 3], std: vec![1.0; 3] });
    let form =
        |classes| Form { edge: EDGE, channels: 3, classes, augment: &[], normalise: &normalise, view: Some(&view) };
    let given = |name, root: &Path, card: Option<&str>| {
        let setup = setup(data(name, root)).with_given(card.map(String::from));
        let classes = if card.is_some() { 3 } else { 2 };
        Pictures::open(&form(classes), &setup).map(|pictures| {
            let batches: Vec<Images> = pictures.in_order(Split::Test, 0..5, 5).collect::<Result<_>>().unwrap();
            (labels(&batches[0]), pictures.classes().to_vec())
        })
    };
    let expected = (vec![2, 2, 2, 1, 1], ["z", "b", "a"].map(String::from).to_vec());
    assert_eq!(given("folder", dir.path(), Some(card)).unwrap(), expected);
    assert_eq!(given("shards", out.path(), Some(card)).unwrap(), expected);
    fs::remove_dir_all(dir.path().join("train")).unwrap();
    fs::remove_file(out.path().join("train-000000.tar")).unwrap();
    assert_eq!(given("folder", dir.path(), Some(card)).unwrap(), expected);
    assert_eq!(given("shards", out.path(), Some(card)).unwrap(), expected);
    let own = (vec![0, 0, 0, 1, 1], ["a", "b"].map(String::from).to_vec());
    assert_eq!(given("folder", dir.path(), None).unwrap(), own);
    assert_eq!(given("shards", out.path(), None).unwrap(), own);
    // Training needs pictures to train on.
    assert!(refusal(open(data("folder", dir.path()), 2)).contains("has no folder `train`"));
    assert!(refusal(open(data("shards", out.path()), 2)).contains("has no shards train-*.tar"));
    let other = card.replace("\"b\"", "\"c\"");
    for (name, root) in [("folder", dir.path()), ("shards", out.path())] {
        let text = refusal(given(name, root, Some(&other)));
        assert!(text.contains("b is no class of these weights. They know z, c, a; here are a, b"), "{text}");
    }
}
