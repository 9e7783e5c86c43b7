//! What there is to be found in the pictures of `scripts/fixtures/yolo.py`.

use repro::detection::Targets;
use tch::Tensor;

/// Of three pictures, the second of which has none; one has no area, from which nothing is learnt.
pub(crate) fn truths() -> Targets {
    let boxes: [[f64; 4]; 8] = [
        [0.40, 0.30, 0.20, 0.30],
        [0.41, 0.31, 0.19, 0.32],
        [0.80, 0.80, 0.50, 0.45],
        [0.81, 0.79, 0.52, 0.44],
        [1.00, 0.50, 0.12, 0.10],
        [0.60, 0.60, 0.00, 0.20],
        [0.05, 0.95, 0.10, 0.08],
        [0.5, 0.5, 0.9, 0.8],
    ];
    let labels = Tensor::from_slice(&[1i64, 0, 2, 2, 1, 0, 2, 0]);
    Targets { boxes: Tensor::from_slice2(&boxes), labels, counts: vec![6, 0, 2] }
}
