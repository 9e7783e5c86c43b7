//! What this paper hands to the command line that all papers share.

use std::path::{Path, PathBuf};

use repro::answer::{Answer, Look};
use repro::classes::COCO;
use repro::cli::{App, Forward, Paper};
use repro::detection::Targets;
use repro::detector::{self, Ask, Found, Seen};
use repro::nn::Mode;
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::{self, Named};
use repro::{Result, user};
use tch::{Device, Kind, Tensor, nn};

use crate::answer::found;
use crate::config::{Config, validate};
use crate::loss::{Norms, judge};
use crate::model::Detr;
use crate::names::renamed;
use crate::train::{Train, plan};

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "detr",
            title: "End-to-End Object Detection with Transformers",
            authors: "Carion et al., 2020",
        },
        validate,
        counts_classes: |_| false,
        renamed: |_, given| renamed(given),
        stages: |_| vec![Stage::of::<Train>("train", plan)],
        model,
        predict,
        example,
        look,
        extras: vec![],
    }
}

/// Answers of `predict` for which it is shown what their queries looked at.
const LOOKS: usize = 12;

/// What `forward` knows.
const INPUTS: [&str; 5] = ["image", "padding", "boxes", "labels", "counts"];

/// `image` `[N, 3, H, W]`, centred [, `padding` `[N, H, W]`] [, `boxes`, `labels`, `counts`] → `pred_logits`, `pred_boxes` [, `loss`, its terms
/// `loss_ce`, `loss_bbox`, `loss_giou`, those of layer i as `loss_ce.{i}`, …, and the pairs `match.query`, `match.target`].
fn model(config: &Config, _: &str, path: &nn::Path) -> Result<Forward> {
    let (variant, classes, loss) = (config.variant()?, config.model.num_classes, config.loss);
    let net = Detr::new(path, variant, classes);
    Ok(Box::new(move |input, train| {
        if let Some(name) = input.keys().find(|name| !INPUTS.contains(&name.as_str())) {
            return Err(user!(
                "input tensor {name} is not known; give image, padding and, for the loss, boxes, labels and counts"
            ));
        }
        let image = image(input)?;
        let padding = padding(input, image)?;
        let targets = Targets::given(input, image.size()[0], classes)?;
        let output = net.forward(image, padding.as_ref(), if train { Mode::Train } else { Mode::Eval })?;
        let (logits, boxes) = output.last();
        let mut told = Named::from([("pred_logits".into(), logits), ("pred_boxes".into(), boxes)]);
        let Some(targets) = targets else { return Ok(told) };
        let losses = judge(&output, &targets, &loss, Norms::of(&targets.counts, variant.queries, loss.eos))?;
        told.insert("loss".into(), losses.total(&loss));
        let last = losses.pairs.len() - 1;
        for (name, terms) in [("loss_ce", &losses.ce), ("loss_bbox", &losses.bbox), ("loss_giou", &losses.giou)] {
            told.insert(name.into(), terms.get(last as i64));
            told.extend((0..last).map(|layer| (format!("{name}.{layer}"), terms.get(layer as i64))));
        }
        let pairs = &losses.pairs[last];
        told.insert("match.query".into(), Tensor::f_from_slice(&pairs.query)?);
        told.insert("match.target".into(), Tensor::f_from_slice(&pairs.within(&targets.counts))?);
        Ok(told)
    }))
}

/// The input `image`.
fn image(input: &Named) -> Result<&Tensor> {
    let image = input.get("image").ok_or_else(|| user!("the input has no tensor named image"))?;
    let size = image.size();
    match size[..] {
        [n, 3, h, w] if n > 0 && h > 0 && w > 0 && image.is_floating_point() => Ok(image),
        _ => Err(user!("image is {:?} of {size:?}; this model takes floating point of [N, 3, H, W]", image.kind())),
    }
}

/// The input `padding`, true where it is 1.
fn padding(input: &Named, image: &Tensor) -> Result<Option<Tensor>> {
    let Some(padding) = input.get("padding") else { return Ok(None) };
    let (n, _, h, w) = image.size4()?;
    if !matches!(padding.kind(), Kind::Bool | Kind::Uint8) || padding.size() != [n, h, w] {
        let (kind, size) = (padding.kind(), padding.size());
        return Err(user!(
            "padding is {kind:?} of {size:?}; with this image it must be bool or uint8 of [{n}, {h}, {w}]"
        ));
    }
    if padding.max().int64_value(&[]) > 1 {
        return Err(user!("padding must be 0 on the picture and 1 beside it"));
    }
    // Its upper left pixel is what the first place of every map is told by: where it is padding, there may be no place to look at.
    if padding.select(1, 0).select(1, 0).max().int64_value(&[]) != 0 {
        return Err(user!(
            "padding must lie to the right of and below each picture, which begins at the upper left corner"
        ));
    }
    Ok(Some(padding.to_kind(Kind::Bool)))
}

/// A picture as the test view makes it of a square photo.
fn example(config: &Config, _: &str) -> Result<Named> {
    let [width, height] = config.view.nominal();
    let zeros = Tensor::f_zeros([1, 3, height.into(), width.into()], (Kind::Float, Device::Cpu))?;
    Ok(Named::from([("image".into(), zeros)]))
}

fn look(config: &Config, setup: &Setup) -> Result<Look> {
    detector::look(&Train::data(config, setup)?, setup)
}

/// Boxes of the surest answers, drawn on each photo, and what the query behind each of them looked at.
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    let classes = config.model.num_classes;
    let store = nn::VarStore::new(Device::Cpu);
    let net = Detr::new(&store.root(), config.variant()?, classes);
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    let card = detector::card(setup, &names(classes), &config.normalise)?;
    let form = config.form();
    let ask = Ask { card: &card, form: &form, least: detector::SURE };
    detector::predict(&ask, images, folder, |batch| {
        let looked = net.look(&batch.image)?;
        let mut queries: Vec<_> = found(&looked.logits, &looked.boxes)?.remove(0).into_iter().zip(0..).collect();
        queries.sort_by(|a, b| b.0.score.total_cmp(&a.0.score));
        let look = |(place, (_, query)): (usize, &(Found, i64))| -> Result<(usize, Tensor)> {
            let map = looked.attention.f_get(*query)?;
            Ok((place, &map / map.max()))
        };
        let looks = queries.iter().enumerate().take(LOOKS).map(look).collect::<Result<_>>()?;
        Ok(Seen { found: queries.into_iter().map(|(found, _)| found).collect(), looks })
    })
}

/// Names of classes where the weights bring none: COCO's by its ids where there are as many, else numbers.
fn names(classes: i64) -> Vec<String> {
    let last = COCO.last().map_or(0, |(id, _)| *id as i64);
    let known = if classes == last + 1 { &COCO[..] } else { &[] };
    let name = |class: i64| known.iter().find(|(id, _)| *id as i64 == class).map(|(_, name)| (*name).to_string());
    (0..classes).map(|class| name(class).unwrap_or_else(|| class.to_string())).collect()
}
