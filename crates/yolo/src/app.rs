//! What this paper hands to the command line that all papers share.

use std::path::{Path, PathBuf};

use repro::answer::{Answer, Look};
use repro::cli::{App, Extra, Forward, Paper};
use repro::data::{Card, Ids, Normalise, SceneForm};
use repro::detection::Targets;
use repro::detector::{self, Ask, Seen};
use repro::nn::Mode;
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::Named;
use repro::{Result, classes, user, weights};
use tch::{Device, Kind, Tensor, nn};

use crate::config::{Config, normalise, validate};
use crate::convert::{convert, renamed};
use crate::net::Net;
use crate::train::{Train, plan};

/// What `forward` is given.
const INPUTS: [&str; 4] = ["image", "boxes", "labels", "counts"];

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper { name: "yolo", title: "YOLOv3: An Incremental Improvement", authors: "Redmon and Farhadi, 2018" },
        validate,
        counts_classes: |_| false,
        renamed,
        stages: |_| vec![Stage::of::<Train>("train", plan)],
        model,
        predict,
        example,
        look,
        extras: vec![
            Extra {
                name: "convert",
                of_predict: false,
                about: "Weights as Darknet's or as safetensors, or the network's .cfg: convert --weights W --out F.weights, F.safetensors or F.cfg",
                flags: |command| {
                    let cfg = clap::Arg::new("cfg").long("cfg").value_name("FILE");
                    let cfg = cfg.value_parser(clap::value_parser!(PathBuf));
                    command.arg(cfg.help("The network of a .weights file, as Darknet describes it"))
                },
                run: convert,
            },
            Extra {
                name: "anchors",
                of_predict: false,
                about: "Anchors for the training boxes of --config, by k-means with 1 - IoU as the distance",
                flags: |command| {
                    let count = clap::Arg::new("count").long("count").short('k').value_name("K");
                    let count = count.value_parser(clap::value_parser!(u32).range(1..=1000));
                    command.arg(count.help("How many; as many as the network has if it is left away"))
                },
                run: crate::anchors::answer,
            },
        ],
    }
}

/// `image` `[N, 3, H, W]` in [0, 1] [, `boxes` `[M, 4]`, `labels` `[M]`, `counts` `[N]`] → `raw.{i}` `[N, A, h, w, 5 + K]`, i = 0 the coarsest
/// scale [, `loss`, `loss_box`, `loss_objectness`, `loss_class`]. YOLOv1's grid: `raw.0` `[N, 1, S, S, 5·B + K]`. RetinaNet: `cls_logits`
/// `[N, M, K]`, `bbox_regression` `[N, M, 4]` [, `loss`, `loss_box`, `loss_class`].
fn model(config: &Config, _: &str, path: &nn::Path) -> Result<Forward> {
    let (net, loss) = (Net::new(path, config)?, config.loss()?);
    Ok(Box::new(move |input, train| {
        if let Some(name) = input.keys().find(|name| !INPUTS.contains(&name.as_str())) {
            return Err(user!("input tensor {name} is not known; give {}", INPUTS.join(", ")));
        }
        let image = picture(input, net.stride())?;
        let (n, _, h, w) = image.size4()?;
        let targets = Targets::given(input, n, net.classes())?;
        let output = net.forward(image, if train { Mode::Train } else { Mode::Eval });
        let mut told = output.named();
        if let Some(targets) = targets {
            net.check_anchors()?;
            let losses = net.losses(&output, loss, &targets, (h, w))?;
            let parts = losses.parts.into_iter().chain([("loss", losses.loss)]);
            told.extend(parts.map(|(name, tensor)| (name.to_string(), tensor)));
        }
        Ok(told)
    }))
}

/// The input `image`.
fn picture(input: &Named, stride: i64) -> Result<&Tensor> {
    let image = input.get("image").ok_or_else(|| user!("the input has no tensor named image"))?;
    let size = image.size();
    let fits = |edge: i64| edge > 0 && edge % stride == 0;
    if !matches!(size[..], [n, 3, h, w] if n > 0 && fits(h) && fits(w)) || !image.is_floating_point() {
        return Err(user!(
            "image is {:?} of {size:?}; this model takes floating point of [N, 3, H, W] with H and W multiples of {stride}",
            image.kind()
        ));
    }
    Ok(image)
}

/// A black picture of the size that the network is made for.
fn example(config: &Config, _: &str) -> Result<Named> {
    let (h, w) = config.network()?.edges();
    Ok(Named::from([("image".to_string(), Tensor::zeros([1, 3, h, w], (Kind::Float, Device::Cpu)))]))
}

/// How photos become what the network takes.
pub(crate) fn form<'a>(config: &'a Config, normalise: &'a Normalise) -> Result<SceneForm<'a>> {
    let stride = config.network()?.stride()?;
    Ok(SceneForm { classes: Ids::Dense, stride, view: &config.view, augment: &config.augment, normalise })
}

fn look(config: &Config, setup: &Setup) -> Result<Look> {
    detector::look(&Train::data(config, setup)?, setup)
}

/// What is found in each photo, drawn on it. Public weights without a card, such as Darknet's, know COCO's names where there are 80 classes.
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    let store = nn::VarStore::new(Device::Cpu);
    let net = Net::new(&store.root(), config)?;
    weights::copy_into(&store.variables().into_iter().collect(), given, "the weights file")?;
    net.check_anchors()?;
    let names: Vec<String> = match net.classes() {
        80 => classes::COCO.iter().map(|(_, name)| (*name).to_string()).collect(),
        classes => (0..classes).map(|class| class.to_string()).collect(),
    };
    let normalise = normalise();
    let card: Card = detector::card(setup, &names, &normalise)?;
    let ask = Ask { card: &card, form: &form(config, &normalise)?, least: detector::SURE };
    detector::predict(&ask, images, folder, |batch| {
        let found = net.find(batch, &config.test)?;
        Ok(Seen { found: found.into_iter().next().unwrap_or_default(), looks: Vec::new() })
    })
}
