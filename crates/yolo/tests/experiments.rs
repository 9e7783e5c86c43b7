//! Every experiment fits, and those of the paper have its numbers.

use std::path::{Path, PathBuf};

use repro::config::{Experiment, load};
use yolo::config::{Config, LossConfig, validate};

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/yolo")
}

fn row(name: &str, words: &[&str]) -> Experiment<Config> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
    load(&experiments().join(format!("{name}.yaml")), &words).unwrap()
}

/// What is wrong with it, by key.
fn findings(of: &Experiment<Config>) -> Vec<String> {
    validate(&of.paper, &of.settings).list().iter().map(|(key, why)| format!("{key} {why}")).collect()
}

#[test]
fn every_experiment_fits_its_network() {
    let mut seen = 0;
    for entry in std::fs::read_dir(experiments()).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        let experiment = row(&name, &[]);
        assert_eq!(findings(&experiment), [""; 0], "{name}");
        experiment.paper.network().unwrap();
        seen += 1;
    }
    assert!(seen >= 11, "{seen}");
}

/// §2.3 and the author's yolov3.cfg: rate, burn-in, milestones, batch, decay, sizes; §2.1: the threshold.
#[test]
fn another_network_s_name_alone_makes_a_smoke_run_of_it() {
    for (name, kind) in [
        ("yolov3", LossConfig::Yolov3 { ignore: 0.5 }),
        ("yolov3_tiny", LossConfig::Yolov3 { ignore: 0.5 }),
        ("yolov1_small", LossConfig::Yolov1 { coord: 5.0, noobj: 0.5 }),
        ("retinanet_small", LossConfig::Focal { alpha: 0.25, gamma: 2.0 }),
    ] {
        let smoke = row("smoke", &[&format!("model.name={name}")]);
        assert_eq!((findings(&smoke), smoke.paper.loss().unwrap()), (vec![], kind), "{name}");
    }
}

#[test]
fn the_paper_s_rows_have_its_numbers() {
    for (name, edge) in [("coco_yolov3", 608), ("coco_yolov3_tiny", 416)] {
        let Experiment { paper, settings, .. } = row(name, &[]);
        assert_eq!(paper.loss, Some(LossConfig::Yolov3 { ignore: 0.5 }));
        assert_eq!((settings.batch_size, settings.length.steps(1)), (64, 500_200));
        assert_eq!((paper.optim.lr(64), paper.optim.weight_decay()), (1e-3, 5e-4));
        assert_eq!(paper.network().unwrap().edges(), (edge, edge));
        let rate = |step: u64| paper.optim.lr(64) * paper.schedule.factor(step, 500_200, 1) * paper.burn_in(step, 1);
        for (step, expected) in [
            (100, 1e-7),
            (500, 6.25e-5),
            (999, 9.96e-4),
            (1000, 1e-3),
            (399_999, 1e-3),
            (400_000, 1e-4),
            (450_000, 1e-5),
        ] {
            assert!((rate(step) - expected).abs() < 1e-3 * expected, "{name}, step {step}: {}", rate(step));
        }
        let scales = paper.view.multi_scale.unwrap();
        assert_eq!((scales.every, scales.sizes), (10, (320..=608).step_by(32).collect()));
    }
}

#[test]
fn what_does_not_fit_is_refused_by_its_key() {
    for (words, why) in [
        (&["model.name=yolov4"][..], "there is no network yolov4; there are yolov3,"),
        (
            &["model.name=yolov1_small", "loss={kind: yolov3, ignore: 0.5}"],
            "loss.kind is yolov3, and this network has YOLOv1's grid",
        ),
        (
            &["model.name=retinanet_small", "loss={kind: yolov3, ignore: 0.5}"],
            "set it to focal or cross_entropy or weighted_cross_entropy",
        ),
        (&["model.image_size=72"], "model.image_size is 72×72; each edge must be a multiple of 16"),
        (&["view.test.width=72"], "view.test.width is 72"),
        (&["model.masks=[[0, 1]]"], "model.masks are 1, one for each scale; yolo_small has 2"),
        (&["model.masks=[[0, 1, 6], [2, 3, 4]]"], "anchor 6 is none of the 6"),
        (&["model.anchors=[[1, 0]]"], "is no width and height in pixels"),
        (&["model.num_classes=0"], "model.num_classes is 0"),
        (&["loss={kind: yolov3, ignore: -1}"], "loss.ignore is -1"),
        (&["test.nms=2"], "test.nms is 2"),
        (&["test.top=0"], "test.top is 0"),
        (&["model.name=none.cfg"], "cannot read none.cfg"),
    ] {
        let all = findings(&row("smoke", words)).join("\n");
        assert!(all.contains(why), "{words:?}: {all}");
    }
}
