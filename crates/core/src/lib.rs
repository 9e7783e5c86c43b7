//! What the papers share: data, trainer and metrics, and what these stand on.
//!
//! The data flows one way: YAML and overrides → [`config`] → [`setup::Setup`] → [`data::Source`] → [`trainer::Recipe::step`]
//! → [`trainer::Scalars`] → log → [`trainer::Recipe::evaluate`] → `result.json`. The core knows no paper.

pub mod answer;
pub mod classes;
pub mod classifier;
pub mod cli;
pub mod config;
pub mod data;
pub mod detection;
pub mod detector;
pub mod error;
pub mod figures;
pub mod files;
pub mod golden;
pub mod loss;
pub mod metrics;
pub mod nn;
pub mod optim;
pub mod probe;
pub mod random;
pub mod setup;
pub mod trainer;
pub mod weights;

pub use error::{Error, Result};
