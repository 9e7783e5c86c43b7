//! From the squares that the threads make to batches on the device.

use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::Stream;
use super::loader::{CHUNK, Done, Loader, Reader, Task, chunks};
use crate::data::{Cursor, Draws, Images, Normalise};
use crate::random::order;
use crate::{Result, user};

/// Batches that are made ahead of the one that is awaited.
const AHEAD: usize = 2;

/// What each byte of each channel becomes.
#[derive(Debug, Clone)]
pub(super) struct Table(Box<[[f32; 256]; 3]>);

impl Table {
    /// [0, 1], centred by `normalise`: the very numbers that libtorch's operations make.
    pub(super) fn new(normalise: Option<&Normalise>) -> Result<Self> {
        let bytes = Tensor::f_arange(256, (Kind::Float, Device::Cpu))?.f_div_scalar(255.0)?;
        let mut rows = bytes.f_view([1, 1, 256, 1])?.f_repeat([1, 3, 1, 1])?;
        if let Some(normalise) = normalise {
            rows = normalise.of(None, 3, Device::Cpu)?.apply(&rows)?;
        }
        let numbers = Vec::<f32>::try_from(rows.f_view(-1)?)?;
        Ok(Self(Box::new(std::array::from_fn(|c| std::array::from_fn(|byte| numbers[256 * c + byte])))))
    }
}

/// An iteration over batches.
pub(super) struct Batches<'a> {
    stream: &'a Stream,
    reader: &'a Reader,
    loader: Loader<'a>,
    /// Places of a batch.
    most: usize,
    training: Option<Cursor>,
    /// An error was the last thing that came.
    ended: bool,
}

/// The iteration, or the error that keeps it from starting.
pub(super) fn boxed<'a>(batches: Result<Batches<'a>>) -> Box<dyn Iterator<Item = Result<Images>> + 'a> {
    match batches {
        Ok(batches) => Box::new(batches),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

impl<'a> Batches<'a> {
    /// Training batches without end.
    pub(super) fn from(stream: &'a Stream, at: Cursor) -> Result<Self> {
        let share = (at.batch / at.world) as usize;
        let tasks = Training { at, len: stream.train.index.len(), order: None };
        Self::start(stream, &stream.train, share, Box::new(tasks.flatten()), Some(at))
    }

    /// The pictures of `reader` at these places once.
    pub(super) fn in_order(
        stream: &'a Stream,
        reader: &'a Arc<Reader>,
        range: Range<u64>,
        batch: usize,
    ) -> Result<Self> {
        let most = batch.min((range.end - range.start) as usize);
        Self::start(stream, reader, most, Box::new(Task::in_order(range, batch)), None)
    }

    fn start(
        stream: &'a Stream,
        reader: &'a Arc<Reader>,
        most: usize,
        tasks: Box<dyn Iterator<Item = Task> + 'a>,
        training: Option<Cursor>,
    ) -> Result<Self> {
        let ahead = AHEAD * most.div_ceil(CHUNK) + stream.workers;
        let loader = Loader::start(reader, stream.workers, ahead, tasks)?;
        Ok(Self { stream, reader, loader, most, training, ended: false })
    }

    /// The next batch; `None` after the last.
    fn batch(&mut self) -> Result<Option<Images>> {
        let Self { stream, reader, .. } = *self;
        let table = if self.training.is_some() { &stream.tables.0 } else { &stream.tables.1 };
        let mut filling = Filling::new(reader, self.most, stream.device)?;
        while let Some(done) = self.loader.next() {
            let done = done?;
            let fate = if self.training.is_some() { "replaced by the next" } else { "left out" };
            for (sample, reason) in &done.bad {
                stream.bad.add(reader.index.told(*sample), fate, reason)?;
            }
            filling.add(&done, reader, table)?;
            self.loader.recycle(done.squares);
            // Where all pictures of a batch were left out, the next takes its place.
            if done.last && (self.training.is_some() || !filling.samples.is_empty()) {
                break;
            }
        }
        let full = filling.samples.len() == self.most;
        match &mut self.training {
            None if filling.samples.is_empty() => Ok(None),
            None => {
                let (mut images, _) = filling.images(reader, stream.device)?;
                if stream.device != Device::Cpu {
                    images.image = stream.pipeline.normaliser().apply(&images.image)?;
                }
                Ok(Some(images))
            }
            Some(_) if !full => Err(user!("no picture of the training set can be read; mend it, or choose another")),
            Some(at) => {
                let (images, samples) = filling.images(reader, stream.device)?;
                let Cursor { seed, step, .. } = *at;
                at.step += 1;
                let epoch = step / at.steps_per_epoch(reader.index.len());
                let draws = Draws { seed, epoch, step, samples: &samples };
                if stream.device == Device::Cpu && !stream.pipeline.has_colours() {
                    stream.pipeline.apply_centred(images, draws).map(Some)
                } else {
                    stream.pipeline.apply(images, draws).map(Some)
                }
            }
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Images>;

    fn next(&mut self) -> Option<Result<Images>> {
        if self.ended {
            return None;
        }
        let batch = self.batch().transpose();
        self.ended = !matches!(batch, Some(Ok(_)));
        batch
    }
}

/// A batch that squares are poured into.
struct Filling {
    /// `[N, H, W, 3]` on the host: float32 for the CPU; bytes for other devices, in memory that is copied from without waiting.
    squares: Tensor,
    samples: Vec<i64>,
}

impl Filling {
    fn new(reader: &Reader, most: usize, device: Device) -> Result<Self> {
        let (edge, kind) = (i64::from(reader.edge), if device == Device::Cpu { Kind::Float } else { Kind::Uint8 });
        let mut squares = Tensor::f_empty([most as i64, edge, edge, 3], (kind, Device::Cpu))?;
        if device.is_cuda() {
            squares = squares.f_pin_memory(device)?;
        }
        Ok(Self { squares, samples: Vec::with_capacity(most) })
    }

    fn add(&mut self, done: &Done, reader: &Reader, table: &Table) -> Result<()> {
        let (at, n, edge) = (self.samples.len(), done.samples.len(), i64::from(reader.edge));
        let bytes = &done.squares[..n * reader.square_bytes()];
        if self.squares.kind() == Kind::Float {
            torch_ext::look_up_pixels(bytes, &table.0, &self.squares, at)?;
        } else if n > 0 {
            let bytes = Tensor::f_from_data_size(bytes, &[n as i64, edge, edge, 3], Kind::Uint8)?;
            self.squares.f_narrow(0, at as i64, n as i64)?.f_copy_(&bytes)?;
        }
        self.samples.extend(&done.samples);
        Ok(())
    }

    /// The pictures on the device (on others than the CPU in [0, 1]), channels last in memory, and their numbers.
    fn images(self, reader: &Reader, device: Device) -> Result<(Images, Vec<i64>)> {
        let n = self.samples.len() as i64;
        let mut image = self.squares.f_narrow(0, 0, n)?.f_permute([0, 3, 1, 2])?;
        let labels: Vec<i64> = self.samples.iter().map(|sample| reader.index.label(*sample)).collect();
        let mut label = Tensor::f_from_slice(&labels)?;
        if device != Device::Cpu {
            image =
                image.f_to_device_(device, Kind::Uint8, true, false)?.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?;
            if device.is_cuda() {
                label = label.f_pin_memory(device)?;
            }
            label = label.f_to_device_(device, Kind::Int64, true, false)?;
        }
        Ok((Images { image, label, mix: None }, self.samples))
    }
}

/// The tasks of step after step.
struct Training {
    at: Cursor,
    len: u64,
    /// The order of an epoch.
    order: Option<(u64, Arc<[i64]>)>,
}

impl Iterator for Training {
    type Item = Vec<Task>;

    /// The share of this process in the batch of the next step: a contiguous slice of the global batch.
    fn next(&mut self) -> Option<Vec<Task>> {
        let Cursor { seed, step, rank, world, batch } = self.at;
        let steps = self.at.steps_per_epoch(self.len);
        let epoch = step / steps;
        let order = match self.order.take() {
            Some((of, order)) if of == epoch => order,
            _ => order(seed, epoch, self.len).into(),
        };
        self.order = Some((epoch, order.clone()));
        self.at.step += 1;
        let share = (batch / world) as usize;
        let start = (step % steps * batch + rank * batch / world) as usize;
        let task = |(places, last)| Task { order: order.clone(), places, draws: Some((seed, epoch)), last };
        Some(chunks(start, start + share).map(task).collect())
    }
}
