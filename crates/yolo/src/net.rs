//! The configured network, whichever it is: what it gives, what that costs, and what it finds.

use repro::data::{Placed, SceneBatch};
use repro::detection::Targets;
use repro::detector::Found;
use repro::nn::Mode;
use repro::weights::Named;
use repro::{Result, user};
use tch::{Tensor, nn};

use crate::boxes::{self, Rule};
use crate::config::{Config, LossConfig, Network as Configured};
use crate::loss::{Losses, yolov1, yolov3};
use crate::model::{self, Network};
use crate::retina::{self, Retina};

/// One of the two kinds of networks.
#[derive(Debug)]
pub enum Net {
    /// A list of sections.
    Sections(Network),
    /// RetinaNet over the small trunk.
    Retina(Box<Retina>),
}

/// What it gives for a batch.
#[derive(Debug)]
pub enum Output {
    /// Of each scale; see [`Network::forward`].
    Raw(Vec<Tensor>),
    /// See [`Retina::forward`].
    Dense(retina::Output),
}

impl Output {
    /// The tensors by the names that `forward` tells.
    pub fn named(&self) -> Named {
        match self {
            Output::Raw(raw) => {
                raw.iter().enumerate().map(|(i, raw)| (format!("raw.{i}"), raw.shallow_clone())).collect()
            }
            Output::Dense(dense) => Named::from([
                ("cls_logits".to_string(), dense.logits.shallow_clone()),
                ("bbox_regression".to_string(), dense.deltas.shallow_clone()),
            ]),
        }
    }
}

impl Net {
    /// As PyTorch's layers start; see [`Self::initialise`].
    ///
    /// # Errors
    /// A configuration whose network does not fit.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        Ok(match config.network()? {
            Configured::Sections(plan, _) => Net::Sections(Network::new(path, plan)?),
            Configured::Retina(classes, _) => Net::Retina(Box::new(Retina::new(path, classes)?)),
        })
    }

    /// Where training starts, drawn from libtorch's generator.
    ///
    /// # Errors
    /// libtorch's.
    pub fn initialise(&self, model: &Named) -> Result<()> {
        match self {
            Net::Sections(_) => model::initialise(model),
            Net::Retina(_) => retina::initialise(model),
        }
    }

    /// Classes K.
    pub fn classes(&self) -> i64 {
        match self {
            Net::Sections(net) => net.plan().classes,
            Net::Retina(net) => net.classes(),
        }
    }

    /// Pixels of which both edges of a picture must be a multiple.
    pub fn stride(&self) -> i64 {
        match self {
            Net::Sections(net) => net.stride(),
            Net::Retina(_) => Retina::STRIDE,
        }
    }

    /// Prefixes of the tensors that know the classes.
    pub fn heads(&self) -> Vec<String> {
        match self {
            Net::Sections(net) => net.plan().heads().iter().map(|at| format!("module_list.{at}")).collect(),
            Net::Retina(_) => vec!["head.classification_head.cls_logits".to_string()],
        }
    }

    /// Refuses weights of other anchors than the configuration's.
    ///
    /// # Errors
    /// Both.
    pub fn check_anchors(&self) -> Result<()> {
        match self {
            Net::Sections(net) => net.check_anchors(),
            Net::Retina(_) => Ok(()),
        }
    }

    /// `[N, 3, H, W]` in [0, 1].
    ///
    /// # Panics
    /// As tch's own operations: on pictures whose edges are no multiples of [`Self::stride`].
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Output {
        match self {
            Net::Sections(net) => Output::Raw(net.forward(image, mode)),
            Net::Retina(net) => Output::Dense(net.forward(image, mode)),
        }
    }

    /// The configured loss of what was given for pictures of these edges (height, width).
    ///
    /// # Errors
    /// A loss of another network's; libtorch's.
    pub fn losses(&self, output: &Output, loss: LossConfig, targets: &Targets, edges: (i64, i64)) -> Result<Losses> {
        match (self, output, loss.focus()) {
            (Net::Sections(net), Output::Raw(raw), None) => match (loss, &raw[..]) {
                (LossConfig::Yolov3 { ignore }, _) => yolov3(net.plan(), raw, targets, edges, ignore),
                (LossConfig::Yolov1 { coord, noobj }, [raw]) => yolov1(net.plan(), raw, targets, coord, noobj),
                _ => Err(user!("loss.kind is yolov1, and this network has no grid")),
            },
            (Net::Retina(_), Output::Dense(dense), Some(focus)) => {
                let anchors = Retina::anchors(dense, edges);
                retina::losses(dense, targets, &anchors, edges, focus)
            }
            _ => Err(user!("loss.kind is none of this network's")),
        }
    }

    /// What was found in pictures of these edges (height, width), of each the surest first.
    ///
    /// # Errors
    /// libtorch's.
    fn found(&self, output: &Output, edges: (i64, i64), rule: &Rule) -> Result<Vec<Vec<Found>>> {
        match (self, output) {
            (Net::Sections(net), Output::Raw(raw)) => boxes::found(net.plan(), raw, edges, rule),
            (_, Output::Dense(dense)) => retina::found(dense, &Retina::anchors(dense, edges), edges, rule),
            _ => Ok(Vec::new()),
        }
    }

    /// What is found in each picture of a batch, the surest first, cut at the photo's edges as Darknet's print_cocos does
    /// (pjreddie/darknet@00543bb, examples/detector.c).
    ///
    /// # Errors
    /// libtorch's.
    pub fn find(&self, batch: &SceneBatch, rule: &Rule) -> Result<Vec<Vec<Found>>> {
        let (_, _, h, w) = batch.image.size4()?;
        let found = self.found(&self.forward(&batch.image, Mode::Eval), (h, w), rule)?;
        let cut = |(placed, found): (&Placed, Vec<Found>)| -> Vec<Found> {
            found.into_iter().map(|one| Found { place: placed.on_photo(one.place), ..one }).collect()
        };
        Ok(batch.photos.iter().zip(found).map(cut).collect())
    }
}
