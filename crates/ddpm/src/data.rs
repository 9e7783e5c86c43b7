//! What is trained on: pictures, or points of the plane.

use repro::Result;
use repro::classifier::{self, Card};
use repro::data::{Cursor, Form, Images, Pictures, Source, Split};
use repro::setup::Setup;
use repro::weights::{Named, hash};
use tch::Device;

use crate::config::Config;
use crate::toy;

/// The examples of a configuration.
#[derive(Debug)]
pub enum Examples {
    /// Pictures in [−1, 1].
    Pictures(Box<Pictures>),
    /// Points of a set, drawn anew at every step; `image` is `[N, 2]`, `label` the part of the set.
    Points {
        /// One of [`toy::SETS`].
        set: String,
        /// Where they are wanted.
        device: Device,
    },
}

impl Examples {
    /// The set that `data.name` names.
    ///
    /// # Errors
    /// Those of [`classifier::open`].
    pub fn open(config: &Config, setup: &Setup) -> Result<Self> {
        if config.is_toy() {
            return Ok(Examples::Points { set: setup.settings.data.name.clone(), device: setup.device });
        }
        let form = Form {
            edge: config.edge(),
            channels: config.unet()?.channels,
            classes: classifier::classes(config.model.num_classes)?,
            augment: &config.augment,
            normalise: &config.normalise()?,
            view: config.view.as_ref(),
        };
        Ok(Examples::Pictures(Box::new(classifier::open(&form, &config.schedule, setup)?)))
    }

    /// The first `n` examples of a split in its own order, or as many as it has.
    ///
    /// # Errors
    /// Those of the data.
    pub fn first(&self, split: Split, n: u64) -> Result<Images> {
        match self {
            Examples::Pictures(pictures) => {
                let n = n.min(pictures.split_len(split));
                let parts = pictures.in_order(split, 0..n, 256).collect::<Result<Vec<_>>>()?;
                let of = |what: fn(&Images) -> &tch::Tensor| {
                    tch::Tensor::f_cat(&parts.iter().map(what).collect::<Vec<_>>(), 0)
                };
                Ok(Images { image: of(|part| &part.image)?, label: of(|part| &part.label)?, mix: None })
            }
            Examples::Points { set, device } => {
                let step = if split == Split::Test { u64::MAX } else { u64::MAX - 1 };
                let (image, label) = toy::points(set, 0, step, 0, n.min(toy::SIZES.1));
                Ok(Images { image: image.f_to_device(*device)?, label: label.f_to_device(*device)?, mix: None })
            }
        }
    }

    /// What a user of the weights must know.
    pub fn card(&self) -> Option<String> {
        match self {
            Examples::Pictures(pictures) => Card::of(pictures).ok()?.text(),
            Examples::Points { .. } => None,
        }
    }

    /// Whether a part of the training set is held out.
    pub fn has_validation(&self) -> bool {
        matches!(self, Examples::Pictures(pictures) if pictures.has_validation())
    }
}

impl Source for Examples {
    type Batch = Images;

    fn len(&self) -> u64 {
        match self {
            Examples::Pictures(pictures) => pictures.len(),
            Examples::Points { .. } => toy::SIZES.0,
        }
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Images>> + '_> {
        match self {
            Examples::Pictures(pictures) => pictures.batches(from),
            Examples::Points { set, device } => {
                if let Err(error) = from.check(self.len()) {
                    return Box::new(std::iter::once(Err(error)));
                }
                let share = from.batch / from.world;
                Box::new((from.step..).map(move |step| {
                    let (image, label) = toy::points(set, from.seed, step, from.rank * share, share);
                    Ok(Images { image: image.f_to_device(*device)?, label: label.f_to_device(*device)?, mix: None })
                }))
            }
        }
    }

    fn sha256(&self) -> String {
        match self {
            Examples::Pictures(pictures) => pictures.sha256(),
            // Of what the set's name and this program's code make, the beginning.
            Examples::Points { set, .. } => {
                let (points, parts) = toy::points(set, 0, 0, 0, 64);
                hash(&Named::from([("points".into(), points), ("parts".into(), parts)])).unwrap_or_default()
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        match self {
            Examples::Pictures(pictures) => pictures.notes(),
            Examples::Points { .. } => Vec::new(),
        }
    }
}
