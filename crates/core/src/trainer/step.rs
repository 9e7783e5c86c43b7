//! Where in a run a step stands, and the parts of a step that processes share.

use rand::Rng;
use tch::Tensor;

use super::{Scalar, Scalars};
use crate::Result;
use crate::optim::Params;
use crate::random::rng;
use crate::setup::Setup;

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
        self.index as f64 / self.steps_per_epoch.max(1) as f64
    }

    /// Seeds libtorch's generators from (seed, step, rank), for dropout and drop path: the same masks again when called twice.
    pub fn reseed(&self) {
        let Setup { settings, rank, .. } = self.setup;
        tch::manual_seed(rng(settings.seed, self.index, *rank, "step").next_u64() as i64);
    }

    /// Runs the forward pass in the run's precision.
    pub fn autocast<T>(&self, forward: impl FnOnce() -> T) -> Result<T> {
        self.setup.autocast(forward)
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
        match self.setup.group() {
            None => Ok(()),
            Some(group) => Ok(group.average_grads(params.list())?),
        }
    }

    /// The rows `[n, …]` of all processes `[world·n, …]`, by rank, for losses in which every example meets every other. Differentiable: with
    /// [`Self::backward`], a loss over the gathered rows that all processes reckon alike has the gradient of a single process with the whole
    /// batch, and so has the mean of losses that each reckons for its own rows.
    ///
    /// # Errors
    /// A process left.
    pub fn gather(&self, rows: &Tensor) -> Result<Tensor> {
        match self.setup.group() {
            None => Ok(rows.shallow_clone()),
            Some(group) => Ok(group.gather(rows)?),
        }
    }

    /// The gradient of a mean loss over the whole batch, averaged over the processes.
    pub fn backward(&self, loss: &Tensor, params: &Params) -> Result<()> {
        self.micro(loss, 1.0)?;
        self.average(params)
    }
}

/// The means of a step's scalars over the parts that its batch is worked off in, left on the device.
#[derive(Debug, Default)]
pub struct Means(Vec<(&'static str, Tensor)>);

impl Means {
    /// Adds what a part found, each a tensor `[]`, weighted by the part's share of the batch. All parts have the same names in the same order.
    pub fn add<'a>(&mut self, share: f64, found: impl IntoIterator<Item = (&'static str, &'a Tensor)>) {
        let weighted = found.into_iter().map(|(name, value)| (name, value.detach() * share));
        if self.0.is_empty() {
            self.0.extend(weighted);
        } else {
            self.0.iter_mut().zip(weighted).for_each(|((_, sum), (_, value))| *sum = &*sum + value);
        }
    }

    /// For the end of a step, with what the host knows beside them.
    pub fn with(self, host: &[(&'static str, f64)]) -> Scalars {
        let device = self.0.into_iter().map(|(name, value)| (name, Scalar::Device(value)));
        device.chain(host.iter().map(|(name, value)| (*name, Scalar::Host(*value)))).collect()
    }
}
