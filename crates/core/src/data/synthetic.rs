//! Digits drawn by code, for smoke tests: no download, the same bytes everywhere.

use rand_chacha::ChaCha8Rng;

use super::{ImageSet, Splits};
use crate::Result;
use crate::random::{rng, uniform};

const SIDE: usize = 28;
const TRAIN: u64 = 2_000;
const TEST: u64 = 500;

/// Each digit as one stroke: its corners on a grid 4 wide and 6 high, y downwards.
const STROKES: [&[(f64, f64)]; 10] = [
    &[(1.0, 0.0), (3.0, 0.0), (4.0, 1.5), (4.0, 4.5), (3.0, 6.0), (1.0, 6.0), (0.0, 4.5), (0.0, 1.5), (1.0, 0.0)],
    &[(1.0, 1.0), (2.0, 0.0), (2.0, 6.0)],
    &[(0.0, 1.0), (1.0, 0.0), (3.0, 0.0), (4.0, 1.0), (4.0, 2.0), (0.0, 6.0), (4.0, 6.0)],
    &[(0.0, 0.0), (4.0, 0.0), (2.0, 2.5), (4.0, 4.0), (3.0, 6.0), (0.0, 6.0)],
    &[(3.0, 6.0), (3.0, 0.0), (0.0, 4.0), (4.0, 4.0)],
    &[(4.0, 0.0), (0.0, 0.0), (0.0, 3.0), (3.0, 3.0), (4.0, 4.0), (3.0, 6.0), (0.0, 6.0)],
    &[(3.0, 0.0), (0.0, 3.0), (0.0, 5.0), (1.0, 6.0), (3.0, 6.0), (4.0, 5.0), (3.0, 3.0), (0.0, 4.0)],
    &[(0.0, 0.0), (4.0, 0.0), (1.0, 6.0)],
    &[
        (1.0, 3.0),
        (0.0, 2.0),
        (1.0, 0.0),
        (3.0, 0.0),
        (4.0, 2.0),
        (3.0, 3.0),
        (1.0, 3.0),
        (0.0, 4.0),
        (1.0, 6.0),
        (3.0, 6.0),
        (4.0, 4.0),
        (3.0, 3.0),
    ],
    &[(4.0, 2.0), (3.0, 0.0), (1.0, 0.0), (0.0, 2.0), (1.0, 3.0), (4.0, 2.0), (4.0, 3.5), (2.0, 6.0)],
];

/// 2,000 pictures to train on and 500 to test on, `[1, 28, 28]` in 10 equally frequent classes.
///
/// They do not depend on the run's seed, and only on exactly rounded arithmetic, so that every machine draws the same bytes.
pub(super) fn splits() -> Result<Splits> {
    let set = |first: u64, count: u64| {
        let labels: Vec<u8> = (0..count).map(|place| (place % 10) as u8).collect();
        let mut pixels = Vec::with_capacity(count as usize * SIDE * SIDE);
        for (place, label) in labels.iter().enumerate() {
            draw(first + place as u64, STROKES[usize::from(*label)], &mut pixels);
        }
        ImageSet::new(&pixels, [1, SIDE, SIDE], &labels, &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"])
    };
    Ok(Splits { train: set(0, TRAIN)?, validation: None, test: set(TRAIN, TEST)? })
}

/// The same digits as colour pictures of 32×32, `[3, 32, 32]`: each with an ink and a paper of its own colour.
pub(super) fn colour_splits() -> Result<Splits> {
    let grey = splits()?;
    let coloured = |set: &ImageSet, first: u64| {
        let (labels, grey) = set.host()?;
        let mut pixels = Vec::with_capacity(labels.len() * 3 * 1024);
        for (place, digit) in grey.chunks_exact(SIDE * SIDE).enumerate() {
            let rng = &mut rng(0, 0, first + place as u64, "synthetic colours");
            for _ in 0..3 {
                let (paper, ink) = (uniform(rng, 0.0, 110.0), uniform(rng, 145.0, 255.0));
                // The digit's 28×28 stand in the middle of 32×32.
                for (y, x) in (0..32_usize).flat_map(|y| (0..32_usize).map(move |x| (y, x))) {
                    let inside = (2..30).contains(&y) && (2..30).contains(&x);
                    let grey = if inside { f64::from(digit[(y - 2) * SIDE + x - 2]) / 255.0 } else { 0.0 };
                    pixels.push((paper + (ink - paper) * grey) as u8);
                }
            }
        }
        let classes: Vec<&str> = set.classes().iter().map(String::as_str).collect();
        ImageSet::new(&pixels, [3, 32, 32], &labels, &classes)
    };
    Ok(Splits { train: coloured(&grey.train, 0)?, validation: None, test: coloured(&grey.test, TRAIN)? })
}

/// A digit without noise: the number `sample` of its kind, 28 × 28 bytes.
pub(super) fn glyph(sample: u64, digit: usize) -> Vec<u8> {
    let pen = Pen::new(&mut rng(0, 0, sample, "glyph"));
    pixels().map(|pixel| pen.shade(STROKES[digit], pixel) as u8).collect()
}

/// Appends one picture: the stroke at a random place, size, slant, width and brightness, on noise.
fn draw(sample: u64, stroke: &[(f64, f64)], picture: &mut Vec<u8>) {
    let rng = &mut rng(0, 0, sample, "synthetic");
    let pen = Pen::new(rng);
    picture
        .extend(pixels().map(|pixel| (pen.shade(stroke, pixel) + uniform(rng, -30.0, 30.0)).clamp(0.0, 255.0) as u8));
}

/// The places of the pixels, row by row: x, y.
fn pixels() -> impl Iterator<Item = (f64, f64)> {
    (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| (column as f64, row as f64)))
}

/// How a stroke is drawn.
struct Pen {
    width: f64,
    height: f64,
    slant: f64,
    centre: (f64, f64),
    radius: f64,
    ink: f64,
}

impl Pen {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let (width, height) = (uniform(rng, 2.2, 3.4), uniform(rng, 2.4, 3.3));
        let slant = uniform(rng, -0.35, 0.35);
        let centre = (uniform(rng, 10.5, 16.5), uniform(rng, 11.0, 16.0));
        Self { width, height, slant, centre, radius: uniform(rng, 0.6, 1.6), ink: uniform(rng, 150.0, 255.0) }
    }

    /// From 0 to the ink's brightness.
    fn shade(&self, stroke: &[(f64, f64)], pixel: (f64, f64)) -> f64 {
        let place = |(x, y): (f64, f64)| {
            let (x, y) = ((x - 2.0) * self.width, (y - 3.0) * self.height);
            (self.centre.0 + x - self.slant * y, self.centre.1 + y)
        };
        let nearest =
            stroke.windows(2).map(|ends| distance(pixel, place(ends[0]), place(ends[1]))).fold(f64::INFINITY, f64::min);
        self.ink * (self.radius + 0.5 - nearest).clamp(0.0, 1.0)
    }
}

/// From a point to the segment between `from` and `to`, in pixels.
fn distance(point: (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let along = (to.0 - from.0, to.1 - from.1);
    let offset = (point.0 - from.0, point.1 - from.1);
    let length2 = along.0 * along.0 + along.1 * along.1;
    let share = ((offset.0 * along.0 + offset.1 * along.1) / length2).clamp(0.0, 1.0);
    let (dx, dy) = (offset.0 - share * along.0, offset.1 - share * along.1);
    (dx * dx + dy * dy).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn every_machine_draws_the_same_bytes() {
        let splits = splits().unwrap();
        assert_eq!(splits.train.sha256(), "d10bd3488bed19bc2a1b67359ca76b5704b9eaf0732b359d1f9e1ef38dd63ef2");
        assert_eq!(splits.test.sha256(), "85f957742519415c69ac3c450dc8802f56993434033f79b20c7656a66236252d");
    }

    /// Learnable, but not by templates alone: the nearest class mean does far better than chance and far from perfectly.
    #[test]
    fn the_task_is_neither_hopeless_nor_trivial() {
        let Splits { train, test, .. } = splits().unwrap();
        let (train, test) = (train.in_order(2_000).next().unwrap(), test.in_order(500).next().unwrap());
        let means: Vec<Tensor> = (0..10)
            .map(|class| {
                let mask = train.label.eq(class).to_kind(Kind::Float).view([-1, 1]);
                (train.image.flatten(1, 3) * mask).sum_dim_intlist(0, false, Kind::Float) / 200.0
            })
            .collect();
        let distances = Tensor::cdist(&test.image.flatten(1, 3), &Tensor::stack(&means, 0), 2.0, None);
        let right = distances.argmin(1, false).eq_tensor(&test.label).sum(Kind::Int64).int64_value(&[]);
        assert!((200..450).contains(&right), "{right} of 500");
    }
}
