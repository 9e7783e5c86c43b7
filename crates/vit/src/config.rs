//! What ViT adds to the keys that all papers share.

use repro::classifier;
use repro::config::{Findings, Settings};
use repro::data::{Augment, Normalise, View};
use repro::optim::{EmaConfig, OptimConfig, Schedule};
use serde::Deserialize;

use crate::variant::{Pool, Variant};

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
    /// The update rule. Vectors, tokens and positions do not decay.
    pub optim: OptimConfig,
    /// Factor on the learning rate for each block further from the classifier, in (0, 1]. `None`: 1.
    pub layer_decay: Option<f64>,
    /// The gradient's norm is at most this, above 0. `None`: it is left as it is.
    pub clip: Option<f64>,
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
    /// Edge of the pictures in pixels, a multiple of the patch. `None`: the one in the name.
    pub image_size: Option<i64>,
    /// Whether positions of weights for another number of patches are resized (§3.2). `None`: no, they are refused.
    pub resize_positions: Option<bool>,
    /// Where the positions come from. `None`: they are learned.
    pub positions: Option<Positions>,
    /// What the classifier reads. `None`: what the named network's does.
    pub pool: Option<Pool>,
    /// Rate at which samples lose the last block's branches, in [0, 1); the others' lie on a line from 0. `None`: 0.
    pub drop_path: Option<f64>,
    /// Whether blocks are computed again for their gradients instead of kept: the same numbers with less memory, and a third more time.
    /// `None`: no.
    pub recompute: Option<bool>,
}

/// Where the positions of patches come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// They are parameters.
    Learned,
    /// Sines and cosines, which stay ([`crate::positions::sin_cos`]).
    SinCos,
}

impl Config {
    /// The named network, of the configured edge and pooling; `validate` has refused names that there are not.
    ///
    /// # Errors
    /// Lists the names.
    pub fn variant(&self) -> repro::Result<Variant> {
        let named = Variant::named(&self.model.name)?;
        let pool = self.model.pool.unwrap_or(named.pool);
        Ok(Variant { pool, ..named }.with_edge(self.model.image_size.unwrap_or(named.edge)))
    }

    /// Classes K. A configuration without them is completed before it is used.
    ///
    /// # Errors
    /// It was not.
    pub fn classes(&self) -> repro::Result<i64> {
        classifier::classes(self.model.num_classes)
    }

    /// Whether blocks are computed again.
    pub fn recompute(&self) -> bool {
        self.model.recompute.unwrap_or(false)
    }

    /// The rate of the last block's drop path.
    pub fn drop_path(&self) -> f64 {
        self.model.drop_path.unwrap_or(0.0)
    }
}

/// Refuses pictures that are not made of whole patches.
pub fn check_edge(variant: &Variant, found: &mut Findings) {
    let Variant { edge, patch, .. } = *variant;
    let near = ((edge.clamp(patch, 4096) + patch / 2) / patch * patch).min(4096 / patch * patch);
    found.must(
        (patch..=4096).contains(&edge) && edge % patch == 0,
        "model.image_size",
        format!("is {edge}; it must be a multiple of the patch, {patch} pixels, and at most 4096, such as {near}"),
    );
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
    let edge = variant.edge;
    check_edge(&variant, &mut found);
    let reads = match variant.pool {
        Pool::Class => variant.class_token,
        Pool::Mean => !variant.distilled,
    };
    found.must(reads, "model.pool", format!("is not what {} can do: leave the key away", config.model.name));
    let after = Augment::edge_after(&config.augment, edge);
    found.must(
        after == edge,
        "augment",
        format!("leaves pictures of {after} pixels, and the network takes {edge}; let the crops keep their size"),
    );
    let tested = config.view.as_ref().map_or(edge, |view| view.test_edge(edge));
    found.must(
        tested == edge,
        "view.test",
        format!("gives pictures of {tested} pixels, and the network takes {edge}; set model.image_size={tested} or leave the edge away"),
    );
    found.must(
        config.model.positions != Some(Positions::SinCos) || variant.width % 4 == 0,
        "model.positions",
        format!(
            "sin_cos needs a width that is a multiple of 4, and that of {} is {}",
            config.model.name, variant.width
        ),
    );
    classifier::check_share("label_smoothing", config.label_smoothing, &mut found);
    classifier::check_share("model.drop_path", config.model.drop_path, &mut found);
    let decay = config.layer_decay.unwrap_or(1.0);
    found.must(
        decay > 0.0 && decay <= 1.0,
        "layer_decay",
        format!("is {decay}; it must be above 0 and at most 1, such as 0.75"),
    );
    let clip = config.clip.unwrap_or(1.0);
    found.must(clip > 0.0 && clip.is_finite(), "clip", format!("is {clip}; it must be above 0, such as 1"));
    found.check("augment", Augment::check_all(&config.augment, [3, edge, edge]));
    found.check("normalise", config.normalise.check(3));
    if let Some(ema) = &config.ema {
        found.check("ema", ema.check());
    }
    found
}
