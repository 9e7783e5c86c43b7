//! What DETR adds to the keys that all papers share.

use repro::Result;
use repro::config::{Findings, Settings};
use repro::data::{Ids, Normalise, SceneAugment, SceneForm, SceneView};
use repro::optim::{OptimConfig, Schedule};
use serde::Deserialize;

use crate::loss::LossConfig;
use crate::model::{self, Variant};
use crate::position::Positions;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// What counts how much.
    pub loss: LossConfig,
    /// What pixels in [0, 1] are centred by.
    pub normalise: Normalise,
    /// How photos come to their size.
    pub view: SceneView,
    /// What is done to training pictures; an empty list for nothing.
    pub augment: Vec<SceneAugment>,
    /// The update rule. All parameters decay.
    pub optim: OptimConfig,
    /// The factor on the learning rate.
    pub schedule: Schedule,
    /// The norm of all gradients together is at most this; above 0.
    pub clip: f64,
}

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// Which one; see [`model::variant`].
    pub name: String,
    /// Classes K, at least 1; of COCO the largest category id + 1. "No object" is one more.
    pub num_classes: i64,
    /// Rate at which the transformer drops in training, in [0, 1).
    pub dropout: f64,
    /// What the transformer knows of places. `None`: `sine_at_attention`.
    pub positions: Option<Positions>,
    /// Layers of the encoder, from 0. `None`: the named network's.
    pub encoder_layers: Option<usize>,
    /// Layers of the decoder, from 1. `None`: the named network's.
    pub decoder_layers: Option<usize>,
    /// Object queries, from 1. `None`: the named network's.
    pub queries: Option<i64>,
    /// Whether the trunk's norms keep what they are given. `None`: as the named network has them.
    pub frozen_norm: Option<bool>,
}

impl Config {
    /// The named network with what is changed in it; `validate` has refused names that there are not.
    ///
    /// # Errors
    /// Lists the names.
    pub fn variant(&self) -> Result<Variant> {
        let ModelConfig { name, dropout, positions, encoder_layers, decoder_layers, queries, frozen_norm, .. } =
            &self.model;
        let named = model::variant(name)?;
        Ok(Variant {
            dropout: *dropout,
            positions: positions.unwrap_or(named.positions),
            encoder: encoder_layers.unwrap_or(named.encoder),
            decoder: decoder_layers.unwrap_or(named.decoder),
            queries: queries.unwrap_or(named.queries),
            frozen_norm: frozen_norm.unwrap_or(named.frozen_norm),
            ..named
        })
    }

    /// How photos become what the network takes: of any size, classes by their ids.
    pub fn form(&self) -> SceneForm<'_> {
        let Config { view, augment, normalise, .. } = self;
        SceneForm { classes: Ids::Category, stride: 1, view, augment, normalise }
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
    let ModelConfig { num_classes, dropout, .. } = config.model;
    let fits = (1..=100_000).contains(&num_classes);
    found.must(fits, "model.num_classes", format!("is {num_classes}; there must be at least 1 class"));
    let drops = (0.0..1.0).contains(&dropout);
    found.must(drops, "model.dropout", format!("is {dropout}; it must be at least 0 and below 1, such as 0.1"));
    let Variant { encoder, decoder, queries, .. } = variant;
    found.must(encoder <= 64, "model.encoder_layers", format!("is {encoder}; it must be from 0 to 64"));
    found.must((1..=64).contains(&decoder), "model.decoder_layers", format!("is {decoder}; it must be from 1 to 64"));
    let some = (1..=10_000).contains(&queries);
    found.must(some, "model.queries", format!("is {queries}; it must be from 1 to 10000"));
    found.check("loss", config.loss.check());
    found.check("normalise", config.normalise.check(3));
    found.check("view", config.view.check(1));
    found.check("augment", SceneAugment::check_all(&config.augment));
    let clip = config.clip;
    found.must(clip.is_finite() && clip > 0.0, "clip", format!("is {clip}; it must be above 0, such as 0.1"));
    found
}
