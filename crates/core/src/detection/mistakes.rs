//! What a detector takes for what, and its worst mistakes by kind.

use super::scene::descending;
use super::{Detection, Rect, Scene, Truth, overlap};
use crate::Result;

/// The overlap from which a detection has found its object.
const FOUND: f64 = 0.5;
/// The overlap from which it was near it.
const NEAR: f64 = 0.1;

/// How a detector can be wrong. What several fit is the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An object of its class that a surer detection has found already.
    Doubled,
    /// An object of another class, found with an overlap of 0.5 or more.
    WrongClass,
    /// Right class, but an overlap from 0.1 to below 0.5.
    BadlyPlaced,
    /// Nothing is there.
    Background,
    /// An object that none of the others is about, and that was not found.
    Missed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Missed, Kind::WrongClass, Kind::BadlyPlaced, Kind::Doubled, Kind::Background];

    /// What a reader calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Missed => "missed",
            Kind::WrongClass => "wrong class",
            Kind::BadlyPlaced => "badly placed",
            Kind::Doubled => "doubled",
            Kind::Background => "background",
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// How it is wrong.
    pub kind: Kind,
    /// The scene, counted from 0.
    pub photo: usize,
    /// What was found; `None` for what was missed.
    pub found: Option<Detection>,
    /// The object that it is about; `None` for background.
    pub truth: Option<Truth>,
    /// How far the two overlap; 0 without one of them.
    pub overlap: f64,
}

impl Mistake {
    /// Where: the detection's box, or that of what was missed.
    pub fn rect(&self) -> Rect {
        let found = self.found.as_ref().map(|found| found.rect);
        found.or(self.truth.as_ref().map(|truth| truth.rect)).unwrap_or_default()
    }

    /// The worst first: by score; of what was missed by its area.
    fn rank(&self) -> f64 {
        let missed = || self.truth.as_ref().map_or(0.0, |truth| truth.area);
        self.found.as_ref().map_or_else(missed, |found| found.score)
    }
}

/// Takes scene after scene.
///
/// Detections find objects of their own class as in [`Scene::matched`] at 0.5. Those that thereby have a truth that does not count are left
/// out, and such truths are never missed.
#[derive(Debug)]
pub struct Review {
    least: f64,
    keep: usize,
    photos: usize,
    found: Reviewed,
}

/// What [`Review`] adds up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Reviewed {
    /// K + 1 rows (truth) of K + 1 counts (detection); the last row and the last column are the background. A truth counts once: with the
    /// detection that has found it, else with the surest one of another class there, else it is taken for background.
    pub confusion: Vec<Vec<u64>>,
    /// How many mistakes of each kind there are, in the order of [`Kind::ALL`].
    pub counts: [u64; 5],
    /// The worst of each kind, in that order: those with the highest scores, and the largest of what was missed.
    pub worst: [Vec<Mistake>; 5],
}

impl Review {
    /// Of this many classes; detections with scores below `least` are passed over, and up to `keep` mistakes of each kind are kept.
    pub fn new(classes: usize, least: f64, keep: usize) -> Self {
        let confusion = vec![vec![0; classes + 1]; classes + 1];
        Self { least, keep, photos: 0, found: Reviewed { confusion, counts: [0; 5], worst: Default::default() } }
    }

    /// Adds a photo.
    ///
    /// # Errors
    /// As [`Scene::check`]. The photo is then not added.
    pub fn add(&mut self, scene: &Scene) -> Result<()> {
        let background = self.found.confusion.len() - 1;
        scene.check(self.photos, background)?;
        let sure = scene.detections.iter().filter(|found| found.score >= self.least).cloned();
        let mut scene = Scene { truths: scene.truths.clone(), detections: sure.collect() };
        scene.detections.sort_by(|a, b| descending(a.score, b.score));
        let (mut objects, pairs) = (Objects::new(&scene.truths), scene.matched(FOUND));
        for place in pairs.iter().flatten() {
            objects.found[*place] = true;
        }
        for (found, pair) in scene.detections.iter().zip(&pairs) {
            if let Some(place) = *pair {
                if scene.truths[place].counts() {
                    self.found.confusion[found.class][found.class] += 1;
                }
                continue;
            }
            let (kind, about) = objects.fault(found);
            let row = about.filter(|&(place, _)| kind == Kind::WrongClass && objects.free(place));
            self.found.confusion[row.map_or(background, |(place, _)| scene.truths[place].class)][found.class] += 1;
            if let Some((place, _)) = about {
                objects.told[place] = true;
                objects.taken[place] |= row.is_some();
            }
            self.keep(kind, Some(found), about.map(|(place, shared)| (&scene.truths[place], shared)));
        }
        for (place, truth) in scene.truths.iter().enumerate().filter(|(_, truth)| truth.counts()) {
            if objects.free(place) {
                self.found.confusion[truth.class][background] += 1;
            }
            if !objects.found[place] && !objects.told[place] {
                self.keep(Kind::Missed, None, Some((truth, 0.0)));
            }
        }
        self.photos += 1;
        Ok(())
    }

    fn keep(&mut self, kind: Kind, found: Option<&Detection>, truth: Option<(&Truth, f64)>) {
        let place = Kind::ALL.iter().position(|&one| one == kind).unwrap_or_default();
        self.found.counts[place] += 1;
        let mistake = Mistake {
            kind,
            photo: self.photos,
            found: found.cloned(),
            truth: truth.map(|(truth, _)| truth.clone()),
            overlap: truth.map_or(0.0, |(_, shared)| shared),
        };
        let worst = &mut self.found.worst[place];
        // Behind those that are as bad: the earlier photo stays.
        let at = worst.partition_point(|one| one.rank() >= mistake.rank());
        if at < self.keep {
            worst.truncate(self.keep - 1);
            worst.insert(at, mistake);
        }
    }

    /// What all scenes come to.
    pub fn finish(self) -> Reviewed {
        self.found
    }
}

/// The truths of a photo, and what has become of them.
struct Objects<'a> {
    truths: &'a [Truth],
    /// A detection of its class has it.
    found: Vec<bool>,
    /// In the confusion it stands with a detection of another class.
    taken: Vec<bool>,
    /// A mistake is about it.
    told: Vec<bool>,
}

impl<'a> Objects<'a> {
    fn new(truths: &'a [Truth]) -> Self {
        let none = vec![false; truths.len()];
        Self { truths, found: none.clone(), taken: none.clone(), told: none }
    }

    fn free(&self, place: usize) -> bool {
        !self.found[place] && !self.taken[place]
    }

    /// What is wrong with a detection that has no truth, and which truth it is about, with their overlap.
    fn fault(&self, found: &Detection) -> (Kind, Option<(usize, f64)>) {
        let nearest = |own: bool, free: bool| {
            let these = self.truths.iter().enumerate().filter(|(_, truth)| truth.counts());
            let these =
                these.filter(|&(place, truth)| (truth.class == found.class) == own && (!free || self.free(place)));
            let shared = these.map(|(place, truth)| (place, overlap(&found.rect, &truth.rect, false)));
            shared.max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let within = |near: Option<(usize, f64)>, least: f64| near.filter(|&(_, shared)| shared >= least);
        let own = nearest(true, false);
        let other = || within(nearest(false, true), FOUND).or_else(|| within(nearest(false, false), FOUND));
        if within(own, FOUND).is_some() {
            (Kind::Doubled, own)
        } else if let Some(other) = other() {
            (Kind::WrongClass, Some(other))
        } else if within(own, NEAR).is_some() {
            (Kind::BadlyPlaced, own)
        } else {
            (Kind::Background, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn truth(class: usize, x: f64) -> Truth {
        Truth { class, rect: [x, 0.0, 10.0, 10.0], area: 100.0 + x, crowd: false, difficult: false }
    }

    fn found(class: usize, x: f64, score: f64) -> Detection {
        Detection { class, score, rect: [x, 0.0, 10.0, 10.0] }
    }

    fn reviewed(scenes: &[Scene], classes: usize, least: f64, keep: usize) -> Reviewed {
        let mut review = Review::new(classes, least, keep);
        scenes.iter().for_each(|scene| review.add(scene).unwrap());
        review.finish()
    }

    #[test]
    fn each_kind_is_told_by_its_example() {
        let scene = Scene {
            truths: vec![
                truth(0, 0.0),
                truth(0, 100.0),
                truth(1, 200.0),
                truth(1, 300.0),
                Truth { crowd: true, ..truth(0, 400.0) },
                Truth { difficult: true, ..truth(0, 500.0) },
            ],
            detections: vec![
                found(0, 1.0, 0.9),   // Right,
                found(0, 0.0, 0.8),   // and the same once more, less sure although nearer.
                found(1, 0.0, 0.75),  // Another class at an object that was found.
                found(1, 106.0, 0.7), // Other class, too little overlap.
                found(0, 105.0, 0.6), // Overlap of 1/3.
                found(0, 201.0, 0.5),
                found(0, 402.0, 0.4), // In the crowd.
                found(0, 500.0, 0.4), // Difficult.
                found(1, 300.0, 0.1), // Right, but not sure enough.
            ],
        };
        let result = reviewed(&[Scene::default(), scene.clone()], 2, 0.2, 5);
        assert_eq!(result.confusion, [[1, 0, 1], [1, 0, 1], [2, 2, 0]]);
        let told = |kind: Kind| {
            let place = Kind::ALL.iter().position(|&one| one == kind).unwrap();
            assert_eq!(result.counts[place], result.worst[place].len() as u64);
            let told = |one: &Mistake| {
                assert_eq!((one.kind, one.photo), (kind, 1));
                (one.found.as_ref().map(|f| f.score), one.truth.as_ref().map(|t| t.rect[0]), one.rect()[0])
            };
            result.worst[place].iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(told(Kind::Doubled), [(Some(0.8), Some(0.0), 0.0)]);
        assert_eq!(told(Kind::WrongClass), [(Some(0.75), Some(0.0), 0.0), (Some(0.5), Some(200.0), 201.0)]);
        assert_eq!(told(Kind::BadlyPlaced), [(Some(0.6), Some(100.0), 105.0)]);
        assert_eq!(told(Kind::Background), [(Some(0.7), None, 106.0)]);
        assert_eq!(told(Kind::Missed), [(None, Some(300.0), 300.0)]);
        assert!((result.worst[2][0].overlap - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn rows_are_the_truths_and_columns_the_detections() {
        for case in ["odd", "real"] {
            let known = fixture::read(case);
            let result = reviewed(&known.scenes, known.classes, 0.3, 3);
            let truths =
                |class| known.scenes.iter().flat_map(|s| &s.truths).filter(move |t| t.class == class && t.counts());
            let sure = |class: usize| {
                let pairs = |scene: &Scene| {
                    let mut scene = scene.clone();
                    scene.detections.retain(|found| found.score >= 0.3);
                    let counts = |pair: &Option<usize>| pair.is_none_or(|place| scene.truths[place].counts());
                    let all = scene.detections.iter().zip(scene.matched(0.5));
                    all.filter(|(found, pair)| found.class == class && counts(pair)).count()
                };
                known.scenes.iter().map(pairs).sum::<usize>()
            };
            for class in 0..known.classes {
                assert_eq!(
                    result.confusion[class].iter().sum::<u64>(),
                    truths(class).count() as u64,
                    "{case}: {class}"
                );
                assert_eq!(
                    result.confusion.iter().map(|row| row[class]).sum::<u64>(),
                    sure(class) as u64,
                    "{case}: {class}"
                );
            }
            // Of all mistakes those are kept that stand first when all are.
            let all = reviewed(&known.scenes, known.classes, 0.3, usize::MAX);
            for (few, all) in result.worst.iter().zip(&all.worst) {
                assert_eq!(few[..], all[..few.len()]);
                assert!(all.windows(2).all(|pair| pair[0].rank() >= pair[1].rank()));
            }
            assert!(result.counts.iter().all(|&count| count > 3), "{case}: {:?}", result.counts);
        }
    }
}
