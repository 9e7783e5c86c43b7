//! Labelled pictures to train and test a classifier on, whatever they lie in.

use std::ops::Range;

use tch::Tensor;

use super::{
    Augment, Card, Cursor, Images, Normalise, Normaliser, Resident, Source, Stream, View, load, overlap, stream,
};
use crate::data::Split;
use crate::setup::Setup;
use crate::{Result, user};

/// A training source with the splits that go with it.
#[derive(Debug)]
pub enum Pictures {
    /// A small set, on the device as a whole.
    Resident(Resident),
    /// Photos, read as they are needed.
    Stream(Stream),
}

/// What of a split a process evaluates.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The places in the split.
    pub range: Range<u64>,
    /// Whether the other processes have the rest.
    pub shared: bool,
}

impl Part {
    /// That of a split of `n` pictures; see [`Pictures::part`].
    pub(super) fn of(n: u64, setup: &Setup) -> Option<Self> {
        let Setup { rank, world, .. } = *setup;
        let shared = world > 1 && n >= world && setup.settings.data.max_bad.unwrap_or(0) == 0;
        match (shared, rank) {
            (true, _) => Some(Part { range: n * rank / world..n * (rank + 1) / world, shared }),
            (false, 0) => Some(Part { range: 0..n, shared }),
            (false, _) => None,
        }
    }
}

/// How pictures become what a network takes.
#[derive(Debug)]
pub struct Form<'a> {
    /// Edge of the network's input, in pixels.
    pub edge: i64,
    /// Colours that it takes: 3, or 1 for grey.
    pub channels: i64,
    /// Classes K that it tells apart.
    pub classes: i64,
    /// What is done to training pictures, in this order.
    pub augment: &'a [Augment],
    /// What pixels are centred by.
    pub normalise: &'a Normalise,
    /// How photos become squares; `None` for sets whose pictures have the network's size.
    pub view: Option<&'a View>,
}

impl Pictures {
    /// The set that `setup.settings.data` names.
    ///
    /// # Errors
    /// Files that are missing or damaged; pictures, classes or augmentations that do not fit.
    pub fn open(form: &Form, setup: &Setup) -> Result<Self> {
        let config = &setup.settings.data;
        if stream::names().any(|name| name == config.name) {
            if form.channels != 3 {
                return Err(user!(
                    "photos have 3 colours, and this network takes {}; choose a set of grey pictures, such as mnist",
                    form.channels
                ));
            }
            return Ok(Self::Stream(Stream::open(form, setup)?));
        }
        if form.view.is_some() {
            return Err(user!("view cannot act on {}, whose pictures are of one size; remove the key", config.name));
        }
        let mut splits = load(config, setup.device)?;
        // What is drawn by code is drawn as large as the network takes it.
        if config.name == "synthetic_colour" && form.edge != splits.train.shape()[1] {
            for set in [&mut splits.train, &mut splits.test].into_iter().chain(&mut splits.validation) {
                *set = set.squares(form.edge)?;
            }
        }
        let (name, shape, classes) = (&config.name, splits.train.shape(), splits.train.classes().len() as i64);
        if classes != form.classes {
            return Err(user!("model.num_classes is {}, but {name} has {classes} classes", form.classes));
        }
        let taken = [form.channels, form.edge, form.edge];
        if shape != taken {
            return Err(user!(
                "model.image_size is {}, but {name} has pictures of {shape:?}; this network takes {taken:?}",
                form.edge
            ));
        }
        let shared = overlap(&splits.train, &splits.test)?;
        if shared > 0 {
            setup.note(format!("{shared} pictures of the test set stand in the training set of {name}, too"));
        }
        let mut data = Resident::new(splits, form.augment.to_vec(), Some(form.normalise))?;
        if let Some(card) = Card::given(setup)? {
            card.check_classes(name, data.test.classes())?;
            card.note_differences(Some(data.pipeline.normaliser()), form.edge, setup)?;
            data.pipeline = data.pipeline.centred_by(card.normaliser()?.to_device(setup.device)?);
        }
        Ok(Self::Resident(data))
    }

    /// The part of a split that this process evaluates: an even part of all where counts can be put together again. Where pictures may be bad,
    /// so that a place in the set says nothing, and of less pictures than processes, rank 0 evaluates all and the others none.
    pub fn part(&self, split: Split, setup: &Setup) -> Option<Part> {
        Part::of(self.split_len(split), setup)
    }

    /// Pictures of a split, bad ones counted in.
    pub fn split_len(&self, split: Split) -> u64 {
        match self {
            Self::Resident(data) => data.split(split).len(),
            Self::Stream(data) => data.split_len(split),
        }
    }

    /// The pictures at the places `range` of a split in its own order, centred, `batch` at a time; the last batch holds what is left. Of photos
    /// those that cannot be read are left out, and the edge is that of the test view.
    pub fn in_order(
        &self,
        split: Split,
        range: Range<u64>,
        batch: i64,
    ) -> Box<dyn Iterator<Item = Result<Images>> + '_> {
        match self {
            Self::Resident(data) => Box::new(data.split(split).range_in_order(range, batch).map(|mut images| {
                images.image = data.pipeline.normaliser().apply(&images.image)?;
                Ok(images)
            })),
            Self::Stream(data) => data.in_order(split, range, batch),
        }
    }

    /// The pictures at these places of [`Self::in_order`], in [0, 1], for looking at: `[n, C, H, W]`.
    ///
    /// # Errors
    /// libtorch's; a photo that can no longer be read.
    pub fn show(&self, split: Split, places: &[i64]) -> Result<Tensor> {
        match self {
            Self::Resident(data) => data.split(split).show(places),
            Self::Stream(data) => data.show(split, places),
        }
    }

    /// The files of the pictures at these places of [`Self::in_order`], by name; none of a set whose pictures have no files of their own.
    pub fn files(&self, split: Split, places: &[i64]) -> Option<Vec<String>> {
        match self {
            Self::Resident(_) => None,
            Self::Stream(data) => Some(data.files(split, places)),
        }
    }

    /// Edge of the pictures to train on, in pixels, before augmentation.
    pub fn edge(&self) -> i64 {
        match self {
            Self::Resident(data) => data.set.shape()[2],
            Self::Stream(data) => data.edge(),
        }
    }

    /// Edge of the pictures of [`Self::in_order`], in pixels.
    pub fn test_edge(&self) -> i64 {
        match self {
            Self::Resident(data) => data.test.shape()[2],
            Self::Stream(data) => data.test_edge(),
        }
    }

    /// The names of the K classes, by label.
    pub fn classes(&self) -> &[String] {
        match self {
            Self::Resident(data) => data.set.classes(),
            Self::Stream(data) => data.classes(),
        }
    }

    /// Training and test pictures of each class, by label.
    ///
    /// # Errors
    /// libtorch's.
    pub fn class_counts(&self) -> Result<Vec<(u64, u64)>> {
        match self {
            Self::Resident(data) => Ok(data.set.class_counts()?.into_iter().zip(data.test.class_counts()?).collect()),
            Self::Stream(data) => Ok(data.class_counts()),
        }
    }

    /// Mean and standard deviation of each channel of the training pictures, in [0, 1], before augmentation; of photos those of the first
    /// 1,000 of a fixed permutation, at the test view.
    ///
    /// # Errors
    /// libtorch's; more bad pictures than `data.max_bad`.
    pub fn mean_std(&self) -> Result<Vec<(f64, f64)>> {
        match self {
            Self::Resident(data) => data.set.mean_std(),
            Self::Stream(data) => data.mean_std(),
        }
    }

    /// What centres the pictures.
    pub fn normaliser(&self) -> &Normaliser {
        match self {
            Self::Resident(data) => data.pipeline.normaliser(),
            Self::Stream(data) => data.normaliser(),
        }
    }

    /// Whether a part of the training set is held out.
    pub fn has_validation(&self) -> bool {
        match self {
            Self::Resident(data) => data.validation.is_some(),
            Self::Stream(data) => data.has_validation(),
        }
    }
}

impl Source for Pictures {
    type Batch = Images;

    fn len(&self) -> u64 {
        match self {
            Self::Resident(data) => data.len(),
            Self::Stream(data) => data.len(),
        }
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Images>> + '_> {
        match self {
            Self::Resident(data) => data.batches(from),
            Self::Stream(data) => data.batches(from),
        }
    }

    fn sha256(&self) -> String {
        match self {
            Self::Resident(data) => data.sha256(),
            Self::Stream(data) => data.sha256(),
        }
    }

    fn notes(&self) -> Vec<String> {
        match self {
            Self::Resident(data) => data.notes(),
            Self::Stream(data) => data.notes(),
        }
    }
}
