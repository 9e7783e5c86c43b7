//! Layered YAML, overrides, sweeps, errors with file and key.

mod length;
mod settings;

pub use length::{Every, Length, Limit};
pub use settings::{
    CheckpointConfig, Claim, Compute, DataConfig, EvalConfig, Log, Precision, Settings,
};
