//! What this paper hands to the command line that all papers share.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use repro::answer::{Answer, Look};
use repro::classifier::{self, Card, Method, Seen};
use repro::cli::{App, Forward, Paper};
use repro::data::Stills;
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::Named;
use repro::{Result, weights};
use tch::{Device, nn};

use crate::config::{Config, validate};
use crate::model::Network;
use crate::rollout::{by_head, rollout};
use crate::train::{Train, plan};

/// How `predict` shows what was looked at.
const ATTENTION: Method = ("attention", "Attention roll-out");
const HEADS: &str = "What the classifier's token looks at in the last block, by head";

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "vit",
            title: "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
            authors: "Dosovitskiy et al., 2021",
        },
        validate,
        counts_classes: |config| config.model.num_classes.is_none(),
        renamed: |_, given| Ok(given),
        stages: |_| vec![Stage::of::<Train>("train", plan)],
        model,
        predict,
        example: |config, _| Ok(classifier::example(config.variant()?.edge)),
        look,
        extras: vec![],
    }
}

/// `image` `[N, 3, H, W]`, centred, of the network's edge [, `label`] → `logits`, `features` `[N, D]` [, `loss`]; in training mode a network of
/// two heads gives `logits` of the class token, which the loss is of, and `logits_dist`.
fn model(config: &Config, _: &str, path: &nn::Path) -> Result<Forward> {
    let (variant, classes) = (config.variant()?, config.classes()?);
    let net = Network::new(path, variant, classes, config.drop_path());
    // What the shared part does not know of.
    let beside = Rc::new(RefCell::new(Named::new()));
    let kept = Rc::clone(&beside);
    let forward = classifier::forward(3, variant.edge..=variant.edge, classes, move |image, mode| {
        let output = net.forward(image, mode);
        let mut kept = kept.borrow_mut();
        kept.insert("features".into(), output.features);
        Ok(match output.heads {
            Some([class, dist]) if mode.trains() => {
                kept.insert("logits_dist".into(), dist);
                class
            }
            _ => output.logits,
        })
    });
    Ok(Box::new(move |input, train| {
        let mut output = forward(input, train)?;
        output.append(&mut beside.borrow_mut());
        Ok(output)
    }))
}

fn look(config: &Config, setup: &Setup) -> Result<Look> {
    classifier::look(&Train::data(config, setup)?, setup)
}

/// Classes by probability; over each photo what its patches can have passed on to the classifier (attention roll-out), and what each head of
/// the last block looks at for it.
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    let (variant, classes) = (config.variant()?, config.classes()?);
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant, classes, 0.0);
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    let card = Card::given_or(setup, classes, &config.normalise, variant.edge)?;
    let stills = Stills::new(config.view.as_ref(), variant.edge)?;
    classifier::predict(&card, images, folder, stills, variant.edge, ATTENTION, |image| {
        let (output, attention) = tch::no_grad(|| net.attention(image))?;
        let maps = attention.last().map(|last| by_head(last, &variant)).transpose()?.map(|maps| (HEADS, maps));
        Ok(Seen { logits: output.logits, heat: Box::new(move |_| rollout(&attention, &variant)), maps })
    })
}
