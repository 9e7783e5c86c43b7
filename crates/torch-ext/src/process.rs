//! Processes that belong to another one.

use crate::{Error, Result};

/// Asks the system to end this process, as by a termination signal, when its parent `parent` ends, however that happens: without it the ranks
/// of a killed command would train on.
/// # Errors
/// The parent has ended already; the system refuses.
pub fn end_with_parent(parent: u32) -> Result<()> {
    // SAFETY: a plain number; no memory is touched.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } != 0 {
        return Err(Error(format!("cannot be bound to the parent process: {}", std::io::Error::last_os_error())));
    }
    // It may have ended before the system was asked.
    if std::os::unix::process::parent_id() != parent {
        return Err(Error("the command that started this process has ended".to_string()));
    }
    Ok(())
}
