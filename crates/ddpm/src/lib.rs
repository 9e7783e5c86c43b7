#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod features;
pub mod inception;
pub mod metrics;
pub mod process;
pub mod schedule;
