//! What LeNet adds to the keys that all papers share.

use repro::config::{Findings, Length, Precision, Settings};
use repro::data::Augment;
use repro::optim::{AdamwConfig, EmaConfig, OptimConfig, Schedule, SgdConfig};
use serde::Deserialize;

use crate::bitmaps;
use crate::layers::Init;
use crate::lm::LmConfig;
use crate::loss::Loss;
use crate::prepare::Prepare;

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
    /// Edge of the pictures: 28, if it is given, which the networks pad by themselves; 20 for the middle of them, in networks without
    /// shared weights.
    pub image_size: Option<i64>,
    /// How the networks of 1998 start; `lenet5_modern` starts as PyTorch's layers do. `None`: as the paper prints it.
    pub init: Option<Init>,
    /// What is done to a picture first. `None`: nothing.
    pub prepare: Option<Prepare>,
    /// Neighbours that vote; `knn` only.
    pub k: Option<i64>,
    /// Pictures that `knn` has room for, at least the training set; `knn` only.
    pub memory: Option<u64>,
}

impl ModelConfig {
    /// A network with nothing but a name and its classes.
    pub fn new(name: Name, num_classes: i64) -> Self {
        ModelConfig { name, num_classes, image_size: None, init: None, prepare: None, k: None, memory: None }
    }
}

/// The variants.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// The network of 1998.
    Lenet5,
    /// The network that goes by its name today.
    Lenet5Modern,
    /// One layer of as many units as classes.
    Linear,
    /// One layer of a unit for each pair of classes.
    Pairwise,
    /// A hidden layer of 300 units.
    Mlp300,
    /// A hidden layer of 1,000 units.
    Mlp1000,
    /// Hidden layers of 300 and 100 units.
    Mlp300_100,
    /// Hidden layers of 500 and 150 units.
    Mlp500_150,
    /// LeNet-1, on digits of 16×16.
    Lenet1,
    /// LeNet-4.
    Lenet4,
    /// Three LeNet-4, each learning from what those before it find hard.
    BoostedLenet4,
    /// K-nearest neighbours.
    Knn,
}

impl Name {
    /// Hidden units, layer by layer, of the networks without shared weights; `None` for the others.
    pub fn hidden(self) -> Option<&'static [i64]> {
        match self {
            Name::Linear | Name::Pairwise => Some(&[]),
            Name::Mlp300 => Some(&[300]),
            Name::Mlp1000 => Some(&[1000]),
            Name::Mlp300_100 => Some(&[300, 100]),
            Name::Mlp500_150 => Some(&[500, 150]),
            _ => None,
        }
    }
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
    /// Keeps the training pictures; `knn` only.
    Memorise {},
}

impl Optim {
    /// The optimizer of the core, unless it is the paper's own.
    pub(crate) fn shared(&self) -> Option<OptimConfig> {
        match self {
            Optim::Sgd(config) => Some(OptimConfig::Sgd(config.clone())),
            Optim::Adamw(config) => Some(OptimConfig::Adamw(config.clone())),
            Optim::LevenbergMarquardt(_) | Optim::Memorise {} => None,
        }
    }

    /// Learning rate as configured, and after scaling for the batch.
    pub(crate) fn rates(&self, batch: u64) -> (f64, f64) {
        let base = match self {
            Optim::Sgd(config) => config.base_lr,
            Optim::Adamw(config) => config.base_lr,
            Optim::LevenbergMarquardt(config) => config.base_lr,
            Optim::Memorise {} => 0.0,
        };
        (base, self.shared().map_or(base, |config| config.lr(batch)))
    }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let ModelConfig { name, num_classes, image_size, k, memory, .. } = config.model;
    let most = if name == Name::Lenet5 { bitmaps::COUNT as i64 } else { 1000 };
    found.must(
        (2..=most).contains(&num_classes),
        "model.num_classes",
        format!("is {num_classes}; this network takes 2 to {most} classes"),
    );
    found.must(
        image_size.is_none_or(|size| size == 28 || size == 20 && name.hidden().is_some()),
        "model.image_size",
        "must be 28, the edge of the data sets' pictures, which the networks pad or scale by themselves; 20, their middle, only for linear, pairwise and mlp…",
    );
    let knn = name == Name::Knn;
    for (key, given, example) in [("model.k", k.is_some(), "3"), ("model.memory", memory.is_some(), "60000")] {
        found.must(given || !knn, key, format!("is missing: knn needs it, such as {example}"));
        found.must(!given || knn, key, "acts with model.name=knn only; leave the key away");
    }
    found.must(
        memory.is_none_or(|m| (1..=1_000_000).contains(&m)),
        "model.memory",
        "must be from 1 to 1000000, such as 60000",
    );
    found.must(k.is_none_or(|k| (1..=1000).contains(&k)), "model.k", "must be from 1 to 1000, such as 3");
    found.must(
        knn == (config.optim == Optim::Memorise {}),
        "optim.kind",
        "does not fit this network: knn takes memorise, and no other does",
    );
    if knn {
        found.must(
            settings.compute.micro_batch.is_none() && settings.compute.precision == Precision::F32,
            "compute",
            "knn computes no gradients: leave micro_batch away, and precision at f32",
        );
        found.must(
            settings.length == Length::Epochs(1.0),
            "length",
            "must be `1 epoch`: knn keeps every training picture once",
        );
        found.must(config.ema.is_none(), "ema", "does nothing for knn; leave the key away");
        found.must(
            config.schedule == (Schedule::Constant { warmup: None, warmup_start: None }),
            "schedule",
            "does nothing for knn; write `kind: constant`",
        );
    }
    let squared = matches!(config.loss, Loss::Squared {} | Loss::Pairs {});
    let fits = match name {
        Name::Pairwise => config.loss == Loss::Pairs {},
        Name::Lenet5 => !squared,
        Name::Knn => config.loss == Loss::CrossEntropy {},
        _ => config.loss != Loss::Pairs {},
    };
    found.must(
        fits,
        "loss.kind",
        "does not fit this network: pairwise takes pairs, lenet5 map or cross_entropy, knn cross_entropy, the others all but pairs",
    );
    found.must(
        settings.data.workers.is_none(),
        "data.workers",
        "does nothing here: the data lie on the device; leave the key away",
    );
    found.must(
        settings.data.max_bad.is_none(),
        "data.max_bad",
        "does nothing here: idx files are read whole; leave the key away",
    );
    if let Loss::Map { j } = config.loss {
        found.must(j > 0.0 && j.is_finite(), "loss.j", format!("is {j}; it must be greater than 0, such as 1"));
    }
    match Augment::check_all(&config.augment, [1, 28, 28]) {
        Err(error) => found.check("augment", Err(error)),
        Ok(()) => found.must(
            Augment::edge_after(&config.augment, 28) == 28,
            "augment",
            "changes the size of the pictures, and these networks take 28 pixels; remove `size` from the crop",
        ),
    }
    found.must(
        !config.augment.iter().any(|augment| matches!(augment, Augment::Centre(_))),
        "augment",
        "`centre` has no numbers to centre by: each network here scales pictures as its paper says; remove it",
    );
    found.must(
        !config.augment.iter().any(Augment::mixes),
        "augment",
        "mixup and cutmix blend two labels, and the losses here take one; remove them",
    );
    if let Some(ema) = &config.ema {
        found.check("ema", ema.check());
    }
    if let Optim::LevenbergMarquardt(LmConfig { base_lr, mu, samples }) = config.optim {
        found.must(
            name == Name::Lenet5,
            "optim.kind",
            "levenberg_marquardt needs the second derivatives of model.name=lenet5; choose sgd or adamw here",
        );
        found.must(
            base_lr > 0.0 && base_lr.is_finite(),
            "optim.base_lr",
            format!("is {base_lr}; it must be greater than 0"),
        );
        found.must(mu > 0.0 && mu.is_finite(), "optim.mu", format!("is {mu}; it must be greater than 0, such as 0.02"));
        found.must(
            config.model.prepare.is_none(),
            "model.prepare",
            "cannot act with levenberg_marquardt, which estimates its curvature on plain pictures; leave the key away",
        );
        found.must(samples >= 1, "optim.samples", "must be at least 1, such as 500");
    }
    found
}
