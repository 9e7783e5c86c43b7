#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod answer;
pub mod app;
pub mod config;
pub mod loss;
pub mod matcher;
pub mod model;
pub mod names;
pub mod position;
pub mod train;
pub mod transformer;
