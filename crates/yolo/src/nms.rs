//! Non-maximum suppression: of boxes that cover one another the surest stays. Which boxes stay, and in which order, is torchvision's
//! `nms`, and its `batched_nms` class by class, to the last bit of float32.

/// A box by its corners (x0, y0, x1, y1).
pub type Corners = [f32; 4];

fn area(of: &Corners) -> f32 {
    (of[2] - of[0]) * (of[3] - of[1])
}

/// Shared over covered area, reckoned as the reference does: what it rounds, this rounds.
fn iou(a: &Corners, b: &Corners) -> f32 {
    let side = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    let shared = side(0, 2) * side(1, 3);
    shared / (area(a) + area(b) - shared)
}

/// Indices by falling score, of equal ones the first.
fn surest_first(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Of `order`, those that no earlier one that stays covers by more than `threshold`.
fn kept(boxes: &[Corners], order: &[usize], threshold: f64) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for &at in order {
        if !kept.iter().any(|&surer| f64::from(iou(&boxes[surer], &boxes[at])) > threshold) {
            kept.push(at);
        }
    }
    kept
}

/// Indices of the boxes that stay, the surest first: those whose IoU with no surer one that stays is above `threshold`.
///
/// # Panics
/// On fewer scores than boxes.
pub fn nms(boxes: &[Corners], scores: &[f32], threshold: f64) -> Vec<usize> {
    kept(boxes, &surest_first(&scores[..boxes.len()]), threshold)
}

/// As [`nms`], each class by itself: boxes of different classes do not suppress one another.
///
/// # Panics
/// On fewer scores or classes than boxes.
pub fn nms_by_class(boxes: &[Corners], scores: &[f32], classes: &[usize], threshold: f64) -> Vec<usize> {
    let order = surest_first(&scores[..boxes.len()]);
    let known = classes[..boxes.len()].iter().max().map_or(0, |most| most + 1);
    let mut of_class = vec![Vec::new(); known];
    order.iter().for_each(|&at| of_class[classes[at]].push(at));
    let mut stays = vec![false; boxes.len()];
    of_class.iter().flat_map(|order| kept(boxes, order, threshold)).for_each(|at| stays[at] = true);
    order.into_iter().filter(|&at| stays[at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What covers exactly as much as the threshold stays; a point covers nothing, itself included.
    #[test]
    fn worked_values() {
        let boxes = [[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0], [5.0; 4], [5.0; 4]];
        let scores = [0.5, 0.9, 0.4, 0.1, 0.1];
        assert_eq!(nms(&boxes, &scores, 0.5), [1, 0, 2, 3, 4]);
        assert_eq!(nms(&boxes, &scores, 0.49), [1, 2, 3, 4]);
        assert_eq!(nms_by_class(&boxes, &scores, &[0, 1, 0, 0, 0], 0.49), [1, 0, 3, 4]);
        assert_eq!((nms(&[], &[], 0.5), nms_by_class(&[], &[], &[], 0.5)), (vec![], vec![]));
    }
}
