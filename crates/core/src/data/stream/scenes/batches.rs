//! From the pictures that the threads make to padded batches on the device.

use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::sample::{Note, Scenery};
use super::{SceneBatch, Scenes};
use crate::data::Cursor;
use crate::data::stream::batches::{AHEAD, Tasks};
use crate::data::stream::loader::{CHUNK, Done, Loader, Task};
use crate::detection::Targets;
use crate::{Result, user};

/// An iteration over batches.
pub(super) struct Batches<'a> {
    scenes: &'a Scenes,
    loader: Loader<'a, Scenery>,
    /// Places of a batch.
    most: usize,
    training: bool,
    /// An error was the last thing that came.
    ended: bool,
}

impl<'a> Batches<'a> {
    /// Training batches without end.
    pub(super) fn training(scenes: &'a Scenes, at: Cursor) -> Result<Self> {
        let share = (at.batch / at.world) as usize;
        let tasks = Tasks::new(at, (), scenes.train.photos.len()).flatten();
        Self::start(scenes, &scenes.train, share, Box::new(tasks), true)
    }

    /// The pictures at these places once.
    pub(super) fn in_order(
        scenes: &'a Scenes,
        scenery: &'a Arc<Scenery>,
        range: Range<u64>,
        batch: usize,
    ) -> Result<Self> {
        let most = batch.min((range.end - range.start) as usize);
        Self::start(scenes, scenery, most, Box::new(Task::in_order(range, batch)), false)
    }

    fn start(
        scenes: &'a Scenes,
        scenery: &'a Arc<Scenery>,
        most: usize,
        tasks: Box<dyn Iterator<Item = Task<()>> + 'a>,
        training: bool,
    ) -> Result<Self> {
        let ahead = AHEAD * most.div_ceil(CHUNK) + scenes.workers;
        let loader = Loader::start(scenery, scenes.workers, ahead, tasks)?;
        Ok(Self { scenes, loader, most, training, ended: false })
    }

    /// The next batch; `None` after the last.
    fn batch(&mut self) -> Result<Option<SceneBatch>> {
        let mut parts = Vec::new();
        let count = self.loader.batch(self.training, &self.scenes.bad, |done| {
            parts.push(done);
            Ok(None)
        })?;
        if self.training && count != self.most {
            return Err(user!("no picture of the training set can be read; mend it, or choose another"));
        }
        if count == 0 {
            return Ok(None);
        }
        let batch = self.scenes.batch(&parts, count)?;
        for done in parts {
            self.loader.recycle(done.bytes);
        }
        Ok(Some(batch))
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<SceneBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.batch().transpose();
        self.ended = !matches!(batch, Some(Ok(_)));
        batch
    }
}

/// The pictures of some tasks, each with its bytes.
fn pictures(parts: &[Done<Note>]) -> impl Iterator<Item = (&Note, &[u8])> {
    parts.iter().flat_map(|done| {
        let mut rest = &done.bytes[..];
        done.notes.iter().map(move |note| {
            let [width, height] = note.placed.valid;
            let (own, after) = rest.split_at(width as usize * height as usize * 3);
            rest = after;
            (note, own)
        })
    })
}

impl Scenes {
    /// A batch of `count` pictures, padded at the right and at the bottom to the largest sides, which become multiples of the stride.
    fn batch(&self, parts: &[Done<Note>], count: usize) -> Result<SceneBatch> {
        let largest = |axis: usize| pictures(parts).map(|(note, _)| note.placed.valid[axis]).max().unwrap_or(0);
        let [width, height] = [0, 1].map(|axis| i64::from(largest(axis).next_multiple_of(self.stride)));
        let host = Device::Cpu;
        let on_host = self.device == host;
        let (n, kind) = (count as i64, if on_host { Kind::Float } else { Kind::Uint8 });
        let pixels = Tensor::f_empty([n, height, width, 3], (kind, host))?;
        let padding = Tensor::f_zeros([n, height, width], (Kind::Bool, host))?;
        let (mut padded, mut canvas) = (false, Vec::new());
        for (place, (note, bytes)) in pictures(parts).enumerate() {
            let [w, h] = note.placed.valid.map(i64::from);
            let whole = (w, h) == (width, height);
            let bytes = if whole { bytes } else { spread(bytes, w, [width, height], &mut canvas) };
            if on_host {
                torch_ext::look_up_pixels(bytes, &self.table.0, &pixels, place)?;
            } else {
                let bytes = Tensor::f_from_data_size(bytes, &[height, width, 3], Kind::Uint8)?;
                pixels.f_get(place as i64)?.f_copy_(&bytes)?;
            }
            if !whole {
                padded = true;
                fill_outside(&padding.f_get(place as i64)?, [w, h], 1.0)?;
                // On the CPU the table has centred what stands there, too.
                if on_host {
                    fill_outside(&pixels.f_get(place as i64)?, [w, h], 0.0)?;
                }
            }
        }
        let padding = padded.then(|| padding.f_to_device(self.device)).transpose()?;
        let mut image = pixels.f_permute([0, 3, 1, 2])?;
        if !on_host {
            let unit = image.f_to_device(self.device)?.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?;
            image = self.normaliser.apply(&unit)?;
            if let Some(padding) = &padding {
                image = image.f_masked_fill_(&padding.f_unsqueeze(1)?, 0.0)?;
            }
        }
        let boxes: Vec<f32> = pictures(parts).flat_map(|(note, _)| note.boxes.as_flattened().iter().copied()).collect();
        let labels: Vec<i64> = pictures(parts).flat_map(|(note, _)| note.labels.iter().copied()).collect();
        let counts = pictures(parts).map(|(note, _)| note.labels.len() as i64).collect();
        let boxes = Tensor::f_from_slice(&boxes)?.f_view([-1, 4])?;
        let targets = Targets { boxes, labels: Tensor::f_from_slice(&labels)?, counts }.to_device(self.device)?;
        let photos = pictures(parts).map(|(note, _)| note.placed.clone()).collect();
        Ok(SceneBatch { image, padding, targets, photos })
    }
}

/// Fills what of `[H, W, …]` lies below and to the right of its first `h` rows and `w` columns.
fn fill_outside(whole: &Tensor, [w, h]: [i64; 2], value: f64) -> Result<()> {
    let (below, first) = (whole.f_narrow(0, h, whole.size()[0] - h)?, whole.f_narrow(0, 0, h)?);
    for mut part in [below, first.f_narrow(1, w, whole.size()[1] - w)?] {
        let _ = part.f_fill_(value)?;
    }
    Ok(())
}

/// Rows of `w` pixels as rows of a canvas (width, height), the rest black.
fn spread<'a>(bytes: &[u8], w: i64, [width, height]: [i64; 2], canvas: &'a mut Vec<u8>) -> &'a [u8] {
    canvas.clear();
    canvas.resize((width * height * 3) as usize, 0);
    for (row, line) in bytes.chunks_exact(w as usize * 3).zip(canvas.chunks_exact_mut(width as usize * 3)) {
        line[..row.len()].copy_from_slice(row);
    }
    canvas
}
