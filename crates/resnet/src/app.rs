//! What this paper hands to the command line that all papers share.

use std::path::{Path, PathBuf};

use repro::answer::{Answer, Look};
use repro::classifier::{self, Card};
use repro::cli::{App, Forward, Paper};
use repro::nn::Mode;
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::Named;
use repro::{Result, weights};
use tch::{Device, Tensor, nn};

use crate::config::{Config, validate};
use crate::model::Network;
use crate::train::{Train, plan};

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "resnet",
            title: "Deep Residual Learning for Image Recognition",
            authors: "He, Zhang, Ren and Sun, 2016",
        },
        validate,
        stages: |_| vec![Stage::of::<Train>("train", plan)],
        model,
        predict,
        example,
        look,
        extras: vec![],
    }
}

/// `image` `[N, 3, H, W]`, centred [, `label`] → `logits` [, `loss`].
fn model(config: &Config, _: &str, path: &nn::Path) -> Result<Forward> {
    let variant = config.variant()?;
    let net = Network::new(path, variant, config.model.num_classes);
    Ok(classifier::forward(8..=i64::MAX, config.model.num_classes, move |image, mode| {
        let (n, _, h, w) = image.size4()?;
        if mode.trains() {
            variant.check_batch(n, h.max(w))?;
        }
        Ok(net.forward(image, mode).logits)
    }))
}

fn look(config: &Config, setup: &Setup) -> Result<Look> {
    classifier::look(&Train::data(config, setup)?, setup)
}

/// Classes by probability, and a picture of where in each photo the first of them is seen (Grad-CAM).
fn predict(
    config: &Config,
    given: &Named,
    card: Option<&str>,
    images: &[PathBuf],
    folder: &Path,
) -> Result<Vec<Answer>> {
    let variant = config.variant()?;
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant, config.model.num_classes);
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    let card = Card::given_or(card, config.model.num_classes, &config.normalise)?;
    let edge = config.edge(variant) as u32;
    // 256 for 224; a network for CIFAR-10 has seen whole pictures.
    let short = if variant.edge() == 224 { edge * 8 / 7 } else { edge };
    let read = |path: &Path| classifier::photo(path, short, edge);
    classifier::predict(&card, images, folder, read, |image: &Tensor| {
        let output = net.forward(image, Mode::Eval);
        (output.map, output.logits)
    })
}

fn example(config: &Config, _: &str) -> Result<Named> {
    Ok(classifier::example(config.edge(config.variant()?)))
}
