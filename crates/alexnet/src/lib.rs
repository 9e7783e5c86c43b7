#![doc = include_str!("../README.md")]

pub mod app;
pub mod config;
pub mod layers;
pub mod lrn;
pub mod model;
pub mod train;
