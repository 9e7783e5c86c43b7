//! Training on folders and shards of photos, through the binary: exactness, bad files, refusals.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{program, result, root, run, succeed, text};

/// Photos of two classes, dark and bright, of odd sizes, drawn by code: 12 of each to train on and 5 to test on.
pub(crate) fn photos(folder: &Path) {
    for (part, count) in [("train", 12_u32), ("val", 5)] {
        for (class, base) in [("bright", 190_u32), ("dark", 40)] {
            let folder = folder.join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            for place in 0..count {
                let (width, height) = (40 + 7 * place, 90 - 4 * place);
                let picture = image::RgbImage::from_fn(width, height, |x, y| {
                    let wave = (x * (place + 1) + y * 3) % 50;
                    image::Rgb([base + wave, base + wave / 2, base].map(|c| c as u8))
                });
                let kind = if place % 3 == 0 { "png" } else { "jpg" };
                picture.save(folder.join(format!("{place:02}.{kind}"))).unwrap();
            }
        }
    }
}

/// The smoke experiment on photos at 32 pixels.
fn resnet(folder: &Path, words: &[&str]) -> Command {
    let yaml = root().join("experiments/resnet/smoke.yaml").display().to_string();
    let fixed = [
        "--config",
        &yaml,
        "--device",
        "cpu",
        "-q",
        "data={name: folder, root: photos}",
        "data.limit_test=null",
        "model.num_classes=2",
        "batch_size=8",
        "length=5 steps",
        "normalise={kind: channels, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}",
        "view={train: {kind: random_resized_crop, scale: [0.3, 1], ratio: [0.75, 1.33], filter: bilinear}, test: {kind: resize_crop, resize: 36, filter: bicubic}}",
        "augment=[{kind: color_jitter, brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1}, {kind: flip}]",
    ];
    program("resnet", folder, fixed.iter().chain(words))
}

fn hash(folder: &Path, out: &str) -> String {
    let result = result(&folder.join(out));
    assert_eq!(result["status"], "done");
    format!("{} {}", result["weights_sha256"], result["metrics"]["test/loss"])
}

#[test]
fn neither_threads_nor_a_cut_nor_shards_of_the_same_photos_lose_exactness() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    succeed(resnet(dir.path(), &["--out", "one", "data.workers=1"]));
    succeed(resnet(dir.path(), &["--out", "three", "data.workers=3"]));
    assert_eq!(hash(dir.path(), "one"), hash(dir.path(), "three"));

    succeed(resnet(dir.path(), &["--out", "cut", "limit=0.0001 seconds"]));
    succeed(program("resnet", dir.path(), ["train", "--resume", "cut", "-q"]));
    succeed(program("resnet", dir.path(), ["train", "--resume", "cut", "-q", "limit=10 minutes"]));
    assert_eq!(hash(dir.path(), "cut"), hash(dir.path(), "one"));
    let verified = succeed(program("resnet", dir.path(), ["verify", "cut", "--json"]));
    assert!(verified.contains("\"holds\":true"), "{verified}");
}

#[test]
fn a_run_does_not_go_on_with_other_photos() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    succeed(resnet(dir.path(), &["--out", "cut", "limit=0.0001 seconds"]));
    let added = dir.path().join("photos/train/dark/more.png");
    fs::copy(dir.path().join("photos/train/dark/00.png"), &added).unwrap();
    let refused = run(program("resnet", dir.path(), ["train", "--resume", "cut", "-q"]));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("data are not those that this run began with"), "{}", text(&refused.stderr));
    fs::remove_file(&added).unwrap();
    // The same photos elsewhere are the same data.
    fs::rename(dir.path().join("photos"), dir.path().join("moved")).unwrap();
    let words = ["train", "--resume", "cut", "-q", "data.root=moved", "data.max_bad=3", "limit=10 minutes"];
    succeed(program("resnet", dir.path(), words));
}

#[test]
fn bad_photos_are_listed_and_counted_and_too_many_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let photos_here = dir.path().join("photos");
    photos(&photos_here);
    fs::write(photos_here.join("train/dark/empty.jpg"), b"").unwrap();
    let whole = fs::read(photos_here.join("train/dark/01.jpg")).unwrap();
    fs::write(photos_here.join("train/dark/short.jpg"), &whole[..whole.len() / 2]).unwrap();
    let refused = run(resnet(dir.path(), &["--out", "strict", "length=12 steps"]));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("data.max_bad"), "{}", text(&refused.stderr));

    succeed(resnet(dir.path(), &["--out", "run", "length=12 steps", "data.max_bad=2"]));
    let notes = result(&dir.path().join("run"))["notes"].to_string();
    assert!(notes.contains("empty.jpg") && notes.contains("short.jpg"), "{notes}");
}

#[test]
fn folders_that_do_not_fit_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    let refused = |words: &[&str], parts: &[&str]| {
        let output = run(resnet(dir.path(), words));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
    };
    refused(&["model.num_classes=3"], &["model.num_classes is 3", "2 classes"]);
    refused(&["view=null"], &["view is missing"]);
    refused(&["data.root=nowhere"], &["nowhere"]);
    refused(&["data.workers=0"], &["data.workers", "from 1 to 1024"]);
    let one = ["model.name=resnet18", "model.image_size=32", "batch_size=1", "augment=[]"];
    refused(&one, &["a batch norm cannot learn from one number a channel"]);
    refused(&["data={name: synthetic_colour}", "data.root=null", "model.num_classes=10"], &["view cannot act"]);
    fs::create_dir(dir.path().join("photos/train/nothing")).unwrap();
    refused(&["model.num_classes=3"], &["nothing"]);
}
