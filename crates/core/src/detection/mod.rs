//! What the papers that find objects share: boxes, truths and detections.

pub mod boxes;
pub mod coco;
#[cfg(test)]
mod fixture;
mod gather;
pub mod mistakes;
pub mod results;
mod scene;
mod targets;
pub mod voc;

pub use gather::together;
use scene::Group;
pub use scene::{Scene, overlap};
pub use targets::Targets;

/// A box in pixels of the photo as its file has it: left, top, width, height, as COCO writes it.
pub type Rect = [f64; 4];

/// An object that a photo has.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// Class, from 0.
    pub class: usize,
    /// Where.
    pub rect: Rect,
    /// Pixels that it covers, which says whether it is small, medium or large: COCO's is the mask's, not the box's.
    pub area: f64,
    /// A box around many (COCO): what is found in it counts neither for nor against.
    pub crowd: bool,
    /// Not asked for (VOC): finding it counts neither for nor against.
    pub difficult: bool,
}

impl Truth {
    /// Whether finding it counts for, and missing it against: neither a crowd nor difficult.
    pub fn counts(&self) -> bool {
        !self.crowd && !self.difficult
    }
}

/// An object that a network found.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Class, from 0.
    pub class: usize,
    /// Confidence; higher is surer.
    pub score: f64,
    /// Where.
    pub rect: Rect,
}
