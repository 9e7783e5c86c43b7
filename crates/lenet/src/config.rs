//! What LeNet adds to the keys that all papers share.

use serde::Deserialize;

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// Which one.
    pub name: Name,
    /// Classes K: 10 for `lenet5` at most, since there are ten glyphs.
    pub num_classes: i64,
    /// Edge of the pictures in the data set: 28. Both networks pad them to 32 by themselves.
    pub image_size: Option<i64>,
}

/// The variants.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// The network of 1998.
    Lenet5,
    /// The network that goes by its name today.
    Lenet5Modern,
}
