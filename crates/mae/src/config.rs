//! What MAE adds to the keys that all papers share.

use repro::classifier;
use repro::config::{Findings, Length, Settings};
use repro::data::{Augment, Normalise, View};
use repro::optim::{OptimConfig, Schedule};
use repro::probe::{Knn, Probe, check_length, check_unmixed};
use repro::{Result, user};
use serde::Deserialize;
use vit::variant::{Pool, Variant};

use crate::autoencoder::Kind;
use crate::masking::{Sampling, kept};
use crate::model;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default. A stage that is not written does not take place.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// Encoder and decoder.
    pub model: ModelConfig,
    /// What is compared with what.
    pub loss: Option<LossConfig>,
    /// What pixels in [0, 1] are centred by.
    pub normalise: Normalise,
    /// How photos become squares; for sets whose pictures have one size there is none.
    pub view: Option<View>,
    /// What is done to pictures in pre-training, in this order.
    pub augment: Vec<Augment>,
    /// The update rule of pre-training. Vectors and positions do not decay, tokens do.
    pub optim: OptimConfig,
    /// The factor on its learning rate.
    pub schedule: Schedule,
    /// A linear classifier on the frozen encoder. `None`: none.
    pub probe: Option<Probe>,
    /// Votes of the nearest neighbours. `None`: none.
    pub knn: Option<Knn>,
    /// Supervised training of the encoder. `None`: none.
    pub finetune: Option<Finetune>,
}

/// Encoder and decoder.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// `mae_vit_base_patch16`, `mae_` and a ViT's name (see [`model::variant`]); or `ae`, `dae`, `vae`.
    pub name: String,
    /// Classes K of the stages that learn labels, at least 2.
    pub num_classes: i64,
    /// Edge of the pictures in pixels, a multiple of the patch. `None`: the one in the name; 28 for `ae`, `dae` and `vae`.
    pub image_size: Option<i64>,
    /// Whether positions of weights for another number of patches are resized, for the stages after pre-training. `None`: no, they are refused.
    pub resize_positions: Option<bool>,
    /// Share r of the patches that is removed, in (0, 1); of `dae` the share of pixels that is set to 0, in [0, 1). `None`: 0.75, and 0.25 for `dae`.
    pub mask_ratio: Option<f64>,
    /// How removed patches lie. `None`: `random`.
    pub sampling: Option<Sampling>,
    /// Which part sees mask tokens. `None`: `decoder`.
    pub mask_tokens: Option<MaskTokens>,
    /// The decoder. `None`: 8 blocks of width 512 with 16 heads, the paper's; for pictures of 32 pixels one block as wide as the encoder's.
    pub decoder: Option<Decoder>,
    /// What probe and neighbours read. `None`: `class`.
    pub pool: Option<Pool>,
    /// Whether blocks are computed again for their gradients instead of kept: the same numbers with less memory. `None`: no.
    pub recompute: Option<bool>,
    /// Of `ae`, `dae` and `vae`: widths of the encoder's layers, the last being the code's. `None`: 1000, 500, 250, 30.
    pub layers: Option<Vec<i64>>,
}

/// The decoder of §3 (Table 1a and 1b).
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
pub struct Decoder {
    /// A multiple of 4 and of `heads`.
    pub width: i64,
    /// Blocks.
    pub depth: usize,
    /// Of attention.
    pub heads: i64,
}

/// Which part sees mask tokens (Table 1c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskTokens {
    /// The decoder alone.
    Decoder,
    /// The encoder, and so both.
    Encoder,
}

/// The reconstruction target (Table 1d).
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct LossConfig {
    /// Whether the pixels of each patch are normalised by its own mean and deviation.
    pub norm_pix: bool,
}

/// The fine-tuning of Appendix A.1 (Table 9).
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Finetune {
    /// Length of its training.
    pub length: Length,
    /// Pictures a step over all processes.
    pub batch_size: u64,
    /// Share of the training pictures whose labels are known, above 0 and at most 1.
    pub labels: f64,
    /// What is done to training pictures.
    pub augment: Vec<Augment>,
    /// Part of each label that is spread over all classes, in [0, 1). `None`: 0.
    pub label_smoothing: Option<f64>,
    /// Rate at which samples lose the last block's branches, in [0, 1). `None`: 0.
    pub drop_path: Option<f64>,
    /// What the classifier reads. `None`: what probe and neighbours do.
    pub pool: Option<Pool>,
    /// The update rule.
    pub optim: OptimConfig,
    /// Factor on the learning rate for each block further from the classifier. `None`: 1.
    pub layer_decay: Option<f64>,
    /// The gradient's norm is at most this. `None`: it is left as it is.
    pub clip: Option<f64>,
    /// The factor on the learning rate.
    pub schedule: Schedule,
}

/// Which of the networks it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Named {
    /// A masked autoencoder with this encoder.
    Masked(Variant),
    /// An autoencoder of dense layers.
    Dense(Kind),
}

impl Config {
    /// The named network, of the configured edge and pooling; `validate` has refused names that there are not.
    ///
    /// # Errors
    /// Lists the names.
    pub fn named(&self) -> Result<Named> {
        let ModelConfig { name, image_size, pool, .. } = &self.model;
        if let Some(kind) = Kind::named(name) {
            return Ok(Named::Dense(kind));
        }
        let variant = model::variant(name)?;
        let variant = variant.with_edge(image_size.unwrap_or(variant.edge));
        Ok(Named::Masked(Variant { pool: pool.unwrap_or(Pool::Class), ..variant }))
    }

    /// Colours and edge of the pictures.
    ///
    /// # Errors
    /// Those of [`Self::named`].
    pub fn shape(&self) -> Result<[i64; 3]> {
        Ok(match self.named()? {
            Named::Masked(variant) => [3, variant.edge, variant.edge],
            Named::Dense(_) => {
                let edge = self.model.image_size.unwrap_or(28);
                [1, edge, edge]
            }
        })
    }

    /// Numbers of a picture.
    ///
    /// # Errors
    /// Those of [`Self::named`].
    pub fn pixels(&self) -> Result<i64> {
        Ok(self.shape()?.iter().product())
    }

    /// Of an autoencoder of dense layers, the widths of its encoder.
    pub fn layers(&self) -> Vec<i64> {
        self.model.layers.clone().unwrap_or(vec![1000, 500, 250, 30])
    }

    /// r
    pub fn mask_ratio(&self) -> f64 {
        self.model.mask_ratio.unwrap_or(if self.model.name == "dae" { 0.25 } else { 0.75 })
    }

    /// The decoder for this encoder.
    pub fn decoder(&self, encoder: &Variant) -> Decoder {
        let small = self.model.name.ends_with("_32");
        self.model.decoder.unwrap_or(match small {
            true => Decoder { width: encoder.width, depth: 1, heads: encoder.heads },
            false => Decoder { width: 512, depth: 8, heads: 16 },
        })
    }

    /// Which part sees mask tokens.
    pub fn mask_tokens(&self) -> MaskTokens {
        self.model.mask_tokens.unwrap_or(MaskTokens::Decoder)
    }

    /// Whether the target is normalised.
    pub fn norm_pix(&self) -> bool {
        self.loss.as_ref().is_some_and(|loss| loss.norm_pix)
    }

    /// Fine-tuning as `vit` trains the same network.
    ///
    /// # Errors
    /// There is no such block; an autoencoder of dense layers.
    pub fn tuning(&self) -> Result<vit::config::Config> {
        let Named::Masked(_) = self.named()? else {
            return Err(user!(
                "is no stage of {}, which has a probe and neighbours; leave the block away",
                self.model.name
            ));
        };
        let section = repro::probe::section("finetune", self.finetune.as_ref())?.clone();
        let name = self.model.name.trim_start_matches("mae_");
        let edge = if name.ends_with("patch16") || name.ends_with("patch14") { "_224" } else { "" };
        Ok(vit::config::Config {
            model: vit::config::ModelConfig {
                name: format!("{name}{edge}"),
                num_classes: Some(self.model.num_classes),
                image_size: self.model.image_size,
                resize_positions: None,
                positions: None,
                pool: section.pool.or(self.model.pool),
                drop_path: section.drop_path,
                recompute: self.model.recompute,
            },
            normalise: self.normalise.clone(),
            view: self.view.clone(),
            augment: section.augment,
            label_smoothing: section.label_smoothing,
            optim: section.optim,
            layer_decay: section.layer_decay,
            clip: section.clip,
            schedule: section.schedule,
            ema: None,
        })
    }
}

impl Finetune {
    /// How many of the training pictures have known labels.
    pub fn known(&self, pictures: u64) -> u64 {
        (pictures as f64 * self.labels).round() as u64
    }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let (named, shape) = match config.named().and_then(|named| Ok((named, config.shape()?))) {
        Ok(both) => both,
        Err(error) => {
            found.must(false, "model.name", error.to_string());
            return found;
        }
    };
    classifier::check_classes(Some(config.model.num_classes), &mut found);
    match named {
        Named::Masked(variant) => check_masked(config, &variant, &mut found),
        Named::Dense(kind) => check_dense(config, kind, &mut found),
    }
    found.check("normalise", config.normalise.check(shape[0]));
    check_unmixed("augment", &config.augment, shape, &mut found);
    if let Some(probe) = &config.probe {
        probe.check(shape, &mut found);
        found.must(probe.online != Some(true), "probe.online", "is SimCLR's; leave it away");
    }
    found.must(
        settings.data.repeats.is_none_or(|n| n == 1),
        "data.repeats",
        "is of supervised training (DeiT's); leave the key away",
    );
    if let Some(knn) = &config.knn {
        knn.check(&mut found);
    }
    if let Some(finetune) = &config.finetune {
        check_length("finetune", finetune.length, finetune.batch_size, &mut found);
        let labels = finetune.labels;
        found.must(
            labels > 0.0 && labels <= 1.0,
            "finetune.labels",
            format!("is {labels}; it is a share of the training pictures, above 0 and at most 1, such as 0.2"),
        );
        match config.tuning() {
            Ok(tuning) => {
                for (key, message) in vit::config::validate(&tuning, settings).list() {
                    match key.as_str() {
                        "model.drop_path" => found.must(false, "finetune.drop_path", message),
                        "view.test" => found.must(false, key, message),
                        // Said of pre-training already.
                        key if key.starts_with("model.") || key.starts_with("normalise") => {}
                        key => found.must(false, &format!("finetune.{key}"), message),
                    }
                }
            }
            Err(error) => found.must(false, "finetune", error.to_string()),
        }
    }
    found
}

fn check_masked(config: &Config, variant: &Variant, found: &mut Findings) {
    vit::config::check_edge(variant, found);
    let ratio = config.mask_ratio();
    let patches = variant.grid().pow(2);
    let left = if (0.0..=1.0).contains(&ratio) { kept(patches, ratio) } else { 0 };
    found.must(
        left > 0 && left < patches,
        "model.mask_ratio",
        format!("is {ratio}; of {patches} patches at least one must be kept and at least one removed: choose a number between 0 and 1, such as 0.75"),
    );
    found.must(
        config.model.sampling != Some(Sampling::Grid) || (ratio == 0.75 && variant.grid() % 2 == 0),
        "model.sampling",
        "grid keeps one patch of four: it needs model.mask_ratio=0.75 and an even number of patches along an edge",
    );
    let Decoder { width, depth, heads } = config.decoder(variant);
    found.must(
        (4..=8192).contains(&width) && (1..=64).contains(&depth) && heads >= 1 && width % heads == 0 && width % 4 == 0,
        "model.decoder",
        format!("has {depth} blocks of width {width} with {heads} heads; it needs at least one block, and a width that is a multiple of 4 and of the heads"),
    );
    found.must(config.model.layers.is_none(), "model.layers", "is of ae, dae and vae; leave it away");
    found.must(config.loss.is_some(), "loss", "is missing: write loss.norm_pix=true or false");
}

fn check_dense(config: &Config, kind: Kind, found: &mut Findings) {
    let ModelConfig { image_size, mask_ratio, sampling, mask_tokens, decoder, pool, layers, .. } = &config.model;
    let edge = image_size.unwrap_or(28);
    found.must((1..=256).contains(&edge), "model.image_size", format!("is {edge}; it must be from 1 to 256 pixels"));
    let alien = config.model.recompute.is_some()
        || config.model.resize_positions.is_some()
        || sampling.is_some()
        || mask_tokens.is_some()
        || decoder.is_some()
        || pool.is_some();
    found.must(
        !alien,
        "model",
        "sampling, mask_tokens, decoder, pool, recompute and resize_positions are of masked autoencoders; leave them away",
    );
    found.must(config.loss.is_none(), "loss", "is of masked autoencoders; leave it away");
    let ratio = config.mask_ratio();
    found.must(
        mask_ratio.is_none() || (kind == Kind::Dae && (0.0..1.0).contains(&ratio)),
        "model.mask_ratio",
        "is the share of pixels that dae sets to 0, at least 0 and below 1; leave it away for ae and vae",
    );
    let widths = layers.as_deref().unwrap_or(&[1]);
    let fits = !widths.is_empty() && widths.iter().all(|width| (1..=65_536).contains(width));
    found.must(fits, "model.layers", "must be one or more widths from 1 to 65536, such as [1000, 500, 250, 30]");
    let plain = matches!(&config.normalise, Normalise::Channels { mean, std } if mean.iter().all(|m| *m == 0.0) && std.iter().all(|s| *s == 1.0));
    found.must(plain, "normalise", "must leave pixels in [0, 1] here: kind: channels, mean: [0], std: [1]");
}
