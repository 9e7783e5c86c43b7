//! Layered YAML, overrides, sweeps, errors with file and key.

use serde::Deserialize;

/// Which data set, from where, and how much of it.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Name of the set.
    pub name: String,
    /// Folder that holds the files.
    pub root: Option<String>,
    /// Decoding threads.
    pub workers: Option<u64>,
    /// The first N of a fixed permutation of the training set.
    pub limit_train: Option<u64>,
    /// The first N of a fixed permutation of the test set.
    pub limit_test: Option<u64>,
    /// How many unreadable pictures are skipped before the set is refused.
    pub max_bad: Option<u64>,
}
