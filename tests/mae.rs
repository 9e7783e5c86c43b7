//! MAE through its binary: exact when cut in any stage, what it draws, what it refuses, weights of others.

use std::path::Path;
use std::process::Command;

use repro::config::{Experiment, Length};
use repro::data::{Augment, Filter, Flip, RandomResizedCrop, TrainView};
use repro::optim::OptimConfig;
use repro::weights;

use crate::program::{program, result, root, rows, run, succeed, text};

/// The smoke experiment on one thread.
fn smoke(folder: &Path, command: &str, words: &[&str]) -> Command {
    let yaml = root().join("experiments/mae/smoke.yaml").display().to_string();
    program("mae", folder, [&[command, "--config", &yaml, "--device", "cpu"], words].concat())
}

/// A few steps of every stage.
fn train(folder: &Path, out: &str, words: &[&str]) -> Command {
    let short = [
        "-q",
        "length=6 steps",
        "batch_size=8",
        "schedule.warmup=2 steps",
        "data.limit_train=64",
        "data.limit_test=20",
        "checkpoint.every=2 steps",
        "log.every=2 steps",
        "compute.micro_batch=3",
        "probe.length=4 steps",
        "probe.batch_size=8",
        "finetune.length=4 steps",
        "finetune.batch_size=8",
        "finetune.schedule.warmup=2 steps",
        "finetune.labels=0.5",
    ];
    smoke(folder, "train", &[&short[..], &["--out", out], words].concat())
}

fn hash(folder: &Path, file: &str) -> String {
    weights::hash(&weights::read(&folder.join(file)).unwrap().0).unwrap()
}

fn trunk(folder: &Path) -> String {
    let result = result(folder);
    assert_eq!(result["trunk_sha256_before"], result["trunk_sha256_after"]);
    result["trunk_sha256_after"].as_str().unwrap().to_string()
}

#[test]
fn a_run_cut_in_any_stage_ends_in_the_same_weights_and_curves() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), "whole", &[]));
    // Cut as often as it takes, a step or two at a time, so that every stage is.
    succeed(train(dir.path(), "cut", &["limit=0.0001 seconds"]));
    let mut cuts = 1;
    while result(&dir.path().join("cut"))["status"] == "interrupted" {
        assert!(cuts < 60, "it does not come on");
        succeed(program("mae", dir.path(), ["train", "--resume", "cut", "-q", "limit=0.0001 seconds"]));
        cuts += 1;
    }
    assert!(cuts > 6, "{cuts} sittings");
    let [whole, cut] = ["whole", "cut"].map(|run| dir.path().join(run));
    for file in ["weights.safetensors", "weights-probe.safetensors", "weights-finetune.safetensors"] {
        assert_eq!(hash(&cut, file), hash(&whole, file), "{file}");
    }
    assert_eq!(rows(&cut), rows(&whole));
    assert_eq!(trunk(&cut), trunk(&whole));
}

/// Another mask ratio, sampling or place of the mask tokens is another training; a network of another kind runs every stage.
#[test]
fn what_is_removed_matters() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (out, words) in [
        ("plain", &[][..]),
        ("half", &["model.mask_ratio=0.5"]),
        ("block", &["model.sampling=block"]),
        ("grid", &["model.sampling=grid"]),
        ("normed", &["loss.norm_pix=true"]),
        ("tokens", &["model.mask_tokens=encoder"]),
        ("mean", &["model.pool=mean"]),
    ] {
        succeed(train(dir.path(), out, words));
        let hash = match out {
            // The encoder is the same, and what is read of it is not.
            "mean" => result(&dir.path().join(out))["metrics"]["probe/test/loss"].to_string(),
            _ => hash(&dir.path().join(out), "weights.safetensors"),
        };
        assert!(!seen.contains(&hash), "{out}");
        seen.push(hash);
    }
}

#[test]
fn what_cannot_act_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (words, said) in [
        (&["model.mask_ratio=0"][..], "at least one must be kept and at least one removed"),
        (&["model.mask_ratio=1"], "at least one must be kept and at least one removed"),
        (&["model.mask_ratio=0.99"], "of 64 patches"),
        (&["model.image_size=30"], "multiple of the patch"),
        (&["model.sampling=grid", "model.mask_ratio=0.5"], "one patch of four"),
        (&["model.decoder={width: 30, depth: 1, heads: 4}"], "multiple of 4 and of the heads"),
        (&["model.name=vit_base_patch16_224"], "there is no model vit_base_patch16_224"),
        (&["model.layers=[10, 2]"], "of ae, dae and vae"),
        (&["finetune.labels=0"], "above 0 and at most 1"),
        (&["finetune.drop_path=1"], "finetune.drop_path"),
        (&["finetune.layer_decay=0"], "finetune.layer_decay"),
        (&["probe.online=true"], "SimCLR's"),
        (&["augment=[{kind: mixup, alpha: 1}]"], "mixtures"),
        (&["model.name=mae_deit3_small_patch16_224"], "there is no model mae_deit3_small_patch16_224"),
        (&["model.name=ae"], "loss: is of masked autoencoders"),
    ] {
        let refused = run(train(dir.path(), "refused", words));
        let text = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{words:?}: {text}");
        assert!(text.contains(said), "{words:?}: {text}");
        assert!(!dir.path().join("refused").exists(), "a refused command leaves nothing");
    }
}

/// The other autoencoders by every stage that they have; their pictures, and `predict` on a photo.
#[test]
fn autoencoders_of_dense_layers() {
    let dir = tempfile::tempdir().unwrap();
    let photo = dir.path().join("p.png");
    image::RgbImage::from_fn(60, 60, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 90])).save(&photo).unwrap();
    for kind in ["ae", "dae", "vae"] {
        let yaml = root().join(format!("experiments/mae/mnist_{kind}.yaml")).display().to_string();
        let words = [
            "train",
            "--config",
            &yaml,
            "--device",
            "cpu",
            "-q",
            "data=synthetic",
            "length=6 steps",
            "batch_size=8",
            "data.limit_train=64",
            "data.limit_test=30",
            "schedule.warmup=null",
            "probe.length=4 steps",
            "probe.batch_size=8",
            "eval.every=never",
            "--out",
            kind,
        ];
        succeed(program("mae", dir.path(), words));
        let folder = dir.path().join(kind);
        trunk(&folder);
        for (picture, drawn) in [("reconstruction", true), ("walk", true), ("samples", kind == "vae")] {
            assert_eq!(folder.join(format!("figures/test-{picture}.png")).exists(), drawn, "{kind}: {picture}");
        }
        let said =
            succeed(program("mae", dir.path(), ["predict", "--weights", kind, "p.png", "--json", "--out", "told"]));
        assert!(said.contains("p-told.png") && said.contains("rmse"), "{said}");
    }
}

/// A photo, what is left of it and what is made of that: a mask of its own for each.
#[test]
fn predict_draws_three_pictures_of_each_photo() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), "run", &[]));
    for (name, blue) in [("a.png", 90), ("b.png", 91)] {
        image::RgbImage::from_fn(70, 50, |x, y| image::Rgb([x as u8, y as u8, blue]))
            .save(dir.path().join(name))
            .unwrap();
    }
    let predict = |out: &str, photos: &[&str]| {
        succeed(program("mae", dir.path(), [&["predict", "--weights", "run", "--out", out], photos].concat()));
        let drawn = |name: &&str| std::fs::read(dir.path().join(out).join(name.replace(".png", "-told.png"))).unwrap();
        photos.iter().map(drawn).collect::<Vec<_>>()
    };
    let (both, alone) = (predict("both", &["a.png", "b.png"]), predict("alone", &["b.png"]));
    assert!(both[1] == alone[0], "a photo has its mask, whatever is beside it");
    assert!(both[0] != both[1]);
}

/// Weights in the form of transformers serve where ours do; a fine-tuned network is timm's.
#[test]
fn weights_come_and_go_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(dir.path(), "run", &[]));
    let (ours, _) = weights::read(&dir.path().join("run/weights.safetensors")).unwrap();
    let mut theirs = weights::Named::new();
    for (name, tensor) in &ours {
        let block = name.strip_prefix("blocks.").map(|rest| format!("vit.encoder.layer.{rest}"));
        let block = block.or(name.strip_prefix("decoder_blocks.").map(|rest| format!("decoder.decoder_layers.{rest}")));
        let name = match block {
            Some(block) => [
                ("norm1.", "layernorm_before."),
                ("norm2.", "layernorm_after."),
                ("attn.proj.", "attention.output.dense."),
                ("mlp.fc1.", "intermediate.dense."),
                ("mlp.fc2.", "output.dense."),
            ]
            .iter()
            .fold(block, |name, (here, there)| name.replace(here, there)),
            None if name == "cls_token" => "vit.embeddings.cls_token".into(),
            None if name == "pos_embed" => "vit.embeddings.position_embeddings".into(),
            None if name.starts_with("patch_embed.proj.") => {
                name.replace("patch_embed.proj.", "vit.embeddings.patch_embeddings.projection.")
            }
            None if name.starts_with("norm.") => name.replace("norm.", "vit.layernorm."),
            None => format!("decoder.{name}"),
        };
        match name.split_once("attn.qkv.") {
            None => drop(theirs.insert(name, tensor.shallow_clone())),
            Some((block, ending)) => {
                for (third, word) in tensor.chunk(3, 0).into_iter().zip(["query", "key", "value"]) {
                    theirs.insert(format!("{block}attention.attention.{word}.{ending}"), third.contiguous());
                }
            }
        }
    }
    weights::write(&dir.path().join("theirs.safetensors"), &theirs, None).unwrap();
    succeed(train(dir.path(), "begun", &["--init", "theirs.safetensors", "--dry-run"]));
    let yaml = root().join("experiments/mae/smoke.yaml").display().to_string();
    let eval = |weights: &str| {
        let words =
            ["eval", "--config", &yaml, "--weights", weights, "data.limit_test=20", "--json", "--device", "cpu"];
        let said = succeed(program("mae", dir.path(), words));
        let answer: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        answer["metrics"]["test/loss"].as_f64().unwrap()
    };
    assert_eq!(eval("theirs.safetensors"), eval("run"));

    // At another resolution, when that is asked for.
    let larger = ["--stage", "finetune", "--init", "run", "model.image_size=48", "--dry-run"];
    let refused = run(train(dir.path(), "larger", &larger));
    assert!(text(&refused.stderr).contains("model.resize_positions=true"), "{}", text(&refused.stderr));
    succeed(train(dir.path(), "larger", &[&larger[..], &["model.resize_positions=true"]].concat()));
    // A stage that nothing comes before says so.
    succeed(train(dir.path(), "alone", &["--stage", "probe"]));
    let notes = result(&dir.path().join("alone"))["notes"].to_string();
    assert!(notes.contains("begins with weights as they are drawn"), "{notes}");

    let (tuned, _) = weights::read(&dir.path().join("run/weights-finetune.safetensors")).unwrap();
    let yaml = root().join("experiments/vit/smoke.yaml").display().to_string();
    weights::write(&dir.path().join("tuned.safetensors"), &tuned, None).unwrap();
    let words = ["eval", "--config", &yaml, "--weights", "tuned.safetensors", "data.limit_test=20", "--device", "cpu"];
    succeed(program("vit", dir.path(), words));
}

fn row(name: &str) -> Experiment<mae::config::Config> {
    repro::config::load(&root().join(format!("experiments/mae/{name}.yaml")), &[]).unwrap()
}

/// Tables 8 and 9 and what the authors' code adds to them; Table 10.
#[test]
fn the_recipes_of_the_paper() {
    for (name, epochs, (rate, decay, drop, tuned), probed) in [
        ("imagenet_base_e1600", 1600.0, (5e-4, 0.65, 0.1, 100.0), 90.0),
        ("imagenet_large_e1600", 1600.0, (1e-3, 0.75, 0.2, 50.0), 50.0),
        ("imagenet_huge_e1600", 1600.0, (1e-3, 0.75, 0.3, 50.0), 50.0),
        ("imagenet_large_e800", 800.0, (1e-3, 0.75, 0.2, 50.0), 50.0),
    ] {
        let Experiment { settings, paper, .. } = row(name);
        assert_eq!((settings.length, settings.batch_size), (Length::Epochs(epochs), 4096), "{name}");
        let decoder = paper.model.decoder.unwrap();
        assert_eq!((paper.mask_ratio(), decoder.width, decoder.depth, decoder.heads), (0.75, 512, 8, 16), "{name}");

        assert_eq!(paper.norm_pix(), epochs == 1600.0, "{name}");
        let OptimConfig::Adamw(rule) = &paper.optim else { panic!("{name}") };
        assert_eq!((rule.beta1, rule.beta2, rule.weight_decay), (0.9, 0.95, 0.05), "{name}");
        assert!((paper.optim.lr(4096) - 2.4e-3).abs() < 1e-12, "{name}");
        // An epoch of ILSVRC-2012 has 312 whole batches; §9 of the facts.
        let (epoch, total) = (312, 312 * epochs as u64);
        for (step, factor) in [(0, 0.0), (20 * epoch, 0.5), (40 * epoch, 1.0), ((total + 40 * epoch) / 2, 0.5)] {
            let found = paper.schedule.factor(step, total, epoch);
            assert!((found - factor).abs() < 1e-9, "{name}, step {step}: {found}");
        }
        let TrainView::RandomResizedCrop { scale, filter, .. } = paper.view.clone().unwrap().train else {
            panic!("{name}")
        };
        assert_eq!((scale, filter), ([0.2, 1.0], Filter::Bicubic), "{name}");
        assert_eq!(paper.augment, [Augment::Flip(Flip { p: 0.5 })], "{name}");
        let tuning = paper.finetune.clone().unwrap();
        assert!((tuning.optim.lr(1024) - 4.0 * rate).abs() < 1e-12, "{name}");
        assert_eq!((tuning.layer_decay, tuning.drop_path), (Some(decay), Some(drop)), "{name}");
        assert_eq!((tuning.length, tuning.batch_size), (Length::Epochs(tuned), 1024), "{name}");
        assert_eq!(tuning.label_smoothing, Some(0.1), "{name}");
        let probe = paper.probe.unwrap();
        let OptimConfig::Lars(rule) = &probe.optim else { panic!("{name}") };
        assert_eq!((rule.base_lr, rule.momentum, rule.weight_decay, rule.trust), (0.1, 0.9, 0.0, 0.001), "{name}");
        assert_eq!(
            (probe.length, probe.batch_size, probe.norm),
            (Length::Epochs(probed), 16_384, Some(true)),
            "{name}"
        );
    }
}

/// The rows of two cores differ by what their names say alone.
#[test]
fn the_small_rows_differ_by_one_thing() {
    let base = row("cifar10_d96_e40").paper;
    let crop = RandomResizedCrop { scale: [0.2, 1.0], ratio: [0.75, 1.3333], filter: Filter::Bicubic, size: None };
    assert_eq!(base.augment[0], Augment::RandomResizedCrop(crop));
    for (name, ratio) in [
        ("cifar10_d96_e10", 0.75),
        ("cifar10_d96_e10_mask50", 0.5),
        ("cifar10_d96_e10_mask90", 0.9),
        ("cifar10_d96_scratch", 0.75),
    ] {
        let Experiment { settings, mut paper, .. } = row(name);
        assert_eq!(settings.length, Length::Epochs(if name.ends_with("scratch") { 1.0 } else { 10.0 }));
        assert_eq!(paper.mask_ratio(), ratio);
        paper.schedule = base.schedule.clone();
        paper.model.mask_ratio = base.model.mask_ratio;
        assert_eq!(paper, base, "{name}");
    }
}
