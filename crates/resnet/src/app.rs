//! What this paper hands to the command line that all papers share.

use std::path::{Path, PathBuf};

use repro::answer::{Answer, Look};
use repro::classifier::{self, Card, GRAD_CAM, Seen, grad_cam};
use repro::cli::{App, Forward, Paper};
use repro::data::Stills;
use repro::nn::Mode;
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::Named;
use repro::{Result, weights};
use tch::{Device, nn};

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
        counts_classes: |config| config.model.num_classes.is_none(),
        renamed: |_, given| Ok(given),
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
    let (variant, classes) = (config.variant()?, config.classes()?);
    let net = Network::new(path, variant, classes);
    Ok(classifier::forward(3, 8..=i64::MAX, classes, move |image, mode| {
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
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    let (variant, classes) = (config.variant()?, config.classes()?);
    let edge = config.edge(variant);
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant, classes);
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    let card = Card::given_or(setup, classes, &config.normalise, edge)?;
    let stills = Stills::new(config.view.as_ref(), edge)?;
    let seen = config.view.as_ref().map_or(edge, |view| view.test_edge(edge));
    classifier::predict(&card, images, folder, stills, seen, GRAD_CAM, |image| {
        let output = net.forward(image, Mode::Eval);
        let logits = output.logits.shallow_clone();
        let heat = move |class| grad_cam(&output.map, &output.logits, class);
        Ok(Seen { logits, heat: Box::new(heat), maps: None })
    })
}

fn example(config: &Config, _: &str) -> Result<Named> {
    Ok(classifier::example(config.edge(config.variant()?)))
}
