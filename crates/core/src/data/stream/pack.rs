//! Writes a folder of photos as tar shards.

use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::folder::Wanted;
use super::index::{Index, Shards};
use super::{folder, shards};
use crate::data::root::folder_of;
use crate::data::{DataConfig, stream};
use crate::files::{PARTIAL, create_folder, write_atomic};
use crate::random::{permutation, rng};
use crate::{Error, Result, user};

/// Longest part of a key that tells what the picture was called.
const CALLED: usize = 60;

/// What was written.
#[derive(Debug, Serialize)]
pub struct Packed {
    /// The shards.
    pub shards: Vec<PathBuf>,
    /// Pictures in them.
    pub pictures: u64,
}

/// Writes the photos of a folder set into `out`: `train-000000.tar`, … and the same for the other splits, and `classes.txt`, in the layout of
/// WebDataset. A shard ends with the picture with which it exceeds `size` bytes. The pictures are copied as they are, in a fixed shuffled
/// order; their keys begin with their place in the folder's order, by which `data.name: shards` numbers them: a run on the shards is the run
/// on the folder.
///
/// # Errors
/// A set that is no folder, or lies in `out` already; keys that cannot act; files that cannot be read; the disk refuses.
pub fn pack(config: &DataConfig, out: &Path, size: u64) -> Result<Packed> {
    let name = &config.name;
    if name == "shards" || !stream::names().any(|photos| photos == name) {
        return Err(user!("data.name: {name} is no folder of photos, from which shards are written; choose `folder`"));
    }
    for (key, value) in
        [("limit_train", config.limit_train), ("limit_test", config.limit_test), ("validation", config.validation)]
    {
        if value.is_some() {
            return Err(user!("data.{key} cannot act here: shards hold the whole set; remove the key"));
        }
    }
    let found = folder::open(&folder_of(config)?, &Wanted { set: name, known: None, only_test: false })?;
    create_folder(out)?;
    for entry in std::fs::read_dir(out).map_err(Error::io("read", out))? {
        let path = entry.map_err(Error::io("read", out))?.path();
        if path.extension().is_some_and(|ending| ending == "tar") {
            return Err(user!("{} holds {} already; choose an empty folder", out.display(), path.display()));
        }
    }
    let unfinished = out.join(shards::UNFINISHED);
    write_atomic(&unfinished, &[b"These shards are being written, or were cut off.\n"])?;
    let mut packed = Packed { shards: Vec::new(), pictures: 0 };
    let (test, index) = &found.test;
    let validation = found.validation.as_ref().map(|index| ("val", index));
    for (split, index) in [("train", &found.train), (test, index)].into_iter().chain(validation) {
        packed.shards.extend(write(index, split, out, size)?);
        packed.pictures += index.len();
    }
    let names: String = found.classes.iter().map(|class| shards::escaped(class) + "\n").collect();
    write_atomic(&out.join(shards::CLASSES), &[names.as_bytes()])?;
    std::fs::remove_file(&unfinished).map_err(Error::io("remove", &unfinished))?;
    Ok(packed)
}

/// The shards of one split.
fn write(index: &Index, split: &str, out: &Path, size: u64) -> Result<Vec<PathBuf>> {
    let (mut written, mut bytes, mut none) = (Vec::new(), Vec::new(), Shards::default());
    let order = permutation(&mut rng(0, 0, 0, "shards"), index.len());
    let mut samples = order.into_iter().peekable();
    while samples.peek().is_some() {
        let path = out.join(format!("{split}-{:06}.tar", written.len()));
        let fail = || Error::io("write", &path);
        let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(out).map_err(fail())?;
        let mut tar = tar::Builder::new(BufWriter::new(file.as_file_mut()));
        let mut length = 0;
        while length < size
            && let Some(sample) = samples.next()
        {
            index.read(sample, &mut none, &mut bytes).map_err(|reason| user!("{}: {reason}", index.told(sample)))?;
            let (key, ending) = key(sample, &index.told(sample));
            let label = index.label(sample).to_string();
            for (ending, content) in [(ending.as_str(), &bytes[..]), ("cls", label.as_bytes())] {
                let mut header = tar::Header::new_ustar();
                header.set_path(format!("{key}.{ending}")).map_err(fail())?;
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                header.set_mtime(0);
                header.set_cksum();
                tar.append(&header, content).map_err(fail())?;
                length += 512 + content.len().next_multiple_of(512) as u64;
            }
        }
        tar.into_inner().and_then(|mut buffer| buffer.flush()).map_err(fail())?;
        file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(fail())?;
        file.as_file().sync_all().map_err(fail())?;
        file.persist(&path).map_err(|e| fail()(e.error))?;
        written.push(path);
    }
    Ok(written)
}

/// `00000012-n01440764-n01440764_1775` and `jpeg` for picture 12, `train/n01440764/n01440764_1775.JPEG`.
fn key(sample: i64, path: &str) -> (String, String) {
    let path = path.split_once('/').map_or(path, |(_, below)| below);
    let (stem, ending) = path.rsplit_once('.').unwrap_or((path, "jpg"));
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let stem: String = stem.chars().map(plain).take(CALLED).collect();
    (format!("{sample:08}-{stem}"), ending.to_ascii_lowercase())
}
