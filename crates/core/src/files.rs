//! Files that are either whole or absent.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{Error, Result};

/// Prefix of files that are still being written; what a killed process leaves behind starts with it.
pub const PARTIAL: &str = ".partial-";

/// Writes `parts` one after the other to `path`: to a temporary name first, synced, then renamed, so that no reader and no power cut
/// ever meets half a file.
pub fn write_atomic(path: &Path, parts: &[&[u8]]) -> Result<()> {
    write_atomic_with(path, |put| parts.iter().try_for_each(|part| put(part)))
}

/// As [`write_atomic`], of parts that are made one by one: `make` hands each to the function that it is given, and need not hold two at
/// a time.
///
/// # Errors
/// Those of `make` and of the disk; there is no file then, or the one that was there before.
pub fn write_atomic_with(
    path: &Path,
    make: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = || Error::io("write", path);
    let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(folder).map_err(fail())?;
    // Through the file itself: an error of the wrapper names the temporary file, too.
    make(&mut |part| file.as_file_mut().write_all(part).map_err(fail()))?;
    // A temporary file is made for its owner alone; a result is for everybody.
    file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(fail())?;
    file.as_file().sync_all().map_err(fail())?;
    file.persist(path).map_err(|e| fail()(e.error))?;
    // The rename itself is durable only once the folder is.
    File::open(folder).and_then(|f| f.sync_all()).map_err(fail())
}

/// Creates a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| cannot_create(path, e))
}

/// Why a folder could not be created: the user's choice, or the disk.
pub fn cannot_create(path: &Path, error: std::io::Error) -> Error {
    match crate::error::wrong_place(&error) {
        true => crate::user!("cannot create the folder {}: {error}; choose another with --out", path.display()),
        false => Error::io("create", path)(error),
    }
}

/// Removes what killed processes left half written in `folder`.
pub fn remove_partial(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            // A leftover that cannot be removed does no harm: nothing reads it.
            let _ = fs::remove_file(entry.path());
        }
    }
}
