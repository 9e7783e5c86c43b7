//! Weights by their address in the Hugging Face hub, `hf:owner/name`: from the cache that the Python libraries keep, else fetched into it.
//!
//! The cache is laid out as huggingface_hub has it (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>). Of a repository,
//! `models--owner--name` holds `refs/<revision>`, the commit that a branch or tag stood for when the hub was last asked;
//! `snapshots/<commit>/<file>`, relative links; and `blobs/<etag>`, what they lead to. The etag of a large file is its SHA-256.
//! Nothing else in the program asks a network.

mod address;
mod wire;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write, stderr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;

pub use self::address::is_address;
use self::address::{Address, NAMES, is_commit, is_weights};
use self::wire::Wire;
use super::locate::{INDEX, index};
use crate::error::wrong_place;
use crate::files::write_atomic;
use crate::{Error, Result, user};

/// The file in the cache that an address means, fetched if it is not there; `None` of a path that is no address. Of a repository, or of
/// a folder in it, that is `model.safetensors`, or the one safetensors file, or the one index, together with its shards.
///
/// # Errors
/// [`Error::User`]: no address, no such weights, no right to them. Others: no network, no room, bytes that the hub did not announce.
pub(super) fn file(path: &Path) -> Result<Option<PathBuf>> {
    let Some(address) = Address::of(path)? else { return Ok(None) };
    let hub = Hub::of_environment()?;
    Ok(Some(hub.place(&hub.find(&address)?)))
}

/// Weights by a name that stays: an address in the hub with the commit and the file that it means now, which are fetched if they are not
/// in the cache; every other path as it is.
///
/// # Errors
/// Those of [`super::locate`] for an address.
pub fn pinned(path: &Path) -> Result<PathBuf> {
    match Address::of(path)? {
        Some(address) => Ok(Hub::of_environment()?.find(&address)?.to_string().into()),
        None => Ok(path.to_owned()),
    }
}

/// The cache, and the hub behind it, as the variables name them that huggingface_hub reads.
struct Hub {
    cache: PathBuf,
    /// `None`: nothing may be fetched.
    wire: Option<Wire>,
}

impl Hub {
    fn of_environment() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = set("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&set("HF_HOME")?).join("hub")))
            .or_else(|| Some(Path::new(&set("XDG_CACHE_HOME")?).join("huggingface/hub")))
            .or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface/hub")))
            .ok_or_else(|| user!("there is no folder for what the hub sends; set HF_HOME to one"))?;
        let offline = set("HF_HUB_OFFLINE").map(|on| on.to_lowercase());
        let offline = offline.is_some_and(|on| ["1", "true", "yes", "on"].contains(&on.as_str()));
        Ok(Self { cache, wire: (!offline).then(|| Wire::new(set("HF_ENDPOINT"), set("HF_TOKEN"))) })
    }

    fn folder(&self, address: &Address) -> PathBuf {
        self.cache.join(format!("models--{}", address.repository.replace('/', "--")))
    }

    /// Where the file of an address with its commit lies.
    fn place(&self, address: &Address) -> PathBuf {
        self.folder(address).join("snapshots").join(&address.revision).join(&address.file)
    }

    /// The address with its commit and its file, which lies in the cache then.
    fn find(&self, address: &Address) -> Result<Address> {
        match (self.cached(address), &self.wire) {
            (Some(found), _) => Ok(found),
            (None, Some(wire)) => self.fetch(address, wire),
            (None, None) => Err(user!(
                "{address} is not in {}, and HF_HUB_OFFLINE forbids to fetch it; unset that, or name a file that is there",
                self.folder(address).display()
            )),
        }
    }

    /// As [`Hub::find`], if the cache alone can tell. A snapshot may hold a part of a repository: which weights the repository would
    /// give is sure only of those that come first, unless nobody can be asked.
    fn cached(&self, address: &Address) -> Option<Address> {
        let refs = self.folder(address).join("refs").join(&address.revision);
        let commit = match is_commit(&address.revision) {
            true => address.revision.clone(),
            false => fs::read_to_string(refs).ok()?.trim().to_string(),
        };
        let files = if is_weights(&address.file) {
            vec![address.file.clone()]
        } else if self.wire.is_none() {
            let entries = fs::read_dir(self.place(&address.at(&commit, address.file.clone()))).ok()?.flatten();
            let there: Vec<_> = entries.map(|entry| address.below(&entry.file_name().to_string_lossy())).collect();
            vec![address.choose(&there).ok()?]
        } else {
            NAMES.map(|name| address.below(name)).into()
        };
        files.into_iter().map(|file| address.at(&commit, file)).find(|found| is_whole(&self.place(found)))
    }

    /// Fetches what is not in the cache of the weights that an address means.
    fn fetch(&self, address: &Address, wire: &Wire) -> Result<Address> {
        let (commit, files) = wire.revision(address)?;
        let found = address.at(&commit, address.choose(&files)?);
        self.get(&found, wire)?;
        if found.file.ends_with(INDEX) {
            let list = index(&self.place(&found))?;
            for name in list.shards() {
                let shard = Path::new(&found.file).with_file_name(name).display().to_string();
                if !files.contains(&shard) {
                    return Err(user!("{found} lists the shard {name}, which the repository does not hold"));
                }
                self.get(&found.at(&commit, shard), wire)?;
            }
        }
        // Last, so that what stands there is always complete.
        if !is_commit(&address.revision) {
            let refs = self.folder(address).join("refs").join(&address.revision);
            create_parent(&refs)?;
            write_atomic(&refs, &[commit.as_bytes()])?;
        }
        Ok(found)
    }

    /// Fetches one file, unless it is there. Who fetches the same one meanwhile, be it in Python, waits.
    fn get(&self, address: &Address, wire: &Wire) -> Result<()> {
        let (folder, place) = (self.folder(address), self.place(address));
        if place.is_file() {
            return Ok(());
        }
        let (etag, size) = wire.announced(address)?;
        let blob = folder.join("blobs").join(&etag);
        let lock = self.cache.join(".locks").join(folder.file_name().unwrap_or_default()).join(format!("{etag}.lock"));
        [&place, &blob, &lock].into_iter().try_for_each(|path| create_parent(path))?;
        let held =
            File::options().write(true).create(true).truncate(false).open(&lock).map_err(disk("write", &lock))?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                note(&format!("another process is fetching {address}; waiting for it"));
                held.lock().map_err(disk("lock", &lock))?;
            }
            Err(TryLockError::Error(error)) => return Err(disk("lock", &lock)(error)),
        }
        if place.is_file() {
            return Ok(());
        }
        if !blob.is_file() {
            note(&format!("fetching {address} ({}) into {}", HumanBytes(size), folder.display()));
            let part = blob.with_file_name(format!("{etag}.incomplete"));
            wire.download(address, &part, &etag, size)?;
            fs::rename(&part, &blob).map_err(disk("write", &blob))?;
        }
        // One that leads nowhere.
        let _ = fs::remove_file(&place);
        let up = "../".repeat(1 + Path::new(&address.file).components().count());
        symlink(format!("{up}blobs/{etag}"), &place).map_err(disk("write", &place))
    }
}

/// Whether weights are there, with all their shards.
fn is_whole(file: &Path) -> bool {
    let shards = |file| index(file).is_ok_and(|list| list.shards().iter().all(|s| file.with_file_name(s).is_file()));
    file.is_file() && (!file.to_string_lossy().ends_with(INDEX) || shards(file))
}

fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(disk("create", folder))
}

/// Why the cache could not be used: a disk that refuses, or a place where there can be none, for which there is a variable.
fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match wrong_place(&source) {
        true => user!("cannot {action} {}: {source}; set HF_HOME to a folder elsewhere", path.display()),
        false => Error::Io { action, path, source },
    }
}

/// A closed standard error is no reason to stop.
fn note(text: &str) {
    let _ = writeln!(stderr(), "note: {text}");
}

#[cfg(test)]
mod tests;
