#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod improved;
pub mod names;
pub mod net;
pub mod process;
pub mod schedule;
pub mod unet;
