//! Photos of any size in a folder or in tar shards: decoded, cut and resized by threads ahead of the step, into bytes; floats, colours and
//! centring are the device's work.
//!
//! Memory does not grow with the set, but for its index (some fifty bytes a picture). Every draw is a pure function of (seed, epoch,
//! sample): batches depend neither on the number of threads or processes nor on where a run was cut.
//!
//! A picture that cannot be read is *bad*. Up to `data.max_bad` of them (by default none) are put up with and told: in training the next
//! picture in the epoch's order that is not bad takes the place, so that a batch stays a function of seed, epoch and files; in evaluation
//! the place is left out. Each process counts those that it meets.

mod bad;
mod batches;
mod classes;
mod decode;
mod folder;
mod index;
mod jpeg;
mod loader;
mod moments;
mod pack;
mod portion;
mod scenes;
mod shards;
mod still;
#[cfg(test)]
mod tests;
mod view;

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

pub use folder::{PassedOver, photos_in};
pub use jpeg::JPEG_DECODER;
pub use pack::{Packed, pack};
pub(super) use scenes::NAMES as SCENES;
pub use scenes::{
    Axis, Hsv, Ids, MultiScale, Placed, ResizeCrop, SceneAugment, SceneBatch, SceneFit, SceneForm, SceneStills,
    SceneView, Scenes, Shown,
};
pub use still::{Stills, photo_bytes};
pub use view::{TestView, TrainView, View};

use self::bad::Bad;
use self::batches::{Batches, Table};
use self::classes::FOLDERS;
use self::folder::{Found, Wanted};
use self::index::Index;
use self::loader::{Cutting, Loader, Reader, Task, Worker};
use self::moments::Moments;
use self::portion::{fixed_order, hold_out};
use super::{Augment, Card, Cursor, DataConfig, Form, Images, Normaliser, Pipeline, Source};
use crate::data::Split;
use crate::data::root::folder_of;
use crate::random::balanced;
use crate::setup::Setup;
use crate::{Error, Result, user};

/// Training pictures whose mean and deviation are taken for those of all.
const SAMPLED: usize = 1000;

/// The values of `data.name` that mean photos.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ["folder", "shards"].into_iter().chain(FOLDERS.iter().map(|(name, _)| *name))
}

/// The classes of a set of photos, counted by its folders or in its list, for a configuration that leaves `model.num_classes` away.
///
/// # Errors
/// A set that has none of them, or is none of photos.
pub fn count_classes(config: &DataConfig) -> Result<usize> {
    let missing = "model.num_classes is missing: write how many classes there are";
    if !names().any(|name| name == config.name) {
        return Err(user!("{missing} in {}; they are counted in folders of photos only", config.name));
    }
    if config.root.is_none() && ["folder", "shards"].contains(&config.name.as_str()) {
        return Err(user!("{missing}, or point data.root at the photos, whose folders are counted then"));
    }
    let root = folder_of(config)?;
    if config.name != "shards" {
        return Ok(folder::class_folders(&root)?.len());
    }
    let named = shards::class_names(&root)?;
    Ok(named.ok_or_else(|| user!("{missing}; {} has no {} to count them in", root.display(), shards::CLASSES))?.len())
}

/// Photos as a training source, with the splits that go with it.
#[derive(Debug)]
pub struct Stream {
    train: Arc<Reader>,
    /// The training pictures at the test view.
    still: Arc<Reader>,
    validation: Option<Arc<Reader>>,
    test: Arc<Reader>,
    classes: Vec<String>,
    pipeline: Pipeline,
    tables: Tables,
    bad: Bad,
    workers: usize,
    device: Device,
}

/// What bytes become on the CPU.
#[derive(Debug)]
struct Tables {
    /// Numbers in [0, 1], where centring is not the first thing that is done.
    unit: Table,
    centred: Table,
}

impl Stream {
    /// The photos that `setup.settings.data` names: their names and sizes are read, not their contents.
    ///
    /// # Errors
    /// Files that are missing, splits and classes without pictures, keys that do not fit each other.
    pub(super) fn open(form: &Form, setup: &Setup) -> Result<Self> {
        let config = &setup.settings.data;
        let (name, device) = (&config.name, setup.device);
        let view = form.view.ok_or_else(|| {
            user!("view is missing: {name} has photos of all sizes; write how they become squares, such as view: {{train: {{kind: random_resized_crop, scale: [0.08, 1], ratio: [0.75, 1.3333], filter: bilinear}}, test: {{kind: resize_crop, resize: 256, filter: bilinear}}}}")
        })?;
        view.check(form.edge)?;
        if config.files.is_some() || config.canvases.is_some() {
            return Err(user!(
                "data.files and data.canvases cannot act on {name}, whose pictures have no boxes; remove them"
            ));
        }
        if cfg!(feature = "turbojpeg") {
            setup.note(format!(
                "JPEG files are read by {JPEG_DECODER}: other last digits than by the decoder that is the default"
            ));
        }
        let card = Card::given(setup)?;
        let known = card.as_ref().map(|card| &card.classes[..]);
        let wanted = Wanted { set: name, known, only_test: setup.given.is_some() };
        let root = folder_of(config)?;
        let found = match name.as_str() {
            "shards" => shards::open(&root, &wanted, form.classes)?,
            _ => folder::open(&root, &wanted)?,
        };
        let Found { train, validation, test: (_, test), classes, passed_over } = found;
        if classes.len() as i64 != form.classes {
            return Err(user!(
                "model.num_classes is {}, but {} has {} classes; leave the key away where the configuration allows it, or write {}",
                form.classes,
                if known.is_some() { "the card of these weights" } else { name },
                classes.len(),
                classes.len()
            ));
        }
        passed_over.note().into_iter().for_each(|note| setup.note(note));
        let missing = missing(&test, &classes);
        if !missing.is_empty() {
            setup.note(format!("{name} has no test pictures of {}", missing.join(", ")));
        }
        let nothing_to_train = train.len() == 0;
        let (train, validation) = match (config.validation, validation) {
            (None, validation) => (train, validation),
            (Some(_), validation) if nothing_to_train => (train, validation),
            (Some(_), Some(_)) => {
                return Err(user!(
                    "data.validation cannot act on {name}, which has a folder `val` beside `test`; remove the key"
                ));
            }
            (Some(n), None) => {
                let (left, out) = hold_out(train.len(), n)?;
                (train.part(&left), Some(train.part(&out)))
            }
        };
        let limit_train = config.limit_train.filter(|_| !nothing_to_train);
        let (train, test) = (
            limited(train, limit_train, config.balanced == Some(true), "limit_train")?,
            limited(test, config.limit_test, false, "limit_test")?,
        );

        let test_edge = view.test_edge(form.edge);
        let normaliser = match &card {
            None => form.normalise.of(None, 3, device)?,
            Some(card) => centring(card, form, test_edge, setup)?,
        };
        // A mean picture is another number at each place.
        let centred = Table::new(normaliser.mean_size().is_none().then_some(&normaliser))?;
        let pipeline = Pipeline::of_squares(form.augment.to_vec(), normaliser, [3, form.edge, form.edge])?;
        let max_bad = config.max_bad.unwrap_or(0);
        let reader = |index, view, edge| Arc::new(Reader { index, view, edge: edge as u32, max_bad });
        let still = |index| reader(index, Cutting::Test(view.test.clone()), test_edge);
        Ok(Self {
            still: still(train.clone()),
            train: reader(train, Cutting::Train(view.train.clone()), form.edge),
            validation: validation.map(still),
            test: still(test),
            classes,
            pipeline,
            tables: Tables { unit: Table::new(None)?, centred },
            bad: Bad::new(max_bad),
            workers: config.workers.map_or_else(cores, |n| n as usize),
            device,
        })
    }

    fn part(&self, split: Split) -> &Arc<Reader> {
        match (split, &self.validation) {
            (Split::Train, _) => &self.still,
            (Split::Validation, Some(validation)) => validation,
            _ => &self.test,
        }
    }

    /// The pictures of a split in its own order, centred, `batch` at a time; the last batch holds what is left, and bad ones are left out.
    pub(super) fn in_order(
        &self,
        split: Split,
        range: Range<u64>,
        batch: i64,
    ) -> Box<dyn Iterator<Item = Result<Images>> + '_> {
        batches::only(batches::boxed(Batches::in_order(self, self.part(split), range, batch.max(1) as usize)))
    }

    pub(super) fn split_len(&self, split: Split) -> u64 {
        self.part(split).index.len()
    }

    /// The pictures at these places of [`Self::in_order`], in [0, 1]: `[n, C, H, W]`.
    pub(super) fn show(&self, split: Split, places: &[i64]) -> Result<Tensor> {
        let reader = self.part(split);
        let samples = self.samples(split, places);
        let (edge, size) = (i64::from(reader.edge), reader.square_bytes());
        let mut squares = vec![0; samples.len() * size];
        let mut worker = Worker::default();
        for (sample, square) in samples.iter().zip(squares.chunks_exact_mut(size)) {
            let read = reader.read(*sample, None, &mut worker, std::iter::once(square));
            read.map_err(|reason| user!("{}: {reason}", reader.index.told(*sample)))?;
        }
        let bytes = Tensor::f_from_data_size(&squares, &[samples.len() as i64, edge, edge, 3], Kind::Uint8)?;
        let unit = bytes.f_permute([0, 3, 1, 2])?.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        Ok(unit.f_div_scalar(255.0)?)
    }

    /// The names of the files that hold them, without their folders.
    pub(super) fn files(&self, split: Split, places: &[i64]) -> Vec<String> {
        let index = &self.part(split).index;
        self.samples(split, places).into_iter().map(|sample| index.file(sample).to_string()).collect()
    }

    /// The numbers in the index of these places of [`Self::in_order`], which passes over bad pictures.
    fn samples(&self, split: Split, places: &[i64]) -> Vec<i64> {
        let index = &self.part(split).index;
        if self.bad.is_empty() {
            return places.to_vec();
        }
        let whole = |sample: &i64| !self.bad.holds(&index.told(*sample));
        let good: Vec<i64> = (0..index.len() as i64).filter(whole).collect();
        places.iter().filter_map(|place| good.get(*place as usize).copied()).collect()
    }

    /// Another list for the training pictures, centred as they are.
    pub(super) fn pipeline_of(&self, list: Vec<Augment>) -> Result<Pipeline> {
        let edge = i64::from(self.train.edge);
        Pipeline::of_squares(list, self.pipeline.normaliser().shallow_clone(), [3, edge, edge])
    }

    /// The training batches of this process in a view for each salt and pipeline, of which there is at least one.
    pub(super) fn seen<'a>(
        &'a self,
        from: Cursor,
        views: Vec<(&'a str, &'a Pipeline)>,
    ) -> Box<dyn Iterator<Item = Result<Vec<Images>>> + 'a> {
        batches::boxed(from.check(self.len()).and_then(|()| Batches::training(self, from, views)))
    }

    pub(super) fn edge(&self) -> i64 {
        i64::from(self.train.edge)
    }

    pub(super) fn test_edge(&self) -> i64 {
        i64::from(self.test.edge)
    }

    pub(super) fn classes(&self) -> &[String] {
        &self.classes
    }

    pub(super) fn class_counts(&self) -> Vec<(u64, u64)> {
        let count = |reader: &Reader| {
            let mut counts = vec![0; self.classes.len()];
            reader.index.labels().for_each(|label| counts[label as usize] += 1);
            counts
        };
        count(&self.train).into_iter().zip(count(&self.test)).collect()
    }

    /// Of each channel, over the first [`SAMPLED`] training pictures of the permutation that limits are taken from, at the test view.
    pub(super) fn mean_std(&self) -> Result<Vec<(f64, f64)>> {
        let order = fixed_order(self.train.index.len());
        let index = self.train.index.part(&order[..order.len().min(SAMPLED)]);
        let Cutting::Test(view) = &self.test.view else {
            return Err(Error::Failed("the test split has the view of training".into()));
        };
        let reader =
            Reader { index, view: Cutting::Test(view.clone()), edge: self.test.edge, max_bad: self.bad.most() };
        let (reader, size) = (Arc::new(reader), self.test.square_bytes());
        let tasks = Task::in_order(0..reader.index.len(), SAMPLED);
        let mut loader = Loader::start(&reader, self.workers, 2 * self.workers, Box::new(tasks))?;
        let mut moments = Moments::default();
        loader.batch(false, &self.bad, |done| {
            moments.add(&done.bytes[..done.samples.len() * size]);
            Ok(Some(done.bytes))
        })?;
        Ok(moments.mean_std())
    }

    pub(super) fn normaliser(&self) -> &Normaliser {
        self.pipeline.normaliser()
    }

    pub(super) fn has_validation(&self) -> bool {
        self.validation.is_some()
    }
}

impl Source for Stream {
    type Batch = Images;

    fn len(&self) -> u64 {
        self.train.index.len()
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Images>> + '_> {
        batches::only(self.seen(from, vec![("", &self.pipeline)]))
    }

    /// SHA-256 in hexadecimal over the listing of all splits: for each picture the lines split, path below the root, size in bytes, label.
    /// The contents are not read.
    fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.train.index.hash("train", &mut hash);
        if let Some(validation) = &self.validation {
            validation.index.hash("validation", &mut hash);
        }
        self.test.index.hash("test", &mut hash);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.bad.notes()
    }
}

fn limited(index: Index, limit: Option<u64>, even: bool, key: &str) -> Result<Index> {
    let Some(n) = limit else { return Ok(index) };
    let order = portion::limited(index.len(), n, key)?;
    Ok(match even {
        true => index.part(&balanced(&fixed_order(index.len()), n, |place| index.label(place))),
        false => index.part(&order),
    })
}

/// The classes that a split has no pictures of.
fn missing(index: &Index, classes: &[String]) -> Vec<String> {
    let mut there = vec![false; classes.len()];
    index.labels().for_each(|label| there[label as usize] = true);
    classes.iter().zip(there).filter(|(_, there)| !there).map(|(class, _)| class.clone()).collect()
}

/// What given weights want pictures of `edge` centred by; what the configuration says otherwise is noted.
fn centring(card: &Card, form: &Form, edge: i64, setup: &Setup) -> Result<Normaliser> {
    card.note_differences(form.normalise.of(None, 3, Device::Cpu).ok().as_ref(), form.edge, setup)?;
    let normaliser = card.normaliser()?;
    if let Some([height, width]) = normaliser.mean_size()
        && (height < edge || width < edge)
    {
        return Err(user!(
            "these weights subtract a mean picture of {height}×{width} pixels, and pictures are tested at {edge}; set view.test.edge or \
             model.image_size to at most that"
        ));
    }
    normaliser.to_device(setup.device)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
