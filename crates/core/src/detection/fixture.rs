//! What pycocotools and a twin in whole fractions found: crates/core/tests/fixtures/detection.safetensors, told of in
//! scripts/fixtures/coco_eval.py.

use std::path::Path;

use super::{Detection, Scene, Truth};
use crate::weights::{self, Named};

pub(super) struct Known {
    pub(super) scenes: Vec<Scene>,
    pub(super) classes: usize,
    /// Of each detection of the fixture, in its order: its scene and its place there.
    pub(super) places: Vec<(usize, usize)>,
    case: &'static str,
    tensors: Named,
}

impl Known {
    /// pycocotools knows no difficult truths.
    pub(super) fn without_difficult(mut self) -> Self {
        self.scenes.iter_mut().flat_map(|scene| &mut scene.truths).for_each(|truth| truth.difficult = false);
        self
    }

    /// `<case>.<name>`, flat.
    pub(super) fn get(&self, name: &str) -> Vec<f64> {
        Vec::try_from(self.tensors[&format!("{}.{name}", self.case)].reshape([-1])).unwrap()
    }
}

/// The case of that name.
pub(super) fn read(case: &'static str) -> Known {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/detection.safetensors");
    let (photos, classes) = match case {
        "odd" => (48, 6),
        _ => (65, 80),
    };
    let mut known = Known {
        scenes: vec![Scene::default(); photos],
        classes,
        places: Vec::new(),
        case,
        tensors: weights::read(&file).unwrap().0,
    };
    let rect = |row: &[f64]| [row[0], row[1], row[2], row[3]];
    for row in known.get("truths").chunks(9) {
        let (crowd, difficult) = (row[7] == 1.0, row[8] == 1.0);
        let truth = Truth { class: row[1] as usize, rect: rect(&row[2..]), area: row[6], crowd, difficult };
        known.scenes[row[0] as usize].truths.push(truth);
    }
    for row in known.get("detections").chunks(7) {
        let detections = &mut known.scenes[row[0] as usize].detections;
        known.places.push((row[0] as usize, detections.len()));
        detections.push(Detection { class: row[1] as usize, score: row[2], rect: rect(&row[3..]) });
    }
    known
}
