//! What ResNet adds to the keys that all papers share.

use repro::classifier;
use repro::config::{Findings, Settings};
use repro::data::{Augment, Normalise, View};
use repro::optim::{EmaConfig, OptimConfig, SamConfig, Schedule};
use serde::Deserialize;

use crate::model::Variant;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// What pixels in [0, 1] are centred by.
    pub normalise: Normalise,
    /// How photos become squares; for sets whose pictures have one size there is none.
    pub view: Option<View>,
    /// What is done to training pictures, in this order; an empty list for nothing.
    pub augment: Vec<Augment>,
    /// Part of each label that is spread over all classes, in [0, 1). `None`: 0.
    pub label_smoothing: Option<f64>,
    /// The update rule.
    pub optim: OptimConfig,
    /// Sharpness-aware minimisation around it. `None`: the rule alone.
    pub sam: Option<SamConfig>,
    /// The factor on the learning rate.
    pub schedule: Schedule,
    /// Averages of the weights, evaluated beside them. `None`: none.
    pub ema: Option<EmaConfig>,
}

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// Which one; see [`Variant::named`].
    pub name: String,
    /// Classes K, at least 2. `None`: as many as the weights that are given know, or as there are folders of photos.
    pub num_classes: Option<i64>,
    /// Edge of the pictures in pixels. `None`: what the network is made for, 224 or 32.
    pub image_size: Option<i64>,
    /// Whether the last norm of each block starts at 0, so that the block is its shortcut (arXiv:1706.02677, §5.1). `None`: no.
    pub zero_init: Option<bool>,
}

impl Config {
    /// The named network; `validate` has refused names that there are not.
    ///
    /// # Errors
    /// Lists the names.
    pub fn variant(&self) -> repro::Result<Variant> {
        Variant::named(&self.model.name)
    }

    /// Classes K. A configuration without them is completed before it is used.
    ///
    /// # Errors
    /// It was not.
    pub fn classes(&self) -> repro::Result<i64> {
        classifier::classes(self.model.num_classes)
    }

    /// Edge of the pictures, in pixels.
    pub fn edge(&self, variant: Variant) -> i64 {
        self.model.image_size.unwrap_or(variant.edge())
    }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, _: &Settings) -> Findings {
    let mut found = Findings::default();
    let zero_init = config.model.zero_init;
    let variant = match config.variant() {
        Ok(variant) => variant,
        Err(error) => {
            found.must(false, "model.name", error.to_string());
            return found;
        }
    };
    classifier::check_classes(config.model.num_classes, &mut found);
    let edge = config.edge(variant);
    found.must(
        (8..=4096).contains(&edge),
        "model.image_size",
        format!("is {edge}; it must be from 8 to 4096 pixels, such as {}", variant.edge()),
    );
    found.must(
        zero_init != Some(true) || !matches!(variant, Variant::Cifar { residual: false, .. }),
        "model.zero_init",
        "would make a plain network constant: it has no shortcuts; leave the key away",
    );
    found.check("augment", Augment::check_all(&config.augment, [3, edge, edge]));
    found.check("normalise", config.normalise.check(3));
    classifier::check_share("label_smoothing", config.label_smoothing, &mut found);
    if let Some(ema) = &config.ema {
        found.check("ema", ema.check());
    }
    if let Some(sam) = &config.sam {
        found.check("sam", sam.check());
    }
    found
}
