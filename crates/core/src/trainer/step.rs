//! What a recipe is given: the surroundings of a run, and where in it a step stands.

use std::cell::RefCell;

use rand::Rng;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::config::{Precision, Settings};
use crate::data::rng;
use crate::optim::Params;

/// Settings and surroundings of a run.
#[derive(Debug)]
pub struct Setup {
    /// What all papers share of the configuration.
    pub settings: Settings,
    /// Where the tensors live.
    pub device: Device,
    /// This process among `world`.
    pub rank: u64,
    /// Number of processes.
    pub world: u64,
    notes: RefCell<Vec<String>>,
}

impl Setup {
    /// A run of one process.
    pub fn new(settings: Settings, device: Device) -> Self {
        Self { settings, device, rank: 0, world: 1, notes: RefCell::default() }
    }

    /// Something the reader of the result must know, such as a test picture in the training set: logged, and kept in `result.json`.
    pub fn note(&self, text: impl Into<String>) {
        self.notes.borrow_mut().push(text.into());
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.borrow_mut())
    }

    /// Seeds libtorch's generators from (seed, `what`): before a model is built, and by [`Step::reseed`] before each step.
    pub(crate) fn seed(&self, what: &str, index: u64) {
        tch::manual_seed(rng(self.settings.seed, index, self.rank, what).next_u64() as i64);
    }
}

/// Where in the run a step stands, and the parts of a step that processes share.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Counted from 0.
    pub index: u64,
    /// Steps of the whole stage.
    pub total: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
    /// The run's surroundings.
    pub setup: &'a Setup,
}

impl Step<'_> {
    /// Epochs done before this step, as a fraction.
    pub fn epoch(&self) -> f64 {
        self.index as f64 / self.steps_per_epoch as f64
    }

    /// Seeds libtorch's generators from (seed, step, rank), for dropout and drop path: the same masks again when called twice.
    pub fn reseed(&self) {
        self.setup.seed("step", self.index);
    }

    /// Runs the forward pass in the run's precision.
    pub fn autocast<T>(&self, forward: impl FnOnce() -> T) -> Result<T> {
        let _guard = match self.setup.settings.compute.precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(torch_ext::Autocast::new(self.setup.device, Kind::BFloat16)?),
        };
        Ok(forward())
    }

    /// The parts that a batch of `n` examples is worked off in (`compute.micro_batch`): first example, length, share of the batch.
    pub fn parts(&self, n: i64) -> impl Iterator<Item = (i64, i64, f64)> {
        let size = self.setup.settings.compute.micro_batch.map_or(n, |m| (m as i64).min(n)).max(1);
        (0..n).step_by(size as usize).map(move |start| {
            let length = size.min(n - start);
            (start, length, length as f64 / n as f64)
        })
    }

    /// Adds the gradient of a part's mean loss, weighted by the part's share of the batch.
    pub fn micro(&self, loss: &Tensor, share: f64) -> Result<()> {
        if share == 1.0 {
            loss.f_backward()?
        } else {
            (loss * share).f_backward()?
        };
        Ok(())
    }

    /// Replaces the gradients by their mean over the processes.
    pub fn average(&self, _params: &Params) -> Result<()> {
        Ok(())
    }

    /// The gradient of a mean loss over the whole batch, averaged over the processes.
    pub fn backward(&self, loss: &Tensor, params: &Params) -> Result<()> {
        self.micro(loss, 1.0)?;
        self.average(params)
    }
}
