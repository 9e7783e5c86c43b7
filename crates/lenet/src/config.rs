//! What LeNet adds to the keys that all papers share.

use repro::config::Settings;
use repro::data::Augment;
use repro::optim::{AdamwConfig, OptimConfig, Schedule, SgdConfig};
use serde::Deserialize;

use crate::bitmaps;
use crate::lm::LmConfig;
use crate::loss::Loss;
use crate::model::Init;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// What is minimised; independent of the network.
    pub loss: Loss,
    /// Distortions of the training pictures, in this order; an empty list for none.
    pub augment: Vec<Augment>,
    /// The update rule.
    pub optim: Optim,
    /// The factor on the learning rate.
    pub schedule: Schedule,
    /// Averages of the weights, evaluated beside them. `None`: none.
    pub ema: Option<EmaConfig>,
}

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// Which one.
    pub name: Name,
    /// Classes K, at least 2; at most 10 for `lenet5`, which has ten glyphs.
    pub num_classes: i64,
    /// Edge of the pictures in the data set: 28, if it is given. Both networks pad by themselves.
    pub image_size: Option<i64>,
    /// How `lenet5` starts; `lenet5_modern` starts as PyTorch's layers do. `None`: as the paper prints it.
    pub init: Option<Init>,
}

/// The variants.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// The network of 1998.
    Lenet5,
    /// The network that goes by its name today.
    Lenet5Modern,
}

/// Which optimizer, and its numbers.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Optim {
    /// Stochastic gradient descent with momentum.
    Sgd(SgdConfig),
    /// Adam with decoupled weight decay.
    Adamw(AdamwConfig),
    /// The paper's rule; `lenet5` only.
    LevenbergMarquardt(LmConfig),
}

impl Optim {
    /// The optimizer of the core, unless it is the paper's own.
    pub(crate) fn shared(&self) -> Option<OptimConfig> {
        match self {
            Optim::Sgd(config) => Some(OptimConfig::Sgd(config.clone())),
            Optim::Adamw(config) => Some(OptimConfig::Adamw(config.clone())),
            Optim::LevenbergMarquardt(_) => None,
        }
    }

    /// Learning rate as configured, and after scaling for the batch.
    pub(crate) fn rates(&self, batch: u64) -> (f64, f64) {
        let base = match self {
            Optim::Sgd(config) => config.base_lr,
            Optim::Adamw(config) => config.base_lr,
            Optim::LevenbergMarquardt(config) => config.base_lr,
        };
        (base, self.shared().map_or(base, |config| config.lr(batch)))
    }
}

/// Averages of the weights.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct EmaConfig {
    /// Part of the average that each step keeps, in [0, 1).
    pub decay: f64,
}

/// Refuses what cannot act or contradicts itself: (key, what is wrong and what to do).
pub fn validate(config: &Config, settings: &Settings) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut must = |holds: bool, key: &str, message: String| {
        if !holds {
            found.push((key.to_string(), message));
        }
    };
    let ModelConfig { name, num_classes, image_size, .. } = config.model;
    let most = if name == Name::Lenet5 { bitmaps::COUNT as i64 } else { 1000 };
    must(
        (2..=most).contains(&num_classes),
        "model.num_classes",
        format!("is {num_classes}; this network takes 2 to {most} classes"),
    );
    must(
        image_size.is_none_or(|size| size == 28),
        "model.image_size",
        "must be 28, the edge of the data sets' pictures; the networks pad them to 32 by themselves".into(),
    );
    must(
        settings.data.workers.is_none(),
        "data.workers",
        "does nothing here: the data lie on the device; leave the key away".into(),
    );
    must(
        settings.data.max_bad.is_none(),
        "data.max_bad",
        "does nothing here: idx files are read whole; leave the key away".into(),
    );
    if let Loss::Map { j } = config.loss {
        must(j > 0.0 && j.is_finite(), "loss.j", format!("is {j}; it must be greater than 0, such as 1"));
    }
    if let Err(error) = Augment::check_all(&config.augment, [1, 28, 28]) {
        must(false, "augment", error.to_string());
    }
    if let Some(EmaConfig { decay }) = config.ema {
        must(
            (0.0..1.0).contains(&decay),
            "ema.decay",
            format!("is {decay}; it must be at least 0 and below 1, such as 0.999"),
        );
    }
    if let Optim::LevenbergMarquardt(LmConfig { base_lr, mu, samples }) = config.optim {
        must(
            name == Name::Lenet5,
            "optim.kind",
            "levenberg_marquardt needs the second derivatives of model.name=lenet5; choose sgd or adamw here".into(),
        );
        must(base_lr > 0.0 && base_lr.is_finite(), "optim.base_lr", format!("is {base_lr}; it must be greater than 0"));
        must(mu > 0.0 && mu.is_finite(), "optim.mu", format!("is {mu}; it must be greater than 0, such as 0.02"));
        must(samples >= 1, "optim.samples", "must be at least 1, such as 500".into());
    }
    found
}
