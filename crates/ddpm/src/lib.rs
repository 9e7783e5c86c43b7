#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod app;
pub mod config;
pub mod data;
pub mod draw;
pub mod edit;
pub mod features;
pub mod guidance;
pub mod importance;
pub mod improved;
pub mod inception;
pub mod judge;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod names;
pub mod net;
pub mod pictures;
pub mod process;
pub mod sample;
pub mod sampler;
pub mod schedule;
pub mod solver;
pub mod toy;
pub mod train;
pub mod unet;
