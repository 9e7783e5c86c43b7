//! How a photo of any size becomes a square: torchvision's definitions, with this project's draws.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::data::Filter;
use crate::data::augment::random_part;
use crate::random::below;
use crate::{Result, user};

/// Largest length that pictures are resized to, in pixels.
const MOST: i64 = 4096;

/// The squares that are trained and tested on.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct View {
    /// Of training pictures, of the network's edge.
    pub train: TrainView,
    /// Of pictures to evaluate on, without chance.
    pub test: TestView,
}

/// Squares to train on.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum TrainView {
    /// A part of random area and shape, resized: torchvision's RandomResizedCrop.
    RandomResizedCrop {
        /// Smallest and largest share of the picture's area, in (0, 1].
        scale: [f64; 2],
        /// Smallest and largest width by height, above 0; the logarithm is uniform.
        ratio: [f64; 2],
        /// How pixels are blended.
        filter: Filter,
    },
    /// The shorter side resized to a random length, then a square from a random place: scale augmentation (arXiv:1409.1556, §3.1).
    ResizeRandomCrop {
        /// Shortest and longest length in pixels, both included; at least the network's edge.
        resize: [i64; 2],
        /// How pixels are blended.
        filter: Filter,
    },
    /// The shorter side resized, then the square in the middle: nothing is random.
    ResizeCrop {
        /// Length of the shorter side in pixels, at least the network's edge.
        resize: i64,
        /// How pixels are blended.
        filter: Filter,
    },
}

/// Squares to evaluate on.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum TestView {
    /// The shorter side resized, then the square in the middle; what lies outside of the picture is black.
    ResizeCrop {
        /// Length of the shorter side in pixels.
        resize: i64,
        /// How pixels are blended.
        filter: Filter,
        /// Edge of the square. `None`: the network's.
        edge: Option<i64>,
    },
}

/// Which part of a picture fills which part of a square.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cut {
    /// This part alone, as if there were no other pixels, resized to the whole square: left, top, width, height.
    Part([u32; 4]),
    /// The square's part `into` (left, top, width, height), the rest being black, shows the part `from` (likewise) of the resized picture;
    /// pixels beyond count where the filter reaches them.
    Box {
        /// In pixels of the picture.
        from: [f64; 4],
        /// In pixels of the square.
        into: [u32; 4],
        /// Width and height of the resized picture, left and top of the part in it.
        resized: [u64; 4],
    },
}

impl View {
    /// Refuses sizes and ranges that cannot be, for a network of pictures of `edge`.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self, edge: i64) -> Result<()> {
        let wrong = |key: &str, found: String, rule: String| Err(user!("view.{key} is {found}; write {rule}"));
        match &self.train {
            TrainView::RandomResizedCrop { scale: [low, high], .. } if !(0.0 < *low && low <= high && *high <= 1.0) => {
                return wrong(
                    "train.scale",
                    format!("[{low}, {high}]"),
                    "two shares of the area, 0 < low ≤ high ≤ 1".into(),
                );
            }
            TrainView::RandomResizedCrop { ratio: [low, high], .. }
                if !(0.0 < *low && low <= high && high.is_finite()) =>
            {
                return wrong("train.ratio", format!("[{low}, {high}]"), "width by height, 0 < low ≤ high".into());
            }
            TrainView::ResizeRandomCrop { resize: [low, high], .. }
                if !(edge <= *low && low <= high && *high <= MOST) =>
            {
                return wrong(
                    "train.resize",
                    format!("[{low}, {high}]"),
                    format!("two lengths in pixels, {edge} ≤ low ≤ high ≤ {MOST}"),
                );
            }
            TrainView::ResizeCrop { resize, .. } if !(edge..=MOST).contains(resize) => {
                return wrong("train.resize", resize.to_string(), format!("a length in pixels from {edge} to {MOST}"));
            }
            _ => {}
        }
        let TestView::ResizeCrop { resize, edge, .. } = self.test;
        for (key, length) in [("resize", Some(resize)), ("edge", edge)] {
            if length.is_some_and(|length| !(1..=MOST).contains(&length)) {
                return wrong(
                    &format!("test.{key}"),
                    length.unwrap_or_default().to_string(),
                    format!("a length in pixels from 1 to {MOST}"),
                );
            }
        }
        Ok(())
    }

    /// Edge of the squares to evaluate on, for a network of pictures of `edge`.
    pub fn test_edge(&self, edge: i64) -> i64 {
        let TestView::ResizeCrop { edge: own, .. } = self.test;
        own.unwrap_or(edge)
    }
}

impl TrainView {
    /// The part of a picture of `size` (width, height) that is seen this time.
    pub(super) fn cut(&self, size: [u32; 2], edge: u32, rng: &mut ChaCha8Rng) -> Cut {
        match *self {
            TrainView::RandomResizedCrop { scale, ratio, .. } => Cut::Part(random_part(size, scale, ratio, rng)),
            TrainView::ResizeRandomCrop { resize: [low, high], .. } => {
                let length = low as u64 + below(rng, (high - low) as u64 + 1);
                let resized = resized(size, length);
                let top = below(rng, resized[1] - u64::from(edge) + 1);
                let left = below(rng, resized[0] - u64::from(edge) + 1);
                Cut::window(size, resized, [left as i64, top as i64], edge)
            }
            TrainView::ResizeCrop { resize, .. } => Cut::middle(size, resize as u64, edge),
        }
    }

    pub(super) fn filter(&self) -> Filter {
        match *self {
            TrainView::RandomResizedCrop { filter, .. }
            | TrainView::ResizeRandomCrop { filter, .. }
            | TrainView::ResizeCrop { filter, .. } => filter,
        }
    }
}

impl TestView {
    /// The whole of the shorter side, `edge` pixels long: how pictures that have the network's size in their set are seen.
    pub fn whole(edge: i64) -> Self {
        TestView::ResizeCrop { resize: edge, filter: Filter::Bilinear, edge: None }
    }

    /// The part of a picture of `size` (width, height) that is seen.
    pub(super) fn cut(&self, size: [u32; 2], edge: u32) -> Cut {
        let TestView::ResizeCrop { resize, .. } = *self;
        Cut::middle(size, resize as u64, edge)
    }

    pub(super) fn filter(&self) -> Filter {
        let TestView::ResizeCrop { filter, .. } = *self;
        filter
    }
}

impl Cut {
    /// Torchvision's Resize and CenterCrop in one.
    fn middle(size: [u32; 2], shorter: u64, edge: u32) -> Cut {
        let resized = resized(size, shorter);
        let corner = resized.map(|length| {
            let spare = length as i64 - i64::from(edge);
            // What lacks is padded, the odd pixel at the end; Python rounds halves to even.
            if spare < 0 { -(-spare / 2) } else { (spare as f64 / 2.0).round_ties_even() as i64 }
        });
        Cut::window(size, resized, corner, edge)
    }

    /// The square of `edge` whose corner (left, top) lies so in the picture after it is resized; the corner may lie outside.
    fn window(size: [u32; 2], resized: [u64; 2], corner: [i64; 2], edge: u32) -> Cut {
        let (mut from, mut into, mut place) = ([0.0; 4], [0; 4], [0; 2]);
        for axis in 0..2 {
            let (start, end) = (corner[axis].max(0), (corner[axis] + i64::from(edge)).min(resized[axis] as i64));
            let (length, scale) = (f64::from(size[axis]), f64::from(size[axis]) / resized[axis] as f64);
            from[axis] = start as f64 * scale;
            from[axis + 2] = ((end - start) as f64 * scale).min(length - from[axis]);
            into[axis] = (start - corner[axis]) as u32;
            into[axis + 2] = (end - start) as u32;
            place[axis] = start as u64;
        }
        Cut::Box { from, into, resized: [resized[0], resized[1], place[0], place[1]] }
    }
}

/// Width and height after the shorter of them has become `shorter`: the other is cut down to whole pixels.
fn resized([width, height]: [u32; 2], shorter: u64) -> [u64; 2] {
    let (w, h) = (u64::from(width), u64::from(height));
    if w <= h { [shorter, shorter * h / w] } else { [shorter * w / h, shorter] }
}
