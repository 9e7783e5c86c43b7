#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod app;
pub mod autoencoder;
pub mod config;
pub mod finetune;
pub mod masking;
pub mod model;
pub mod names;
pub mod pretrain;
pub mod trunk;
