//! The loop that no paper describes: iteration, logging, evaluation, checkpoints, resume. The paper owns the gradient step.

#[allow(dead_code)]
mod progress;
#[allow(dead_code)]
mod tensorboard;

use std::collections::BTreeMap;

use tch::Tensor;

use crate::Result;
use crate::data::Source;

/// Tensors by name, sorted, so that files and hashes do not depend on the order of creation.
pub type Named = BTreeMap<String, Tensor>;

/// Which examples an evaluation sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Held out of the training set, where the paper does so.
    Validation,
    /// The published test set.
    Test,
}

/// Settings and surroundings of a run.
#[derive(Debug)]
pub struct Setup {}
/// Where in the run a step stands.
#[derive(Debug)]
pub struct Step {}
/// Named values of a step.
pub type Scalars = Vec<(&'static str, f64)>;

/// One training stage of one paper.
pub trait Recipe: Sized {
    /// The paper's own part of the configuration; what all papers share is in [`Setup::settings`].
    type Config;
    /// What one step sees.
    type Batch: Send;
    /// The training source; other splits are plain fields of it.
    type Data: Source<Batch = Self::Batch>;

    /// Reads the data.
    fn data(config: &Self::Config, setup: &Setup) -> Result<Self::Data>;
    /// Builds model, optimizer and averages; `init` is the full state of the stage before.
    fn build(config: &Self::Config, setup: &Setup, init: Option<&Named>) -> Result<Self>;
    /// The paper's algorithm, top to bottom: one update of the weights.
    fn step(&mut self, batch: Self::Batch, at: &Step) -> Result<Scalars>;
    /// Scalars and pictures of one split.
    fn evaluate(&mut self, data: &Self::Data, split: Split, out: &mut Eval) -> Result<()>;
    /// `model.*`, `ema.*`, `optim.*`: handles to everything that a resumed run needs, complete from `build` on.
    fn state(&self) -> Named;
}

/// Collects what an evaluation finds.
#[derive(Debug, Default)]
pub struct Eval {
    /// `accuracy` → value; of averaged weights `-ema` stands behind the split's name.
    pub scalars: Vec<(String, f64)>,
    /// File stem → picture.
    pub pictures: Vec<(String, image::RgbImage)>,
}
