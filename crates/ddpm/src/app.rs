//! What this paper hands to the command line that all papers share.

use std::path::{Path, PathBuf};

use repro::answer::{Answer, Look};
use repro::classifier;
use repro::cli::{App, Extra, Forward, Paper, SAMPLE};
use repro::nn::Mode;
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::Named;
use repro::{Result, user};
use tch::{Device, Kind, Tensor, nn};

use crate::config::{Config, validate};
use crate::data::Examples;
use crate::metrics;
use crate::model::Model;
use crate::names::renamed;
use crate::sample;
use crate::train::{Train, plan};

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "ddpm",
            title: "Denoising Diffusion Probabilistic Models",
            authors: "Ho, Jain and Abbeel, 2020",
        },
        validate,
        counts_classes: |config| config.model.num_classes.is_none() && !config.is_toy(),
        renamed: |_, given| Ok(renamed(given)),
        stages: |_| vec![Stage::of::<Train>("train", plan)],
        model,
        predict,
        example,
        look,
        extras: vec![
            Extra {
                name: SAMPLE,
                of_predict: false,
                about: "Pictures of the model: a grid, single pictures and an animation; or tensors from given noise",
                flags: sample::flags,
                run: sample::sample,
            },
            Extra {
                name: "metrics",
                of_predict: false,
                about: "FID, KID, IS, precision and recall of given features: metrics --real A.safetensors --fake B.safetensors",
                flags: metrics::flags,
                run: metrics::metrics,
            },
        ],
    }
}

/// `x` `[N, C, H, W]`, `t` `[N]` [, `class` `[N]`] → `eps`, which is what the network's objective asks for [, `v`]. Or `x0`, `noise`, `t` [, `class`] →
/// `x_t`, `loss` [, `loss_simple`, `loss_vlb`].
fn model(config: &Config, _: &str, path: &nn::Path) -> Result<Forward> {
    let (net, process, shape) = (Model::new(path, config)?, config.process(), config.shape()?);
    let (null, kind) = (config.null_class(), config.loss.kind);
    Ok(Box::new(move |input, train| {
        let mode = if train { Mode::Train } else { Mode::Eval };
        let trains = input.contains_key("x0") || input.contains_key("noise");
        let known: &[&str] = if trains { &["x0", "noise", "t", "class"] } else { &["x", "t", "class"] };
        if let Some(name) = input.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(user!("input tensor {name} is not known beside the others; give {}", known.join(", ")));
        }
        let picture = |name: &str| picture(input, name, &shape);
        let x = picture(if trains { "x0" } else { "x" })?;
        let n = x.size()[0];
        let t = numbers(input, "t", n)?.ok_or_else(|| user!("the input has no tensor named t, [{n}] int64"))?;
        let class = numbers(input, "class", n)?;
        match (class, null) {
            (Some(_), None) => {
                return Err(user!("class cannot act: this network is told no classes (model.class_dropout)"));
            }
            (Some(class), Some(k)) => within(class, "class", k)?,
            _ => {}
        }
        let mut told = Named::new();
        let mut tell = |name: &str, tensor: Tensor| drop(told.insert(name.to_string(), tensor));
        if !trains {
            within(t, "t", i64::MAX)?;
            let output = net.at(x, t, class, mode)?;
            tell("eps", output.f_narrow(1, 0, shape[0])?);
            if output.size()[1] == 2 * shape[0] {
                tell("v", output.f_narrow(1, shape[0], shape[0])?);
            }
            return Ok(told);
        }
        let noise = picture("noise")?;
        if noise.size() != x.size() {
            return Err(user!("noise is {:?} and x0 is {:?}; it must have the same shape", noise.size(), x.size()));
        }
        let x_t = process.noised(x, noise, t)?;
        let losses = process.losses(kind, &net.forward(&x_t, t, class, mode)?, x, &x_t, noise, t)?;
        tell("x_t", x_t);
        tell("loss", losses.loss.mean(None::<Kind>));
        if let Some(vlb) = losses.vlb {
            tell("loss_simple", losses.simple.mean(None::<Kind>));
            tell("loss_vlb", vlb.mean(None::<Kind>));
        }
        Ok(told)
    }))
}

/// The input of this name, of the network's channels and of an edge that it takes.
fn picture<'a>(input: &'a Named, name: &str, shape: &[i64]) -> Result<&'a Tensor> {
    let tensor = input.get(name).ok_or_else(|| user!("the input has no tensor named {name}"))?;
    let size = tensor.size();
    if size.len() != shape.len() + 1 || size[0] < 1 || size[1..] != *shape || !tensor.is_floating_point() {
        let sizes: Vec<_> = shape.iter().map(i64::to_string).collect();
        return Err(user!(
            "{name} is {:?} of {size:?}; this model takes floating point of [N, {}]",
            tensor.kind(),
            sizes.join(", ")
        ));
    }
    Ok(tensor)
}

/// The input of this name, `[N]` int64, if it is given.
fn numbers<'a>(input: &'a Named, name: &str, n: i64) -> Result<Option<&'a Tensor>> {
    let Some(tensor) = input.get(name) else { return Ok(None) };
    if tensor.size() != [n] || tensor.kind() != Kind::Int64 {
        return Err(user!("{name} is {:?} of {:?}; it must be int64 of [{n}]", tensor.kind(), tensor.size()));
    }
    Ok(Some(tensor))
}

/// Refuses numbers below 0 or above `most`.
fn within(tensor: &Tensor, name: &str, most: i64) -> Result<()> {
    let (low, high) = (tensor.min().f_int64_value(&[])?, tensor.max().f_int64_value(&[])?);
    if low < 0 || high > most {
        let range = if most == i64::MAX { "at least 0".into() } else { format!("from 0 to {most}") };
        return Err(user!("{name} has {}; it must be {range}", if low < 0 { low } else { high }));
    }
    Ok(())
}

fn example(config: &Config, _: &str) -> Result<Named> {
    let shape = [&[1][..], &config.shape()?].concat();
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    Ok(Named::from([("x".into(), zeros(&shape, Kind::Float)), ("t".into(), zeros(&[1], Kind::Int64))]))
}

fn look(config: &Config, setup: &Setup) -> Result<Look> {
    match Train::data(config, setup)? {
        Examples::Pictures(pictures) => classifier::look(&pictures, setup),
        Examples::Points { set, .. } => Err(user!("{set} has points, no pictures: `train` draws them")),
    }
}

/// Photos are noised and told again.
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    sample::predict(config, setup, given, images, folder)
}
