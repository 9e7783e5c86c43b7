//! What this paper hands to the command line that all papers share.

use std::path::{Path, PathBuf};

use repro::answer::{self, Answer, Look};
use repro::cli::{App, Forward, Paper};
use repro::data::{Card, Cursor, Source};
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::Named;
use repro::{Error, Result, figures, user, weights};
use tch::{Device, Kind, Tensor, nn};

use crate::boosting;
use crate::config::{Config, validate};
use crate::network::Network;
use crate::predict::read_digit;
use crate::train::{self, Train};

/// Pictures that `data` shows.
const LOOK: u64 = 40;

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "lenet",
            title: "Gradient-Based Learning Applied to Document Recognition",
            authors: "LeCun, Bottou, Bengio and Haffner, 1998",
        },
        validate,
        counts_classes: |_| false,
        renamed: |_, given| Ok(given),
        stages: |_| vec![Stage::of::<Train>("train", train::plan).whole(boosting::whole)],
        model,
        predict,
        example,
        look,
        extras: vec![],
    }
}

/// `image` as the network takes it [, `label`] → `logits` [, `loss`].
fn model(config: &Config, _: &str, path: &nn::Path) -> Result<Forward> {
    let net = Network::new(path, &config.model);
    let (loss, classes) = (config.loss, config.model.num_classes);
    Ok(Box::new(move |input: &Named, _train| {
        if let Some(name) = input.keys().find(|name| !["image", "label"].contains(&name.as_str())) {
            return Err(user!("input tensor {name} is not known; give image and, for the loss, label"));
        }
        let image = input.get("image").ok_or_else(|| user!("the input has no tensor named image"))?;
        let [c, h, w] = net.input_shape();
        let size = image.size();
        if !matches!(size.as_slice(), [n, rest @ ..] if *n > 0 && rest == [c, h, w]) || !image.is_floating_point() {
            return Err(user!(
                "image is {:?} of {size:?}; this model takes floating point of [N, {c}, {h}, {w}]",
                image.kind()
            ));
        }
        let outputs = net.outputs(image);
        let mut output = Named::from([("logits".to_string(), net.logits(&outputs))]);
        if let Some(label) = input.get("label") {
            let fits = label.kind() == Kind::Int64 && label.size() == [size[0]];
            if !fits || label.min().int64_value(&[]) < 0 || label.max().int64_value(&[]) >= classes {
                return Err(user!("label must be int64 of [{}], each from 0 to {}", size[0], classes - 1));
            }
            output.insert("loss".into(), loss.mean(&outputs, label)?);
        }
        Ok(output)
    }))
}

/// The classes of pictures by probability, and a picture of every layer's state for each.
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), &config.model);
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    // Weights of earlier versions have no card, and are of digits.
    let names = Card::given(setup)?
        .map_or_else(|| (0..config.model.num_classes).map(|n| n.to_string()).collect(), |card| card.classes);
    let one = |path: &Path, stem: &str| -> Result<Answer> {
        let image = read_digit(path)?;
        let probability = net.forward(&net.input(&image)).softmax(-1, Kind::Float).squeeze_dim(0);
        let score = |class: usize| probability.double_value(&[class as i64]);
        let mut classes: Vec<_> = names.iter().cloned().zip((0..names.len()).map(score)).collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let drawn = folder.join(format!("{stem}-layers.png"));
        figures::save(&train::layers(&net, &image, &names)?, &drawn)?;
        Ok(Answer::classes(path.to_owned(), &classes, vec![drawn]))
    };
    tch::no_grad(|| answer::each(images, one))
}

fn example(config: &Config, _: &str) -> Result<Named> {
    let store = nn::VarStore::new(Device::Cpu);
    let [c, h, w] = Network::new(&store.root(), &config.model).input_shape();
    Ok(Named::from([("image".into(), Tensor::zeros([1, c, h, w], (Kind::Float, Device::Cpu)))]))
}

/// The first training pictures of the run, as distorted.
fn look(config: &Config, setup: &Setup) -> Result<Look> {
    let data = Train::data(config, setup)?;
    let batch = LOOK.min(data.len());
    let cursor = Cursor { rank: 0, world: 1, batch, ..Cursor::of(setup, 0) };
    let shown = data.batches(cursor).next().ok_or_else(|| Error::Failed("no training pictures".into()))??;
    let labels: Vec<i64> = Vec::try_from(shown.label.to_device(Device::Cpu))?;
    let names = data.set.classes();
    let counts = names.iter().zip(data.set.class_counts()?).zip(data.test.class_counts()?);
    Ok(Look::labelled(
        Tensor::to_device(&shown.image, Device::Cpu),
        labels.iter().map(|&label| names[label as usize].clone()).collect(),
        &counts.map(|((name, train), test)| (name.clone(), train, test)).collect::<Vec<_>>(),
        &data.set.mean_std()?,
    ))
}
