//! From a photo and its boxes to one picture of a batch.

use std::sync::Arc;

use fast_image_resize::Resizer;

use super::augment::SceneAugment;
use super::frame::{Axis, Frame, Laid};
use super::photos::{Photos, has_area};
use super::view::{SceneFit, SceneView};
use crate::data::stream::bad::Reason;
use crate::data::stream::decode::Opened;
use crate::data::stream::loader::{Drawn, Maker, Worker};
use crate::detection::{Rect, Truth};
use crate::random::rng;

/// The pictures of a split, and how they are seen.
#[derive(Debug)]
pub(super) struct Scenery {
    pub(super) photos: Arc<Photos>,
    pub(super) seen: Seen,
    /// Bad photos that are put up with.
    pub(super) max_bad: u64,
}

/// How pictures are seen.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// By chance.
    Train(SceneView, Vec<SceneAugment>),
    /// Without chance.
    Test(SceneFit),
}

/// A picture of a batch and the photo that it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its place in the split.
    pub index: u64,
    /// Width and height of the file, in pixels as they lie there.
    pub size: [u32; 2],
    /// Width and height of the picture of which boxes are fractions, in pixels: without what the batch is padded by; what a letterbox adds
    /// belongs to it.
    pub valid: [u32; 2],
    /// Where the photo's pixels lie in that picture, along x and y.
    pub axes: [Axis; 2],
}

/// What is told of a picture beside its bytes.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) placed: Placed,
    /// Centre, width and height as fractions.
    pub(super) boxes: Vec<[f32; 4]>,
    pub(super) labels: Vec<i64>,
}

impl Placed {
    /// A box (cx, cy, w, h) as fractions of the picture → pixels of the file. What lies beyond the photo stays there.
    pub fn to_photo(&self, [cx, cy, w, h]: [f64; 4]) -> Rect {
        let span = |axis: usize, centre: f64, length: f64| {
            let [a, b] = [centre - length / 2.0, centre + length / 2.0]
                .map(|end| self.axes[axis].back(end * f64::from(self.valid[axis])));
            (a.min(b), (b - a).abs())
        };
        let ((left, width), (top, height)) = (span(0, cx, w), span(1, cy, h));
        [left, top, width, height]
    }

    /// The part of a box (cx, cy, w, h) that lies on the photo, in the same form; of one beside it a box without area at the photo's edge.
    pub fn on_photo(&self, [cx, cy, w, h]: [f64; 4]) -> [f64; 4] {
        let span = |axis: usize, centre: f64, length: f64| {
            let edge = |at: f64| self.axes[axis].there(at) / f64::from(self.valid[axis]);
            let (a, b) = (edge(0.0), edge(f64::from(self.size[axis])));
            let [low, high] = [centre - length / 2.0, centre + length / 2.0].map(|end| end.clamp(a.min(b), a.max(b)));
            ((low + high) / 2.0, high - low)
        };
        let ((cx, w), (cy, h)) = (span(0, cx, w), span(1, cy, h));
        [cx, cy, w, h]
    }
}

impl Scenery {
    /// One look at a photo: its pixels are added to `bytes`.
    fn look(
        &self,
        number: i64,
        draws: Option<&Drawn<()>>,
        mut frame: Frame,
        resizer: &mut Resizer,
        bytes: &mut Vec<u8>,
    ) -> Result<Note, Reason> {
        let (sample, size, start) = (self.place(number), frame.size(), bytes.len());
        let (laid, plan) = match (&self.seen, draws) {
            (Seen::Train(view, augment), Some(Drawn { seed, epoch, step, .. })) => {
                let stream = |name: &str| rng(*seed, *epoch, number as u64, name);
                for one in augment {
                    one.move_pixels(&mut frame, &mut stream(one.operation()), resizer)?;
                }
                let plan = view.train_at(*seed, *step).plan(frame.size(), &mut stream("scene"));
                let laid = frame.lay(&plan, resizer, bytes)?;
                for one in augment {
                    one.change_colours(&mut bytes[start..], &mut stream(one.operation()));
                }
                (laid, plan)
            }
            (Seen::Test(fit), _) => {
                let plan = fit.plan(frame.size(), &mut rng(0, 0, 0, "scene"));
                (frame.lay(&plan, resizer, bytes)?, plan)
            }
            (Seen::Train(..), None) => unreachable!("a training picture without a seed"),
        };
        let (mut boxes, mut labels) = (Vec::new(), Vec::new());
        for truth in self.photos.truths(sample).iter().filter(|truth| is_learned(truth)) {
            if let Some(found) = seen_box(&truth.rect, &laid, plan.canvas) {
                boxes.push(found);
                labels.push(truth.class as i64);
            }
        }
        let placed = Placed { index: sample as u64, size, valid: plan.canvas, axes: laid.axes };
        Ok(Note { placed, boxes, labels })
    }
}

/// Whether a network is told of it in training: neither of crowds, nor of what is difficult (VOC; Darknet's voc_label.py leaves them out, too),
/// nor of what has no area.
pub(super) fn is_learned(truth: &Truth) -> bool {
    !truth.crowd && !truth.difficult && has_area(truth)
}

/// What is seen of a box of the photo, as fractions of the canvas; `None` if nothing is.
pub(super) fn seen_box(&[x, y, w, h]: &Rect, laid: &Laid, canvas: [u32; 2]) -> Option<[f32; 4]> {
    let span = |axis: usize, start: f64, length: f64| {
        let [a, b] = [start, start + length].map(|end| laid.axes[axis].there(end));
        let (low, high) = (f64::from(laid.covered[axis]), f64::from(laid.covered[axis] + laid.covered[axis + 2]));
        let (from, to) = (a.min(b).clamp(low, high), a.max(b).clamp(low, high));
        let whole = f64::from(canvas[axis]);
        (to > from).then(|| ((from + to) / 2.0 / whole, (to - from) / whole))
    };
    let ((cx, w), (cy, h)) = (span(0, x, w)?, span(1, y, h)?);
    let found = [cx, cy, w, h].map(|number| number as f32);
    // So small that it vanishes in single precision.
    (found[2] > 0.0 && found[3] > 0.0).then_some(found)
}

impl Maker for Scenery {
    type How = ();
    type Note = Note;

    fn len(&self) -> u64 {
        self.photos.len()
    }

    fn told(&self, sample: i64) -> String {
        self.photos.told(sample)
    }

    fn max_bad(&self) -> u64 {
        self.max_bad
    }

    /// Pictures lie one after the other, each height × width × 3.
    fn begin(&self, _: usize, _: Option<&Drawn<()>>, bytes: &mut Vec<u8>) {
        bytes.clear();
    }

    fn make(
        &self,
        number: i64,
        draws: Option<&Drawn<()>>,
        worker: &mut Worker,
        bytes: &mut Vec<u8>,
        _: (usize, usize),
    ) -> Result<Note, Reason> {
        let (sample, start) = (self.place(number), bytes.len());
        let Worker { scratch, shards } = worker;
        let made = match &*self.photos {
            Photos::Files(files) => files.index.read(sample, shards, &mut scratch.file).and_then(|()| {
                scratch.picture(|Opened { pixels, size, resizer, .. }| {
                    files.fits(sample, size)?;
                    self.look(number, draws, Frame::new(pixels, size), resizer, bytes)
                })
            }),
            Photos::Canvases(canvases) => {
                let (pixels, size) = canvases.draw(sample);
                self.look(number, draws, Frame::new(&pixels, size), &mut scratch.resizer, bytes)
            }
        };
        if made.is_err() {
            bytes.truncate(start);
        }
        made
    }
}
