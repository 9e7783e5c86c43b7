//! LeNet.

pub mod bitmaps;
#[cfg(test)]
mod golden;
pub mod hessian;
pub mod loss;
pub mod model;
pub mod modern;
