//! Photos with boxes: files in the layouts of COCO, Pascal VOC and YOLO, and digits strewn over canvases.
//!
//! Threads, order, bad pictures and memory are those of the stream. Each photo keeps its own size until its batch is padded.

mod augment;
mod batches;
mod canvas;
mod coco;
mod colour;
mod frame;
mod photos;
mod sample;
mod still;
#[cfg(test)]
mod tests;
mod view;
mod voc;
mod yolo;

use std::ops::Range;
use std::sync::Arc;

use image::RgbImage;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

pub use augment::{Hsv, ResizeCrop, SceneAugment};
pub use frame::Axis;
pub use sample::Placed;
pub use still::SceneStills;
pub use view::{MultiScale, SceneFit, SceneView};

use self::batches::Batches;
use self::photos::{Found, Photos};
use self::sample::{Scenery, Seen};
use super::bad::Bad;
use super::batches::Table;
use super::decode::{Opened, Scratch};
use super::index::Shards;
use super::loader::{Loader, Task};
use super::moments::Moments;
use super::portion::{fixed_order, hold_out, limited};
use super::{SAMPLED, cores};
use crate::data::root::folder_of;
use crate::data::{Card, Cursor, DataConfig, Normalise, Normaliser, Part, Source, Split};
use crate::detection::{Targets, Truth};
use crate::setup::Setup;
use crate::{Error, Result, user};

/// The sets of pictures with boxes.
pub(in crate::data) const NAMES: [&str; 6] = ["coco", "voc", "yolo", "bccd", "canvases", "synthetic_canvases"];

/// Which class a category is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The class of its id, so that there are as many classes as the largest id and one more; ids that there are not are classes without
    /// pictures. As DETR has COCO.
    Category,
    /// The class of its place among the categories, in the order of their ids. As YOLO has COCO.
    Dense,
}

/// How photos with boxes become what a network takes.
#[derive(Debug)]
pub struct SceneForm<'a> {
    /// How classes are numbered where the annotations have ids of their own (COCO).
    pub classes: Ids,
    /// Height and width of batches are multiples of it; at least 1.
    pub stride: i64,
    /// How photos come to their size.
    pub view: &'a SceneView,
    /// What is done to training pictures.
    pub augment: &'a [SceneAugment],
    /// What pixels are centred by.
    pub normalise: &'a Normalise,
}

/// What one step sees.
#[derive(Debug)]
pub struct SceneBatch {
    /// `[N, 3, H, W]`, centred, on the device; 0 in the padding at the right and at the bottom.
    pub image: Tensor,
    /// `[N, H, W]` bool, true in the padding. `None` where nothing is padded.
    pub padding: Option<Tensor>,
    /// What is to be found, on the device: boxes as fractions of each picture without its padding. Neither crowds nor difficult objects are
    /// there.
    pub targets: Targets,
    /// The photo of each picture.
    pub photos: Vec<Placed>,
}

/// A training picture for looking at.
#[derive(Debug)]
pub struct Shown {
    /// As the network is shown it, without padding.
    pub image: RgbImage,
    /// What is to be found in it, in its pixels.
    pub truths: Vec<Truth>,
}

/// Pictures with boxes to train and test a detector on.
#[derive(Debug)]
pub struct Scenes {
    train: Arc<Scenery>,
    /// The training pictures at the test view.
    still: Arc<Scenery>,
    validation: Option<Arc<Scenery>>,
    test: Arc<Scenery>,
    classes: Vec<String>,
    categories: Vec<i64>,
    normaliser: Normaliser,
    table: Table,
    bad: Bad,
    stride: u32,
    workers: usize,
    device: Device,
}

impl Scenes {
    /// The set that `setup.settings.data` names. What the user must know is noted.
    ///
    /// # Errors
    /// Files that are missing or damaged, annotations that do not fit, keys that cannot act.
    pub fn open(form: &SceneForm, setup: &Setup) -> Result<Self> {
        let config = &setup.settings.data;
        let name = &config.name;
        form.view.check(form.stride)?;
        SceneAugment::check_all(form.augment)?;
        check_keys(config)?;
        let card = Card::given(setup)?;
        let (known, only_test) = (card.as_ref().map(|card| &card.classes[..]), setup.given.is_some());
        let max_bad = config.max_bad.unwrap_or(0);
        let bad = Bad::new(max_bad);
        let files = config.files.as_ref();
        let found = match name.as_str() {
            "coco" => coco::open(&folder_of(config)?, files, form.classes, only_test, &bad)?,
            "voc" | "bccd" => voc::open(&folder_of(config)?, files, known, only_test, &bad)?,
            "yolo" => yolo::open(&folder_of(config)?, files, only_test, &bad)?,
            _ => canvas::open(config, form.view.nominal())?,
        };
        let Found { train, validation, test, classes, categories, notes } = found;
        if let Some(card) = &card {
            card.check_classes(name, &classes)?;
        }
        notes.into_iter().for_each(|note| setup.note(note));
        // Where nothing is trained, nobody asks for what there is to train on.
        let train = match train {
            Some(train) => train,
            None => test.part(&[]),
        };
        if train.flat() > 0 {
            setup.note(format!("{} boxes of the training set have no area; nothing learns from them", train.flat()));
        }
        let (train, validation) = match (config.validation, validation) {
            (Some(_), Some(_)) => {
                return Err(user!(
                    "data.validation cannot act on {name}, which holds a split out itself; remove the key"
                ));
            }
            (Some(n), None) if train.len() > 0 => {
                let (left, out) = hold_out(train.len(), n)?;
                (train.part(&left), Some(train.part(&out)))
            }
            (_, validation) => (train, validation),
        };
        let limit = |photos: Photos, limit: Option<u64>, key: &str| -> Result<Photos> {
            Ok(match limit {
                Some(n) => photos.part(&limited(photos.len(), n, key)?),
                None => photos,
            })
        };
        let train = if train.len() > 0 { limit(train, config.limit_train, "limit_train")? } else { train };
        let test = limit(test, config.limit_test, "limit_test")?;

        let own = form.normalise.of(None, 3, setup.device)?;
        let normaliser = match &card {
            Some(card) => card.normaliser_or(own, setup)?,
            None => own,
        };
        let scenery = |photos: &Arc<Photos>, seen| Arc::new(Scenery { photos: photos.clone(), seen, max_bad });
        let still = |photos: &Arc<Photos>| scenery(photos, Seen::Test(form.view.test.clone()));
        let train = Arc::new(train);
        Ok(Self {
            still: still(&train),
            train: scenery(&train, Seen::Train(form.view.clone(), form.augment.to_vec())),
            validation: validation.map(|photos| still(&Arc::new(photos))),
            test: still(&Arc::new(test)),
            classes,
            categories,
            table: Table::new(Some(&normaliser))?,
            normaliser,
            bad,
            stride: form.stride as u32,
            workers: config.workers.map_or_else(cores, |n| n as usize),
            device: setup.device,
        })
    }

    fn split(&self, split: Split) -> &Arc<Scenery> {
        match (split, &self.validation) {
            (Split::Train, _) => &self.still,
            (Split::Validation, Some(validation)) => validation,
            _ => &self.test,
        }
    }

    /// The part of a split that this process evaluates; see [`crate::data::Pictures::part`].
    pub fn part(&self, split: Split, setup: &Setup) -> Option<Part> {
        Part::of(self.split_len(split), setup)
    }

    /// Pictures of a split, bad ones counted in.
    pub fn split_len(&self, split: Split) -> u64 {
        self.split(split).photos.len()
    }

    /// The pictures at the places `range` of a split in its own order, without chance, `batch` at a time; the last batch holds what is left,
    /// and bad ones are left out: [`Placed::index`] tells which are there.
    pub fn in_order(
        &self,
        split: Split,
        range: Range<u64>,
        batch: i64,
    ) -> Box<dyn Iterator<Item = Result<SceneBatch>> + '_> {
        boxed(Batches::in_order(self, self.split(split), range, batch.max(1) as usize))
    }

    /// What is to be found in a photo of a split, in pixels of the file: of COCO crowds and what has no area, too, as pycocotools takes them.
    pub fn truths(&self, split: Split, index: u64) -> &[Truth] {
        self.split(split).photos.truths(index as i64)
    }

    /// The number by which the annotations know a photo (COCO's image id); its place in the list of another set.
    pub fn photo_id(&self, split: Split, index: u64) -> i64 {
        self.split(split).photos.id(index as i64)
    }

    /// The number by which the annotations know a class (COCO's category id); the class itself in another set.
    pub fn category_id(&self, class: usize) -> i64 {
        self.categories[class]
    }

    /// The names of the K classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// A photo as it lies in its file, for looking at.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn show(&self, split: Split, index: u64) -> Result<RgbImage> {
        let (photos, sample) = (&self.split(split).photos, index as i64);
        let (pixels, [width, height]) = match &**photos {
            Photos::Canvases(canvases) => canvases.draw(sample),
            Photos::Files(files) => {
                let mut scratch = Scratch::default();
                let read = files.index.read(sample, &mut Shards::default(), &mut scratch.file);
                let copied = |Opened { pixels, size, .. }: Opened| Ok((pixels.to_vec(), size));
                let read = read.and_then(|()| scratch.picture(copied));
                read.map_err(|reason| user!("{}: {reason}", photos.told(sample)))?
            }
        };
        RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::Failed("a picture of the wrong size".into()))
    }

    /// The file of a photo of a split, without its folder; of a canvas what it is called.
    pub fn file(&self, split: Split, index: u64) -> String {
        let (photos, sample) = (&self.split(split).photos, index as i64);
        match &**photos {
            Photos::Files(files) => files.index.file(sample).to_string(),
            Photos::Canvases(canvases) => canvases.told(sample),
        }
    }

    /// Whether a part of the training set is held out.
    pub fn has_validation(&self) -> bool {
        self.validation.is_some()
    }

    /// Boxes of each class to train and to test on, crowds and difficult ones counted in.
    pub fn class_counts(&self) -> Vec<(u64, u64)> {
        let count = |scenery: &Scenery| scenery.photos.class_counts(self.classes.len());
        count(&self.train).into_iter().zip(count(&self.test)).collect()
    }

    /// What centres the pictures.
    pub fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }

    /// Mean and standard deviation of each channel, in [0, 1], over the first 1,000 training photos of a fixed permutation, at the test
    /// view; what a letterbox adds is counted in.
    ///
    /// # Errors
    /// More bad pictures than `data.max_bad`.
    pub fn mean_std(&self) -> Result<Vec<(f64, f64)>> {
        let order = fixed_order(self.train.photos.len());
        let photos = self.train.photos.part(&order[..order.len().min(SAMPLED)]);
        let (seen, max_bad) = (self.still.seen.clone(), self.bad.most());
        let scenery = Arc::new(Scenery { photos: Arc::new(photos), seen, max_bad });
        let tasks = Task::in_order(0..scenery.photos.len(), SAMPLED);
        let mut loader = Loader::start(&scenery, self.workers, 2 * self.workers, Box::new(tasks))?;
        let mut moments = Moments::default();
        loader.batch(false, &self.bad, |done| {
            moments.add(&done.bytes);
            Ok(Some(done.bytes))
        })?;
        Ok(moments.mean_std())
    }

    /// The first `n` training pictures from `from` on, as the network is shown them.
    ///
    /// # Errors
    /// More bad pictures than `data.max_bad`.
    pub fn shown(&self, from: Cursor, n: usize) -> Result<Vec<Shown>> {
        let mut shown = Vec::new();
        for batch in self.batches(from) {
            let SceneBatch { image, targets, photos, .. } = batch?;
            let bytes = self.normaliser.undo(&image)?.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?;
            let bytes = bytes.f_to_kind(Kind::Uint8)?.f_to_device(Device::Cpu)?.f_permute([0, 2, 3, 1])?;
            for (place, (placed, (boxes, labels))) in photos.iter().zip(targets.each()).enumerate() {
                if shown.len() == n {
                    return Ok(shown);
                }
                let [width, height] = placed.valid;
                let own = bytes.f_get(place as i64)?.f_narrow(0, 0, height.into())?.f_narrow(1, 0, width.into())?;
                let pixels = Vec::try_from(own.f_contiguous()?.f_view(-1)?)?;
                let image = RgbImage::from_raw(width, height, pixels);
                let image = image.ok_or_else(|| Error::Failed("a picture of the wrong size".into()))?;
                shown.push(Shown { image, truths: truths_of(&boxes, &labels, placed.valid)? });
            }
        }
        Ok(shown)
    }
}

/// Boxes `[m, 4]` as fractions of a picture of this width and height, in its pixels.
fn truths_of(boxes: &Tensor, labels: &Tensor, [width, height]: [u32; 2]) -> Result<Vec<Truth>> {
    let boxes =
        Vec::<f64>::try_from(boxes.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?.f_view(-1)?)?;
    let labels = Vec::<i64>::try_from(labels.f_to_device(Device::Cpu)?)?;
    let (width, height) = (f64::from(width), f64::from(height));
    let truth = |([cx, cy, w, h], label): (&[f64; 4], i64)| {
        let rect = [(cx - w / 2.0) * width, (cy - h / 2.0) * height, w * width, h * height];
        Truth { class: label as usize, rect, area: rect[2] * rect[3], crowd: false, difficult: false }
    };
    Ok(boxes.as_chunks::<4>().0.iter().zip(labels).map(truth).collect())
}

fn boxed<'a>(batches: Result<Batches<'a>>) -> Box<dyn Iterator<Item = Result<SceneBatch>> + 'a> {
    match batches {
        Ok(batches) => Box::new(batches),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// Refuses sets that have no boxes, and keys that cannot act.
fn check_keys(config: &DataConfig) -> Result<()> {
    let name = config.name.as_str();
    if !NAMES.contains(&name) {
        return Err(user!("data.name: {name} is no set of pictures with boxes; choose one of {}", NAMES.join(", ")));
    }
    let drawn = ["canvases", "synthetic_canvases"].contains(&name);
    if config.balanced.is_some() {
        return Err(user!("data.balanced cannot act on {name}, whose pictures have many classes each; remove the key"));
    }
    if config.files.is_some() && drawn {
        return Err(user!("data.files cannot act on {name}; remove the key"));
    }
    if config.canvases.is_some() && name != "canvases" {
        return Err(user!("data.canvases cannot act on {name}; remove the key"));
    }
    if drawn && config.max_bad.is_some() {
        return Err(user!("data.max_bad cannot act on {name}, which is drawn by code; remove the key"));
    }
    Ok(())
}

impl Source for Scenes {
    type Batch = SceneBatch;

    fn len(&self) -> u64 {
        self.train.photos.len()
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<SceneBatch>> + '_> {
        boxed(from.check(self.len()).and_then(|()| Batches::training(self, from)))
    }

    /// SHA-256 in hexadecimal over the listing of all splits (path below the root and size of each photo) and all boxes. The photos' contents
    /// are not read.
    fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.train.photos.hash("train", &mut hash);
        if let Some(validation) = &self.validation {
            validation.photos.hash("validation", &mut hash);
        }
        self.test.photos.hash("test", &mut hash);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.bad.notes()
    }
}
