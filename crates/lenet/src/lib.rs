#![doc = include_str!("../README.md")]

pub mod app;
pub mod bitmaps;
pub mod config;
#[cfg(test)]
mod golden;
pub mod hessian;
pub mod lm;
pub mod loss;
pub mod model;
pub mod modern;
pub mod network;
pub mod predict;
pub mod sizes;
pub mod train;
