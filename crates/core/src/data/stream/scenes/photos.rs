//! The photos of a split and what is known of them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::canvas::Canvases;
use crate::data::stream::bad::Bad;
use crate::data::stream::index::Index;
use crate::detection::Truth;
use crate::{Result, user};

/// The pictures of a split.
#[derive(Debug)]
pub(super) enum Photos {
    /// In files.
    Files(Files),
    /// Drawn by code.
    Canvases(Canvases),
}

/// Photos in files, by place.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) index: Index,
    ids: Vec<i64>,
    /// Width and height that the annotations tell; 0 where they do not.
    sizes: Vec<[u32; 2]>,
    truths: Vec<Box<[Truth]>>,
}

/// What the annotations tell of a photo.
#[derive(Debug)]
pub(super) struct Annotated {
    pub(super) id: i64,
    /// Width and height; 0 where they are not told.
    pub(super) size: [u32; 2],
    pub(super) truths: Vec<Truth>,
}

/// The splits of a set.
#[derive(Debug)]
pub(super) struct Found {
    /// `None` where nothing is trained.
    pub(super) train: Option<Photos>,
    pub(super) validation: Option<Photos>,
    pub(super) test: Photos,
    /// Names by class.
    pub(super) classes: Vec<String>,
    /// The annotations' own number of each class.
    pub(super) categories: Vec<i64>,
    /// What the user must know.
    pub(super) notes: Vec<String>,
}

impl Files {
    /// None yet, in a folder, called `name` below the root.
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        let mut index = Index::new();
        index.container(folder.to_owned(), name.to_string(), None);
        Self { index, ids: Vec::new(), sizes: Vec::new(), truths: Vec::new() }
    }

    /// Adds the photo of the file `name` in `folder`, which is that of [`Self::new`]; one that is not there is bad.
    ///
    /// # Errors
    /// More is bad than is put up with.
    pub(super) fn add(&mut self, folder: &Path, name: &str, annotated: Annotated, bad: &Bad) -> Result<()> {
        match fs::metadata(folder.join(name)) {
            Ok(meta) if meta.is_file() => self.index.add(name, 0, 0, meta.len())?,
            _ => {
                let path = folder.join(name).display().to_string();
                return bad.add(path, "left out", "annotations name it, and it is not there");
            }
        }
        self.ids.push(annotated.id);
        self.sizes.push(annotated.size);
        self.truths.push(annotated.truths.into());
        Ok(())
    }

    /// Refuses a photo of `size` (width, height) that the annotations of `sample` are not of. The orientation that a camera noted is not applied,
    /// as torchvision's data sets do not.
    ///
    /// # Errors
    /// Both sizes.
    pub(super) fn fits(&self, sample: i64, size: [u32; 2]) -> Result<(), String> {
        let told = self.sizes[sample as usize];
        if told == size || told == [0; 2] {
            return Ok(());
        }
        let ([tw, th], [w, h]) = (told, size);
        let turned = match told == [h, w] {
            true => {
                "; if a camera noted that it is turned, write it upright with its pixels turned, as by `mogrify -auto-orient`"
            }
            false => "",
        };
        Err(format!("its annotations are for {tw}×{th} pixels, and the file has {w}×{h}{turned}"))
    }

    fn part(&self, places: &[i64]) -> Self {
        let each = || places.iter().map(|place| *place as usize);
        Self {
            index: self.index.part(places),
            ids: each().map(|place| self.ids[place]).collect(),
            sizes: each().map(|place| self.sizes[place]).collect(),
            truths: each().map(|place| self.truths[place].clone()).collect(),
        }
    }
}

impl Photos {
    pub(super) fn len(&self) -> u64 {
        match self {
            Photos::Files(files) => files.index.len(),
            Photos::Canvases(canvases) => canvases.len(),
        }
    }

    /// How a picture is called in messages.
    pub(super) fn told(&self, sample: i64) -> String {
        match self {
            Photos::Files(files) => files.index.told(sample),
            Photos::Canvases(canvases) => canvases.told(sample),
        }
    }

    /// The annotations' own number of a photo; its place where they have none.
    pub(super) fn id(&self, sample: i64) -> i64 {
        match self {
            Photos::Files(files) => files.ids[sample as usize],
            Photos::Canvases(canvases) => canvases.number(sample),
        }
    }

    /// What is to be found in a picture.
    pub(super) fn truths(&self, sample: i64) -> &[Truth] {
        match self {
            Photos::Files(files) => &files.truths[sample as usize],
            Photos::Canvases(canvases) => canvases.truths(sample),
        }
    }

    /// The pictures at these places, in this order.
    pub(super) fn part(&self, places: &[i64]) -> Self {
        match self {
            Photos::Files(files) => Photos::Files(files.part(places)),
            Photos::Canvases(canvases) => Photos::Canvases(canvases.part(places)),
        }
    }

    /// Boxes of each class.
    pub(super) fn class_counts(&self, classes: usize) -> Vec<u64> {
        let mut counts = vec![0; classes];
        let all = (0..self.len() as i64).flat_map(|sample| self.truths(sample));
        all.for_each(|truth| counts[truth.class] += 1);
        counts
    }

    /// Boxes that nothing learns from because they have no area.
    pub(super) fn flat(&self) -> usize {
        let Photos::Files(Files { truths, .. }) = self else { return 0 };
        truths.iter().flatten().filter(|truth| !has_area(truth)).count()
    }

    /// Adds names, sizes and boxes to a hash.
    pub(super) fn hash(&self, split: &str, hash: &mut Sha256) {
        match self {
            Photos::Files(files) => {
                files.index.hash(split, hash);
                for truth in files.truths.iter().flatten() {
                    hash.update((truth.class as u64).to_le_bytes());
                    truth
                        .rect
                        .iter()
                        .chain([&truth.area])
                        .for_each(|number| hash.update(number.to_bits().to_le_bytes()));
                    hash.update([u8::from(truth.crowd), u8::from(truth.difficult)]);
                }
                // How many boxes each photo has.
                files.truths.iter().for_each(|truths| hash.update((truths.len() as u64).to_le_bytes()));
            }
            Photos::Canvases(canvases) => canvases.hash(split, hash),
        }
    }
}

/// Whether a box covers anything.
pub(super) fn has_area(truth: &Truth) -> bool {
    truth.rect[2] > 0.0 && truth.rect[3] > 0.0
}

/// Refuses boxes that are no numbers.
pub(super) fn finite(rect: [f64; 4], place: impl FnOnce() -> String) -> Result<[f64; 4]> {
    match rect.iter().all(|number| number.is_finite()) {
        true => Ok(rect),
        false => Err(user!("{}: a box is {rect:?}; write finite numbers", place())),
    }
}

/// The classes by name.
pub(super) fn by_name(classes: &[String]) -> HashMap<&str, usize> {
    classes.iter().enumerate().map(|(class, name)| (name.as_str(), class)).collect()
}
