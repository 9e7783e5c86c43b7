//! `predict`, `eval` and `forward` on photos and weights as people have them, through the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::photos::photos;
use crate::program::{lenet, program, result, root, run, smoke, succeed, text};

/// A short run of `paper` on the photos, in `run`.
fn trained(paper: &str, folder: &Path, words: &[&str]) {
    photos(&folder.join("photos"));
    let yaml = root().join(format!("experiments/{paper}/smoke.yaml")).display().to_string();
    let fixed = [
        "--config",
        &yaml,
        "--device",
        "cpu",
        "-q",
        "--out",
        "run",
        "data={name: folder, root: photos}",
        "data.limit_test=null",
        "model.num_classes=2",
        "batch_size=8",
        "length=6 steps",
        "normalise={kind: channels, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}",
        "view={train: {kind: random_resized_crop, scale: [0.3, 1], ratio: [0.75, 1.33], filter: bilinear}, test: {kind: resize_crop, resize: 36, filter: bicubic}}",
        "augment=[]",
    ];
    succeed(program(paper, folder, fixed.iter().chain(words)));
}

fn resnet(folder: &Path, words: &[&str]) -> Command {
    program("resnet", folder, words)
}

fn json(said: &str) -> Value {
    serde_json::from_str(said.lines().last().unwrap_or_else(|| panic!("nothing was said"))).unwrap()
}

/// The output of a refused command, and what it said.
fn refused(command: Command) -> (Output, String) {
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    (output, said)
}

/// Accuracy and loss that the answers of `predict` come to; the truth is the folder's name.
fn told(answers: &Value) -> (f64, f64) {
    let answers = answers.as_array().unwrap();
    let (mut right, mut loss) = (0.0, 0.0);
    for answer in answers {
        let path = PathBuf::from(answer["image"].as_str().unwrap());
        let truth = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let classes = answer["classes"].as_array().unwrap();
        right += f64::from(u8::from(classes[0][0] == truth));
        loss -= classes.iter().find(|class| class[0] == truth).unwrap()[1].as_f64().unwrap().ln();
    }
    (right / answers.len() as f64, loss / answers.len() as f64)
}

/// `predict` on each test photo agrees with `eval` on all of them, in accuracy exactly and in loss.
fn agree(paper: &str, folder: &Path, words: &[&str]) -> f64 {
    let all = |command: &[&str]| json(&succeed(program(paper, folder, [command, words].concat())));
    let eval = all(&["eval", "--weights", "run", "--json"]);
    let (accuracy, loss) = told(&all(&["predict", "--weights", "run", "photos/val", "--json"]));
    let metric = |name: &str| eval["metrics"][name].as_f64().unwrap();
    assert_eq!(accuracy, metric("test/accuracy"), "{words:?}");
    assert!((loss - metric("test/loss")).abs() < 1e-5 * loss.max(1.0), "{words:?}: {loss} {eval}");
    loss
}

#[test]
fn predict_agrees_with_eval_whatever_the_view() {
    let dir = tempfile::tempdir().unwrap();
    trained("resnet", dir.path(), &[]);
    let views: [&[&str]; 4] = [
        &[],
        &["view.test.resize=60", "view.test.filter=bilinear"],
        &["view.test.edge=48"],
        &["model.image_size=40", "view.test.resize=41"],
    ];
    let mut losses: Vec<f64> = views.iter().map(|words| agree("resnet", dir.path(), words)).collect();
    losses.sort_by(f64::total_cmp);
    assert!(losses.windows(2).all(|pair| pair[1] - pair[0] > 1e-4), "the views are seen: {losses:?}");
}

#[test]
fn predict_agrees_with_eval_in_one_and_in_ten_crops() {
    let dir = tempfile::tempdir().unwrap();
    trained("alexnet", dir.path(), &["view.test.edge=36"]);
    let one = agree("alexnet", dir.path(), &[]);
    let ten = agree("alexnet", dir.path(), &["test.crops=ten"]);
    assert_ne!(one, ten);
}

#[test]
fn classes_are_matched_by_name_and_one_split_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    trained("resnet", dir.path(), &[]);
    let whole = json(&succeed(resnet(dir.path(), &["eval", "--weights", "run", "--json"])));
    for split in ["val", "test"] {
        let root = dir.path().join(format!("only_{split}"));
        fs::create_dir(&root).unwrap();
        fs::rename(dir.path().join("photos/val"), root.join(split)).unwrap();
        let of = format!("data.root=only_{split}");
        let found = json(&succeed(resnet(dir.path(), &["eval", "--weights", "run", "--json", &of])));
        assert_eq!(found["metrics"], whole["metrics"]);
        fs::rename(root.join(split), dir.path().join("photos/val")).unwrap();
    }
    // Alone, `dark` is the first class of its folder and the second of the weights.
    fs::create_dir_all(dir.path().join("part/val")).unwrap();
    fs::rename(dir.path().join("photos/val/dark"), dir.path().join("part/val/dark")).unwrap();
    let part = run(resnet(dir.path(), &["eval", "--weights", "run", "--json", "data.root=part"]));
    assert!(text(&part.stderr).contains("no test pictures of bright"), "{}", text(&part.stderr));
    let metrics = &json(&text(&part.stdout))["metrics"];
    assert_eq!(metrics["test/accuracy"], whole["metrics"]["test/class/dark"]);
    assert_eq!(metrics["test/class/dark"], whole["metrics"]["test/class/dark"]);

    fs::rename(dir.path().join("part/val/dark"), dir.path().join("part/val/night")).unwrap();
    let (_, said) = refused(resnet(dir.path(), &["eval", "--weights", "run", "data.root=part"]));
    for part in ["night is no class of these weights", "They know bright, dark; here are night"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn pictures_are_centred_as_the_weights_learned_and_differences_are_told() {
    let dir = tempfile::tempdir().unwrap();
    trained("resnet", dir.path(), &[]);
    let own = json(&succeed(resnet(dir.path(), &["eval", "--weights", "run", "--json"])));
    let other = "normalise={kind: channels, mean: [0, 0, 0], std: [0.01, 0.01, 0.01]}";
    let eval = run(resnet(dir.path(), &["eval", "--weights", "run", "--json", other, "view.test.resize=36"]));
    assert_eq!(json(&text(&eval.stdout))["metrics"], own["metrics"]);
    let said = text(&eval.stderr);
    assert!(
        said.contains("note: normalise: these weights learned from pictures centred by mean [0.5, 0.5, 0.5]"),
        "{said}"
    );
    let photo = "photos/val/dark/01.jpg";
    let answer = |words: &[&str]| {
        let output = run(resnet(dir.path(), &[&["predict", "--weights", "run", photo, "--json"], words].concat()));
        (json(&text(&output.stdout))[0]["classes"].clone(), text(&output.stderr))
    };
    let ((plain, quiet), (centred, said)) = (answer(&[]), answer(&[other]));
    assert_eq!(plain, centred);
    assert!(quiet.is_empty() && said.contains("note: normalise: "), "{quiet}{said}");
    let (_, said) = answer(&["model.image_size=64", "view.test.filter=bilinear"]);
    assert!(said.contains("learned from pictures of 32 pixels, and here they are shown 64"), "{said}");
    assert!(said.contains("view.test.filter is bilinear here, and was bicubic in the run of these weights"), "{said}");

    // The mean picture of a run's own data centres photos, too: these are as large as it.
    let yaml = root().join("experiments/resnet/smoke.yaml").display().to_string();
    let mean = "normalise={kind: pixel_mean}";
    succeed(resnet(
        dir.path(),
        &["--config", &yaml, "-q", "--out", "mean", "length=2 steps", "data.limit_train=64", mean],
    ));
    let eval = |words: &[&str]| {
        let output = run(resnet(dir.path(), &[&["eval", "--weights", "mean", "--json"], words].concat()));
        (json(&text(&output.stdout))["metrics"]["test/loss"].clone(), text(&output.stderr))
    };
    let ((own, quiet), (all, said)) = (eval(&[]), eval(&["data.limit_train=null"]));
    assert_eq!(own, result(&dir.path().join("mean"))["metrics"]["test/loss"]);
    assert_eq!(own, all, "another part of the data has another mean picture, which is not that of the weights");
    assert!(quiet.is_empty() && said.contains("centred by mean a picture of 32×32"), "{quiet}{said}");
    // Classes of another set.
    let words = [
        "data={name: folder, root: photos}",
        "data.limit_test=null",
        "data.limit_train=null",
        "view={train: {kind: resize_crop, resize: 32, filter: bilinear}, test: {kind: resize_crop, resize: 32, filter: bilinear}}",
    ];
    let (_, said) = refused(resnet(dir.path(), &[&["eval", "--weights", "mean"], &words[..]].concat()));
    assert!(said.contains("bright is no class of these weights. They know 0, 1, 2"), "{said}");
}

#[test]
fn a_run_s_own_configuration_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    trained("resnet", dir.path(), &[]);
    std::os::unix::fs::symlink("run", dir.path().join("latest")).unwrap();
    fs::copy(dir.path().join("run/weights.safetensors"), dir.path().join("alone.safetensors")).unwrap();
    let mut found = Vec::new();
    for weights in ["run", "latest", "run/weights.safetensors"] {
        found.push(json(&succeed(resnet(dir.path(), &["eval", "--weights", weights, "--json"])))["metrics"].clone());
    }
    assert!(found.iter().all(|metrics| *metrics == found[0]));
    let input = repro::weights::Named::from([(
        "image".to_string(),
        tch::Tensor::zeros([1, 3, 32, 32], (tch::Kind::Float, tch::Device::Cpu)),
    )]);
    repro::weights::write(&dir.path().join("i.safetensors"), &input, None).unwrap();
    let tensors = ["--input", "i.safetensors", "--output", "o.safetensors"];
    succeed(resnet(dir.path(), &[&["forward", "--weights", "latest"], &tensors[..]].concat()));
    assert_eq!(repro::weights::read(&dir.path().join("o.safetensors")).unwrap().0["logits"].size(), [1, 2]);
    for command in ["eval", "predict"] {
        let (_, said) = refused(resnet(dir.path(), &[command, "--weights", "alone.safetensors"]));
        assert!(said.contains("--config FILE is missing"), "{said}");
    }
    let (_, said) = refused(resnet(dir.path(), &["predict", "--weights", "nowhere", "photos"]));
    assert!(said.contains("no weights at nowhere"), "{said}");
    // Another network: what does not fit is counted, and not listed to the end.
    let (_, said) = refused(resnet(dir.path(), &["predict", "--weights", "run", "photos", "model.name=resnet18"]));
    assert!(said.contains("differences") && said.contains("more") && said.lines().count() <= 15, "{said}");
}

#[test]
fn of_many_inputs_each_gets_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    trained("resnet", dir.path(), &[]);
    let at = |name: &str| dir.path().join(name);
    for folder in ["new", "new/more", "a=b"] {
        fs::create_dir(at(folder)).unwrap();
    }
    let dark = fs::read(at("photos/val/dark/01.jpg")).unwrap();
    for name in ["new/x.jpg", "new/more/x.jpg", "new/x-2.JPG", "a=b/x.jpg", "seed=1.jpg", "-x=1.jpg"] {
        fs::write(at(name), &dark).unwrap();
    }
    let picture = image::open(at("photos/val/dark/01.jpg")).unwrap();
    picture.save(at("new/y.webp")).unwrap();
    picture.save(at("new/z.bmp")).unwrap();
    fs::write(at("new/cut.jpg"), &dark[..dark.len() / 4]).unwrap();
    fs::write(at("new/notes.txt"), "no picture").unwrap();
    fs::write(at("new/raw.heic"), "not read").unwrap();
    image::RgbImage::from_fn(20_000, 1, |x, _| image::Rgb([x as u8; 3])).save(at("wide.png")).unwrap();

    let begun = Instant::now();
    let words = ["predict", "--weights", "run", "--json", "new", "a=b", "seed=1.jpg", "wide.png", "--", "-x=1.jpg"];
    let (output, said) = refused(resnet(dir.path(), &words));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(said.contains("2 files are passed over for the ending: .heic (1), .txt (1)"), "{said}");
    assert!(said.contains("1 of 10 have no answer: new/cut.jpg: JPEG: cut off"), "{said}");
    let answers = json(&text(&output.stdout));
    let answers = answers.as_array().unwrap();
    let images: Vec<&str> = answers.iter().map(|answer| answer["image"].as_str().unwrap()).collect();
    let expected = [
        "new/cut.jpg",
        "new/x-2.JPG",
        "new/x.jpg",
        "new/y.webp",
        "new/z.bmp",
        "new/more/x.jpg",
        "a=b/x.jpg",
        "seed=1.jpg",
        "wide.png",
        "-x=1.jpg",
    ];
    assert_eq!(images, expected);
    assert_eq!(answers[0]["error"], "new/cut.jpg: JPEG: cut off");
    let drawn: Vec<&str> = answers[1..].iter().map(|answer| answer["pictures"][0].as_str().unwrap()).collect();
    let names: std::collections::BTreeSet<_> = drawn.iter().collect();
    assert_eq!(names.len(), 9, "{drawn:?}");
    assert!(drawn.iter().all(|picture| at(picture).is_file()), "{drawn:?}");
    assert!([1, 2, 5, 6, 7, 9].iter().all(|place| answers[*place]["classes"] == answers[1]["classes"]));
    assert_eq!(answers[3]["classes"], answers[4]["classes"], "WebP without loss and BMP hold the same pixels");

    let lines = run(resnet(dir.path(), &["predict", "--weights", "run", "new/cut.jpg", "new/x.jpg"]));
    assert_eq!(lines.status.code(), Some(2));
    let lines = text(&lines.stdout);
    assert!(lines.contains("no answer: new/cut.jpg: JPEG: cut off") && lines.contains(" %"), "{lines}");
    fs::create_dir(at("empty")).unwrap();
    let (_, said) = refused(resnet(dir.path(), &["predict", "--weights", "run", "empty"]));
    assert!(said.contains("empty: there are no photos in this folder"), "{said}");
}

#[test]
fn digits_are_read_by_the_same_hands() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), smoke(&["--out", "run", "-q", "length=2 steps"])));
    let digit = image::GrayImage::from_fn(91, 140, |x, y| {
        image::Luma([if (40..52).contains(&x) && (20..120).contains(&y) { 10 } else { 250 }])
    });
    for name in ["one.jpg", "one.webp", "one.bmp"] {
        digit.save(dir.path().join(name)).unwrap();
    }
    let jpeg = fs::read(dir.path().join("one.jpg")).unwrap();
    fs::write(dir.path().join("cut.jpg"), &jpeg[..jpeg.len() / 4]).unwrap();
    let words = ["predict", "--weights", "run", "--json", "cut.jpg", "one.jpg", "one.webp", "one.bmp"];
    let (output, said) = refused(lenet(dir.path(), words));
    assert!(said.contains("cut.jpg: JPEG: cut off"), "{said}");
    let answers = json(&text(&output.stdout));
    assert_eq!(answers[2]["classes"], answers[3]["classes"]);
    assert!(answers[1]["pictures"][0].as_str().unwrap().ends_with("one-layers.png"));
    // The card has the classes here, too: those of clothes are not digits. These drawn digits are called by their names.
    let card = |classes: &[&str]| serde_json::json!({ "classes": classes, "mean": null, "std": null }).to_string();
    let tensors = repro::weights::read(&dir.path().join("run/weights.safetensors")).unwrap().0;
    let clothes = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"];
    repro::weights::write(&dir.path().join("run/weights.safetensors"), &tensors, Some(&card(&clothes))).unwrap();
    let (_, said) = refused(lenet(dir.path(), ["eval", "--weights", "run"]));
    assert!(said.contains("They know T-shirt, trouser") && said.contains("synthetic has 0, 1"), "{said}");
    let named = json(&succeed(lenet(dir.path(), ["predict", "--weights", "run", "--json", "one.bmp"])));
    assert!(clothes.contains(&named[0]["classes"][0][0].as_str().unwrap()), "{named}");
}

#[test]
fn bfloat16_that_is_imitated_is_told() {
    let dir = tempfile::tempdir().unwrap();
    trained("resnet", dir.path(), &["length=1 steps", "compute.precision=bf16"]);
    let notes = result(&dir.path().join("run"))["notes"].to_string();
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let imitated = flags.contains("\nflags") && !flags.contains("avx512_bf16") && !flags.contains("amx_bf16");
    assert_eq!(notes.contains("set compute.precision=f32"), imitated, "{notes}");
}

/// What is not in the configuration's hash decides as well: the weights that a run begins with, their classes, its data.
#[test]
fn other_classes_start_afresh_and_a_finished_run_is_not_taken_for_another() {
    let dir = tempfile::tempdir().unwrap();
    trained("resnet", dir.path(), &[]);
    photos(&dir.path().join("other"));
    for split in ["train", "val"] {
        fs::rename(
            dir.path().join("other").join(split).join("bright"),
            dir.path().join("other").join(split).join("zenith"),
        )
        .unwrap();
    }
    let config = ["train", "-q", "--config", "run/config.yaml"];
    let with = |words: &[&str]| resnet(dir.path(), &[&config[..], words].concat());
    succeed(with(&["data.root=other", "--init", "run", "--out", "new"]));
    let notes = result(&dir.path().join("new"))["notes"].to_string();
    for part in ["know bright, dark", "have dark, zenith", "the classifier starts fresh"] {
        assert!(notes.contains(part), "{notes}");
    }
    succeed(with(&["--init", "run", "--out", "same"]));
    assert!(!result(&dir.path().join("same"))["notes"].to_string().contains("fresh"));
    let (_, said) = refused(with(&["data.root=other", "--init", "run", "--out", "strict", "init={head: strict}"]));
    assert!(said.contains("init.head is strict") && said.contains("zenith"), "{said}");

    let (_, said) = refused(with(&["data.root=other", "--out", "run", "--resume"]));
    assert!(said.contains("other data than those of data.root"), "{said}");
    let (_, said) = refused(with(&["--init", "new", "--out", "run", "--resume"]));
    assert!(said.contains("did not begin with the weights new"), "{said}");
    succeed(with(&["--out", "run", "--resume"]));
    fs::rename(dir.path().join("photos"), dir.path().join("moved")).unwrap();
    succeed(with(&["data.root=moved", "--out", "run", "--resume"]));

    // A rate for what is frozen does not act, and is no mistake.
    succeed(with(&["data.root=moved", "--dry-run", "freeze=[conv1]", "optim.lr_scale={conv1: 0.1, layer1: {0: 0.1}}"]));
    let (_, said) = refused(with(&["data.root=moved", "--dry-run", "freeze=[bn1.running_mean]"]));
    assert!(said.contains("freeze: no tensor of this model lies below \"bn1.running_mean\""), "{said}");
    let (mut weights, card) = repro::weights::load(&dir.path().join("run/weights.safetensors")).unwrap();
    let _ = weights.get_mut("conv1.weight").unwrap().fill_(f64::NAN);
    repro::weights::write(&dir.path().join("nan.safetensors"), &weights, card.as_deref()).unwrap();
    let (_, said) = refused(with(&["data.root=moved", "--init", "nan.safetensors", "--out", "nan"]));
    assert!(said.contains("conv1.weight holds values that are no numbers"), "{said}");
    assert!(!dir.path().join("nan").exists());
}
