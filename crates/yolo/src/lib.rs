#![doc = include_str!("../README.md")]

pub mod anchors;
pub mod app;
pub mod boxes;
pub mod cfg;
pub mod config;
pub mod convert;
pub mod darknet;
pub mod loss;
pub mod model;
pub mod net;
pub mod nms;
pub mod retina;
pub mod sections;
pub mod start;
pub mod train;
