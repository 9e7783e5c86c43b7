//! Boxes as tensors, and how much they overlap. Two forms: *centred* (cx, cy, w, h) and *corners* (x0, y0, x1, y1).

use tch::Tensor;

/// Centred `[…, 4]` → corners.
pub fn corners(centred: &Tensor) -> Tensor {
    let (centre, half) = (centred.narrow(-1, 0, 2), centred.narrow(-1, 2, 2) * 0.5);
    Tensor::cat(&[&centre - &half, &centre + &half], -1)
}

/// Corners `[…, 4]` → centred.
pub fn centred(corners: &Tensor) -> Tensor {
    let (low, high) = (corners.narrow(-1, 0, 2), corners.narrow(-1, 2, 2));
    Tensor::cat(&[(&low + &high) * 0.5, &high - &low], -1)
}

/// Area of corners `[…, 4]` → `[…]`; a box of negative sides has none.
pub fn area(corners: &Tensor) -> Tensor {
    let sides = (corners.narrow(-1, 2, 2) - corners.narrow(-1, 0, 2)).clamp_min(0.0);
    sides.select(-1, 0) * sides.select(-1, 1)
}

/// Shared and covered area of corners `a` and `b`, whose leading sizes broadcast.
fn shared_and_union(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let low = a.narrow(-1, 0, 2).maximum(&b.narrow(-1, 0, 2));
    let high = a.narrow(-1, 2, 2).minimum(&b.narrow(-1, 2, 2));
    let shared = area(&Tensor::cat(&[low, high], -1));
    let union = area(a) + area(b) - &shared;
    (shared, union)
}

/// Shared area over covered area of corners `[…, 4]`, whose leading sizes broadcast: `[n, 1, 4]` with `[m, 4]` gives `[n, m]`. Two boxes
/// without area have 0.
pub fn iou(a: &Tensor, b: &Tensor) -> Tensor {
    let (shared, union) = shared_and_union(a, b);
    let tiny = union.eq(0.0);
    shared / (union + tiny.to_kind(a.kind()))
}

/// As [`iou`], less the share of the smallest box around both that neither covers (arXiv:1902.09630): in (−1, 1].
pub fn giou(a: &Tensor, b: &Tensor) -> Tensor {
    let (shared, union) = shared_and_union(a, b);
    let low = a.narrow(-1, 0, 2).minimum(&b.narrow(-1, 0, 2));
    let high = a.narrow(-1, 2, 2).maximum(&b.narrow(-1, 2, 2));
    let around = area(&Tensor::cat(&[low, high], -1));
    let some = |x: &Tensor| x + x.eq(0.0).to_kind(a.kind());
    &shared / some(&union) - (&around - &union) / some(&around)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn row(values: [f64; 4]) -> Tensor {
        Tensor::from_slice(&values)
    }

    #[test]
    fn worked_values() {
        let unit = row([0.0, 0.0, 1.0, 1.0]);
        let near = row([0.5, 0.5, 1.5, 1.5]);
        assert!((iou(&unit, &near).double_value(&[]) - 0.25 / 1.75).abs() < 1e-15);
        assert!((giou(&unit, &near).double_value(&[]) - (1.0 / 7.0 - 0.5 / 2.25)).abs() < 1e-15);
        assert!((giou(&unit, &row([2.0, 2.0, 3.0, 3.0])).double_value(&[]) + 7.0 / 9.0).abs() < 1e-15);
        let point = row([0.3, 0.3, 0.3, 0.3]);
        assert_eq!((iou(&point, &point).double_value(&[]), giou(&point, &point).double_value(&[])), (0.0, 0.0));
    }

    #[test]
    fn all_pairs_are_the_pairs() {
        let boxes = |n| corners(&Tensor::rand([n, 4], (Kind::Double, Device::Cpu)));
        let (a, b) = (boxes(3), boxes(5));
        let (all, bounded) = (iou(&a.unsqueeze(1), &b), giou(&a.unsqueeze(1), &b));
        assert_eq!(all.size(), [3, 5]);
        for (i, j) in (0..3).flat_map(|i| (0..5).map(move |j| (i, j))) {
            assert_eq!(all.double_value(&[i, j]), iou(&a.get(i), &b.get(j)).double_value(&[]));
            assert!(bounded.double_value(&[i, j]) <= all.double_value(&[i, j]));
        }
    }

    proptest! {
        #[test]
        fn forms_go_back_and_a_box_covers_itself(x in -2.0..2.0, y in -2.0..2.0, w in 0.01..3.0, h in 0.01..3.0) {
            let given = row([x, y, w, h]);
            let there = corners(&given);
            prop_assert!((centred(&there) - &given).abs().max().double_value(&[]) < 1e-12);
            prop_assert!((iou(&there, &there).double_value(&[]) - 1.0).abs() < 1e-12);
            prop_assert!((giou(&there, &there).double_value(&[]) - 1.0).abs() < 1e-12);
        }
    }
}
