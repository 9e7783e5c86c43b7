//! A photo with what it has and what was found in it, and which of the two belong together.

use super::{Detection, Rect, Truth};
use crate::{Error, Result, user};

/// What a photo has, and what a network found in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scene {
    /// What the photo has.
    pub truths: Vec<Truth>,
    /// What was found, in any order.
    pub detections: Vec<Detection>,
}

impl Scene {
    /// Refuses what no evaluation can rank or measure; `photo` names the scene, counted from 0.
    ///
    /// # Errors
    /// A score that is NaN, a box or an area that is not finite; a class that is none of `classes`.
    pub fn check(&self, photo: usize, classes: usize) -> Result<()> {
        let finite = |rect: &Rect| rect.iter().all(|side| side.is_finite());
        let beyond =
            |what, class| Err(Error::Failed(format!("{what} of photo {photo} has class {class} of {classes}")));
        for truth in &self.truths {
            if truth.class >= classes {
                return beyond("a truth", truth.class);
            }
            if !finite(&truth.rect) || !truth.area.is_finite() {
                let (rect, area) = (truth.rect, truth.area);
                return Err(user!(
                    "a truth of photo {photo} has the box {rect:?} and the area {area}; they must be finite numbers"
                ));
            }
        }
        for found in &self.detections {
            if found.class >= classes {
                return beyond("a detection", found.class);
            }
            if !finite(&found.rect) || found.score.is_nan() {
                let (rect, score) = (found.rect, found.score);
                return Err(Error::Failed(format!(
                    "a detection of photo {photo} has the box {rect:?} and the score {score}; they must be numbers, \
                     so the network that gave them is damaged or has diverged"
                )));
            }
        }
        Ok(())
    }

    /// For each detection the place of the truth that it has at an overlap of `threshold`, as pycocotools decides it in each class: the surest
    /// first, each the truth it overlaps most that no surer one has. Truths that do not count are taken only where no other is left.
    pub fn matched(&self, threshold: f64) -> Vec<Option<usize>> {
        let mut matched = vec![None; self.detections.len()];
        for group in self.groups() {
            group.pairs(&group.overlaps(), &mut group.standing(Truth::counts), threshold, |row, place, _| {
                matched[group.detections[row].0] = Some(group.truths[place].0);
            });
        }
        matched
    }

    /// Its objects by class, ascending; only classes that have any.
    pub(super) fn groups(&self) -> Vec<Group<'_>> {
        let mut truths: Vec<_> = self.truths.iter().enumerate().collect();
        let mut detections: Vec<_> = self.detections.iter().enumerate().collect();
        truths.sort_by_key(|(_, truth)| truth.class);
        // Stable: of equal scores the one that was given first comes first.
        detections.sort_by(|(_, a), (_, b)| a.class.cmp(&b.class).then(descending(a.score, b.score)));
        let (mut truths, mut detections) = (truths.as_slice(), detections.as_slice());
        let mut groups = Vec::new();
        while let Some(class) = truths.iter().map(|t| t.1.class).chain(detections.iter().map(|d| d.1.class)).min() {
            let these = truths.partition_point(|(_, truth)| truth.class == class);
            let those = detections.partition_point(|(_, found)| found.class == class);
            groups.push(Group { class, truths: truths[..these].to_vec(), detections: detections[..those].to_vec() });
            (truths, detections) = (&truths[these..], &detections[those..]);
        }
        groups
    }
}

/// Higher scores first. Scores that are NaN were refused before.
pub(super) fn descending(a: f64, b: f64) -> std::cmp::Ordering {
    b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal)
}

/// The objects of one class in a scene, with their places in it.
pub(super) struct Group<'a> {
    pub(super) class: usize,
    pub(super) truths: Vec<(usize, &'a Truth)>,
    /// The surest first.
    pub(super) detections: Vec<(usize, &'a Detection)>,
}

impl Group<'_> {
    /// The [`overlap`] of each detection (rows) with each truth.
    pub(super) fn overlaps(&self) -> Vec<f64> {
        let row = |found: &Detection| {
            let rect = found.rect;
            self.truths.iter().map(move |(_, truth)| overlap(&rect, &truth.rect, truth.crowd))
        };
        self.detections.iter().flat_map(|(_, found)| row(found)).collect()
    }

    /// Which truths count.
    pub(super) fn standing(&self, counts: impl Fn(&Truth) -> bool) -> Standing {
        let (mut order, others): (Vec<_>, Vec<_>) =
            (0..self.truths.len()).partition(|&place| counts(self.truths[place].1));
        let counting = order.len();
        order.extend(others);
        Standing { taken: vec![false; order.len()], order, counting }
    }

    /// Calls `hit(detection, truth, counts)`, with places in this group, for each pair that pycocotools makes: the surest detection first,
    /// each takes the truth that it overlaps most and at least by `threshold`, of equal ones the last. Truths that do not count are taken
    /// only where no other is left; a crowd may be taken often.
    pub(super) fn pairs(
        &self,
        overlaps: &[f64],
        standing: &mut Standing,
        threshold: f64,
        mut hit: impl FnMut(usize, usize, bool),
    ) {
        let Standing { order, counting, taken } = standing;
        if order.is_empty() {
            return;
        }
        // So that two boxes that are the same meet at a threshold of 1.
        let threshold = threshold.min(1.0 - 1e-10);
        taken.fill(false);
        for (row, overlaps) in overlaps.chunks_exact(order.len()).enumerate() {
            let (mut most, mut best) = (threshold, None);
            for (at, &place) in order.iter().enumerate() {
                if at == *counting && best.is_some() {
                    break;
                }
                if overlaps[place] < most || (taken[place] && !self.truths[place].1.crowd) {
                    continue;
                }
                (most, best) = (overlaps[place], Some((place, at < *counting)));
            }
            if let Some((place, counts)) = best {
                taken[place] = true;
                hit(row, place, counts);
            }
        }
    }
}

/// In which order a detection looks through the truths of a [`Group`].
pub(super) struct Standing {
    /// Those that count, then the others.
    order: Vec<usize>,
    pub(super) counting: usize,
    taken: Vec<bool>,
}

/// Shared area over covered area of a detection and a truth, 0 where they share none. With a crowd it is the share of the detection that
/// lies inside: a box around many says nothing of how large one of them is.
pub fn overlap(found: &Rect, truth: &Rect, crowd: bool) -> f64 {
    // In pycocotools' order of operations: a sum in another order moves pairs across a threshold.
    let ([x, y, w, h], [left, top, width, height]) = (*found, *truth);
    let shared_width = (w + x).min(width + left) - x.max(left);
    let shared_height = (h + y).min(height + top) - y.max(top);
    if shared_width <= 0.0 || shared_height <= 0.0 {
        return 0.0;
    }
    let shared = shared_width * shared_height;
    shared / if crowd { w * h } else { w * h + width * height - shared }
}

#[cfg(test)]
mod tests {
    use super::super::boxes;
    use super::*;
    use proptest::prelude::*;
    use tch::Tensor;

    #[test]
    fn a_crowd_is_measured_by_the_detection_alone() {
        let (small, large) = ([1.0, 1.0, 1.0, 2.0], [0.0, 0.0, 4.0, 4.0]);
        assert_eq!((overlap(&small, &large, false), overlap(&small, &large, true)), (2.0 / 16.0, 1.0));
        assert_eq!(overlap(&[3.0, 0.0, 2.0, 1.0], &large, true), 0.5);
        // Neither touching edges nor boxes without area share anything.
        for none in [[4.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0], [2.0, 2.0, -1.0, 1.0]] {
            assert_eq!((overlap(&none, &large, false), overlap(&none, &large, true)), (0.0, 0.0));
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_photo() {
        let truth = Truth { class: 0, rect: [0.0, 0.0, 1.0, 1.0], area: 1.0, crowd: false, difficult: false };
        let found = Detection { class: 0, score: 0.5, rect: truth.rect };
        let told = |truth: &Truth, found: &Detection| {
            let scene = Scene { truths: vec![truth.clone()], detections: vec![found.clone()] };
            scene.check(3, 2).map_err(|error| error.to_string())
        };
        assert_eq!(told(&truth, &found), Ok(()));
        for wrong in [
            Detection { score: f64::NAN, ..found.clone() },
            Detection { rect: [0.0, f64::INFINITY, 1.0, 1.0], ..found },
        ] {
            assert!(told(&truth, &wrong).unwrap_err().starts_with("a detection of photo 3 has the box"));
            let beyond = Detection { class: 2, score: 0.5, rect: truth.rect };
            assert_eq!(told(&truth, &beyond).unwrap_err(), "a detection of photo 3 has class 2 of 2");
        }
        let wrong = Truth { area: f64::NAN, ..truth.clone() };
        assert!(
            told(&wrong, &Detection { class: 0, score: 0.5, rect: truth.rect }).unwrap_err().contains("the area NaN")
        );
    }

    proptest! {
        #[test]
        fn overlap_is_that_of_the_tensors(a in [-9.0..9.0, -9.0..9.0, 0.1..9.0, 0.1..9.0], b in [-9.0..9.0, -9.0..9.0, 0.1..9.0, 0.1..9.0]) {
            let row = |[x, y, w, h]: [f64; 4]| Tensor::from_slice(&[x, y, x + w, y + h]);
            let expected = boxes::iou(&row(a), &row(b)).double_value(&[]);
            prop_assert!((overlap(&a, &b, false) - expected).abs() < 1e-12);
        }
    }
}
