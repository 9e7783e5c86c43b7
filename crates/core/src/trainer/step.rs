//! What a recipe is given: the surroundings of a run, and where in it a step stands.

use std::cell::RefCell;

use rand::Rng;
use tch::{Device, Kind, Tensor};
use torch_ext::ProcessGroup;

use crate::Result;
use crate::config::{Precision, Settings};
use crate::data::rng;
use crate::optim::Params;
use crate::user;

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
    group: Option<ProcessGroup>,
    notes: RefCell<Vec<String>>,
}

impl Setup {
    /// The surroundings of this process among those that torchrun or `--processes` started; of one process without them.
    ///
    /// # Errors
    /// torchrun's variables are wrong; the other processes do not come.
    pub fn new(settings: Settings, device: Device) -> Result<Self> {
        let group = ProcessGroup::from_env().map_err(|e| user!("cannot join the other processes: {e}"))?;
        let (rank, world) = group.as_ref().map_or((0, 1), |g| (g.rank() as u64, g.world() as u64));
        Ok(Self { settings, device, rank, world, group, notes: RefCell::default() })
    }

    /// Whether any process asks for something: all of them get the same answer, so that they stop at the same step.
    pub(super) fn any(&self, here: bool) -> Result<bool> {
        match &self.group {
            None => Ok(here),
            Some(group) => Ok(group.all_gather(&Tensor::from(i64::from(here)))?.max().f_int64_value(&[])? > 0),
        }
    }

    /// Something the reader of the result must know, such as a test picture in the training set: logged, and kept in `result.json`.
    pub fn note(&self, text: impl Into<String>) {
        self.notes.borrow_mut().push(text.into());
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.borrow_mut())
    }

    /// Seeds libtorch's generators before a model is built: all processes draw the same weights.
    pub(crate) fn seed_build(&self) {
        tch::manual_seed(rng(self.settings.seed, 0, 0, "build").next_u64() as i64);
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
        let Setup { settings, rank, .. } = self.setup;
        tch::manual_seed(rng(settings.seed, self.index, *rank, "step").next_u64() as i64);
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
    pub fn average(&self, params: &Params) -> Result<()> {
        match &self.setup.group {
            None => Ok(()),
            Some(group) => Ok(group.average_grads(params.list())?),
        }
    }

    /// The gradient of a mean loss over the whole batch, averaged over the processes.
    pub fn backward(&self, loss: &Tensor, params: &Params) -> Result<()> {
        self.micro(loss, 1.0)?;
        self.average(params)
    }
}
