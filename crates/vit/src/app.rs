//! What this paper hands to the command line that all papers share.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use repro::answer::{self, Answer, Look};
use repro::classifier::{self, Card};
use repro::cli::{App, Forward, Paper};
use repro::data::Stills;
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::Named;
use repro::{Result, figures, weights};
use tch::{Device, Kind, Tensor, nn};

use crate::config::{Config, validate};
use crate::model::Network;
use crate::rollout::rollout;
use crate::train::{Train, plan};

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
    let forward = classifier::forward(variant.edge..=variant.edge, classes, move |image, mode| {
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

/// Classes by probability, and over each photo what its patches can have passed on to the classifier (attention roll-out).
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    let (variant, classes) = (config.variant()?, config.classes()?);
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant, classes, 0.0);
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    let card = Card::given_or(setup, classes, &config.normalise, variant.edge)?;
    let normaliser = card.normaliser()?;
    let mut stills = Stills::new(config.view.as_ref(), variant.edge)?;
    answer::each(images, |path, stem| {
        let square = stills.read(path)?;
        let (width, height) = (i64::from(square.width()), i64::from(square.height()));
        let pixels = Tensor::f_from_data_size(square.as_raw(), &[1, height, width, 3], Kind::Uint8)?;
        let image = normaliser.apply(&(pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0))?;
        let (output, attention) = tch::no_grad(|| net.attention(&image))?;
        let probability: Vec<f64> =
            Vec::try_from(output.logits.to_kind(Kind::Double).softmax(1, Kind::Double).squeeze_dim(0))?;
        let mut classes: Vec<_> = card.classes.iter().cloned().zip(probability).collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let drawn = folder.join(format!("{stem}-attention.png"));
        let best = classes.first().map_or(String::new(), |(name, p)| format!(": {name}, {:.1} %", 100.0 * p));
        let heat = rollout(&attention, &variant)?;
        figures::save(&figures::heat(&square, &heat, &format!("Attention roll-out{best}"))?, &drawn)?;
        Ok(Answer::classes(path.to_owned(), &classes, vec![drawn]))
    })
}
