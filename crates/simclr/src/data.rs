//! The pictures of all stages, and what the trunk makes of them.

use repro::classifier;
use repro::data::{Augment, Form, Pictures, Source, Split};
use repro::metrics::Predictions;
use repro::nn::Mode;
use repro::optim::Schedule;
use repro::setup::Setup;
use repro::trainer::{Eval, Step};
use repro::{Result, user};
use resnet::model::{Stem, Variant};
use tch::{Kind, Tensor};

use crate::config::{Config, Knn};
use crate::model::Encoder;

/// Below this edge the stem for photos leaves too little of a picture (32 pixels become one).
const LEAST_FOR_PHOTO_STEM: i64 = 64;
/// Pictures per forward pass without gradients, at most, and their pixels: 64 pictures of 224×224.
const AT_ONCE: (i64, i64) = (256, 64 * 224 * 224);

/// The configured pictures with the augmentations and the schedule of a stage.
///
/// # Errors
/// Those of [`Pictures::open`]; a schedule that does not fit the stage's length.
pub fn open(config: &Config, setup: &Setup, augment: &[Augment], schedule: &Schedule) -> Result<Pictures> {
    let edge = config.edge()?;
    if matches!(config.variant()?, Variant::Photo { stem: Stem::Photo, .. }) && edge < LEAST_FOR_PHOTO_STEM {
        setup.note(format!(
            "{} is made for 224 pixels: its stem leaves 1/32 of an edge, and these pictures have {edge}; {}_cifar keeps more of them",
            config.model.name, config.model.name
        ));
    }
    let form = Form {
        edge,
        classes: config.model.num_classes,
        augment,
        normalise: &config.normalise,
        view: config.view.as_ref(),
    };
    classifier::open(&form, schedule, setup)
}

/// Refuses later stages that do not fit so many training pictures, before the first stage spends its time.
///
/// # Errors
/// Names the key.
pub fn check_later(config: &Config, pictures: u64) -> Result<()> {
    if let Some(Knn { k, .. }) = config.knn
        && k as u64 > pictures
    {
        return Err(user!("knn.k is {k}, but there are {pictures} training pictures; choose 1 to {pictures}"));
    }
    let probe = config.probe.iter().map(|p| ("probe", pictures, p.batch_size, p.length, &p.schedule));
    let tuned = config.finetune.iter().map(|f| ("finetune", f.known(pictures), f.batch_size, f.length, &f.schedule));
    for (stage, known, batch, length, schedule) in probe.chain(tuned) {
        if batch > known {
            return Err(user!(
                "{stage}.batch_size is {batch}, but {known} of the {pictures} training pictures are learned from in this stage; choose at most \
                 {known}, or more of the labels"
            ));
        }
        let epoch = known / batch;
        schedule.check(length.steps(epoch), epoch).map_err(|error| user!("{stage}: {error}"))?;
    }
    Ok(())
}

/// Classifies a split: `answer` takes centred pictures `[N, 3, H, W]` and gives `[N, K]`, whose largest is the answer. Adds accuracy and
/// confusion, and no loss: what answers need not be a distribution.
///
/// # Errors
/// Those of the data, libtorch's.
pub fn classify(
    data: &Pictures,
    split: Split,
    at: &Step,
    answer: impl Fn(&Tensor) -> Result<Tensor>,
    out: &mut Eval,
) -> Result<()> {
    let Some(part) = data.part(split, at.setup) else { return Ok(()) };
    let mut predictions = Predictions::default();
    for images in data.in_order(split, part.range, at_once(data)) {
        let images = images?;
        predictions.add(&answer(&images.image)?, &images.label, None)?;
    }
    if part.shared {
        predictions = predictions.together(at.setup)?;
    }
    out.classification(&predictions.finish()?, data.classes(), |places| data.show(split, places))
}

/// Pictures per forward pass without gradients.
fn at_once(data: &Pictures) -> i64 {
    let (most, pixels) = AT_ONCE;
    (pixels / data.test_edge().pow(2)).clamp(1, most)
}

/// What a trunk makes of pictures.
#[derive(Debug)]
pub struct Features {
    /// `[N, D]`
    pub h: Tensor,
    /// `[N]`, int64.
    pub label: Tensor,
}

impl Features {
    /// Of all training pictures, in the set's own order, not augmented. Photos that cannot be read are left out.
    ///
    /// # Errors
    /// Those of the data, libtorch's.
    pub fn of_training(encoder: &Encoder, data: &Pictures) -> Result<Self> {
        Self::of(encoder, data, Split::Train, data.len())
    }

    /// The same of the first `count` pictures of a split.
    ///
    /// # Errors
    /// Those of the data, libtorch's.
    pub fn of(encoder: &Encoder, data: &Pictures, split: Split, count: u64) -> Result<Self> {
        let (mut h, mut label) = (Vec::new(), Vec::new());
        for images in data.in_order(split, 0..count, at_once(data)) {
            let images = images?;
            h.push(tch::no_grad(|| encoder.forward(&images.image, Mode::Eval)).f_to_kind(Kind::Float)?);
            label.push(images.label);
        }
        Ok(Self { h: Tensor::f_cat(&h, 0)?, label: Tensor::f_cat(&label, 0)? })
    }

    /// Those at these places of the set; a place behind the last, where some are left out, begins again with the first.
    ///
    /// # Errors
    /// libtorch's.
    pub fn at(&self, places: &Tensor) -> Result<Self> {
        let places = &places.f_remainder(self.label.size()[0])?;
        Ok(Self { h: self.h.f_index_select(0, places)?, label: self.label.f_index_select(0, places)? })
    }
}
