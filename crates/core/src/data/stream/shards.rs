//! Tar shards in WebDataset's layout: for each picture `<key>.jpg` (or jpeg, png, webp, bmp) and `<key>.cls`, one after the other; the label is decimal
//! text. `train-*.tar`, and `val-*.tar` or `test-*.tar`; the names of the classes, a line each, may stand in `classes.txt`.
//!
//! A shard that is cut off or damaged is refused when the set is opened, whatever `data.max_bad` says: nobody knows what it held.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::folder::{Found, PassedOver, Wanted, endings, is_picture, split_names};
use super::index::Index;
use crate::{Error, Result, user};

/// Bytes of a tar's blocks.
const BLOCK: u64 = 512;
/// Longest label's text.
const LABEL: u64 = 32;
/// The file that names the classes.
pub(super) const CLASSES: &str = "classes.txt";

/// Lies beside the shards until all of them are written.
pub(super) const UNFINISHED: &str = "unfinished";

/// Reads the headers of all shards in `root`. A set without `classes.txt` has the classes of the weights that are tested, or else `classes` that
/// are called by their numbers.
///
/// # Errors
/// Splits without shards or pictures, shards that are cut off or damaged, pictures without label and labels without picture, labels that are
/// no class.
pub(super) fn open(root: &Path, wanted: &Wanted, classes: i64) -> Result<Found> {
    if root.join(UNFINISHED).exists() {
        return Err(user!("{} was not written to its end; delete it, and write the shards anew", root.display()));
    }
    let own = match (class_names(root)?, wanted.known) {
        (Some(names), _) => names,
        (None, Some(known)) => known.to_vec(),
        (None, None) => (0..classes).map(|class| class.to_string()).collect(),
    };
    // By the number that a picture carries.
    let labels = match wanted.known {
        None => (0..own.len() as u32).collect(),
        Some(known) => {
            let known = Classes::of_weights(wanted.set, known);
            let place = root.join(CLASSES).display().to_string();
            let label = |name: &String| known.label(name).ok_or_else(|| known.refuse(&place, name, &own));
            own.iter().map(label).collect::<Result<Vec<u32>>>()?
        }
    };
    let mut shards = Vec::new();
    for entry in fs::read_dir(root)
        .map_err(|e| user!("cannot read the folder {}: {e}; point data.root at the shards", root.display()))?
    {
        let path = entry.map_err(Error::io("read", root))?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".tar")) {
            shards.push((name.to_string(), path));
        }
    }
    shards.sort_unstable();
    let of = |split: &str| -> Vec<&(String, PathBuf)> {
        shards.iter().filter(|(name, _)| name.strip_prefix(split).is_some_and(|rest| rest.starts_with('-'))).collect()
    };
    let split = |split: &str| {
        let mut index = Index::new();
        for (name, path) in of(split) {
            shard(name, path, &labels, &mut index)?;
        }
        match index.len() {
            0 => Err(user!("{} has no shards {split}-*.tar that hold pictures", root.display())),
            _ => Ok(index.sorted()),
        }
    };
    if of("train").is_empty() && !wanted.only_test {
        return Err(user!(
            "{} has no shards train-*.tar; write some with the command `shards`, or point data.root at their folder",
            root.display()
        ));
    }
    let (test, validation) = split_names(!of("val").is_empty(), !of("test").is_empty())
        .ok_or_else(|| user!("{} has neither shards val-*.tar nor test-*.tar to test on", root.display()))?;
    Ok(Found {
        train: if of("train").is_empty() { Index::new() } else { split("train")? },
        validation: validation.map(split).transpose()?,
        test: (test, split(test)?),
        classes: wanted.known.map_or(own, <[String]>::to_vec),
        passed_over: PassedOver::default(),
    })
}

/// The names of the classes, by the number that pictures carry; `None` without `classes.txt`.
///
/// # Errors
/// It cannot be read.
pub(super) fn class_names(root: &Path) -> Result<Option<Vec<String>>> {
    let path = root.join(CLASSES);
    match fs::read_to_string(&path) {
        // Some editors put a mark in front that tells the encoding, or end lines as Windows does.
        Ok(text) => Ok(Some(text.trim_start_matches('\u{feff}').lines().map(unescaped).collect())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(user!("cannot read {}: {e}", path.display())),
    }
}

/// A class's name as its line in `classes.txt`: an end of a line in it is written `\n` or `\r`, and a backslash is doubled.
pub(super) fn escaped(name: &str) -> String {
    name.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r")
}

fn unescaped(line: &str) -> String {
    let (mut name, mut rest) = (String::new(), line);
    while let Some(at) = rest.find('\\') {
        name += &rest[..at];
        let (meant, length) = match rest.as_bytes()[at..] {
            [_, b'n', ..] => ('\n', 2),
            [_, b'r', ..] => ('\r', 2),
            [_, b'\\', ..] => ('\\', 2),
            _ => ('\\', 1),
        };
        name.push(meant);
        rest = &rest[at + length..];
    }
    name + rest
}

/// What was found under one key.
#[derive(Default)]
struct Sample {
    key: String,
    /// Name, offset, size.
    picture: Option<(String, u64, u64)>,
    label: Option<u32>,
}

impl Sample {
    fn add_to(self, shard: &str, index: &mut Index) -> Result<()> {
        match (self.picture, self.label) {
            (Some((name, offset, size)), Some(label)) => index.add(&name, label, offset, size),
            (None, None) => Ok(()),
            (Some((name, ..)), None) => Err(user!(
                "{shard}: {name} has no {}.cls beside it, which would hold its label; write the shard anew",
                self.key
            )),
            (None, Some(_)) => {
                Err(user!("{shard}: {}.cls has no picture beside it ({}); write the shard anew", self.key, endings()))
            }
        }
    }
}

/// Adds the pictures of one shard; `labels` has the label for each number that a picture can carry.
fn shard(name: &str, path: &Path, labels: &[u32], index: &mut Index) -> Result<()> {
    let cannot =
        |e: std::io::Error| user!("{}: cannot be read as a tar: {e}; fetch or write the shard anew", path.display());
    let cut_off = || user!("{} is cut off; fetch or write the shard anew", path.display());
    let file = File::open(path).map_err(|e| user!("cannot open {}: {e}", path.display()))?;
    let length = file.metadata().map_err(cannot)?.len();
    index.container(path.to_owned(), name.to_string(), Some(length));
    let mut archive = tar::Archive::new(file);
    let (mut sample, mut end) = (Sample::default(), 0);
    for entry in archive.entries_with_seek().map_err(cannot)? {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(_) if length < end + 2 * BLOCK => return Err(cut_off()),
            Err(e) => return Err(cannot(e)),
        };
        let (offset, size) = (entry.raw_file_position(), entry.size());
        end = offset + size.next_multiple_of(BLOCK);
        if offset + size > length {
            return Err(cut_off());
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member = entry.path_bytes();
        let Ok(member) = std::str::from_utf8(&member).map(str::to_string) else {
            return Err(user!("{name}: a name in it is no UTF-8 text; write the shard anew"));
        };
        // As the Python package has it: the key goes up to the first dot of the last part of the name.
        let base = member.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = member[base..].find('.').map(|dot| base + dot) else { continue };
        let (key, kind) = (&member[..dot], member[dot + 1..].to_ascii_lowercase());
        if sample.key != key {
            let next = Sample { key: key.to_string(), ..Sample::default() };
            std::mem::replace(&mut sample, next).add_to(name, index)?;
        }
        if kind == "cls" {
            let mut text = String::new();
            entry.by_ref().take(LABEL).read_to_string(&mut text).map_err(cannot)?;
            let label = text.trim().parse::<usize>().ok().and_then(|number| labels.get(number).copied());
            sample.label = Some(label.ok_or_else(|| {
                user!(
                    "{name}: {member} says {:?}, which is not one of the {} classes 0 to {}",
                    text.trim(),
                    labels.len(),
                    labels.len().saturating_sub(1)
                )
            })?);
        } else if is_picture(&format!("_.{kind}")) {
            if let Some((other, ..)) = &sample.picture {
                return Err(user!("{name}: {other} and {member} are two pictures under one key; write the shard anew"));
            }
            sample.picture = Some((member, offset, size));
        }
    }
    // Two blocks of zeros end a tar; one is enough to see that nothing lacks.
    if length < end + BLOCK {
        return Err(cut_off());
    }
    sample.add_to(name, index)
}
