//! What the programs promise that classify colour pictures: batch norm, augmentation, blended labels, photos.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::{checkpoints, program, result, root, run, succeed, text, weights_hash};

/// `resnet` with its smoke experiment and further words.
fn resnet(folder: &Path, command: &str, words: &[&str]) -> Command {
    let yaml = root().join("experiments/resnet/smoke.yaml").display().to_string();
    let fixed = [command, "--config", &yaml, "--device", "cpu"];
    program("resnet", folder, fixed.iter().chain(words))
}

fn train(folder: &Path, out: &str, words: &[&str]) {
    succeed(resnet(folder, "train", &[&["-q", "--out", out], words].concat()));
}

/// Every augmentation that there is, sharpness-aware steps, averages and accumulation.
const HARD: [&str; 9] = [
    "data.repeats=3",
    "length=14 steps",
    "checkpoint.every=3 steps",
    "sam={rho: 0.05}",
    "ema={decay: 0.9}",
    "compute.micro_batch=12",
    "label_smoothing=0.1",
    "data.limit_train=100",
    "augment=[{kind: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}, {kind: rand_augment, ops: 2, magnitude: 9, bins: 31}, {kind: rand_augment_timm, ops: 2, magnitude: 9, std: 0.5, fill: [124, 116, 104], p: 0.5}, {kind: auto_augment, policy: cifar10, p: 0.5}, {kind: pca_noise, std: 0.1}, {kind: affine, rotate: 10, scale: 0.1, squeeze: 0.1, shear: 5, shift: 2}, {kind: crop, pad: 4, fill: reflect}, {kind: flip}, {kind: cutout, size: 8}, {kind: random_erasing, scale: [0.02, 0.4], ratio: [0.3, 3], p: 0.25}, {kind: mixup, alpha: 0.2, p: 0.4}, {kind: cutmix, alpha: 1, p: 0.4}]",
];

#[test]
fn a_cut_run_with_everything_that_is_drawn_ends_in_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "whole", &HARD);
    train(dir.path(), "cut", &[&HARD[..], &["limit=0.0001 seconds"]].concat());
    for _ in 0..2 {
        succeed(program("resnet", dir.path(), ["train", "--resume", "cut", "-q"]));
    }
    assert_eq!(checkpoints(&dir.path().join("cut")).len(), 2);
    succeed(program("resnet", dir.path(), ["train", "--resume", "cut", "-q", "limit=10 minutes"]));
    assert_eq!(weights_hash(&dir.path().join("cut")), weights_hash(&dir.path().join("whole")));
    let notes = result(&dir.path().join("cut"))["notes"].to_string();
    assert!(notes.contains("batch norm sees 12 pictures"), "{notes}");
}

#[test]
fn weights_and_runs_of_another_network_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "run", &["length=1 steps"]);
    let other = run(resnet(dir.path(), "eval", &["--weights", "run", "model.name=cifar_resnet32"]));
    assert_eq!(other.status.code(), Some(2));
    assert!(text(&other.stderr).contains("missing: layer1.3.conv1.weight"), "{}", text(&other.stderr));
    let resumed = run(program("resnet", dir.path(), ["train", "--resume", "run", "model.name=cifar_plain20"]));
    assert_eq!(resumed.status.code(), Some(2));
    assert!(text(&resumed.stderr).contains("model.name"), "{}", text(&resumed.stderr));
    let unknown = run(resnet(dir.path(), "train", &["model.name=resnet19"]));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("resnet18, 34, 50"), "{}", text(&unknown.stderr));
}

#[test]
fn a_stem_for_photos_on_small_pictures_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["model.name=resnet18", "model.image_size=32", "length=1 steps", "data.limit_test=20"];
    train(dir.path(), "run", &words);
    let result = result(&dir.path().join("run"));
    assert!(result["notes"].to_string().contains("resnet18_cifar keeps more"), "{result}");
    assert_eq!(result["parameters"], 11_181_642);
}

#[test]
fn what_is_held_out_is_evaluated_on_the_way_and_never_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "run", &["length=4 steps", "eval.every=2 steps", "data.validation=500"]);
    let rows = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    assert!(rows.contains("val/error") && !rows.contains("monitor/error"), "{rows}");
    let said = succeed(resnet(dir.path(), "data", &["--json", "data.validation=500"]));
    let look: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let total: u64 = look["classes"].as_array().unwrap().iter().map(|c| c["train"].as_u64().unwrap()).sum();
    assert_eq!(total, 1500);
    let all = run(resnet(dir.path(), "train", &["data.validation=2000"]));
    assert_eq!(all.status.code(), Some(2));
    assert!(text(&all.stderr).contains("data.validation"), "{}", text(&all.stderr));
}

#[test]
fn predict_names_classes_and_draws_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "run", &["length=2 steps"]);
    image::RgbImage::from_fn(90, 61, |x, y| image::Rgb([x as u8, y as u8, 120]))
        .save(dir.path().join("p.png"))
        .unwrap();
    let said = succeed(resnet(dir.path(), "predict", &["--weights", "run", "p.png", "--json"]));
    let answers: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let classes = answers[0]["classes"].as_array().unwrap();
    let total: f64 = classes.iter().map(|c| c[1].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-6 && classes.len() == 10, "{classes:?}");
    let drawn = answers[0]["pictures"][0].as_str().unwrap();
    assert!(image::open(dir.path().join(drawn)).unwrap().width() >= 400);
}

#[test]
fn a_list_acts_as_it_is_written_and_colours_after_centring_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let words = [
        "augment=[{kind: flip}, {kind: centre}, {kind: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}]",
    ];
    let output = run(resnet(dir.path(), "train", &words));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("color_jitter"), "{}", text(&output.stderr));
    let written = [words[0].replace("{kind: centre}, ", "")];
    succeed(resnet(dir.path(), "train", &[written[0].as_str(), "length=1 steps", "-q"]));
}

/// `alexnet` with its smoke experiment and further words.
fn alexnet(folder: &Path, command: &str, words: &[&str]) -> Command {
    let yaml = root().join("experiments/alexnet/smoke.yaml").display().to_string();
    let fixed = [command, "--config", &yaml, "--device", "cpu"];
    program("alexnet", folder, fixed.iter().chain(words))
}

#[test]
fn a_network_of_crops_trains_on_after_a_cut_tests_ten_views_and_predicts() {
    let dir = tempfile::tempdir().unwrap();
    let local = [
        "model.name=cifar_local_lrn",
        "augment=[{kind: crop, pad: 0, size: 24}, {kind: flip}]",
        "test.crops=ten",
        "length=6 steps",
        "checkpoint.every=2 steps",
        "data.limit_test=50",
        "-q",
    ];
    let train = |out: &str, words: &[&str]| {
        succeed(alexnet(dir.path(), "train", &[&local[..], &["--out", out], words].concat()))
    };
    train("whole", &[]);
    train("cut", &["limit=0.0001 seconds"]);
    succeed(program("alexnet", dir.path(), ["train", "--resume", "cut", "-q", "limit=10 minutes"]));
    let hash = |out: &str| result(&dir.path().join(out))["weights_sha256"].clone();
    assert_eq!(hash("cut"), hash("whole"));
    let verified = succeed(program("alexnet", dir.path(), ["verify", "whole", "--json"]));
    assert!(verified.contains("\"holds\":true"), "{verified}");

    // The network sees 24 of a photo's 32 pixels, and of the mean picture the middle.
    image::RgbImage::from_fn(70, 50, |x, y| image::Rgb([x as u8, y as u8, 90])).save(dir.path().join("p.png")).unwrap();
    let words = ["model.name=cifar_local_lrn", local[1], "--weights", "whole", "p.png", "--json"];
    let said = succeed(alexnet(dir.path(), "predict", &words));
    assert!(said.contains("p-cam.png"), "{said}");

    // Pictures that do not come out as the network takes them.
    let refused = run(alexnet(dir.path(), "train", &["model.name=cifar_local"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("size: 24"), "{}", text(&refused.stderr));
}

#[test]
fn squares_that_are_too_small_to_test_on_are_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = root().join("experiments/alexnet/ilsvrc2012_alexnet.yaml").display().to_string();
    for (crops, edge, holds) in [("one", 223, false), ("one", 224, true), ("ten", 224, false), ("ten", 225, true)] {
        let words = [format!("test.crops={crops}"), format!("view.test.edge={edge}")];
        let fixed = ["train", "--config", &yaml, "--print-config"].map(String::from);
        let output = run(program("alexnet", dir.path(), fixed.iter().chain(&words)));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(if holds { 0 } else { 2 }), "{words:?}: {said}");
        assert!(holds || said.contains("view.test.edge"), "{said}");
    }
}

#[test]
fn alexnet_s_summary_counts_as_published() {
    let dir = tempfile::tempdir().unwrap();
    for (name, parameters, adds) in [("alexnet", 61_100_840, Some(714_188_480)), ("alexnet_2012", 60_965_224, None)] {
        let words = [&format!("model.name={name}"), "model.num_classes=1000", "--json"];
        let said = succeed(alexnet(dir.path(), "summary", &words));
        let rows: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let sum = |key: &str| rows.as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("parameters"), parameters, "{name}");
        assert!(adds.is_none_or(|adds| sum("multiply_adds") == adds), "{name}");
    }
}
