//! Average precision and recall as COCO measures them (cocodataset.org, "detection evaluation"), the numbers of pycocotools.

#[cfg(test)]
mod tests;

use super::scene::descending;
use super::{Detection, Group, Scene};
use crate::Result;

/// Names of the twelve numbers, in pycocotools' order.
pub const NAMES: [&str; 12] = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"];

/// Overlaps from which a detection counts as right: 0.50, 0.55, … 0.95.
pub const THRESHOLDS: usize = 10;

/// Shares of the truths at which precision is read: 0, 0.01, … 1.
pub const RECALLS: usize = 101;

/// Areas in pixels, both ends included: all, small, medium, large.
const AREAS: [(f64, f64); 4] = [(0.0, 1e10), (0.0, 1024.0), (1024.0, 9216.0), (9216.0, 1e10)];

/// How many detections of a class a photo may have, the surest of them: for AR1, AR10 and all the other numbers.
const LIMITS: [usize; 3] = [1, 10, 100];

/// Up to this many classes each has a curve of its own.
const FEW: usize = 6;

/// The twelve numbers in the order of [`NAMES`], each in [0, 1], or −1 where there is no truth to find.
pub type Numbers = [f64; 12];

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Means over the classes that have truths.
    pub numbers: Numbers,
    /// By class.
    pub classes: Vec<ClassScores>,
}

/// What an evaluation found of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// How many truths it has that count.
    pub truths: usize,
    /// Of this class alone.
    pub numbers: Numbers,
    /// Precision at each of the [`RECALLS`], one row for each of the [`THRESHOLDS`]; empty where there is no truth.
    precision: Vec<f64>,
}

impl Scores {
    /// The numbers with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        NAMES.into_iter().zip(self.numbers)
    }

    /// Mean over the classes of [`ClassScores::curve`].
    pub fn curve(&self, threshold: Option<usize>) -> Vec<(f64, f64)> {
        let curves: Vec<_> =
            self.classes.iter().map(|class| class.curve(threshold)).filter(|c| !c.is_empty()).collect();
        let Some(first) = curves.first() else { return Vec::new() };
        let mean = |at: usize| curves.iter().map(|curve| curve[at].1).sum::<f64>() / curves.len() as f64;
        first.iter().enumerate().map(|(at, &(recall, _))| (recall, mean(at))).collect()
    }

    /// Curves for a plot, each with its label: of few classes each and their mean at an overlap of 0.50; of more the means at several.
    pub fn curves(&self, names: &[String]) -> Vec<(String, Vec<(f64, f64)>)> {
        let one =
            |class: &ClassScores, name: &String| (format!("{name} {:.3}", class.numbers[1]), class.curve(Some(0)));
        let mean = |label: &str, threshold: Option<usize>| {
            let curve = self.curve(threshold);
            let area = curve.iter().map(|point| point.1).sum::<f64>() / RECALLS as f64;
            (format!("mean {label} {area:.3}"), curve)
        };
        if self.classes.len() > FEW {
            return vec![mean("AP50", Some(0)), mean("AP75", Some(5)), mean("AP90", Some(8)), mean("AP", None)];
        }
        let known = self.classes.iter().zip(names).filter(|(class, _)| class.truths > 0);
        known.map(|(class, name)| one(class, name)).chain([mean("AP50", Some(0))]).collect()
    }
}

impl ClassScores {
    /// (recall, precision) at the 101 recalls: at one threshold (0: 0.50, … 9: 0.95), or the mean over all of them. Empty where there is
    /// no truth.
    pub fn curve(&self, threshold: Option<usize>) -> Vec<(f64, f64)> {
        let rows: Vec<_> = match threshold {
            Some(row) => self.precision.chunks_exact(RECALLS).skip(row).take(1).collect(),
            None => self.precision.chunks_exact(RECALLS).collect(),
        };
        let mean = |at: usize| rows.iter().map(|row| row[at]).sum::<f64>() / rows.len() as f64;
        (0..if rows.is_empty() { 0 } else { RECALLS }).map(|at| (recall(at), mean(at))).collect()
    }
}

/// The place `at` of [`THRESHOLDS`], to the bit as `numpy.linspace(0.5, 0.95, 10)` has it.
fn threshold(at: usize) -> f64 {
    if at + 1 == THRESHOLDS { 0.95 } else { 0.5 + at as f64 * ((0.95 - 0.5) / 9.0) }
}

/// The place `at` of [`RECALLS`], to the bit as `numpy.linspace(0, 1, 101)` has it.
fn recall(at: usize) -> f64 {
    if at + 1 == RECALLS { 1.0 } else { at as f64 * 0.01 }
}

/// All scenes at once; see [`Evaluator`].
///
/// # Errors
/// As [`Evaluator::add`].
pub fn evaluate(scenes: &[Scene], classes: usize) -> Result<Scores> {
    let mut evaluator = Evaluator::new(classes);
    scenes.iter().try_for_each(|scene| evaluator.add(scene))?;
    Ok(evaluator.finish())
}

/// Takes scene after scene and keeps 32 bytes of each detection.
///
/// Of detections with equal scores the one of the earlier scene ranks first, which can move the last digits: pycocotools takes photos by
/// ascending id. Truths that are crowds or difficult, or whose area lies outside the range asked for, count neither for nor against; a
/// detection without a truth is held against its own box's area.
#[derive(Debug)]
pub struct Evaluator {
    classes: Vec<Tally>,
    photos: usize,
}

/// What is kept of a class.
#[derive(Debug, Clone, Default)]
struct Tally {
    /// Truths that count in each of [`AREAS`].
    truths: [usize; 4],
    found: Vec<Found>,
}

/// What is kept of a detection: a bit for each threshold, in each of [`AREAS`].
#[derive(Debug, Clone, Default)]
struct Found {
    score: f64,
    /// Its place among those of its class in its photo, the surest first.
    place: u8,
    right: [u16; 4],
    ignored: [u16; 4],
}

impl Evaluator {
    /// Of this many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes: vec![Tally::default(); classes], photos: 0 }
    }

    /// Adds a photo, with or without truths, with or without detections.
    ///
    /// # Errors
    /// As [`Scene::check`]. The photo is then not added.
    pub fn add(&mut self, scene: &Scene) -> Result<()> {
        scene.check(self.photos, self.classes.len())?;
        self.photos += 1;
        for mut group in scene.groups() {
            group.detections.truncate(LIMITS[2]);
            self.classes[group.class].add(&group);
        }
        Ok(())
    }

    /// The numbers of all scenes that were added.
    pub fn finish(self) -> Scores {
        let classes: Vec<_> = self.classes.into_iter().map(Tally::scores).collect();
        let number = |at: usize| mean(classes.iter().map(|class| class.numbers[at]).filter(|&number| number >= 0.0));
        Scores { numbers: std::array::from_fn(number), classes }
    }
}

impl Tally {
    fn add(&mut self, group: &Group) {
        let overlaps = group.overlaps();
        let found = |(place, detection): (usize, &(usize, &Detection))| Found {
            score: detection.1.score,
            place: place as u8,
            ..Found::default()
        };
        let start = self.found.len();
        self.found.extend(group.detections.iter().enumerate().map(found));
        for (range, &(least, most)) in AREAS.iter().enumerate() {
            let inside = |area: f64| area >= least && area <= most;
            let mut standing = group.standing(|truth| truth.counts() && inside(truth.area));
            self.truths[range] += standing.counting;
            let rows = &mut self.found[start..];
            for at in 0..THRESHOLDS {
                group.pairs(&overlaps, &mut standing, threshold(at), |row, _, counts| {
                    let bits = if counts { &mut rows[row].right } else { &mut rows[row].ignored };
                    bits[range] |= 1 << at;
                });
            }
            for (row, (_, detection)) in rows.iter_mut().zip(&group.detections) {
                if !inside(detection.rect[2] * detection.rect[3]) {
                    row.ignored[range] |= !row.right[range];
                }
            }
        }
    }

    fn scores(mut self) -> ClassScores {
        self.found.sort_by(|a, b| descending(a.score, b.score));
        let mut numbers = [-1.0; 12];
        let mut precision = Vec::new();
        for (range, &truths) in self.truths.iter().enumerate().filter(|(_, truths)| **truths > 0) {
            let whole = self.curves(range, LIMITS[2], truths);
            match range {
                0 => {
                    let row = |at: usize| mean(whole.precision[at * RECALLS..][..RECALLS].iter().copied());
                    (numbers[0], numbers[1], numbers[2]) = (mean(whole.precision.iter().copied()), row(0), row(5));
                    numbers[6] = self.curves(range, LIMITS[0], truths).recall;
                    numbers[7] = self.curves(range, LIMITS[1], truths).recall;
                    numbers[8] = whole.recall;
                    precision = whole.precision;
                }
                _ => {
                    numbers[2 + range] = mean(whole.precision.into_iter());
                    numbers[8 + range] = whole.recall;
                }
            }
        }
        ClassScores { truths: self.truths[0], numbers, precision }
    }

    /// What the `most` surest of each photo come to among `truths`, in one of [`AREAS`]; `found` is sorted.
    fn curves(&self, range: usize, most: usize, truths: usize) -> Curves {
        let mut curves = Curves { precision: vec![0.0; THRESHOLDS * RECALLS], recall: 0.0 };
        let mut precisions = Vec::new();
        for (at, row) in curves.precision.chunks_exact_mut(RECALLS).enumerate() {
            let has = |bits: &[u16; 4]| bits[range] >> at & 1 == 1;
            let (mut right, mut all) = (0.0, 0.0);
            // Precision at each detection that is right: between two of them it only falls.
            precisions.clear();
            for found in self.found.iter().filter(|found| usize::from(found.place) < most && !has(&found.ignored)) {
                all += 1.0;
                if has(&found.right) {
                    right += 1.0;
                    precisions.push(right / (all + f64::EPSILON));
                }
            }
            // At a recall counts the best precision from there on.
            for place in (1..precisions.len()).rev() {
                precisions[place - 1] = precisions[place - 1].max(precisions[place]);
            }
            let mut place = 0;
            for (at, read) in row.iter_mut().enumerate() {
                while place < precisions.len() && (place + 1) as f64 / (truths as f64) < recall(at) {
                    place += 1;
                }
                *read = precisions.get(place).copied().unwrap_or(0.0);
            }
            curves.recall += right / truths as f64 / THRESHOLDS as f64;
        }
        curves
    }
}

/// What [`Tally::curves`] gives.
struct Curves {
    /// As in [`ClassScores`].
    precision: Vec<f64>,
    /// Mean over the thresholds.
    recall: f64,
}

/// −1 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count == 0.0 { -1.0 } else { sum / count }
}
