#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod improved;
pub mod names;
pub mod net;
pub mod process;
pub mod sampler;
pub mod schedule;
pub mod solver;
pub mod unet;
