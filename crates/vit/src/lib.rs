#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod app;
pub mod config;
pub mod layers;
pub mod model;
pub mod positions;
pub mod rollout;
pub mod train;
pub mod variant;
