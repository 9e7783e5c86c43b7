#![doc = include_str!("../README.md")]

pub mod app;
pub mod blocks;
pub mod config;
pub mod model;
pub mod train;
