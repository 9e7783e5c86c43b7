//! Average precision as PASCAL VOC measures it (development kit of 2010, `VOCevaldet.m`), without its one pixel more in widths and heights.

use super::scene::{descending, overlap};
use super::{Group, Scene};
use crate::Result;

/// The overlap from which VOC counts a detection as right.
pub const OVERLAP: f64 = 0.5;

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Mean over the classes that have truths of [`ClassScores::area`], VOC's mAP since 2010; −1 without any truth.
    pub area: f64,
    /// Mean of [`ClassScores::eleven_points`], VOC's mAP up to 2009.
    pub eleven_points: f64,
    /// By class.
    pub classes: Vec<ClassScores>,
}

/// What an evaluation found of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// How many truths it has that count.
    pub truths: usize,
    /// Area under the curve, whose precision is made to fall with recall; −1 without truths.
    pub area: f64,
    /// Mean of the best precision from recall 0, 0.1, … 1 on; −1 without truths.
    pub eleven_points: f64,
    /// (recall, precision) after each detection that counts, the surest first; empty without truths.
    pub curve: Vec<(f64, f64)>,
}

/// All scenes at once; see [`Evaluator`].
///
/// # Errors
/// As [`Evaluator::add`].
pub fn evaluate(scenes: &[Scene], classes: usize, least: f64) -> Result<Scores> {
    let mut evaluator = Evaluator::new(classes, least);
    scenes.iter().try_for_each(|scene| evaluator.add(scene))?;
    Ok(evaluator.finish())
}

/// Takes scene after scene and keeps 16 bytes of each detection.
///
/// A detection belongs to the truth of its class that it overlaps most, the first of equal ones, if by `least` or more. It is right if it is the surest of
/// those of that truth, else wrong. Those of truths that do not count, difficult ones and crowds, are left out. Of equal scores that of the
/// earlier scene ranks first.
#[derive(Debug)]
pub struct Evaluator {
    least: f64,
    classes: Vec<Tally>,
    photos: usize,
}

#[derive(Debug, Clone, Default)]
struct Tally {
    truths: usize,
    /// Score, and whether it is right.
    found: Vec<(f64, bool)>,
}

impl Evaluator {
    /// Of this many classes, at an overlap in (0, 1]: [`OVERLAP`] is VOC's.
    pub fn new(classes: usize, least: f64) -> Self {
        Self { least, classes: vec![Tally::default(); classes], photos: 0 }
    }

    /// Adds a photo, with or without truths, with or without detections.
    ///
    /// # Errors
    /// As [`Scene::check`]. The photo is then not added.
    pub fn add(&mut self, scene: &Scene) -> Result<()> {
        scene.check(self.photos, self.classes.len())?;
        self.photos += 1;
        for group in scene.groups() {
            self.classes[group.class].add(&group, self.least);
        }
        Ok(())
    }

    /// The numbers of all scenes that were added.
    pub fn finish(self) -> Scores {
        let classes: Vec<_> = self.classes.into_iter().map(Tally::scores).collect();
        let mean = |of: fn(&ClassScores) -> f64| {
            let known: Vec<_> = classes.iter().filter(|class| class.truths > 0).map(of).collect();
            if known.is_empty() { -1.0 } else { known.iter().sum::<f64>() / known.len() as f64 }
        };
        Scores { area: mean(|class| class.area), eleven_points: mean(|class| class.eleven_points), classes }
    }
}

impl Tally {
    fn add(&mut self, group: &Group, least: f64) {
        self.truths += group.truths.iter().filter(|(_, truth)| truth.counts()).count();
        let mut taken = vec![false; group.truths.len()];
        for (_, found) in &group.detections {
            let (mut most, mut best) = (0.0, None);
            for (place, (_, truth)) in group.truths.iter().enumerate() {
                let shared = overlap(&found.rect, &truth.rect, false);
                if shared > most {
                    (most, best) = (shared, Some(place));
                }
            }
            let right = match best.filter(|_| most >= least) {
                Some(place) if !group.truths[place].1.counts() => continue,
                Some(place) => !std::mem::replace(&mut taken[place], true),
                None => false,
            };
            self.found.push((found.score, right));
        }
    }

    fn scores(mut self) -> ClassScores {
        let truths = self.truths;
        if truths == 0 {
            return ClassScores { truths, area: -1.0, eleven_points: -1.0, curve: Vec::new() };
        }
        self.found.sort_by(|a, b| descending(a.0, b.0));
        let mut right = 0;
        let mut curve = Vec::with_capacity(self.found.len());
        // Precision at each detection that is right: between two of them it only falls.
        let mut precisions = Vec::new();
        for (place, &(_, is_right)) in self.found.iter().enumerate() {
            right += usize::from(is_right);
            let precision = right as f64 / (place + 1) as f64;
            curve.push((right as f64 / truths as f64, precision));
            if is_right {
                precisions.push(precision);
            }
        }
        for place in (1..precisions.len()).rev() {
            precisions[place - 1] = precisions[place - 1].max(precisions[place]);
        }
        // From 0.0: the sum of nothing is -0.0.
        let area = precisions.iter().fold(0.0, |sum, precision| sum + precision) / truths as f64;
        // The first detection with a recall of at least k/10, in whole numbers: 0.3 is not 3 · 0.1.
        let from = |tenths: usize| (tenths * truths).div_ceil(10).saturating_sub(1);
        let best = |tenths: usize| precisions.get(from(tenths)).copied().unwrap_or(0.0);
        ClassScores { truths, area, eleven_points: (0..=10).map(best).sum::<f64>() / 11.0, curve }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Detection, Truth, fixture};
    use super::*;

    #[test]
    fn numbers_are_those_of_whole_fractions() {
        for case in ["odd", "real"] {
            let known = fixture::read(case);
            let scores = evaluate(&known.scenes, known.classes, OVERLAP).unwrap();
            let expected = known.get("voc");
            for (class, expected) in scores.classes.iter().zip(expected.chunks(2)) {
                assert!((class.area - expected[0]).abs() < 1e-12, "{case}: {class:?} {expected:?}");
                assert!((class.eleven_points - expected[1]).abs() < 1e-12, "{case}: {class:?} {expected:?}");
            }
            let areas: Vec<_> = expected.chunks(2).map(|pair| pair[0]).filter(|&area| area >= 0.0).collect();
            assert!((scores.area - areas.iter().sum::<f64>() / areas.len() as f64).abs() < 1e-12);
        }
    }

    fn truth(x: f64, difficult: bool) -> Truth {
        Truth { class: 0, rect: [x, 0.0, 10.0, 10.0], area: 100.0, crowd: false, difficult }
    }

    fn found(x: f64, score: f64) -> Detection {
        Detection { class: 0, score, rect: [x, 0.0, 10.0, 10.0] }
    }

    #[test]
    fn a_curve_worked_by_hand() {
        // Right, wrong, right, the second of a truth, on a difficult one: precision 1, 1/2, 2/3, 1/2 at recall 1/3, 1/3, 2/3, 2/3.
        let scene = Scene {
            truths: vec![truth(0.0, false), truth(100.0, false), truth(200.0, true), truth(300.0, false)],
            detections: vec![
                found(0.0, 0.9),
                found(50.0, 0.8),
                found(101.0, 0.7),
                found(1.0, 0.6),
                found(200.0, 0.5),
                found(201.0, 0.4),
            ],
        };
        let scores = evaluate(&[scene], 2, OVERLAP).unwrap();
        let class = &scores.classes[0];
        let third = 1.0 / 3.0;
        assert_eq!(class.truths, 3);
        assert_eq!(class.curve, [(third, 1.0), (third, 0.5), (2.0 * third, 2.0 * third), (2.0 * third, 0.5)]);
        assert!((class.area - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-15);
        assert!((class.eleven_points - (4.0 * 1.0 + 3.0 * 2.0 / 3.0) / 11.0).abs() < 1e-15);
        assert_eq!(
            (scores.area, scores.eleven_points),
            (class.area, class.eleven_points),
            "a class without truths is left out"
        );
        assert_eq!(scores.classes[1].area, -1.0);
        assert_eq!(evaluate(&[], 1, OVERLAP).unwrap().area, -1.0);
    }
}
