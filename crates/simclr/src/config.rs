//! What SimCLR adds to the keys that all papers share.

use std::fmt;

use repro::classifier;
use repro::config::{Findings, Length, Settings};
use repro::data::{Augment, Normalise, View};
use repro::optim::{OptimConfig, Schedule};
use repro::probe::{Knn, Probe, check_length, check_unmixed};
use repro::weights::below_prefix;
use repro::{Result, user};
use resnet::model::Variant;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::loss::Loss;
use crate::model::BACKBONE;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default. A stage that is not written does not take place.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// f and g.
    pub model: ModelConfig,
    /// What both views are compared by.
    pub loss: Loss,
    /// What pixels in [0, 1] are centred by; the authors' code leaves them as they are: mean 0, deviation 1.
    pub normalise: Normalise,
    /// How photos become squares; for sets whose pictures have one size there is none.
    pub view: Option<View>,
    /// What makes a view of a picture, in this order, drawn anew for each of the two.
    pub augment: Vec<Augment>,
    /// What makes the second view; `[]` leaves its pictures as they are, as Figure 5 does. `None`: the same list.
    pub augment_other: Option<Vec<Augment>>,
    /// The update rule of pre-training.
    pub optim: OptimConfig,
    /// The factor on its learning rate.
    pub schedule: Schedule,
    /// A linear classifier on h, the trunk frozen. `None`: none.
    pub probe: Option<Probe>,
    /// Votes of the nearest neighbours by h. `None`: none.
    pub knn: Option<Knn>,
    /// Supervised training of the whole network, from the trunk. `None`: none.
    pub finetune: Option<Finetune>,
}

/// f and g.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// `simclr_` and a network of the `resnet` crate: `simclr_resnet18_cifar`.
    pub name: String,
    /// Classes K of the stages that learn labels, at least 2.
    pub num_classes: i64,
    /// Edge of the pictures in pixels. `None`: what the network is made for, 224 or 32.
    pub image_size: Option<i64>,
    /// Layers of g.
    pub head: Head,
    /// Whether each layer of g has a batch norm, as in the authors' code; the last one's without a shift.
    pub head_bn: bool,
    /// Numbers of z, at least 1. Without layers, z is h.
    pub head_dim: i64,
    /// Whether the last norm of each block starts at 0, as in the authors' code. `None`: no.
    pub zero_init: Option<bool>,
}

/// g: `none` (z = h), `linear`, `mlp2` (Eq. of §2.1), `mlp3`, or the number of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// From 0 to 3.
    pub layers: usize,
}

/// The fine-tuning of §4.2 and B.5.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Finetune {
    /// Length of its training.
    pub length: Length,
    /// Pictures a step over all processes.
    pub batch_size: u64,
    /// Share of the training pictures whose labels are known, above 0 and at most 1: 0.01, 0.1.
    pub labels: f64,
    /// What is done to training pictures.
    pub augment: Vec<Augment>,
    /// The update rule.
    pub optim: OptimConfig,
    /// The factor on its learning rate.
    pub schedule: Schedule,
}

impl Config {
    /// The network that is the trunk; `validate` has refused names that there are not.
    ///
    /// # Errors
    /// Lists the names.
    pub fn variant(&self) -> Result<Variant> {
        let name = &self.model.name;
        let network = name.strip_prefix("simclr_").ok_or_else(|| {
            user!(
                "there is no model {name}; there are simclr_cifar_resnet20, simclr_resnet18_cifar, simclr_resnet50_cifar, simclr_resnet50, and \
                 simclr_ with any other network of resnet behind it"
            )
        })?;
        Variant::named(network)
    }

    /// Edge of the pictures, in pixels.
    ///
    /// # Errors
    /// Those of [`Self::variant`].
    pub fn edge(&self) -> Result<i64> {
        Ok(self.model.image_size.unwrap_or(self.variant()?.edge()))
    }

    /// The list that each of the two views is made by.
    pub fn lists(&self) -> [&[Augment]; 2] {
        [&self.augment, self.augment_other.as_ref().unwrap_or(&self.augment)]
    }

    /// Whether a linear probe learns beside pre-training.
    pub fn online(&self) -> Option<&Probe> {
        self.probe.as_ref().filter(|probe| probe.online == Some(true))
    }
}

impl Finetune {
    /// How many of the training pictures have known labels.
    pub fn known(&self, pictures: u64) -> u64 {
        (pictures as f64 * self.labels).round() as u64
    }
}

impl Head {
    const NAMES: [&str; 4] = ["none", "linear", "mlp2", "mlp3"];
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Head;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "{}, or a number of layers from 0 to 3", Head::NAMES.join(", "))
            }
            fn visit_str<E: Error>(self, word: &str) -> std::result::Result<Head, E> {
                let layers = Head::NAMES.iter().position(|name| *name == word);
                let refused = || {
                    E::custom(format!("must be one of {}, or a number of layers from 0 to 3", Head::NAMES.join(", ")))
                };
                layers.map(|layers| Head { layers }).ok_or_else(refused)
            }
            fn visit_u64<E: Error>(self, layers: u64) -> std::result::Result<Head, E> {
                self.visit_str(Head::NAMES.get(layers as usize).unwrap_or(&""))
            }
            fn visit_i64<E: Error>(self, layers: i64) -> std::result::Result<Head, E> {
                self.visit_u64(u64::try_from(layers).unwrap_or(u64::MAX))
            }
        }
        deserializer.deserialize_any(Word)
    }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let ModelConfig { num_classes, head_dim, zero_init, .. } = config.model;
    let (variant, edge) = match config.variant().and_then(|variant| Ok((variant, config.edge()?))) {
        Ok(both) => both,
        Err(error) => {
            found.must(false, "model.name", error.to_string());
            return found;
        }
    };
    classifier::check_classes(Some(num_classes), &mut found);
    found.must(
        (8..=4096).contains(&edge),
        "model.image_size",
        format!("is {edge}; it must be from 8 to 4096 pixels, such as {}", variant.edge()),
    );
    found.must(
        (1..=65_536).contains(&head_dim),
        "model.head_dim",
        format!("is {head_dim}; z has from 1 to 65536 numbers, such as 128"),
    );
    found.must(
        zero_init != Some(true) || !matches!(variant, Variant::Cifar { residual: false, .. }),
        "model.zero_init",
        "would make a plain network constant: it has no shortcuts; leave the key away",
    );
    found.must(
        settings.batch_size >= 2,
        "batch_size",
        "is 1: every other picture of the batch is a negative example, so there must be at least 2",
    );
    found.must(
        settings.data.repeats.is_none_or(|n| n == 1),
        "data.repeats",
        "cannot act here: copies of a picture would be each other's negative examples; leave the key away",
    );
    found.must(
        settings.compute.micro_batch.is_none(),
        "compute.micro_batch",
        "cannot act here: the parts of a batch would not see each other's negative examples; leave the key away, and set loss.chunk where memory is short",
    );
    let freeze = settings.freeze.as_deref().unwrap_or_default();
    found.must(
        config.finetune.is_none() || freeze.iter().all(|prefix| below_prefix(prefix, BACKBONE)),
        "freeze",
        format!("names what fine-tuning does not have; only parts of {BACKBONE} are in both stages"),
    );
    config.loss.check(&mut found);
    found.check("normalise", config.normalise.check(3));
    let shape = [3, edge, edge];
    check_unmixed("augment", &config.augment, shape, &mut found);
    if let Some(other) = &config.augment_other {
        check_unmixed("augment_other", other, shape, &mut found);
    }
    let [one, other] = config.lists().map(|list| Augment::edge_after(list, edge));
    found.must(
        one == other,
        "augment_other",
        format!("makes views of {other} pixels, but augment makes views of {one}; both pass the network together, so give their crops one size"),
    );
    if let Some(probe) = &config.probe {
        probe.check(shape, &mut found);
    }
    if let Some(Finetune { length, labels, batch_size, augment, .. }) = &config.finetune {
        check_unmixed("finetune.augment", augment, shape, &mut found);
        check_length("finetune", *length, *batch_size, &mut found);
        let labels = *labels;
        let fits = variant.check_batch(*batch_size as i64, Augment::edge_after(augment, edge));
        found.check("finetune.batch_size", fits);
        found.must(
            labels > 0.0 && labels <= 1.0,
            "finetune.labels",
            format!("is {labels}; it is a share of the training pictures, above 0 and at most 1, such as 0.1"),
        );
    }
    if let Some(knn) = &config.knn {
        knn.check(&mut found);
    }
    found
}
