//! The pictures of all stages.

use repro::Result;
use repro::classifier;
use repro::data::{Augment, Form, Pictures};
use repro::optim::Schedule;
use repro::probe::{self, Trunk};
use repro::setup::Setup;
use resnet::model::{Stem, Variant};

use crate::config::Config;
use crate::model::Encoder;

/// Below this edge the stem for photos leaves too little of a picture (32 pixels become one).
const LEAST_FOR_PHOTO_STEM: i64 = 64;

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
        channels: 3,
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
    let tuned = config.finetune.iter().map(|f| ("finetune", f.known(pictures), f.batch_size, f.length, &f.schedule));
    probe::check_later(Encoder::judged(config), pictures, tuned)
}
