//! What AlexNet adds to the keys that all papers share.

use repro::classifier;
use repro::config::{Findings, Settings};
use repro::data::{Augment, Normalise, View};
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
    /// How photos become squares; for sets whose pictures have one size there is none.
    pub view: Option<View>,
    /// What is done to training pictures, in this order; an empty list for nothing.
    pub augment: Vec<Augment>,
    /// What of a picture is looked at in evaluation.
    pub test: TestConfig,
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
    /// Classes K, at least 2. `None`: as many as the weights that are given know, or as there are folders of photos.
    pub num_classes: Option<i64>,
    /// Edge of what the network takes in pixels. `None`: what it is made for.
    pub image_size: Option<i64>,
}

/// What of a picture is looked at in evaluation.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct TestConfig {
    /// How many squares of the network's size.
    pub crops: Crops,
}

/// Squares of the network's size in a picture.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Crops {
    /// The middle.
    One,
    /// "Five 224 × 224 patches (the four corner patches and the center patch) as well as their horizontal reflections" (§4.1).
    Ten,
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

    /// Edge of what the network takes, in pixels.
    pub fn edge(&self, variant: Variant) -> i64 {
        self.model.image_size.unwrap_or(variant.edge())
    }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, _: &Settings) -> Findings {
    let mut found = Findings::default();
    let variant = match config.variant() {
        Ok(variant) => variant,
        Err(error) => {
            found.must(false, "model.name", error.to_string());
            return found;
        }
    };
    classifier::check_classes(config.model.num_classes, &mut found);
    let (edge, least) = (config.edge(variant), variant.least_edge());
    found.must(
        (least..=4096).contains(&edge),
        "model.image_size",
        format!("is {edge}; this network takes pictures of {least} to 4096 pixels, such as {}", variant.edge()),
    );
    let picture = variant.picture(edge);
    match Augment::check_all(&config.augment, [3, picture, picture]) {
        Err(error) => found.check("augment", Err(error)),
        Ok(()) => found.must(
            Augment::edge_after(&config.augment, picture) == edge,
            "augment",
            format!(
                "leaves {} of {picture} pixels, but this network takes {edge}; write a crop with `pad: 0` and `size: {edge}`",
                Augment::edge_after(&config.augment, picture)
            ),
        ),
    }
    found.check("normalise", config.normalise.check(3));
    if let Some(view) = &config.view {
        let (seen, least) = (view.test_edge(edge), edge + i64::from(config.test.crops == Crops::Ten));
        found.must(
            seen >= least,
            "view.test.edge",
            format!(
                "is {seen}, but test.crops and a network of {edge} pixels need {least} or more, such as {}",
                edge * 8 / 7
            ),
        );
    }
    if let Some(ema) = &config.ema {
        found.check("ema", ema.check());
    }
    found
}
