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
use crate::model::{Network, Variant};
use crate::train::{Train, plan};

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "alexnet",
            title: "ImageNet Classification with Deep Convolutional Neural Networks",
            authors: "Krizhevsky, Sutskever and Hinton, 2012",
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
    let (variant, classes) = (config.variant()?, config.model.num_classes);
    let edge = config.edge(variant);
    let net = Network::new(path, variant, classes, edge);
    Ok(classifier::forward(variant.edges(edge), classes, move |image, mode| Ok(net.forward(image, mode).logits)))
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
    let (variant, classes) = (config.variant()?, config.model.num_classes);
    let edge = config.edge(variant);
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant, classes, edge);
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    let card = Card::given_or(card, classes, &config.normalise)?;
    // §2 and §4.1: the short side becomes 256 pixels, and of their middle the network sees 224.
    let short = match variant {
        Variant::Torchvision | Variant::Paper => edge * 8 / 7,
        _ => variant.picture(edge),
    };
    let read = |path: &Path| classifier::photo(path, short as u32, edge as u32);
    classifier::predict(&card, images, folder, read, |image: &Tensor| {
        let output = net.forward(image, Mode::Eval);
        (output.map, output.logits)
    })
}

fn example(config: &Config, _: &str) -> Result<Named> {
    Ok(classifier::example(config.edge(config.variant()?)))
}
