//! The story of the README: a published network of 1,000 classes learns the three of a folder of photos, and tells them apart on new ones.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use repro::weights::{self, Named};
use serde_json::Value;
use tch::{Device, Kind, nn};

use crate::program::{program, result, root, run, succeed, text};

/// The classes: a colour and a shape each.
const CLASSES: [(&str, [u8; 3]); 3] =
    [("circles", [205, 60, 50]), ("squares", [60, 170, 70]), ("triangles", [60, 80, 200])];

/// A shape of a class on a grey ground, neither ever twice the same: place, size, colour and ground differ from number to number.
fn photo(class: usize, number: u32) -> RgbImage {
    let (width, height) = (64 + 9 * (number % 7), 60 + 11 * (number % 5));
    let (x0, y0) =
        (width as f64 * (0.4 + 0.03 * f64::from(number % 6)), height as f64 * (0.42 + 0.04 * f64::from(number % 4)));
    let radius = f64::from(width.min(height)) * (0.24 + 0.02 * f64::from(number % 5));
    let ground = 120 + (number * 37 % 100) as u8;
    RgbImage::from_fn(width, height, |x, y| {
        let (dx, dy) = (f64::from(x) - x0, f64::from(y) - y0);
        let inside = match class {
            0 => dx.hypot(dy) < radius,
            1 => dx.abs().max(dy.abs()) < radius * 0.85,
            _ => dy < radius * 0.7 && dy > -radius && dx.abs() < (dy + radius) * 0.6,
        };
        let grain = ((x * 7 + y * 13 + number * 5) % 17) as u8;
        let shade = (number * 11 % 30) as u8;
        Rgb(if inside { CLASSES[class].1.map(|c| c - shade + grain) } else { [ground.saturating_add(grain); 3] })
    })
}

/// `count` photos of each class in `folder/CLASS`, JPEG and PNG, from this number on.
fn draw(folder: &Path, first: u32, count: u32) {
    for (class, (name, _)) in CLASSES.iter().enumerate() {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        for number in first..first + count {
            let ending = if number % 3 == 0 { "png" } else { "jpg" };
            photo(class, number).save(folder.join(format!("{number:03}.{ending}"))).unwrap();
        }
    }
}

/// A "published" file: weights of 1,000 classes that their names decide, as people have them, of half precision, without counters, from `DataParallel` and
/// `torch.compile`.
fn publish(path: &Path, store: &nn::VarStore) {
    repro::golden::fill(store);
    let tensors: Named = store
        .variables()
        .into_iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, tensor)| (format!("module._orig_mod.{name}"), tensor.to_kind(Kind::Half)))
        .collect();
    weights::write(path, &tensors, None).unwrap();
}

/// Trains `paper` on the photos from the published file by its recipe with `words`, and asks it about new photos.
fn story(paper: &str, folder: &Path, words: &[&str], fresh: &[&str]) {
    draw(&folder.join("PHOTOS/train"), 0, 10);
    draw(&folder.join("PHOTOS/val"), 30, 4);
    draw(&folder.join("new"), 60, 6);
    let yaml = root().join(format!("experiments/{paper}/finetune_folder.yaml")).display().to_string();
    let train = ["train", "--config", &yaml, "data.root=PHOTOS", "--init", "published.safetensors", "--device", "cpu"];
    let trained = run(program(paper, folder, train.iter().chain(words)));
    let said = text(&trained.stdout) + &text(&trained.stderr);
    assert!(trained.status.success(), "{said}");
    let home = folder.join(format!("runs/{paper}/finetune_folder/latest"));
    let result = result(&home);
    let notes = result["notes"].to_string();
    let head = format!("{} start fresh: the file has 1000 classes, this run 3", fresh.join(", "));
    for note in [&head, "`module._orig_mod.` in front of all names is taken off", "converted from float16 to float32"] {
        assert!(notes.contains(note) && said.contains(note), "{note}: {notes}\n{said}");
    }
    assert!(fs::read_to_string(home.join("config.yaml")).unwrap().contains("num_classes: 3"));

    let latest = format!("runs/{paper}/finetune_folder/latest");
    let said = succeed(program(paper, folder, ["predict", "--weights", &latest, "new", "--json"]));
    let answers: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let answers = answers.as_array().unwrap();
    let right = answers.iter().filter(|answer| {
        let truth = Path::new(answer["image"].as_str().unwrap()).parent().unwrap().file_name().unwrap().to_str();
        answer["classes"][0][0].as_str() == truth
    });
    let (right, all) = (right.count(), answers.len());
    println!("{paper}: {right} of {all}");
    // By chance 6 are right, and 12 or more of 18 with a probability of 0.4 %.
    assert!(all == 18 && right >= 12, "{right} of {all}");
    succeed(program(paper, folder, ["verify", &latest]));
}

#[test]
fn a_published_resnet_learns_the_classes_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let variant = resnet::model::Variant::named("resnet18").unwrap();
    let _net = resnet::model::Network::new(&store.root(), variant, 1000);
    publish(&dir.path().join("published.safetensors"), &store);
    let small = ["model.image_size=64", "view.test.resize=72"];
    story("resnet", dir.path(), &small, &["fc.bias", "fc.weight"]);

    // Classes that are given and differ, and a pickle.
    let yaml = root().join("experiments/resnet/finetune_folder.yaml").display().to_string();
    let refused = |words: &[&str]| {
        let output = run(program(
            "resnet",
            dir.path(),
            [&["train", "--config", &yaml, "data.root=PHOTOS", "-q"], words].concat(),
        ));
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let said = refused(&["model.num_classes=4"]);
    assert!(said.contains("model.num_classes is 4, but folder has 3 classes"), "{said}");
    fs::write(dir.path().join("old.pth"), b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.").unwrap();
    let said = refused(&["--init", "old.pth"]);
    assert!(said.contains("torch.load(\"old.pth\"") && said.contains("save_file("), "{said}");
    // Without photos there is nothing to count.
    let said = text(&run(program("resnet", dir.path(), ["summary", "--config", &yaml])).stderr);
    assert!(said.contains("model.num_classes is missing") && said.contains("data.root"), "{said}");
    succeed(program("resnet", dir.path(), ["summary", "--config", &yaml, "model.num_classes=3"]));
}

#[test]
fn a_published_alexnet_learns_the_classes_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let variant = alexnet::model::Variant::named("alexnet").unwrap();
    let _net = alexnet::model::Network::new(&store.root(), variant, 1000, 224);
    publish(&dir.path().join("published.safetensors"), &store);
    let small = ["model.image_size=96", "view.test.resize=104", "checkpoint.every=never"];
    story("alexnet", dir.path(), &small, &["classifier.6.bias", "classifier.6.weight"]);
}
