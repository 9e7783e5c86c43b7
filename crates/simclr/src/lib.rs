#![doc = include_str!("../README.md")]

pub mod app;
pub mod components;
pub mod config;
pub mod data;
pub mod features;
pub mod finetune;
pub mod loss;
pub mod model;
pub mod pretrain;
