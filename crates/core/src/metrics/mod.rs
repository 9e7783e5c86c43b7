//! What is measured on a split, or of generated pictures.

mod classification;
pub mod generative;

pub use classification::{Classification, Mistake, Predictions, evaluate};
