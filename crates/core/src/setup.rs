//! The surroundings of a run: its settings, its device, its processes, and what its reader must be told.

use std::cell::RefCell;

use rand::Rng;
use tch::{Device, Tensor};
use torch_ext::ProcessGroup;

use crate::config::Settings;
use crate::random::rng;
use crate::{Result, user};

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
    pub(crate) fn any(&self, here: bool) -> Result<bool> {
        match &self.group {
            None => Ok(here),
            Some(group) => Ok(group.all_gather(&Tensor::from(i64::from(here)))?.max().f_int64_value(&[])? > 0),
        }
    }

    /// The processes, if there are several.
    pub(crate) fn group(&self) -> Option<&ProcessGroup> {
        self.group.as_ref()
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
