//! Where the pictures of a split lie: all that is kept of a set, some fifty bytes a picture.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Result, user};

/// Most bytes of a file that is read.
pub(super) const LARGEST: u64 = 1 << 30;
/// Shards that a worker keeps open.
const OPEN: usize = 64;

/// The pictures of one split by number.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Folders, or shards with their lengths in bytes.
    containers: Vec<Container>,
    /// The names, one after the other.
    names: String,
    items: Vec<Item>,
}

/// What holds pictures.
#[derive(Debug, Clone)]
struct Container {
    path: PathBuf,
    /// Below the set's root, as it is told and hashed.
    name: String,
    /// Of a shard: its length.
    shard: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    /// Where the bytes start in the shard; 0 in a file of its own.
    offset: u64,
    size: u64,
    /// Range of the name.
    name: (u32, u32),
    label: u32,
    container: u32,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { containers: Vec::new(), names: String::new(), items: Vec::new() }
    }

    /// A folder `path`, called `name` below the root; a shard if it has a length.
    pub(super) fn container(&mut self, path: PathBuf, name: String, shard: Option<u64>) {
        self.containers.push(Container { path, name, shard });
    }

    /// A picture in the newest container.
    ///
    /// # Errors
    /// More names than 4 GiB hold.
    pub(super) fn add(&mut self, name: &str, label: u32, offset: u64, size: u64) -> Result<()> {
        let start = self.names.len();
        self.names.push_str(name);
        let place = |at: usize| {
            u32::try_from(at).map_err(|_| user!("the names of the pictures take more than 4 GiB; shorten them"))
        };
        let name = (place(start)?, place(self.names.len())?);
        let container = (self.containers.len() - 1) as u32;
        self.items.push(Item { offset, size, name, label, container });
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.items.len() as u64
    }

    pub(super) fn label(&self, sample: i64) -> i64 {
        i64::from(self.items[sample as usize].label)
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = u32> + '_ {
        self.items.iter().map(|item| item.label)
    }

    fn name(&self, item: &Item) -> &str {
        &self.names[item.name.0 as usize..item.name.1 as usize]
    }

    /// `train/n01440764/a.jpg`, or `train-000000.tar: a.jpg`.
    pub(super) fn told(&self, sample: i64) -> String {
        let item = &self.items[sample as usize];
        let container = &self.containers[item.container as usize];
        let between = if container.shard.is_some() { ": " } else { "/" };
        format!("{}{between}{}", container.name, self.name(item))
    }

    /// `a.jpg`.
    pub(super) fn file(&self, sample: i64) -> &str {
        let name = self.name(&self.items[sample as usize]);
        name.rsplit('/').next().unwrap_or(name)
    }

    /// The same pictures, numbered by their names: so the same pictures in other shards make the same run.
    pub(super) fn sorted(mut self) -> Self {
        let mut items = std::mem::take(&mut self.items);
        items.sort_by(|a, b| self.name(a).cmp(self.name(b)));
        self.items = items;
        self
    }

    /// The pictures at these places, in this order.
    pub(super) fn part(&self, places: &[i64]) -> Self {
        let mut part = Self { containers: self.containers.clone(), names: String::new(), items: Vec::new() };
        part.items.reserve_exact(places.len());
        for place in places {
            let item = self.items[*place as usize];
            let start = part.names.len() as u32;
            part.names.push_str(self.name(&item));
            part.items.push(Item { name: (start, part.names.len() as u32), ..item });
        }
        part
    }

    /// Adds the listing to a hash: for each picture `split`, path, size and label, each on a line of its own.
    pub(super) fn hash(&self, split: &str, hash: &mut Sha256) {
        for (sample, item) in self.items.iter().enumerate() {
            hash.update(format!("{split}\n{}\n{}\n{}\n", self.told(sample as i64), item.size, item.label));
        }
    }

    /// Reads a picture's bytes into `bytes`.
    ///
    /// # Errors
    /// Why it cannot be used: it is gone, it is not what it was, it may not be read.
    pub(super) fn read(&self, sample: i64, shards: &mut Shards, bytes: &mut Vec<u8>) -> Result<(), String> {
        let item = &self.items[sample as usize];
        let container = &self.containers[item.container as usize];
        if item.size > LARGEST {
            return Err(format!("{} bytes are more than the {LARGEST} that are read", item.size));
        }
        bytes.resize(item.size as usize, 0);
        match container.shard {
            None => {
                let file = File::open(container.path.join(self.name(item))).map_err(|e| told(&e))?;
                unchanged(&file, item.size)?;
                file.read_exact_at(bytes, 0).map_err(|e| told(&e))
            }
            Some(length) => {
                let file = shards.open(&container.path, item.container, length)?;
                file.read_exact_at(bytes, item.offset).map_err(|e| told(&e))
            }
        }
    }
}

/// The shards that a worker has open.
#[derive(Debug, Default)]
pub(super) struct Shards(HashMap<u32, File>);

impl Shards {
    fn open(&mut self, path: &Path, container: u32, length: u64) -> Result<&File, String> {
        if self.0.len() >= OPEN && !self.0.contains_key(&container) {
            self.0.clear();
        }
        match self.0.entry(container) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let file = File::open(path).map_err(|e| told(&e))?;
                unchanged(&file, length)?;
                Ok(place.insert(file))
            }
        }
    }
}

fn unchanged(file: &File, size: u64) -> Result<(), String> {
    match file.metadata().map_err(|e| told(&e))?.len() {
        now if now == size => Ok(()),
        now => Err(format!("it has changed since the run began: {size} bytes then, {now} now")),
    }
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is gone since the run began".into(),
        io::ErrorKind::PermissionDenied => "it may not be read (permission denied)".into(),
        io::ErrorKind::UnexpectedEof => "it has become shorter while it was read".into(),
        _ => format!("it cannot be read: {error}"),
    }
}
