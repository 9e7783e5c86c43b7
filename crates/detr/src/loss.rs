//! The loss (Eq. 2, Appendix A.2): every decoder layer is paired with the objects for itself, and each is judged alike.

use repro::detection::{Targets, boxes};
use repro::setup::Setup;
use repro::{Result, user};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::matcher::assign;
use crate::model::Output;

/// What counts how much, in the pairing and in the loss (Table 4 leaves parts away).
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
pub struct LossConfig {
    /// λ of the class: its probability in the pairing, cross-entropy in the loss; above 0.
    pub ce: f64,
    /// λ_L1, of the distance of boxes; at least 0.
    pub bbox: f64,
    /// λ_iou, of the generalised overlap of boxes; at least 0.
    pub giou: f64,
    /// Weight of "no object" in the cross-entropy, above 0 and at most 1 (§4: 0.1).
    pub eos: f64,
}

impl LossConfig {
    /// Refuses weights that cannot act.
    ///
    /// # Errors
    /// The key, and what it must be.
    pub fn check(&self) -> Result<()> {
        let LossConfig { ce, bbox, giou, eos } = *self;
        for (key, value, least) in [("ce", ce, "above 0"), ("bbox", bbox, "at least 0"), ("giou", giou, "at least 0")] {
            if !value.is_finite() || value < 0.0 || (key == "ce" && value == 0.0) {
                return Err(user!("loss.{key} is {value}; it must be {least}"));
            }
        }
        if bbox + giou == 0.0 {
            return Err(user!(
                "loss.bbox and loss.giou are 0 both, and no box would be learned; give one of them a weight"
            ));
        }
        if !(eos > 0.0 && eos <= 1.0) {
            return Err(user!("loss.eos is {eos}; it must be above 0 and at most 1, such as 0.1"));
        }
        Ok(())
    }
}

/// What the sums over a batch are divided by: known before the pairing is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norms {
    /// Objects; none count as one.
    pub boxes: f64,
    /// Class weights of all queries.
    pub weights: f64,
}

impl Norms {
    /// Of pictures with so many objects each, `queries` Q a picture.
    pub fn of(counts: &[i64], queries: i64, eos: f64) -> Self {
        let paired: i64 = counts.iter().map(|&count| count.min(queries)).sum();
        let empty = queries * counts.len() as i64 - paired;
        Norms { boxes: counts.iter().sum::<i64>() as f64, weights: paired as f64 + eos * empty as f64 }
    }

    /// Their means over the processes: gradients that are averaged over these are then those of the whole batch.
    ///
    /// # Errors
    /// A process left.
    pub fn over(self, setup: &Setup) -> Result<Self> {
        let rows = setup.gather_rows(&Tensor::f_from_slice(&[self.boxes, self.weights])?.f_unsqueeze(0)?)?;
        let mean = Tensor::f_cat(&rows, 0)?.f_mean_dim([0_i64].as_slice(), false, Kind::Double)?;
        Ok(Norms { boxes: mean.f_double_value(&[0])?, weights: mean.f_double_value(&[1])? })
    }
}

/// The pairs of one decoder layer: for each, its picture, its query and its target's place among all M of the batch; picture by picture, queries
/// ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairs {
    /// From 0 to N − 1.
    pub picture: Vec<i64>,
    /// From 0 to Q − 1.
    pub query: Vec<i64>,
    /// From 0 to M − 1.
    pub target: Vec<i64>,
}

impl Pairs {
    /// The targets, counted within each picture; `counts` are the pictures' own.
    pub fn within(&self, counts: &[i64]) -> Vec<i64> {
        let start = |picture: i64| counts[..picture as usize].iter().sum::<i64>();
        self.picture.iter().zip(&self.target).map(|(&picture, target)| target - start(picture)).collect()
    }
}

/// The terms of each decoder layer, `[layers]` each and not weighted; the last layer's are the network's own.
#[derive(Debug)]
pub struct Losses {
    /// Cross-entropy of the classes, in nats.
    pub ce: Tensor,
    /// L1 distance of (cx, cy, w, h), summed over the four.
    pub bbox: Tensor,
    /// 1 − GIoU.
    pub giou: Tensor,
    /// The pairs of each layer.
    pub pairs: Vec<Pairs>,
}

impl Losses {
    /// The weighted sum over all layers, `[]`.
    pub fn total(&self, config: &LossConfig) -> Tensor {
        (&self.ce * config.ce + &self.bbox * config.bbox + &self.giou * config.giou).sum(self.ce.kind())
    }
}

/// Pairs each layer's answers with the objects, and judges them.
///
/// A picture of more objects than queries has as many pairs as queries; objects without one count in [`Norms::boxes`] all the same.
///
/// # Errors
/// Answers or boxes that are no numbers; libtorch's.
pub fn judge(output: &Output, targets: &Targets, config: &LossConfig, norms: Norms) -> Result<Losses> {
    let (logits, boxes) = (wide(&output.logits), wide(&output.boxes));
    let (layers, n, queries, classes) = logits.size4()?;
    let device = logits.device();
    let pairs = pair(&logits, &boxes, targets, config)?;

    // All layers' pairs one after the other: each layer has the same number of them.
    let count = pairs.first().map_or(0, |pairs| pairs.query.len() as i64);
    let rows: Vec<i64> = (0..layers)
        .zip(&pairs)
        .flat_map(|(layer, p)| p.picture.iter().zip(&p.query).map(move |(i, q)| (layer * n + i) * queries + q))
        .collect();
    let rows = Tensor::f_from_slice(&rows)?.f_to_device(device)?;
    let found: Vec<i64> = pairs.iter().flat_map(|p| p.target.iter().copied()).collect();
    let found = Tensor::f_from_slice(&found)?.f_to_device(device)?;

    let none = classes - 1;
    let class = Tensor::f_full([layers * n * queries], none, (Kind::Int64, device))?;
    let class = class.f_index_copy(0, &rows, &targets.labels.f_index_select(0, &found)?)?;
    let weight = Tensor::f_ones([classes], (logits.kind(), device))?;
    let _ = weight.f_get(none)?.f_fill_(config.eos)?;
    let nats = -logits.f_log_softmax(-1, logits.kind())?.f_flatten(0, 2)?.f_gather(1, &class.unsqueeze(1), false)?;
    let nats = nats.f_squeeze_dim(1)? * weight.f_index_select(0, &class)?;

    let ours = boxes.f_flatten(0, 2)?.f_index_select(0, &rows)?;
    let theirs = targets.boxes.f_to_kind(boxes.kind())?.f_index_select(0, &found)?;
    let apart = (&ours - &theirs).f_abs()?.f_view([layers, count * 4])?;
    let giou = boxes::giou(&boxes::corners(&ours), &boxes::corners(&theirs)).f_view([layers, count])?;
    let sum = |terms: &Tensor| terms.f_sum_dim_intlist([1_i64].as_slice(), false, terms.kind());
    let objects = norms.boxes.max(1.0);
    Ok(Losses {
        ce: sum(&nats.f_view([layers, n * queries])?)? / norms.weights,
        bbox: sum(&apart)? / objects,
        giou: sum(&(1.0 - giou))? / objects,
        pairs,
    })
}

/// The pairing of each layer (Eq. 1): logits `[layers, N, Q, K + 1]` and boxes `[layers, N, Q, 4]`.
fn pair(logits: &Tensor, boxes: &Tensor, targets: &Targets, config: &LossConfig) -> Result<Vec<Pairs>> {
    let (layers, n, queries, _) = logits.size4()?;
    let m = targets.counts.iter().sum::<i64>();
    if m == 0 {
        return Ok(vec![Pairs::default(); layers as usize]);
    }
    let costs = tch::no_grad(|| costs(logits, boxes, targets, config))?;
    let costs: Vec<f64> = Vec::try_from(costs.f_contiguous()?.f_view([-1])?)?;
    let mut all = Vec::new();
    for table in costs.chunks((m * queries) as usize) {
        let (mut pairs, mut start) = (Pairs::default(), 0);
        for (picture, &count) in (0..n).zip(&targets.counts) {
            let part = &table[(start * queries) as usize..][..(count * queries) as usize];
            let mut found = assign(part, count as usize, queries as usize)?;
            found.sort_unstable_by_key(|&(_, query)| query);
            for (target, query) in found {
                pairs.picture.push(picture);
                pairs.query.push(query as i64);
                pairs.target.push(start + target as i64);
            }
            start += count;
        }
        all.push(pairs);
    }
    Ok(all)
}

/// What it costs to pair each target with each query of its own picture, `[layers, M, Q]`, on the CPU and in float64.
fn costs(logits: &Tensor, boxes: &Tensor, targets: &Targets, config: &LossConfig) -> Result<Tensor> {
    let (device, counts) = (logits.device(), Tensor::f_from_slice(&targets.counts)?);
    let picture = Tensor::f_repeat_interleave(&counts, None)?.f_to_device(device)?;
    // [layers, M, Q, ·]: the answers to the picture of each target.
    let (classes, ours) = (logits.f_softmax(-1, logits.kind())?, boxes.f_index_select(1, &picture)?);
    let label = targets.labels.f_view([1, -1, 1, 1])?;
    let size = ours.size();
    let label = label.f_expand([size[0], size[1], size[2], 1], false)?;
    let class = classes.f_index_select(1, &picture)?.f_gather(-1, &label, false)?.f_squeeze_dim(-1)?;
    let theirs = targets.boxes.f_to_kind(ours.kind())?.f_view([1, -1, 1, 4])?;
    let apart = (&ours - &theirs).f_abs()?.f_sum_dim_intlist([-1_i64].as_slice(), false, ours.kind())?;
    let giou = boxes::giou(&boxes::corners(&ours), &boxes::corners(&theirs));
    let costs = apart * config.bbox - class * config.ce - giou * config.giou;
    Ok(costs.f_to_kind(Kind::Double)?.f_to_device(tch::Device::Cpu)?)
}

/// 16-bit numbers as float32.
fn wide(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}
