//! What YOLO adds to the keys that all papers share.

use std::path::Path;

use repro::classifier;
use repro::config::{Findings, Settings};
use repro::{Result, user};
use serde::Deserialize;

use crate::boxes::Rule;
use crate::cfg;
use crate::sections::{Plan, Variant};

/// The paper's own part of a configuration. Nothing that the paper fixes has a default.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// What it learns from.
    pub loss: LossConfig,
    /// Which boxes are told.
    pub test: Rule,
}

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// Which one: `yolov3`, `yolov3_tiny`, `yolo_small`, `yolov1_small`, or a file that ends in `.cfg`.
    pub name: String,
    /// Classes K, at least 1. `None`: as many as the data have; of a `.cfg`, those that it names.
    pub num_classes: Option<i64>,
    /// Edge of the pictures in pixels. `None`: what the network is made for.
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
}

impl ModelConfig {
    /// The network for `classes`, and the edges (height, width) of its pictures.
    ///
    /// # Errors
    /// A name that there is not; a file that cannot be read or does not fit; anchors that do not fit.
    pub fn plan(&self, classes: i64) -> Result<(Plan, (i64, i64))> {
        let square = |edge: i64| (edge, edge);
        let (plan, edges) = if self.name.ends_with(".cfg") {
            if self.anchors.is_some() || self.masks.is_some() {
                return Err(user!("model.anchors and model.masks are {}'s own; leave them away", self.name));
            }
            let cfg = cfg::read(Path::new(&self.name))?;
            (cfg.plan.for_classes(classes), self.image_size.map_or(cfg.edges, square))
        } else {
            let variant = Variant::named(&self.name)?;
            let anchors = self.anchors.clone().unwrap_or_else(|| variant.anchors());
            let own = variant.masks();
            let masks = self.masks.as_ref().unwrap_or(&own);
            if masks.len() != own.len() {
                return Err(user!("model.masks are {}, one for each scale; {} has {}", masks.len(), self.name, own.len()));
            }
            (variant.with(classes, anchors, masks), square(self.image_size.unwrap_or(variant.edge())))
        };
        plan.check()?;
        Ok((plan, edges))
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

    /// The network, and the edges (height, width) of its pictures.
    ///
    /// # Errors
    /// Those of [`ModelConfig::plan`].
    pub fn plan(&self) -> Result<(Plan, (i64, i64))> {
        self.model.plan(self.classes()?)
    }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, _: &Settings) -> Findings {
    let mut found = Findings::default();
    let classes = config.model.num_classes;
    let counted = classes.unwrap_or(1);
    found.must((1..=100_000).contains(&counted), "model.num_classes", format!("is {counted}; it must be at least 1"));
    found.check("test", config.test.check());
    let (plan, edges) = match config.model.plan(counted.max(1)) {
        Ok(planned) => planned,
        Err(error) => {
            found.must(false, "model", error.to_string());
            return found;
        }
    };
    let stride = plan.check().map_or(1, |left| left.iter().map(|leaves| leaves.stride).max().unwrap_or(1));
    let fits = |edge: i64| (stride..=4096).contains(&edge) && edge % stride == 0;
    found.must(
        fits(edges.0) && fits(edges.1),
        "model.image_size",
        format!("is {}×{}; each edge must be a multiple of {stride}, at most 4096", edges.1, edges.0),
    );
    match config.loss {
        LossConfig::Yolov3 { ignore } => {
            found.must(plan.grid().is_none(), "loss.kind", "is yolov3, and this network has YOLOv1's grid; set loss.kind=yolov1");
            found.must(ignore > 0.0, "loss.ignore", format!("is {ignore}; it must be above 0, such as 0.5 or 0.7"));
        }
        LossConfig::Yolov1 { coord, noobj } => {
            found.must(plan.grid().is_some(), "loss.kind", "is yolov1, and this network has no grid; set loss.kind=yolov3");
            for (key, weight) in [("loss.coord", coord), ("loss.noobj", noobj)] {
                found.must(weight >= 0.0 && weight.is_finite(), key, format!("is {weight}; it must be at least 0"));
            }
        }
    }
    found
}
