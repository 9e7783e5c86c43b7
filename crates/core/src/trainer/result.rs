//! `result.json`: what a run came to, and what each of its stages did.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Result, user};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Status {
    Running,
    Done,
    Interrupted,
    Failed,
    Diverged,
    /// The file says `running`, but no process owns the folder any more. Never in a file: a killed process writes nothing.
    Killed,
}

/// `result.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RunResult {
    pub paper: String,
    /// Stem of the config's file name.
    pub config: String,
    pub table: Option<String>,
    pub row: Option<String>,
    pub seed: u64,
    pub status: Status,
    /// `test/accuracy` → value. Accuracy and error are fractions.
    pub metrics: BTreeMap<String, f64>,
    pub paper_metric: Option<String>,
    pub paper_value: Option<f64>,
    pub steps: u64,
    pub epochs: f64,
    /// Training time over all sittings, without evaluation.
    pub seconds: f64,
    pub examples_per_second: f64,
    pub effective_batch: u64,
    /// `base` as configured, `scaled` after `optim.lr_scaling`.
    pub lr: BTreeMap<String, f64>,
    pub device: String,
    pub world_size: u64,
    pub commit: String,
    pub config_sha256: String,
    pub weights_sha256: Option<String>,
    pub data_sha256: Option<String>,
    /// Numbers that training changes.
    pub parameters: u64,
    /// What the reader must know beside the numbers.
    pub notes: Vec<String>,
    /// Hash of the trunk that a probe read, before it and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk_sha256_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk_sha256_after: Option<String>,
    /// By whose features pictures of the model were judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_network: Option<FeatureNetwork>,
    /// The weights that the run began with, where it was given some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Each stage by its name; what stands above is that of the first.
    #[serde(default)]
    pub stages: BTreeMap<String, StageResult>,
}

/// What one stage came to; the fields as in [`RunResult`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StageResult {
    /// Whether it is trained, tested and written: a run that goes on passes over it.
    pub done: bool,
    pub steps: u64,
    pub epochs: f64,
    pub seconds: f64,
    pub examples_per_second: f64,
    pub effective_batch: u64,
    pub lr: BTreeMap<String, f64>,
    pub data_sha256: Option<String>,
    pub weights_sha256: Option<String>,
    /// Hash of what `freeze` names, the same before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_sha256: Option<String>,
}

/// The network whose features stand for pictures in FID and its like. Numbers of different networks are not comparable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureNetwork {
    /// What it is: `inception_v3`, or a classifier's `model.name`.
    pub name: String,
    /// Hash of its weights.
    pub sha256: String,
}

/// Weights that were given to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// The file or the run folder, as it was named; of an address in the hub, with its commit.
    pub path: PathBuf,
    /// Hash of the weights.
    pub sha256: String,
}

impl RunResult {
    /// Whether nothing is left to do of these stages. Results of earlier versions know no stages, and have all.
    pub(crate) fn has_all<'a>(&self, mut wanted: impl Iterator<Item = &'a String>) -> bool {
        let done = |stage: &String| self.stages.get(stage).is_some_and(|stage| stage.done);
        self.status == Status::Done && (self.stages.is_empty() || wanted.all(done))
    }
}

/// Reads a run's `result.json`.
pub fn read_result(folder: &Path) -> Result<RunResult> {
    let path = folder.join("result.json");
    let text = fs::read_to_string(&path)
        .map_err(|e| user!("{} is not a run folder: cannot read result.json: {e}", folder.display()))?;
    serde_json::from_str(&text).map_err(|e| user!("{} is damaged or of another version: {e}", path.display()))
}
