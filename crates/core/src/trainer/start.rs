//! What a run is started with.

use std::path::{Path, PathBuf};

use super::result::Init;
use crate::config::{Claim, Resolved};

/// What a run is started with.
pub(crate) struct Start<'a> {
    /// Where it goes on or begins; `None`: in a new folder below `runs`.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) paper: &'static str,
    pub(crate) config: String,
    pub(crate) file: &'a Path,
    pub(crate) resolved: &'a Resolved,
    pub(crate) claim: Option<&'a Claim>,
    pub(crate) seed: u64,
    pub(crate) parameters: u64,
    pub(crate) device: String,
    pub(crate) quiet: bool,
    pub(crate) limit: Option<std::time::Duration>,
    /// The folder of rank 0, where this process has another rank.
    pub(crate) of_rank_0: Option<PathBuf>,
    /// The paper's stages, in their order.
    pub(crate) stages: Vec<String>,
    /// The weights that this sitting was given.
    pub(crate) init: Option<Init>,
    /// What a changed length undoes.
    pub(crate) undone: Undone,
}

/// Stages that a changed length of a run undoes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Undone {
    /// Those of another length: they go on from their last checkpoint.
    pub(crate) longer: Vec<String>,
    /// Those that began with the weights of one that is undone: they begin again.
    pub(crate) again: Vec<String>,
}
