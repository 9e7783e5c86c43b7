//! RetinaNet (arXiv:1708.02002): a feature pyramid with two small heads over a trunk, and dense anchors that learn by the focal loss.
//!
//! Reference: torchvision 0.26 (`RetinaNet`), whose names the pyramid and the heads have; *changes against it*: the trunk is the one of
//! [`crate::sections`], and the small network has narrower and shorter heads on fewer levels.

use repro::Result;
use repro::detection::Targets;
use repro::detection::boxes::{centred, corners, iou};
use repro::detector::Found;
use repro::loss::focal;
use repro::nn::{Conv2d, Conv2dConfig, Mode, record};
use repro::weights::Named;
use tch::{Kind, Tensor, nn};

use crate::boxes::{Rule, pick, places};
use crate::loss::Losses;
use crate::model::Network;
use crate::sections::small_levels;

/// What each anchor is wide and high, by its square root of area: √(1/ratio) and √ratio (§4).
const RATIOS: [f64; 3] = [0.5, 1.0, 2.0];
/// Anchors of a place: three ratios in three scales.
const ANCHORS: i64 = 9;
/// Probability of an object where training starts (§4.1).
const PRIOR: f64 = 0.01;
/// IoU from which an anchor learns a truth, and below which it learns that there is none (§4).
const POSITIVE: f64 = 0.5;
const NEGATIVE: f64 = 0.4;

fn conv(path: &nn::Path, input: i64, output: i64, size: i64, stride: i64) -> Conv2d {
    Conv2d::new(path, input, output, size, Conv2dConfig { stride, padding: size / 2, ..Conv2dConfig::default() })
}

/// Maps of one width from maps of a trunk (arXiv:1612.03144): each is what the trunk has there and what is above it, twice as large.
#[derive(Debug)]
pub struct Pyramid {
    inner: Vec<Conv2d>,
    layer: Vec<Conv2d>,
    /// Levels above the trunk's, each half as large as the one before.
    extra: Vec<Conv2d>,
}

impl Pyramid {
    /// Over maps of these channels, the finest first, with up to two further levels.
    pub fn new(path: &nn::Path, channels: &[i64], width: i64, extra: usize) -> Self {
        let below = |name: &str, at: usize| path / name / at / 0;
        let layers = |name: &str, size: i64| -> Vec<Conv2d> {
            let input = |at: usize| if size == 1 { channels[at] } else { width };
            (0..channels.len()).map(|at| conv(&below(name, at), input(at), width, size, 1)).collect()
        };
        let extra =
            (6..6 + extra).map(|level| conv(&(path / "extra_blocks" / format!("p{level}")), width, width, 3, 2));
        Self { inner: layers("inner_blocks", 1), layer: layers("layer_blocks", 3), extra: extra.collect() }
    }

    /// Maps `[N, C, h, w]`, each half as large as the one before → maps `[N, width, h, w]`, and the further levels behind them.
    pub fn forward(&self, maps: &[Tensor]) -> Vec<Tensor> {
        let mut above: Option<Tensor> = None;
        let mut levels = Vec::new();
        for ((inner, layer), map) in self.inner.iter().zip(&self.layer).zip(maps).rev() {
            let own = inner.forward(map);
            let sum = match above {
                None => own,
                Some(above) => {
                    let size = own.size();
                    own + above.upsample_nearest2d([size[2], size[3]], None, None)
                }
            };
            levels.push(layer.forward(&sum));
            above = Some(sum);
        }
        levels.reverse();
        for (at, conv) in self.extra.iter().enumerate() {
            if let Some(last) = levels.last() {
                // The first sees what is below it as it is, the second only what of it is above 0.
                let seen = if at == 0 { last.shallow_clone() } else { last.relu() };
                levels.push(conv.forward(&seen));
            }
        }
        levels
    }
}

/// A head over all levels: some convolutions with rectifiers, and one that gives `numbers` of each anchor.
#[derive(Debug)]
struct Head {
    tower: Vec<Conv2d>,
    last: Conv2d,
    numbers: i64,
}

impl Head {
    fn new(path: &nn::Path, last: &str, width: i64, depth: usize, numbers: i64) -> Self {
        let tower = (0..depth).map(|at| conv(&(path / "conv" / at / 0), width, width, 3, 1)).collect();
        Self { tower, last: conv(&(path / last), width, ANCHORS * numbers, 3, 1), numbers }
    }

    /// `[N, M, numbers]`, by level, row, column, anchor.
    fn forward(&self, levels: &[Tensor]) -> Tensor {
        let rows = levels.iter().map(|level| {
            let seen = self.tower.iter().fold(level.shallow_clone(), |x, conv| conv.forward(&x).relu());
            let y = self.last.forward(&seen);
            let size = y.size();
            let apart = y.reshape([size[0], ANCHORS, self.numbers, size[2], size[3]]);
            apart.permute([0, 3, 4, 1, 2]).reshape([size[0], -1, self.numbers])
        });
        Tensor::cat(&rows.collect::<Vec<_>>(), 1)
    }
}

/// Both heads.
#[derive(Debug)]
pub struct Heads {
    classification: Head,
    regression: Head,
}

/// What the heads give: M anchors by level, row, column and anchor of the place.
#[derive(Debug)]
pub struct Output {
    /// `[N, M, K]`, before the sigmoid.
    pub logits: Tensor,
    /// `[N, M, 4]`: centres' offsets in anchors' sides, and logarithms of sides' ratios.
    pub deltas: Tensor,
    /// Height and width of each level in places.
    pub levels: Vec<(i64, i64)>,
}

impl Heads {
    /// Over levels of this width, with `depth` convolutions before the last.
    pub fn new(path: &nn::Path, width: i64, depth: usize, classes: i64) -> Self {
        let of = |name: &str, last: &str, numbers| Head::new(&(path / name), last, width, depth, numbers);
        Self {
            classification: of("classification_head", "cls_logits", classes),
            regression: of("regression_head", "bbox_reg", 4),
        }
    }

    /// Levels `[N, width, h, w]`, the finest first.
    pub fn forward(&self, levels: &[Tensor]) -> Output {
        let size = |level: &Tensor| (level.size()[2], level.size()[3]);
        Output {
            logits: self.classification.forward(levels),
            deltas: self.regression.forward(levels),
            levels: levels.iter().map(size).collect(),
        }
    }
}

/// Corners of all anchors `[M, 4]` in pixels, for levels of these places in a picture of these edges (height, width); `bases` are the square
/// roots of the smallest areas of each level. Rounded as the reference rounds them.
pub fn anchors(levels: &[(i64, i64)], edges: (i64, i64), bases: &[i64], like: &Tensor) -> Tensor {
    let mut all = Vec::new();
    for (&(h, w), &base) in levels.iter().zip(bases) {
        let mut own: Vec<f32> = Vec::new();
        for ratio in RATIOS {
            for third in 0..3 {
                // The reference cuts its scales to whole pixels, and halves and rounds in float32.
                let scale = (base as f64 * 2f64.powf(f64::from(third) / 3.0)).floor() as f32;
                let tall = (ratio as f32).sqrt();
                let (x, y) = (((1.0 / tall) * scale / 2.0).round_ties_even(), (tall * scale / 2.0).round_ties_even());
                own.extend([-x, -y, x, y]);
            }
        }
        let own = Tensor::from_slice(&own).view([1, 1, ANCHORS, 4]).to_kind(like.kind()).to_device(like.device());
        let (x, y) = (places(w, like) * (edges.1 / w) as f64, places(h, like) * (edges.0 / h) as f64);
        let (x, y) = (x.unsqueeze(0).expand([h, w], false), y.unsqueeze(1).expand([h, w], false));
        all.push((Tensor::stack(&[&x, &y, &x, &y], -1).unsqueeze(2) + own).reshape([-1, 4]));
    }
    Tensor::cat(&all, 0)
}

/// The boxes that deltas `[…, M, 4]` make of anchors `[M, 4]`: both by their corners in pixels.
pub fn decoded(deltas: &Tensor, anchors: &Tensor) -> Tensor {
    let anchors = centred(anchors);
    let sides = anchors.narrow(-1, 2, 2);
    let centre = anchors.narrow(-1, 0, 2) + deltas.narrow(-1, 0, 2) * &sides;
    // e^ln(1000/16), as the reference has it, so that no side overflows.
    let grown = deltas.narrow(-1, 2, 2).clamp_max((1000.0_f64 / 16.0).ln()).exp() * sides;
    corners(&Tensor::cat(&[centre, grown], -1))
}

/// Which truth each anchor learns: its place, −1 for none, −2 for nothing at all. `[M]` of corners of m ≥ 1 truths and of M anchors.
///
/// A truth's best anchors learn it, however little they cover it, so that each truth has some.
pub fn matched(truths: &Tensor, anchors: &Tensor) -> Tensor {
    let quality = iou(&truths.unsqueeze(1), anchors);
    let (best, which) = quality.max_dim(0, false);
    let of = |value: i64| which.full_like(value);
    let low = of(-1).where_self(&best.lt(NEGATIVE), &of(-2).where_self(&best.lt(POSITIVE), &which));
    let most = quality.amax([1_i64].as_slice(), true);
    let is_best = quality.eq_tensor(&most).any_dim(0, false);
    which.where_self(&is_best, &low)
}

/// How the classes are learnt: α and γ of [`focal`].
pub type Focus = (Option<f64>, f64);

/// Loss of classes and of boxes: of each picture the sums over its anchors, by the number of those that learn a truth (at least 1); the
/// mean over the pictures. Boxes by the absolute difference, as the reference has it (paper: smooth L1).
///
/// # Errors
/// libtorch's.
pub fn losses(output: &Output, targets: &Targets, anchors: &Tensor, edges: (i64, i64), focus: Focus) -> Result<Losses> {
    let (kind, device) = (output.logits.kind(), output.logits.device());
    let (mut of_class, mut of_box) = (Tensor::zeros([], (kind, device)), Tensor::zeros([], (kind, device)));
    let pixels = Tensor::f_from_slice(&[edges.1 as f64, edges.0 as f64, edges.1 as f64, edges.0 as f64])?;
    let pixels = pixels.f_to_kind(kind)?.f_to_device(device)?;
    let own = centred(anchors);
    let (centre, sides) = (own.narrow(1, 0, 2), own.narrow(1, 2, 2));
    for (at, (boxes, labels)) in targets.each().enumerate() {
        let (logits, deltas) = (output.logits.get(at as i64), output.deltas.get(at as i64));
        let boxes = boxes.f_to_device(device)?.f_to_kind(kind)? * &pixels;
        let has_area = boxes.narrow(1, 2, 2).gt(0.0).all_dim(1, false).f_nonzero()?.f_view([-1])?;
        let (boxes, labels) =
            (boxes.index_select(0, &has_area), labels.f_to_device(device)?.index_select(0, &has_area));
        if boxes.size()[0] == 0 {
            of_class += focal(&logits, &logits.zeros_like(), focus.0, focus.1);
            continue;
        }
        let which = tch::no_grad(|| matched(&corners(&boxes), anchors));
        let learns = which.ge(0);
        let n = learns.sum(kind).clamp_min(1.0);
        let truth = which.clamp_min(0);
        let hot = labels.one_hot(logits.size()[1]).to_kind(kind).index_select(0, &truth);
        let hot = hot * learns.unsqueeze(1).to_kind(kind);
        let counted = which.ge(-1).f_nonzero()?.f_view([-1])?;
        let class = focal(&logits.index_select(0, &counted), &hot.index_select(0, &counted), focus.0, focus.1);
        of_class += class / &n;
        let chosen = learns.f_nonzero()?.f_view([-1])?;
        let goal = boxes.index_select(0, &truth.index_select(0, &chosen));
        let (centre, sides) = (centre.index_select(0, &chosen), sides.index_select(0, &chosen));
        let aim = [(goal.narrow(1, 0, 2) - centre) / &sides, (goal.narrow(1, 2, 2) / &sides).log()];
        let off = (deltas.index_select(0, &chosen) - Tensor::cat(&aim, 1)).abs().sum(kind);
        of_box += off / n;
    }
    let n = targets.counts.len().max(1) as f64;
    Ok(Losses::of(vec![("loss_box", of_box / n), ("loss_class", of_class / n)]))
}

/// The small network: the trunk of `yolo_small`, a pyramid at strides 8, 16 and 32, two convolutions a head.
#[derive(Debug)]
pub struct Retina {
    trunk: Network,
    pyramid: Pyramid,
    heads: Heads,
    classes: i64,
    name: String,
}

impl Retina {
    /// Channels of a level.
    const WIDTH: i64 = 64;
    /// Convolutions of a head before the last.
    const DEPTH: usize = 2;
    /// Square roots of the smallest anchors' areas, in pixels: half of the paper's, which is made for photos of 600.
    pub const BASES: [i64; 3] = [16, 32, 64];
    /// Pixels of which an edge of a picture must be a multiple.
    pub const STRIDE: i64 = 32;

    /// As PyTorch's layers start; see [`initialise`].
    ///
    /// # Errors
    /// None that a user can cause.
    pub fn new(path: &nn::Path, classes: i64) -> Result<Self> {
        let body = path / "backbone";
        let (plan, places, channels) = small_levels();
        Ok(Self {
            trunk: Network::with_outputs(&(&body / "body"), plan, places.to_vec())?,
            pyramid: Pyramid::new(&(&body / "fpn"), &channels, Self::WIDTH, 1),
            heads: Heads::new(&(path / "head"), Self::WIDTH, Self::DEPTH, classes),
            classes,
            name: record::name(&(path / "head")),
        })
    }

    /// Classes K.
    pub fn classes(&self) -> i64 {
        self.classes
    }

    /// `[N, 3, H, W]` in [0, 1].
    ///
    /// # Panics
    /// As tch's own operations: on pictures whose edges are no multiples of [`Self::STRIDE`].
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Output {
        let maps = self.trunk.forward(image, mode);
        let levels = self.pyramid.forward(&maps);
        let mut output = None;
        let _ = record::block(&self.name, || output.insert(self.heads.forward(&levels)).logits.shallow_clone());
        output.unwrap_or_else(|| self.heads.forward(&levels))
    }

    /// The anchors of a picture of these edges, `[M, 4]` by their corners in pixels.
    pub fn anchors(output: &Output, edges: (i64, i64)) -> Tensor {
        anchors(&output.levels, edges, &Self::BASES, &output.deltas)
    }
}

/// What a batch of pictures of these edges (height, width) holds, as [`crate::boxes::found`] tells it.
///
/// # Errors
/// libtorch's.
pub fn found(output: &Output, anchors: &Tensor, edges: (i64, i64), rule: &Rule) -> Result<Vec<Vec<Found>>> {
    let pixels = Tensor::f_from_slice(&[edges.1 as f64, edges.0 as f64, edges.1 as f64, edges.0 as f64])?;
    let pixels = pixels.f_to_kind(Kind::Float)?.f_to_device(output.deltas.device())?;
    let boxes = decoded(&output.deltas, anchors).f_to_kind(Kind::Float)? / pixels;
    let scores = output.logits.sigmoid().f_to_kind(Kind::Float)?;
    (0..boxes.size()[0]).map(|at| pick(&boxes.f_get(at)?, &scores.f_get(at)?, rule)).collect()
}

/// Where training starts, drawn from libtorch's generator: the trunk as [`crate::model::initialise`] has it, all other kernels from N(0, 0.01),
/// biases 0; those of the classes so that each anchor has an object with a probability of 0.01 (§4.1), without which the sum over the anchors
/// that have none swamps the rest. The pyramid's kernels are as uniform as Caffe2's "Xavier", its reference's.
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named) -> Result<()> {
    let trunk: Named = repro::weights::below(model, "backbone.body.");
    crate::model::initialise(&trunk)?;
    for (name, tensor) in model.iter().filter(|(name, _)| !name.starts_with("backbone.body.")) {
        let (mut tensor, shape) = (tensor.shallow_clone(), tensor.size());
        let _guard = tch::no_grad_guard();
        let _ = match shape[..] {
            [_, input, h, w] if name.starts_with("backbone.fpn.") => {
                let bound = (3.0 / (input * h * w) as f64).sqrt();
                tensor.f_uniform_(-bound, bound)?
            }
            [_, _, _, _] => tensor.f_normal_(0.0, 0.01)?,
            _ if name.ends_with("cls_logits.bias") => tensor.f_fill_(-((1.0 - PRIOR) / PRIOR).ln())?,
            _ => tensor.f_zero_()?,
        };
    }
    Ok(())
}
