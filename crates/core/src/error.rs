//! The one error type. Its text says what happened, where, and what to do; its kind decides the exit code.

use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by who can mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's command, config, data, weights, folder or device is wrong (exit code 2).
    #[error("{0}")]
    User(String),
    /// The disk refused (exit code 1); or the place that the user named is none where anything can be made (exit code 2).
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(action, source))]
    Io {
        /// What was being done, as a verb: `write`, `read`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A loss or a gradient stopped being a number (exit code 1).
    #[error("{0}")]
    Diverged(String),
    /// SIGINT (130) or SIGTERM (143) arrived; the run is saved and can go on.
    #[error("interrupted")]
    Interrupted(u8),
    /// libtorch refused (exit code 1).
    #[error("libtorch: {0}")]
    Torch(String),
    /// Any other failure (exit code 1).
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The process exit code that this error stands for.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::User(_) => 2,
            Error::Interrupted(code) => *code,
            Error::Io { action, source, .. } if *action != "read" && wrong_place(source) => 2,
            Error::Io { .. } | Error::Diverged(_) | Error::Torch(_) | Error::Failed(_) => 1,
        }
    }

    /// For `map_err` on file operations: `fs::read(path).map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}

/// Whether nothing can be made at a place, however much room there is.
pub(crate) fn wrong_place(source: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    matches!(
        source.kind(),
        PermissionDenied
            | ReadOnlyFilesystem
            | NotFound
            | NotADirectory
            | IsADirectory
            | AlreadyExists
            | InvalidFilename
    )
}

/// What to do about the refusals of a disk that have a remedy.
fn remedy(action: &str, source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match source.kind() {
        StorageFull => "; make room on that disk (`df -h` tells how full it is) and go on",
        QuotaExceeded => "; make room within your quota and go on",
        FileTooLarge => "; raise the limit on the size of files (`ulimit -f`) and go on",
        ReadOnlyFilesystem => "; make that file system writable, or choose another folder",
        _ if action != "read" && wrong_place(source) => "; choose another place",
        _ => "",
    }
}

/// A mistake that the user can mend: `user!("{path} has no {key}; add it")`.
#[macro_export]
macro_rules! user {
    ($($text:tt)*) => { $crate::Error::User(format!($($text)*)) };
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // The C++ backtrace that follows the first line helps nobody outside libtorch.
        Error::Torch(error.to_string().lines().next().unwrap_or_default().to_string())
    }
}

impl From<torch_ext::Error> for Error {
    fn from(error: torch_ext::Error) -> Self {
        Error::Torch(error.to_string())
    }
}
