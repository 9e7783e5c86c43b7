//! What YOLO adds to the keys that all papers share.

use std::path::Path;

use repro::classifier;
use repro::config::{Findings, Length, Settings};
use repro::data::{Normalise, SceneAugment, SceneFit, SceneView};
use repro::optim::{EmaConfig, OptimConfig, Schedule};
use repro::{Result, user};
use serde::Deserialize;

use crate::boxes::Rule;
use crate::cfg;
use crate::retina::{Focus, Retina};
use crate::sections::{Plan, Variant};

/// The name of RetinaNet over the small trunk.
const RETINA: &str = "retinanet_small";
/// The edge that it is made for, in pixels.
const RETINA_EDGE: i64 = 128;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// What it learns from. `None`: what the paper of the network has, [`Config::loss`]; rows of a table spell it.
    pub loss: Option<LossConfig>,
    /// Which boxes are told.
    pub test: Rule,
    /// How photos come to their size: `jitter`, `letterbox` or `stretch`.
    pub view: SceneView,
    /// What is done to training pictures, in this order; an empty list for nothing.
    pub augment: Vec<SceneAugment>,
    /// The update rule.
    pub optim: OptimConfig,
    /// Norm to which the gradient is clipped. `None`: it is not.
    pub clip: Option<f64>,
    /// The factor on the learning rate.
    pub schedule: Schedule,
    /// Darknet's warm-up, on top of the schedule: in the first n steps the rate of step i, counted from 0, is multiplied by (i/n)⁴. `None`: none.
    pub burn_in: Option<Length>,
    /// Averages of the weights, evaluated beside them. `None`: none.
    pub ema: Option<EmaConfig>,
}

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// Which one: `yolov3`, `yolov3_tiny`, `yolo_small`, `yolov1_small`, `retinanet_small`, or a file that ends in `.cfg`.
    pub name: String,
    /// Classes K, at least 1. `None`: of a `.cfg` those that it names; else it must be written.
    pub num_classes: Option<i64>,
    /// Edge of the pictures that `summary` shows the network, in pixels; what it is trained and tested on, `view` says. `None`: what the network
    /// is made for.
    pub image_size: Option<i64>,
    /// Width and height of each anchor, in pixels of the network's input. `None`: the network's own.
    pub anchors: Option<Vec<[f64; 2]>>,
    /// Which anchors each scale has, the coarsest first. `None`: the network's own.
    pub masks: Option<Vec<Vec<usize>>>,
}

/// What is learnt from.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LossConfig {
    /// YOLOv3's.
    Yolov3 {
        /// IoU with a truth above which a box without one is not held against it: 0.5 in the paper (§2.1), 0.7 in the author's `.cfg`. From 1 on
        /// none is spared.
        ignore: f64,
    },
    /// YOLOv1's Eq. 3.
    Yolov1 {
        /// λ_coord, 5 in the paper.
        coord: f64,
        /// λ_noobj, 0.5 in the paper.
        noobj: f64,
    },
    /// RetinaNet's (arXiv:1708.02002, Eq. 5).
    Focal {
        /// Weight of the anchors with an object, 0.25 in the paper; 1 − α of the others.
        alpha: f64,
        /// γ, 2 in the paper.
        gamma: f64,
    },
    /// The same with γ = 0 and no weights.
    CrossEntropy {},
    /// The same with γ = 0 (Eq. 3).
    WeightedCrossEntropy {
        /// Weight of the anchors with an object.
        alpha: f64,
    },
}

impl LossConfig {
    /// α and γ of a network with dense anchors.
    pub fn focus(self) -> Option<Focus> {
        match self {
            LossConfig::Focal { alpha, gamma } => Some((Some(alpha), gamma)),
            LossConfig::CrossEntropy {} => Some((None, 0.0)),
            LossConfig::WeightedCrossEntropy { alpha } => Some((Some(alpha), 0.0)),
            LossConfig::Yolov3 { .. } | LossConfig::Yolov1 { .. } => None,
        }
    }
}

/// A network and the edges (height, width) of the pictures that it is made for.
#[derive(Debug, Clone, PartialEq)]
pub enum Network {
    /// A list of sections.
    Sections(Plan, (i64, i64)),
    /// RetinaNet of so many classes.
    Retina(i64, (i64, i64)),
}

impl Network {
    /// Pixels of which an edge of a picture must be a multiple.
    ///
    /// # Errors
    /// Those of [`Plan::check`].
    pub fn stride(&self) -> Result<i64> {
        match self {
            Network::Sections(plan, _) => plan.stride(),
            Network::Retina(..) => Ok(Retina::STRIDE),
        }
    }

    /// Height and width of a picture that it is made for.
    pub fn edges(&self) -> (i64, i64) {
        match self {
            Network::Sections(_, edges) | Network::Retina(_, edges) => *edges,
        }
    }
}

impl ModelConfig {
    /// The network for `classes`.
    ///
    /// # Errors
    /// A name that there is not; a file that cannot be read or does not fit; anchors that do not fit.
    pub fn network(&self, classes: i64) -> Result<Network> {
        let square = |edge: i64| (edge, edge);
        let is_cfg = self.name.ends_with(".cfg");
        if (is_cfg || self.name == RETINA) && (self.anchors.is_some() || self.masks.is_some()) {
            return Err(user!("model.anchors and model.masks are {}'s own; leave them away", self.name));
        }
        if self.name == RETINA {
            return Ok(Network::Retina(classes, square(self.image_size.unwrap_or(RETINA_EDGE))));
        }
        let (plan, edges) = if is_cfg {
            let cfg = cfg::read(Path::new(&self.name))?;
            (cfg.plan.for_classes(classes), self.image_size.map_or(cfg.edges, square))
        } else {
            let variant = Variant::named(&self.name)?;
            let anchors = self.anchors.clone().unwrap_or_else(|| variant.anchors());
            let own = variant.masks();
            let masks = self.masks.as_ref().unwrap_or(&own);
            if masks.len() != own.len() {
                let (given, has) = (masks.len(), own.len());
                return Err(user!("model.masks are {given}, one for each scale; {} has {has}", self.name));
            }
            (variant.with(classes, anchors, masks), square(self.image_size.unwrap_or(variant.edge())))
        };
        plan.check()?;
        Ok(Network::Sections(plan, edges))
    }
}

impl Config {
    /// Classes K. A configuration without them is completed before it is used.
    ///
    /// # Errors
    /// It was not.
    pub fn classes(&self) -> Result<i64> {
        match self.model.num_classes {
            None if self.model.name.ends_with(".cfg") => Ok(cfg::read(Path::new(&self.model.name))?.plan.classes),
            classes => classifier::classes(classes),
        }
    }

    /// The network.
    ///
    /// # Errors
    /// Those of [`ModelConfig::network`].
    pub fn network(&self) -> Result<Network> {
        self.model.network(self.classes()?)
    }

    /// The sections of the network, and the edges (height, width) of its pictures.
    ///
    /// # Errors
    /// Those of [`ModelConfig::network`]; a network that has none.
    pub fn plan(&self) -> Result<(Plan, (i64, i64))> {
        match self.network()? {
            Network::Sections(plan, edges) => Ok((plan, edges)),
            Network::Retina(..) => Err(user!("{RETINA} is no list of sections, so Darknet has no form for it")),
        }
    }

    /// What the network learns from: YOLOv3's loss with its ignore threshold (§2.1), YOLOv1's with its λ (Eq. 3), the focal loss with
    /// RetinaNet's α and γ (arXiv:1708.02002, §4.1), unless another is configured.
    ///
    /// # Errors
    /// Those of [`ModelConfig::network`].
    pub fn loss(&self) -> Result<LossConfig> {
        let own = || {
            Ok(match self.network()? {
                Network::Retina(..) => LossConfig::Focal { alpha: 0.25, gamma: 2.0 },
                Network::Sections(plan, _) if plan.grid().is_some() => LossConfig::Yolov1 { coord: 5.0, noobj: 0.5 },
                Network::Sections(..) => LossConfig::Yolov3 { ignore: 0.5 },
            })
        };
        self.loss.map_or_else(own, Ok)
    }

    /// The factor of the burn-in at `step`, from 0.
    pub fn burn_in(&self, step: u64, steps_per_epoch: u64) -> f64 {
        match self.burn_in.map(|length| length.steps(steps_per_epoch)) {
            Some(n) if step < n => (step as f64 / n as f64).powi(4),
            _ => 1.0,
        }
    }
}

/// Pixels stay as they are, in [0, 1].
pub fn normalise() -> Normalise {
    Normalise::Channels { mean: vec![0.0; 3], std: vec![1.0; 3] }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, _: &Settings) -> Findings {
    let mut found = Findings::default();
    let classes = config.model.num_classes.unwrap_or(1);
    found.must((1..=100_000).contains(&classes), "model.num_classes", format!("is {classes}; it must be at least 1"));
    found.check("test", config.test.check());
    if let Some(ema) = &config.ema {
        found.check("ema", ema.check());
    }
    let clip = config.clip.unwrap_or(1.0);
    found.must(clip > 0.0, "clip", format!("is {clip}; it must be above 0"));
    found.check("augment", SceneAugment::check_all(&config.augment));
    check_view(config, &mut found);
    let network = match config.model.network(classes.max(1)) {
        Ok(network) => network,
        Err(error) => {
            found.must(false, "model", format!("does not fit: {error}"));
            return found;
        }
    };
    let stride = network.stride().unwrap_or(1);
    let fits = |edge: i64| (stride..=4096).contains(&edge) && edge % stride == 0;
    let (h, w) = network.edges();
    let told = format!("is {w}×{h}; each edge must be a multiple of {stride}, at most 4096");
    found.must(fits(h) && fits(w), "model.image_size", told);
    found.check("view", config.view.check(stride));
    if let Some(loss) = config.loss {
        check_loss(loss, &network, &mut found);
    }
    found
}

/// Boxes are fractions of the network's input, so nothing may be padded.
fn check_view(config: &Config, found: &mut Findings) {
    let views = [("view.train.kind", &config.view.train), ("view.test.kind", &config.view.test)];
    for (key, _) in views.into_iter().filter(|(_, fit)| matches!(fit, SceneFit::ShortSide { .. })) {
        found.must(
            false,
            key,
            "is short_side, by which pictures of a batch differ in size; choose jitter, letterbox or stretch",
        );
    }
}

fn check_loss(loss: LossConfig, network: &Network, found: &mut Findings) {
    let (kind, known): (&str, &[&str]) = match network {
        Network::Retina(..) => ("RetinaNet's dense anchors", &["focal", "cross_entropy", "weighted_cross_entropy"]),
        Network::Sections(plan, _) if plan.grid().is_some() => ("YOLOv1's grid", &["yolov1"]),
        Network::Sections(..) => ("anchors at scales", &["yolov3"]),
    };
    let name = match loss {
        LossConfig::Yolov3 { .. } => "yolov3",
        LossConfig::Yolov1 { .. } => "yolov1",
        LossConfig::Focal { .. } => "focal",
        LossConfig::CrossEntropy {} => "cross_entropy",
        LossConfig::WeightedCrossEntropy { .. } => "weighted_cross_entropy",
    };
    found.must(
        known.contains(&name),
        "loss.kind",
        format!("is {name}, and this network has {kind}; set it to {}", known.join(" or ")),
    );
    let mut at_least = |key: &str, value: f64| {
        found.must(value >= 0.0 && value.is_finite(), key, format!("is {value}; it must be at least 0"));
    };
    match loss {
        LossConfig::Yolov3 { ignore } => at_least("loss.ignore", ignore),
        LossConfig::Yolov1 { coord, noobj } => {
            at_least("loss.coord", coord);
            at_least("loss.noobj", noobj);
        }
        LossConfig::Focal { gamma, .. } => at_least("loss.gamma", gamma),
        LossConfig::CrossEntropy {} | LossConfig::WeightedCrossEntropy { .. } => {}
    }
    if let LossConfig::Focal { alpha, .. } | LossConfig::WeightedCrossEntropy { alpha } = loss {
        found.must((0.0..=1.0).contains(&alpha), "loss.alpha", format!("is {alpha}; it must be from 0 to 1"));
    }
}
