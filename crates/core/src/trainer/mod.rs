//! The loop that no paper describes: iteration, logging, evaluation, checkpoints, resume. The paper owns the gradient step.

mod checkpoint;
mod environment;
mod eval;
mod fit;
mod folders;
mod log;
mod plan;
mod progress;
mod result;
pub mod run;
mod signals;
mod stage;
mod start;
mod step;
mod tensorboard;

use tch::Tensor;

pub use self::eval::Eval;
pub use self::log::read_metrics;
pub use self::plan::Plan;
pub use self::signals::Signals;
pub(crate) use self::stage::Evaluated;
pub use self::stage::{Bench, Stage};
pub use self::step::{Means, Step};
use crate::Result;
use crate::data::{Source, Split};
use crate::setup::Setup;
use crate::weights::Named;

/// What one step reports, by name: `loss`, `lr`, `grad_norm`.
pub type Scalars = Vec<(&'static str, Scalar)>;

/// A value of a step. Device values are read only when they are logged, so that no step waits for the device.
#[derive(Debug)]
pub enum Scalar {
    /// A number that the host knows.
    Host(f64),
    /// A tensor of one element.
    Device(Tensor),
}

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
    fn step(&mut self, batch: Self::Batch, data: &Self::Data, at: &Step) -> Result<Scalars>;
    /// Scalars and pictures of one split.
    /// Every process calls it, and only what rank 0 finds counts: it may share the work, or leave all of it to rank 0.
    fn evaluate(&mut self, data: &Self::Data, split: Split, at: &Step, out: &mut Eval) -> Result<()>;
    /// `model.*`, `ema.*`, `optim.*`: handles to everything that a resumed run needs, complete and fixed from `build` on.
    fn state(&self) -> Named;
    /// The trunk that this stage learns nothing in, by the first segments of its names: a probe proves that it left it alone, norms'
    /// statistics included. `result.json` has the hashes before and after.
    fn still(&self) -> &'static [&'static str] {
        &[]
    }
    /// What a user of the weights must know beside them, as JSON: kept in the weights file, handed to `predict`.
    fn card(&self, _data: &Self::Data) -> Option<String> {
        None
    }
    /// Whether the data hold out a validation split; without one, the curve on the test set is logged as `monitor/…`.
    fn has_validation(_data: &Self::Data) -> bool {
        false
    }
}
