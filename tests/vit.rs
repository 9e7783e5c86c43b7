//! ViT through its binary: exact when cut, at another resolution, what it draws.

use std::path::Path;
use std::process::Command;

use repro::weights;

use crate::program::{program, result, root, rows, run, succeed, text, weights_hash};

/// The smoke experiment on one thread.
fn smoke(folder: &Path, command: &str, words: &[&str]) -> Command {
    let yaml = root().join("experiments/vit/smoke.yaml").display().to_string();
    program("vit", folder, [&[command, "--config", &yaml, "--device", "cpu"], words].concat())
}

/// Some steps with everything that draws, averages or changes gradients.
fn train(folder: &Path, out: &str, words: &[&str]) -> Command {
    let hard = [
        "-q",
        "length=8 steps",
        "batch_size=8",
        "schedule.warmup=2 steps",
        "data.limit_test=20",
        "checkpoint.every=2 steps",
        "log.every=2 steps",
        "model.drop_path=0.3",
        "layer_decay=0.75",
        "ema={decay: 0.9}",
        "compute.micro_batch=3",
        "augment=[{kind: crop, pad: 2}, {kind: mixup, alpha: 1}]",
    ];
    smoke(folder, "train", &[&hard[..], &["--out", out], words].concat())
}

#[test]
fn a_cut_run_ends_in_the_same_weights_and_curves() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), "whole", &[]));
    succeed(train(dir.path(), "cut", &["limit=0.0001 seconds"]));
    assert_eq!(result(&dir.path().join("cut"))["status"], "interrupted");
    succeed(program("vit", dir.path(), ["train", "--resume", "cut", "-q", "limit=10 minutes"]));
    let [whole, cut] = ["whole", "cut"].map(|run| dir.path().join(run));
    assert_eq!(weights_hash(&cut), weights_hash(&whole));
    assert_eq!(rows(&cut), rows(&whole));
    // Had nothing been dropped, the test could not tell.
    succeed(train(dir.path(), "kept", &["model.drop_path=0"]));
    assert_ne!(weights_hash(&dir.path().join("kept")), weights_hash(&whole));
    let verified = succeed(program("vit", dir.path(), ["verify", "whole", "--json"]));
    assert!(verified.contains("\"holds\":true"), "{verified}");
}

#[test]
fn weights_begin_at_another_resolution_when_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), "small", &[]));
    let larger = ["--init", "small", "model.image_size=48"];
    let refused = run(train(dir.path(), "refused", &larger));
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("8 × 8") && said.contains("model.resize_positions=true"), "{said}");
    assert!(!dir.path().join("refused").exists(), "a refused command leaves nothing");
    succeed(train(dir.path(), "large", &[&larger[..], &["model.resize_positions=true"]].concat()));
    let (learned, _) = weights::read(&dir.path().join("large/weights.safetensors")).unwrap();
    assert_eq!(learned["pos_embed"].size(), [1, 1 + 12 * 12, 96]);
    let refused = run(train(dir.path(), "odd", &["model.image_size=50"]));
    assert!(text(&refused.stderr).contains("multiple of the patch"), "{}", text(&refused.stderr));
}

#[test]
fn predict_draws_attention_over_each_photo() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), "run", &[]));
    image::RgbImage::from_fn(70, 50, |x, y| image::Rgb([x as u8, y as u8, 90])).save(dir.path().join("p.png")).unwrap();
    let said = succeed(program("vit", dir.path(), ["predict", "--weights", "run", "p.png", "--json"]));
    assert!(said.contains("p-attention.png"), "{said}");
    let drawn = image::open(dir.path().join("predictions/p-attention.png")).unwrap();
    assert!(drawn.width() >= 32 && drawn.height() >= 32);
    // The photo and six heads, four in a row.
    assert!(said.contains("p-attention-maps.png"), "{said}");
    let heads = image::open(dir.path().join("predictions/p-attention-maps.png")).unwrap();
    assert!(heads.width() > 4 * 224 && heads.height() > 2 * 224, "{}", heads.width());
}
