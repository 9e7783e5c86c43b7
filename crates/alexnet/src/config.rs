//! What AlexNet adds to the keys that all papers share.

use repro::config::Settings;
use repro::data::{Augment, Normalise};
use repro::optim::{EmaConfig, OptimConfig, Schedule};
use serde::Deserialize;

use crate::model::Variant;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// What pixels in [0, 1] are centred by.
    pub normalise: Normalise,
    /// What is done to training pictures, in this order; an empty list for nothing.
    pub augment: Vec<Augment>,
    /// The update rule.
    pub optim: OptimConfig,
    /// The factor on the learning rate.
    pub schedule: Schedule,
    /// Averages of the weights, evaluated beside them. `None`: none.
    pub ema: Option<EmaConfig>,
}

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// Which one; see [`crate::model::NAMES`].
    pub name: String,
    /// Classes K, at least 2.
    pub num_classes: i64,
    /// Edge of the pictures in pixels. `None`: what the network is made for.
    pub image_size: Option<i64>,
}

impl Config {
    /// The named network; `validate` has refused names that there are not.
    ///
    /// # Errors
    /// Lists the names.
    pub fn variant(&self) -> repro::Result<Variant> {
        Variant::named(&self.model.name)
    }

    /// Edge of the pictures, in pixels.
    pub fn edge(&self, variant: Variant) -> i64 {
        self.model.image_size.unwrap_or(variant.edge())
    }
}

/// Refuses what cannot act or contradicts itself: (key, what is wrong and what to do).
pub fn validate(config: &Config, _: &Settings) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut must = |holds: bool, key: &str, message: String| {
        if !holds {
            found.push((key.to_string(), message));
        }
    };
    let variant = match config.variant() {
        Ok(variant) => variant,
        Err(error) => {
            must(false, "model.name", error.to_string());
            return found;
        }
    };
    let classes = config.model.num_classes;
    must((2..=100_000).contains(&classes), "model.num_classes", format!("is {classes}; at least 2 classes are needed"));
    let (edge, least) = (config.edge(variant), variant.least_edge());
    must(
        (least..=4096).contains(&edge),
        "model.image_size",
        format!("is {edge}; this network takes pictures of {least} to 4096 pixels, such as {}", variant.edge()),
    );
    if let Err(error) = Augment::check_all(&config.augment, [3, edge, edge]) {
        must(false, "augment", error.to_string());
    }
    if let Err(error) = config.normalise.check(3) {
        must(false, "normalise", error.to_string());
    }
    if let Some(EmaConfig { decay }) = config.ema {
        must(
            (0.0..1.0).contains(&decay),
            "ema.decay",
            format!("is {decay}; it must be at least 0 and below 1, such as 0.999"),
        );
    }
    found
}
