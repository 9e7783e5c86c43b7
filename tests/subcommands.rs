//! The commands beside training.

use std::fs;

use serde_json::Value;

use crate::program::{lenet, program, root, run, smoke, succeed, text};

fn with(command: &str, words: Vec<String>) -> Vec<String> {
    [vec![command.to_string()], words].concat()
}

fn json(said: &str) -> Value {
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

#[test]
fn eval_and_verify_find_the_run_s_own_numbers_and_notice_changed_weights() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), smoke(&["--out", "run", "-q", "length=20 steps"])));
    let result = crate::program::result(&dir.path().join("run"));
    let found = json(&succeed(lenet(dir.path(), with("eval", smoke(&["--weights", "run", "--json"])))));
    assert_eq!(found["metrics"]["test/error"], result["metrics"]["test/error"]);
    assert_eq!(found["weights_sha256"], result["weights_sha256"]);

    let verified = json(&succeed(lenet(dir.path(), ["verify", "run", "--json"])));
    assert_eq!(verified["holds"], true);
    let file = dir.path().join("run/weights.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len() - 2;
    bytes[end] ^= 0x40;
    fs::write(&file, bytes).unwrap();
    let output = run(lenet(dir.path(), ["verify", "run"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("DIFFERS weights hash"), "{}", text(&output.stdout));
}

#[test]
fn summary_counts_as_the_paper_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = root().join("experiments/lenet/lenet5.yaml").display().to_string();
    let rows = json(&succeed(lenet(dir.path(), ["summary", "--config", &file, "--json"])));
    let sum = |key: &str| rows.as_array().unwrap().iter().map(|r| r[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("parameters"), 60_000);
    assert_eq!(sum("connections"), 340_908);
    let table = succeed(lenet(dir.path(), ["summary", "--config", &file]));
    assert!(table.contains("340908"), "{table}");
    let modern =
        json(&succeed(lenet(dir.path(), ["summary", "--config", &file, "--json", "model.name=lenet5_modern"])));
    assert_eq!(modern.as_array().unwrap().iter().map(|r| r["parameters"].as_u64().unwrap()).sum::<u64>(), 61_706);
}

/// `data.validation` holds pictures out of the training set, and the curve is drawn over them, in every paper.
#[test]
fn what_is_held_out_is_what_the_curve_is_about() {
    let dir = tempfile::tempdir().unwrap();
    for paper in ["lenet", "alexnet", "resnet"] {
        let yaml = root().join(format!("experiments/{paper}/smoke.yaml")).display().to_string();
        let words =
            ["--config", &yaml, "--out", paper, "-q", "length=4 steps", "eval.every=2 steps", "data.validation=300"];
        succeed(program(paper, dir.path(), words));
        let rows = fs::read_to_string(dir.path().join(paper).join("metrics.jsonl")).unwrap();
        assert!(rows.contains("val/error") && !rows.contains("monitor/error"), "{paper}: {rows}");
    }
}

/// `--json` has no number for what is none, so it is said.
#[test]
fn weights_that_give_no_numbers_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), smoke(&["--out", "run", "-q", "length=2 steps"])));
    let file = dir.path().join("run/weights.safetensors");
    let (mut weights, _) = repro::weights::read(&file).unwrap();
    for (_, tensor) in weights.iter_mut() {
        let _ = tensor.f_fill_(f64::NAN).unwrap();
    }
    let bad = dir.path().join("bad.safetensors");
    repro::weights::write(&bad, &weights, None).unwrap();
    let output = run(lenet(dir.path(), with("eval", smoke(&["--weights", "bad.safetensors", "--json"]))));
    let said = text(&output.stderr);
    assert!(said.contains("test/loss is NaN"), "{said}");
}

#[test]
fn bench_reports_as_json_and_data_draws() {
    let dir = tempfile::tempdir().unwrap();
    let bench = json(&succeed(lenet(dir.path(), with("bench", smoke(&["--steps", "5"])))));
    for key in ["examples_per_second", "first_step_seconds", "median_step_seconds", "peak_memory_bytes"] {
        assert!(bench[key].as_f64().unwrap() > 0.0, "{bench}");
    }
    let look = json(&succeed(lenet(dir.path(), with("data", smoke(&["--json"])))));
    assert_eq!(look["classes"].as_array().unwrap().len(), 10);
    let picture = image::open(dir.path().join("data.png")).unwrap();
    assert!(picture.width() > 100 && picture.height() > 100);
}

#[test]
fn runs_lists_this_paper_s_runs() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), smoke(&["-q", "length=2 steps", "seed=9"])));
    let said = succeed(lenet(dir.path(), ["runs"]));
    assert!(said.contains("runs/lenet/smoke/") && said.contains("done"), "{said}");
    assert_eq!(json(&succeed(lenet(dir.path(), ["runs", "--json"])))["seed"], 9);
}

#[test]
fn predict_reads_dark_on_light_and_light_on_dark() {
    let dir = tempfile::tempdir().unwrap();
    succeed(lenet(dir.path(), smoke(&["--out", "run", "-q", "length=5 steps"])));
    // A stroke of a one, drawn at an odd size, in both polarities.
    for (name, paper, ink) in [("dark.png", 250u8, 10u8), ("light.png", 5, 245)] {
        let picture = image::GrayImage::from_fn(91, 140, |x, y| {
            image::Luma([if (40..52).contains(&x) && (20..120).contains(&y) { ink } else { paper }])
        });
        picture.save(dir.path().join(name)).unwrap();
    }
    let words = with("predict", smoke(&["--weights", "run", "dark.png", "light.png", "--json"]));
    let said = json(&succeed(lenet(dir.path(), words)));
    let answers = said.as_array().unwrap();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["classes"][0][0], answers[1]["classes"][0][0], "polarity does not change the answer");
    for answer in answers {
        let total: f64 = answer["classes"].as_array().unwrap().iter().map(|c| c[1].as_f64().unwrap()).sum();
        assert!((total - 1.0).abs() < 1e-3, "probabilities sum to one: {total}");
        let drawn = answer["pictures"][0].as_str().unwrap();
        assert!(image::open(dir.path().join(drawn)).unwrap().width() > 100);
    }
    let output = run(lenet(dir.path(), with("predict", smoke(&["--weights", "run", "nothing.png"]))));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nothing.png"));
}
