//! What is measured on a split.

mod classification;

pub use classification::{Classification, Mistake, Predictions, evaluate};
