//! The few parts of libtorch that tch leaves out, behind a safe Rust API.

/// What libtorch's C++ said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);
