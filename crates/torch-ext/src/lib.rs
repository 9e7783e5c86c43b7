//! The few parts of libtorch that tch leaves out, behind a safe Rust API.
//!
//! All functions work on CPU and CUDA. C++ exceptions come back as [`Error`]; nothing here panics.

mod activation;
mod autocast;
mod bytes;
mod checkpoint;
mod cuda;
mod distributed;
mod ffi;
mod format;
mod group_norm;
mod list;
mod memory;
mod norm;
mod pool;
mod process;

pub use activation::leaky_relu;
pub use autocast::Autocast;
pub use bytes::look_up_pixels;
pub use checkpoint::checkpoint;
pub use cuda::load_cuda;
pub use distributed::ProcessGroup;
pub use format::{channels_last, is_channels_last};
pub use group_norm::group_norm_act;
pub use list::{Adamw, Sgd, TensorList};
pub use memory::{keep_freed_memory, peak_memory, reset_peak_memory};
pub use norm::{BatchNorm, batch_norm_act};
pub use pool::avg_pool_2x2;
pub use process::end_with_parent;

/// The libtorch that this was compiled against, such as `2.11.0`.
pub const LIBTORCH_VERSION: &str = env!("LIBTORCH_VERSION");

/// What libtorch's C++ said: the first line of its message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
