//! From the squares that the threads make to batches on the device.

use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::Stream;
use super::loader::{CHUNK, Done, Drawn, Loader, Maker, Reader, Seen, Task, chunks};
use crate::data::{Cursor, Draws, Images, Normaliser, Pipeline, order};
use crate::{Result, user};

/// Batches that are made ahead of the one that is awaited.
pub(super) const AHEAD: usize = 2;

/// What each byte of each channel becomes.
#[derive(Debug, Clone)]
pub(super) struct Table(pub(super) Box<[[f32; 256]; 3]>);

/// The epoch and the number of each picture; see [`Draws::samples`].
type Samples = Vec<(u64, i64)>;

impl Table {
    /// [0, 1], centred by what is the same at all places: the very numbers that libtorch's operations make.
    pub(super) fn new(normaliser: Option<&Normaliser>) -> Result<Self> {
        let bytes = Tensor::f_arange(256, (Kind::Float, Device::Cpu))?.f_div_scalar(255.0)?;
        let mut rows = bytes.f_view([1, 1, 256, 1])?.f_repeat([1, 3, 1, 1])?;
        if let Some(normaliser) = normaliser {
            rows = normaliser.to_device(Device::Cpu)?.apply(&rows)?;
        }
        let numbers = Vec::<f32>::try_from(rows.f_view(-1)?)?;
        Ok(Self(Box::new(std::array::from_fn(|c| std::array::from_fn(|byte| numbers[256 * c + byte])))))
    }
}

/// An iteration over batches.
pub(super) struct Batches<'a> {
    stream: &'a Stream,
    reader: &'a Reader,
    loader: Loader<'a, Reader>,
    /// Places of a batch.
    most: usize,
    training: Option<Training<'a>>,
    /// An error was the last thing that came.
    ended: bool,
}

/// The step that is next, and the views of its pictures.
struct Training<'a> {
    at: Cursor,
    /// Salt and pipeline of each.
    views: Vec<(&'a str, &'a Pipeline)>,
}

/// The iteration, or the error that keeps it from starting.
pub(super) fn boxed<'a>(batches: Result<Batches<'a>>) -> Box<dyn Iterator<Item = Result<Vec<Images>>> + 'a> {
    match batches {
        Ok(batches) => Box::new(batches),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// Of one view that one.
pub(super) fn only<'a>(
    batches: Box<dyn Iterator<Item = Result<Vec<Images>>> + 'a>,
) -> Box<dyn Iterator<Item = Result<Images>> + 'a> {
    Box::new(batches.map(|views| views.map(|mut views| views.swap_remove(0))))
}

impl<'a> Batches<'a> {
    /// Training batches without end, in a view for each salt and pipeline.
    pub(super) fn training(stream: &'a Stream, at: Cursor, views: Vec<(&'a str, &'a Pipeline)>) -> Result<Self> {
        let share = (at.batch / at.world) as usize;
        let seen = views.iter().map(|(salt, pipeline)| ((*salt).to_string(), pipeline.early_flip().cloned()));
        let tasks = Tasks::new(at, seen.collect(), stream.train.index.len());
        Self::start(stream, &stream.train, share, Box::new(tasks.flatten()), Some(Training { at, views }))
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
        tasks: Box<dyn Iterator<Item = Task<Seen>> + 'a>,
        training: Option<Training<'a>>,
    ) -> Result<Self> {
        let ahead = AHEAD * most.div_ceil(CHUNK) + stream.workers;
        let loader = Loader::start(reader, stream.workers, ahead, tasks)?;
        Ok(Self { stream, reader, loader, most, training, ended: false })
    }

    /// Whether view `place` is of pictures that are centred as they are copied.
    fn centred(&self, place: usize) -> bool {
        self.training.as_ref().is_none_or(|training| training.views[place].1.centres_first())
    }

    /// The next batch, in each of its views; `None` after the last.
    fn batch(&mut self) -> Result<Option<Vec<Images>>> {
        let Self { stream, reader, .. } = *self;
        let views = self.training.as_ref().map_or(1, |training| training.views.len());
        let table = |centred| if centred { &stream.tables.centred } else { &stream.tables.unit };
        let tables: Vec<&Table> = (0..views).map(|place| table(self.centred(place))).collect();
        let mut filling = Filling::new(reader, self.most, views, stream.device)?;
        let (training, bad) = (self.training.is_some(), &stream.bad);
        self.loader.batch(training, bad, |done| {
            filling.add(&done, reader, &tables)?;
            Ok(Some(done.bytes))
        })?;
        let full = filling.samples.len() == self.most;
        match &mut self.training {
            None if filling.samples.is_empty() => Ok(None),
            None => {
                let (mut views, _) = filling.images(reader, stream.device)?;
                // On the CPU the table has centred them, unless by a mean picture.
                if stream.device != Device::Cpu || stream.normaliser().mean_size().is_some() {
                    for images in &mut views {
                        images.image = stream.pipeline.normaliser().apply(&images.image)?;
                    }
                }
                Ok(Some(views))
            }
            Some(_) if !full => Err(user!("no picture of the training set can be read; mend it, or choose another")),
            Some(Training { at, views }) => {
                let (images, samples) = filling.images(reader, stream.device)?;
                let Cursor { seed, step, .. } = *at;
                at.step += 1;
                let view = |(images, (salt, pipeline)): (&Images, &(&str, &Pipeline))| {
                    let draws = Draws { seed, step, salt, samples: &samples };
                    if stream.device == Device::Cpu && pipeline.centres_first() {
                        pipeline.view_centred(images, draws)
                    } else {
                        pipeline.view(images, draws)
                    }
                };
                images.iter().zip(&*views).map(view).collect::<Result<_>>().map(Some)
            }
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Vec<Images>>;

    fn next(&mut self) -> Option<Self::Item> {
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
    /// For each view `[N, H, W, 3]` on the host: float32 for the CPU; bytes for other devices, in memory that is copied from without waiting.
    views: Vec<Tensor>,
    /// Epoch and number of each picture.
    samples: Vec<(u64, i64)>,
}

impl Filling {
    fn new(reader: &Reader, most: usize, views: usize, device: Device) -> Result<Self> {
        let (edge, kind) = (i64::from(reader.edge), if device == Device::Cpu { Kind::Float } else { Kind::Uint8 });
        let empty = |_| -> Result<Tensor> {
            let squares = Tensor::f_empty([most as i64, edge, edge, 3], (kind, Device::Cpu))?;
            Ok(if device.is_cuda() { squares.f_pin_memory(device)? } else { squares })
        };
        Ok(Self { views: (0..views).map(empty).collect::<Result<_>>()?, samples: Vec::with_capacity(most) })
    }

    fn add(&mut self, done: &Done<()>, reader: &Reader, tables: &[&Table]) -> Result<()> {
        let (at, n, edge) = (self.samples.len(), done.samples.len(), i64::from(reader.edge));
        let blocks = done.bytes.chunks_exact(done.places * reader.square_bytes());
        for ((squares, table), block) in self.views.iter().zip(tables).zip(blocks) {
            let bytes = &block[..n * reader.square_bytes()];
            if squares.kind() == Kind::Float {
                torch_ext::look_up_pixels(bytes, &table.0, squares, at)?;
            } else if n > 0 {
                let bytes = Tensor::f_from_data_size(bytes, &[n as i64, edge, edge, 3], Kind::Uint8)?;
                squares.f_narrow(0, at as i64, n as i64)?.f_copy_(&bytes)?;
            }
        }
        self.samples.extend(done.samples.iter().map(|sample| (done.epoch, *sample)));
        Ok(())
    }

    /// The pictures of each view on the device (on others than the CPU in [0, 1]), channels last in memory, and their epochs and numbers.
    fn images(self, reader: &Reader, device: Device) -> Result<(Vec<Images>, Samples)> {
        let n = self.samples.len() as i64;
        let labels: Vec<i64> =
            self.samples.iter().map(|(_, number)| reader.index.label(reader.place(*number))).collect();
        let mut label = Tensor::f_from_slice(&labels)?;
        if device.is_cuda() {
            label = label.f_pin_memory(device)?;
        }
        if device != Device::Cpu {
            label = label.f_to_device_(device, Kind::Int64, true, false)?;
        }
        let view = |squares: &Tensor| -> Result<Images> {
            let mut image = squares.f_narrow(0, 0, n)?.f_permute([0, 3, 1, 2])?;
            if device != Device::Cpu {
                let bytes = image.f_to_device_(device, Kind::Uint8, true, false)?;
                image = bytes.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?;
            }
            Ok(Images { image, label: label.shallow_clone(), mix: None })
        };
        Ok((self.views.iter().map(view).collect::<Result<_>>()?, self.samples))
    }
}

/// The tasks of step after step.
pub(super) struct Tasks<How> {
    at: Cursor,
    how: How,
    len: u64,
    /// Those of the epochs that the last step saw.
    orders: Vec<(u64, Arc<[i64]>)>,
}

impl<How: Clone> Tasks<How> {
    /// Those from a step on, over a set of `len` pictures.
    pub(super) fn new(at: Cursor, how: How, len: u64) -> Self {
        Self { at, how, len, orders: Vec::new() }
    }

    /// The order of an epoch.
    fn order(&mut self, epoch: u64) -> Arc<[i64]> {
        if let Some((_, order)) = self.orders.iter().find(|(of, _)| *of == epoch) {
            return order.clone();
        }
        let order: Arc<[i64]> = order::of_epoch(&self.at, epoch, self.len).into();
        self.orders.push((epoch, order.clone()));
        order
    }
}

impl<How: Clone> Iterator for Tasks<How> {
    type Item = Vec<Task<How>>;

    /// The share of this process in the batch of the next step.
    fn next(&mut self) -> Option<Vec<Task<How>>> {
        let places = self.at.places(self.len);
        self.orders.retain(|(of, _)| places.iter().any(|(epoch, _)| epoch == of));
        let mut tasks = Vec::new();
        for (epoch, range) in places {
            let (order, Cursor { seed, step, .. }) = (self.order(epoch), self.at);
            let draws = Drawn { seed, epoch, step, how: self.how.clone() };
            let task = |(places, _)| Task { order: order.clone(), places, draws: Some(draws.clone()), last: false };
            tasks.extend(chunks(range.start, range.end).map(task));
        }
        if let Some(task) = tasks.last_mut() {
            task.last = true;
        }
        self.at.step += 1;
        Some(tasks)
    }
}
