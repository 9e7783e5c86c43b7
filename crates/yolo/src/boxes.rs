//! From what the network gives to boxes (§2.1), and from boxes to the few that are told.

use repro::detection::boxes::corners;
use repro::detector::Found;
use repro::{Result, user};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::nms::nms_by_class;
use crate::sections::Plan;

/// Which boxes are told.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
pub struct Rule {
    /// Confidence that a box must exceed, in [0, 1): objectness times class.
    pub score: f64,
    /// IoU above which the surer of two boxes of a class suppresses the other, in [0, 1].
    pub nms: f64,
    /// Boxes of a picture, at most, the surest first.
    pub top: usize,
}

impl Rule {
    /// Refuses numbers that are none.
    ///
    /// # Errors
    /// Which.
    pub fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.score) {
            return Err(user!("test.score is {}; it must be at least 0 and below 1, such as 0.005", self.score));
        }
        if !(0.0..=1.0).contains(&self.nms) {
            return Err(user!("test.nms is {}; it must be from 0 to 1, such as 0.45", self.nms));
        }
        if self.top == 0 {
            return Err(user!("test.top is 0; at least one box must be told, such as 100"));
        }
        Ok(())
    }
}

/// Places along an edge of `n` places, `[n]`.
pub(crate) fn places(n: i64, like: &Tensor) -> Tensor {
    Tensor::arange(n, (like.kind(), like.device()))
}

/// Sides as a tensor `[A, 2]`, as fractions of a picture of these edges (height, width).
pub(crate) fn priors(sides: &[[f64; 2]], edges: (i64, i64), like: &Tensor) -> Tensor {
    let (h, w) = (edges.0 as f64, edges.1 as f64);
    let fractions: Vec<f64> = sides.iter().flat_map(|side| [side[0] / w, side[1] / h]).collect();
    Tensor::from_slice(&fractions).view([-1, 2]).to_kind(like.kind()).to_device(like.device())
}

/// `raw` `[N, A, h, w, 5 + K]` of a scale with these anchors → boxes `[N, A, h, w, 4]`, centred, as fractions of the picture, whose edges
/// (height, width) are given in pixels: b = (σ(t) + cell) / cells, and p·eᵗ (§2.1).
pub fn decode(raw: &Tensor, anchors: &[[f64; 2]], edges: (i64, i64)) -> Tensor {
    let size = raw.size();
    let (h, w) = (size[2], size[3]);
    let x = (raw.select(-1, 0).sigmoid() + places(w, raw)) / w as f64;
    let y = (raw.select(-1, 1).sigmoid() + places(h, raw).unsqueeze(-1)) / h as f64;
    let sides = raw.narrow(-1, 2, 2).exp() * priors(anchors, edges, raw).view([-1, 1, 1, 2]);
    Tensor::cat(&[Tensor::stack(&[x, y], -1), sides], -1)
}

/// `raw` `[N, 1, S, S, 5·B + K]` of a grid → boxes `[N, S, S, B, 4]`, centred, as fractions: ((x + cell) / S, sides the squares of what is
/// given; arXiv:1506.02640, §2).
pub fn decode_grid(raw: &Tensor, boxes: i64) -> Tensor {
    let size = raw.size();
    let (n, h, w) = (size[0], size[2], size[3]);
    let own = raw.narrow(-1, 0, 5 * boxes).reshape([n, h, w, boxes, 5]);
    let x = (own.select(-1, 0) + places(w, raw).unsqueeze(-1)) / w as f64;
    let y = (own.select(-1, 1) + places(h, raw).view([-1, 1, 1])) / h as f64;
    Tensor::cat(&[Tensor::stack(&[x, y], -1), own.narrow(-1, 2, 2).square()], -1)
}

/// Boxes of a batch with their scores: `[N, M, 4]` by their corners, `[N, M, K]` in [0, 1].
fn scored(plan: &Plan, raw: &[Tensor], edges: (i64, i64)) -> Result<(Tensor, Tensor)> {
    let classes = plan.classes;
    if let (Some(boxes), [raw]) = (plan.grid(), raw) {
        let size = raw.size();
        let (n, cells) = (size[0], size[2] * size[3]);
        let confidence = raw.narrow(-1, 0, 5 * boxes).reshape([n, cells, boxes, 5]).narrow(-1, 4, 1);
        let class = raw.narrow(-1, 5 * boxes, classes).reshape([n, cells, 1, classes]);
        let scores = (confidence * class).reshape([n, -1, classes]);
        return Ok((corners(&decode_grid(raw, boxes)).reshape([n, -1, 4]), scores));
    }
    let (mut boxes, mut scores) = (Vec::new(), Vec::new());
    for (raw, mask) in raw.iter().zip(plan.masks()) {
        let anchors: Vec<_> = mask.iter().map(|&anchor| plan.anchors[anchor]).collect();
        let n = raw.size()[0];
        boxes.push(corners(&decode(raw, &anchors, edges)).reshape([n, -1, 4]));
        let score = raw.narrow(-1, 4, 1).sigmoid() * raw.narrow(-1, 5, classes).sigmoid();
        scores.push(score.reshape([n, -1, classes]));
    }
    Ok((Tensor::f_cat(&boxes, 1)?, Tensor::f_cat(&scores, 1)?))
}

/// What a batch of pictures of these edges (height, width) holds, of each the surest first: every pair of box and class whose confidence is
/// above the threshold, less what is suppressed class by class. Boxes are cut where no photo can be, a whole picture beyond the edges.
///
/// # Errors
/// libtorch's.
pub fn found(plan: &Plan, raw: &[Tensor], edges: (i64, i64), rule: &Rule) -> Result<Vec<Vec<Found>>> {
    let (boxes, scores) = tch::no_grad(|| scored(plan, raw, edges))?;
    let (boxes, scores) = (boxes.f_to_kind(Kind::Float)?, scores.f_to_kind(Kind::Float)?);
    (0..boxes.size()[0]).map(|at| pick(&boxes.f_get(at)?, &scores.f_get(at)?, rule)).collect()
}

/// The boxes `[M, 4]` with scores `[M, K]` of one picture that are told.
pub(crate) fn pick(boxes: &Tensor, scores: &Tensor, rule: &Rule) -> Result<Vec<Found>> {
    // What is no number exceeds nothing.
    let pairs = scores.f_gt(rule.score)?.f_nonzero()?;
    let (place, class) = (pairs.f_select(1, 0)?, pairs.f_select(1, 1)?);
    let score = scores.f_index(&[Some(&place), Some(&class)])?.f_to_device(Device::Cpu)?;
    let boxes = boxes.f_index_select(0, &place)?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let scores = Vec::<f32>::try_from(score)?;
    let classes: Vec<usize> =
        Vec::<i64>::try_from(class.f_to_device(Device::Cpu)?)?.into_iter().map(|class| class as usize).collect();
    let flat = Vec::<f32>::try_from(boxes.f_view([-1])?)?;
    let boxes: Vec<[f32; 4]> = flat.chunks_exact(4).map(|side| [side[0], side[1], side[2], side[3]]).collect();
    let kept = nms_by_class(&boxes, &scores, &classes, rule.nms);
    // No photo reaches that far; a side that e^t has made infinite has no centre.
    let near = |corner: f32| f64::from(corner).clamp(-1.0, 2.0);
    let centred = |[x0, y0, x1, y1]: [f64; 4]| [(x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0, y1 - y0];
    let told =
        |at: usize| Found { class: classes[at], score: f64::from(scores[at]), place: centred(boxes[at].map(near)) };
    Ok(kept.into_iter().take(rule.top).map(told).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections::Variant;
    use proptest::prelude::*;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// e^t of a network that has hardly learned is infinite; Darknet cuts such a box to the photo.
    #[test]
    fn an_infinite_side_ends_beyond_the_photo() {
        let far = f32::INFINITY;
        let boxes = Tensor::from_slice(&[-far, 0.25, far, 0.75]).view([1, 4]);
        let found =
            pick(&boxes, &Tensor::ones([1, 1], (Kind::Float, Device::Cpu)), &Rule { score: 0.5, nms: 0.5, top: 9 });
        assert_eq!(found.unwrap()[0].place, [0.5, 0.5, 3.0, 0.5]);
    }

    /// §2.1 by hand: cell (1, 2) of 4×3 cells of 8 pixels, anchor 10×13.
    #[test]
    fn a_box_by_hand() {
        let raw = Tensor::zeros([1, 1, 3, 4, 6], F64);
        raw.get(0).get(0).get(2).get(1).narrow(0, 0, 4).copy_(&Tensor::from_slice(&[0.5, -0.25, 0.1, -0.2]));
        let boxes = decode(&raw, &[[10.0, 13.0]], (24, 32));
        let sigmoid = |t: f64| 1.0 / (1.0 + (-t).exp());
        let expected = [
            (1.0 + sigmoid(0.5)) * 8.0 / 32.0,
            (2.0 + sigmoid(-0.25)) * 8.0 / 24.0,
            10.0 * 0.1_f64.exp() / 32.0,
            13.0 * (-0.2_f64).exp() / 24.0,
        ];
        let found = Vec::<f64>::try_from(boxes.get(0).get(0).get(2).get(1)).unwrap();
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
    }

    /// Scores of a picture without objects are few; what is no number is not told.
    #[test]
    fn nothing_and_no_numbers_are_told_of_nobody() {
        let plan = Variant::Small.plan(3);
        let raw = |value: f64| [[1, 3, 2, 2, 8], [1, 3, 4, 4, 8]].map(|size| Tensor::full(size, value, F64));
        let rule = Rule { score: 0.005, nms: 0.45, top: 100 };
        assert_eq!(found(&plan, &raw(-9.0), (32, 32), &rule).unwrap(), [vec![]]);
        assert_eq!(found(&plan, &raw(f64::NAN), (32, 32), &rule).unwrap(), [vec![]]);
        let all = found(&plan, &raw(0.0), (32, 32), &Rule { nms: 1.0, ..rule }).unwrap();
        assert_eq!((all[0].len(), all[0][0].score), (100, 0.25));
    }

    proptest! {
        /// What a truth is encoded as decodes to it, in both grids.
        #[test]
        fn boxes_go_there_and_back(x in 0.01..0.99, y in 0.01..0.99, w in 0.01..1.0, h in 0.01..1.0) {
            let (cells, edges): ((f64, f64), _) = ((4.0, 3.0), (96, 128));
            let (x, y, w, h): (f64, f64, f64, f64) = (x, y, w, h);
            let cell = ((x * cells.0).floor(), (y * cells.1).floor());
            let (fx, fy) = (x * cells.0 - cell.0, y * cells.1 - cell.1);
            let logit = |p: f64| (p / (1.0 - p)).ln();
            let t = [logit(fx), logit(fy), (w * 128.0 / 30.0_f64).ln(), (h * 96.0 / 61.0_f64).ln()];
            let near = |found: Tensor| {
                let found = Vec::<f64>::try_from(found).unwrap();
                found.iter().zip([x, y, w, h]).all(|(a, b)| (a - b).abs() < 1e-9)
            };
            let raw = Tensor::zeros([1, 1, 3, 4, 6], F64);
            let (i, j) = (cell.0 as i64, cell.1 as i64);
            raw.get(0).get(0).get(j).get(i).narrow(0, 0, 4).copy_(&Tensor::from_slice(&t));
            prop_assert!(near(decode(&raw, &[[30.0, 61.0]], edges).get(0).get(0).get(j).get(i)));
            raw.get(0).get(0).get(j).get(i).narrow(0, 0, 4).copy_(&Tensor::from_slice(&[fx, fy, w.sqrt(), h.sqrt()]));
            prop_assert!(near(decode_grid(&raw, 1).get(0).get(j).get(i).get(0)));
        }
    }
}
