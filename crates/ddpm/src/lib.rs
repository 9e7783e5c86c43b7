#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod features;
pub mod inception;
pub mod metrics;
pub mod process;
pub mod sample;
pub mod sampler;
pub mod schedule;
pub mod solver;
pub mod toy;
pub mod train;
pub mod unet;
