//! What is measured on a split.
