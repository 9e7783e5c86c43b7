#![doc = include_str!("../README.md")]

pub mod app;
pub mod bitmaps;
pub mod boosting;
pub mod config;
pub mod early;
pub mod flat;
#[cfg(test)]
mod golden;
pub mod hessian;
pub mod knn;
pub mod layers;
pub mod lm;
pub mod loss;
pub mod model;
pub mod modern;
pub mod network;
pub mod predict;
pub mod prepare;
pub mod sizes;
pub mod train;
