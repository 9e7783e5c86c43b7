//! What the networks learn from: YOLOv3's loss as the author's `yolo_layer.c` has it (arXiv:1804.02767, §2.1 and §2.2), and YOLOv1's Eq. 3
//! (arXiv:1506.02640, §2.2).
//!
//! Both are sums over the pictures of a batch, divided by their number N.

use repro::detection::Targets;
use repro::detection::boxes::{corners, iou};
use repro::{Result, user};
use tch::{Kind, Reduction, Tensor};

use crate::boxes::{decode, decode_grid, priors};
use crate::sections::Plan;

/// A loss and its parts, each `[]`.
#[derive(Debug)]
pub struct Losses {
    /// The sum of the parts.
    pub loss: Tensor,
    /// Each by its name: `loss_box` (of centres and sides), `loss_objectness` (of YOLOv1 its confidence), `loss_class`.
    pub parts: Vec<(&'static str, Tensor)>,
}

impl Losses {
    /// Of parts that add up.
    pub(crate) fn of(parts: Vec<(&'static str, Tensor)>) -> Self {
        let sum = parts.iter().map(|(_, part)| part.shallow_clone()).reduce(|sum, part| sum + part);
        Self { loss: sum.unwrap_or_else(|| Tensor::from(0.0)), parts }
    }

    /// Of the parts' sums over `n` pictures.
    fn of_sums([of_box, objectness, class]: [Tensor; 3], n: i64) -> Self {
        let [of_box, objectness, class] = [of_box, objectness, class].map(|sum| sum / n.max(1) as f64);
        Self::of(vec![("loss_box", of_box), ("loss_objectness", objectness), ("loss_class", class)])
    }
}

/// Binary cross-entropy of logits with targets in [0, 1], element by element.
fn bce(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.binary_cross_entropy_with_logits(targets, None::<Tensor>, None::<Tensor>, Reduction::None)
}

/// Half precision has too few digits for these sums.
fn wide(raw: &Tensor) -> Tensor {
    match raw.kind() {
        Kind::Float | Kind::Double => raw.shallow_clone(),
        _ => raw.to_kind(Kind::Float),
    }
}

/// Truths of a batch as tensors beside the network's output.
struct Truths<'a> {
    targets: &'a Targets,
    /// `[M, 4]`, centred fractions, in the kind of the output and where it is.
    boxes: Tensor,
    /// `[M]`: which picture.
    picture: Tensor,
    /// `[M]` bool: it has an area, and its centre lies in the picture.
    valid: Tensor,
    /// `[M, K]`, 1 at the class.
    one_hot: Tensor,
}

impl<'a> Truths<'a> {
    fn new(targets: &'a Targets, classes: i64, like: &Tensor) -> Result<Self> {
        let (kind, device) = (like.kind(), like.device());
        let boxes = targets.boxes.f_to_device(device)?.f_to_kind(kind)?;
        let (centre, sides) = (boxes.narrow(1, 0, 2), boxes.narrow(1, 2, 2));
        let inside = centre.ge(0.0).logical_and(&centre.le(1.0)).all_dim(1, false);
        let valid = inside.logical_and(&sides.gt(0.0).all_dim(1, false));
        let picture: Vec<i64> =
            (0..).zip(&targets.counts).flat_map(|(at, &n)| std::iter::repeat_n(at, n as usize)).collect();
        let picture = Tensor::f_from_slice(&picture)?.f_to_device(device)?;
        let one_hot = targets.labels.f_to_device(device)?.f_one_hot(classes)?.f_to_kind(kind)?;
        Ok(Self { targets, boxes, picture, valid, one_hot })
    }

    /// Which cell of h×w holds each centre: column, row, both `[M]`, and where in it, `[M, 2]` in [0, 1]. A centre on the last edge belongs to
    /// the last cell.
    fn cells(&self, h: i64, w: i64) -> (Tensor, Tensor, Tensor) {
        let within = |at: i64, n: i64| {
            let place = self.boxes.select(1, at) * n as f64;
            let cell = place.floor().clamp(0.0, (n - 1) as f64);
            (cell.to_kind(Kind::Int64), place - cell)
        };
        let ((column, x), (row, y)) = (within(0, w), within(1, h));
        (column, row, Tensor::stack(&[x, y], 1))
    }

    /// Best IoU of each box `[N, M′, 4]` (corners) with a truth of its picture: `[N, M′]`, 0 where there is none.
    fn best_iou(&self, boxes: &Tensor) -> Result<Tensor> {
        let size = boxes.size();
        let mut best = Tensor::zeros([size[0], size[1]], (boxes.kind(), boxes.device()));
        // Behind the truths one without area, for pictures that have fewer than others.
        let none = Tensor::zeros([1, 4], (boxes.kind(), boxes.device()));
        let truths = corners(&Tensor::f_cat(&[&self.boxes, &none], 0)?);
        let (counts, last) = (&self.targets.counts, self.boxes.size()[0]);
        for at in 0..counts.iter().copied().max().unwrap_or(0) {
            let mut start = 0;
            let each = counts.iter().map(|&n| {
                let mine = if at < n { start + at } else { last };
                start += n;
                mine
            });
            let index = Tensor::f_from_slice(&each.collect::<Vec<_>>())?.f_to_device(boxes.device())?;
            best = best.maximum(&iou(boxes, &truths.index_select(0, &index).unsqueeze(1)).nan_to_num(0.0, None, None));
        }
        Ok(best)
    }
}

/// What the truths ask of one scale.
#[derive(Debug)]
pub struct Assigned {
    /// `[M]`: the place among the scale's N·A·h·w outputs.
    pub slot: Tensor,
    /// `[M]` bool: the truth's best anchor is of this scale, and no later truth has the same slot.
    pub wins: Tensor,
    /// `[M, 2]`: what σ(tx) and σ(ty) must be.
    pub xy: Tensor,
    /// `[M, 2]`: tw, th.
    pub wh: Tensor,
    /// `[M]`: 2 − w·h, so that small boxes count more.
    pub scale: Tensor,
    /// `[M, K]`: the classes of all truths of the slot.
    pub classes: Tensor,
}

/// The anchor of each truth, `[M]`: of all n the one of best shape IoU (§2.1), of equal ones the first. Sides as fractions, `[n, 2]`.
fn best_anchor(boxes: &Tensor, sides: &Tensor) -> Tensor {
    let own = boxes.narrow(1, 2, 2).unsqueeze(1);
    let shared = own.minimum(sides).prod_dim_int(-1, false, own.kind());
    let union = own.prod_dim_int(-1, false, own.kind()) + sides.prod_dim_int(-1, false, own.kind()) - &shared;
    (shared / union).argmax(1, false)
}

/// True where two truths ask for one slot: `[M, M]`.
fn same_slot(slot: &Tensor, valid: &Tensor) -> Tensor {
    let both = valid.unsqueeze(0).logical_and(&valid.unsqueeze(1));
    slot.unsqueeze(0).eq_tensor(&slot.unsqueeze(1)).logical_and(&both)
}

fn assign(truths: &Truths, best: &Tensor, mask: &[usize], sides: &Tensor, [_, a, h, w]: [i64; 4]) -> Result<Assigned> {
    let place = |anchor: usize| mask.iter().position(|&own| own == anchor).map_or(-1, |place| place as i64);
    let place: Vec<i64> = (0..sides.size()[0] as usize).map(place).collect();
    let place = Tensor::f_from_slice(&place)?.f_to_device(best.device())?.index_select(0, best);
    let valid = truths.valid.logical_and(&place.ge(0));
    let (column, row, xy) = truths.cells(h, w);
    let slot = ((&truths.picture * a + place.clamp_min(0)) * h + row) * w + column;
    let same = same_slot(&slot, &valid);
    let later = same.triu(1).any_dim(1, false);
    let own = truths.boxes.narrow(1, 2, 2);
    // A truth without area has no logarithm, and no part in the sums.
    let wh = (own.clamp_min(1e-30) / sides.index_select(0, best)).log();
    let scale = own.prod_dim_int(1, false, own.kind()) * -1.0 + 2.0;
    let classes = same.to_kind(own.kind()).matmul(&truths.one_hot).clamp_max(1.0);
    Ok(Assigned { slot, wins: valid.logical_and(&later.logical_not()), xy, wh, scale, classes })
}

/// What truths ask of each scale of these sizes `[N, A, h, w]`, in pictures of these edges (height, width).
///
/// # Errors
/// libtorch's.
pub fn assignment(plan: &Plan, sizes: &[[i64; 4]], targets: &Targets, edges: (i64, i64)) -> Result<Vec<Assigned>> {
    let truths = Truths::new(targets, plan.classes, &targets.boxes)?;
    let sides = priors(&plan.anchors, edges, &targets.boxes);
    let best = best_anchor(&truths.boxes, &sides);
    plan.masks().iter().zip(sizes).map(|(mask, &size)| assign(&truths, &best, mask, &sides, size)).collect()
}

/// YOLOv3's loss of `raw` ([`crate::model::Network::forward`]) on pictures of these edges (height, width).
///
/// Each truth is learnt by one output: the anchor of all that has its shape best, in the cell that holds its centre. That output's x and y by
/// cross-entropy, w and h by half the squared difference, both times 2 − w·h; its classes by cross-entropy, several at once if need be.
/// Objectness by cross-entropy, 1 there and 0 elsewhere, but nothing where a box covers a truth by more than `ignore`. Of two truths in one
/// slot the later gives the box, the classes are united, objectness counts once, as in `yolo_layer.c`.
///
/// # Errors
/// libtorch's.
pub fn yolov3(plan: &Plan, raw: &[Tensor], targets: &Targets, edges: (i64, i64), ignore: f64) -> Result<Losses> {
    let raw: Vec<Tensor> = raw.iter().map(wide).collect();
    let first = raw.first().ok_or_else(|| user!("the network has no scale to learn from"))?;
    let truths = Truths::new(targets, plan.classes, first)?;
    let sides = priors(&plan.anchors, edges, first);
    let best = best_anchor(&truths.boxes, &sides);
    let zero = || Tensor::zeros([], (first.kind(), first.device()));
    let (mut of_box, mut objectness, mut class) = (zero(), zero(), zero());
    for (raw, mask) in raw.iter().zip(plan.masks()) {
        let size = raw.size();
        let (n, kind) = (size[0], raw.kind());
        let it = assign(&truths, &best, mask, &sides, [n, size[1], size[2], size[3]])?;
        let wins = it.wins.to_kind(kind);
        let flat = raw.reshape([-1, 5 + plan.classes]);
        let own = flat.index_select(0, &it.slot);
        let xy = bce(&own.narrow(1, 0, 2), &it.xy).sum_dim_intlist(1, false, kind);
        let wh = (own.narrow(1, 2, 2) - &it.wh).square().sum_dim_intlist(1, false, kind) * 0.5;
        of_box += ((xy + wh) * &it.scale * &wins).sum(kind);
        let classes = bce(&own.narrow(1, 5, plan.classes), &it.classes).sum_dim_intlist(1, false, kind);
        class += (classes * &wins).sum(kind);

        let object = Tensor::zeros([flat.size()[0]], (kind, raw.device())).index_add(0, &it.slot, &wins);
        let near = tch::no_grad(|| {
            let anchors: Vec<_> = mask.iter().map(|&anchor| plan.anchors[anchor]).collect();
            let boxes = corners(&decode(&raw.detach(), &anchors, edges)).reshape([n, -1, 4]);
            truths.best_iou(&boxes)
        })?;
        let counts = near.view(-1).gt(ignore).logical_not().logical_or(&object.gt(0.0));
        objectness += (bce(&flat.select(1, 4), &object) * counts.to_kind(kind)).sum(kind);
    }
    Ok(Losses::of_sums([of_box, objectness, class], first.size()[0]))
}

/// YOLOv1's Eq. 3 of `raw` `[N, 1, S, S, 5·B + K]` with its weights λ of centres and sides and of boxes without object.
///
/// A cell learns the first truth whose centre it holds; of its boxes the one of best IoU, or if none touches the truth, of least distance;
/// that box's confidence is to be its IoU, all others' 0. All by squared differences, sides by their roots.
///
/// # Errors
/// libtorch's.
pub fn yolov1(plan: &Plan, raw: &Tensor, targets: &Targets, coord: f64, noobj: f64) -> Result<Losses> {
    let boxes = plan.grid().ok_or_else(|| user!("the network has no grid"))?;
    let raw = wide(raw);
    let (size, kind) = (raw.size(), raw.kind());
    let (n, h, w) = (size[0], size[2], size[3]);
    let truths = Truths::new(targets, plan.classes, &raw)?;
    let (column, row, xy) = truths.cells(h, w);
    let cell = (&truths.picture * h + row) * w + column;
    let earlier = same_slot(&cell, &truths.valid).tril(-1).any_dim(1, false);
    let wins = truths.valid.logical_and(&earlier.logical_not()).to_kind(kind);

    let flat = raw.reshape([-1, 5 * boxes + plan.classes]);
    let own = flat.index_select(0, &cell);
    // Which of its boxes, and how much it covers: `[M, B]` → `[M]`.
    let (responsible, covered) = tch::no_grad(|| {
        let theirs = decode_grid(&raw.detach(), boxes).reshape([-1, boxes, 4]).index_select(0, &cell);
        let truth = truths.boxes.unsqueeze(1);
        let iou = iou(&corners(&theirs), &corners(&truth));
        let far = (theirs - truth).square().sum_dim_intlist(-1, false, kind);
        let touched = iou.gt(0.0).any_dim(1, true);
        let best = iou.argmax(1, true).where_self(&touched, &far.argmin(1, true));
        let covered = iou.gather(1, &best, false).squeeze_dim(1);
        (best.squeeze_dim(1), covered)
    });
    let m = own.size()[0];
    let index = responsible.view([m, 1, 1]).expand([m, 1, 5], false);
    let own_box = own.narrow(1, 0, 5 * boxes).reshape([m, boxes, 5]).gather(1, &index, false).squeeze_dim(1);
    let sides = truths.boxes.narrow(1, 2, 2).clamp_min(0.0).sqrt();
    let far = (own_box.narrow(1, 0, 4) - Tensor::cat(&[xy, sides], 1)).square().sum_dim_intlist(1, false, kind);
    let of_box = (far * &wins).sum(kind) * coord;

    let own_confidence = own_box.select(1, 4);
    let is = ((&own_confidence - covered).square() * &wins).sum(kind);
    let all = flat.narrow(1, 0, 5 * boxes).reshape([-1, 5]).select(1, 4).square().sum(kind);
    let not = all - (own_confidence.square() * &wins).sum(kind);
    let objectness = is + not * noobj;

    let wrong = (own.narrow(1, 5 * boxes, plan.classes) - &truths.one_hot).square().sum_dim_intlist(1, false, kind);
    let class = (wrong * &wins).sum(kind);
    Ok(Losses::of_sums([of_box, objectness, class], n))
}
