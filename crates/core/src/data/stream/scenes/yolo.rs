//! Text labels as YOLO has them: photos in `images/{train,val,test}`, and for `images/train/a.jpg` the file `labels/train/a.txt` with a line
//! `class cx cy w h` for each box, in fractions of the photo. A photo without a file of labels has no boxes. The names of the classes stand, by
//! number, in `names` of `data.yaml`, or a line each in `classes.txt` or `obj.names`.
//!
//! `test` is tested on, and `val` then held out to choose by, or else tested on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::photos::{Annotated, Files, Found, Photos, finite, has_area};
use crate::config::{AnnotatedFiles, SplitFiles};
use crate::data::stream::bad::Bad;
use crate::data::stream::decode::{is_turned, size_of};
use crate::data::stream::folder::{endings, is_picture, split_names};
use crate::detection::Truth;
use crate::{Result, user};

/// Bytes that are read first to learn a photo's size.
const START: u64 = 1 << 16;

/// Reads the labels of all splits.
///
/// # Errors
/// Folders and names that are missing, lines that are no boxes, labels beyond the classes, and as far as they are not put up with labels
/// without a photo, photos that are damaged, and photos that a camera noted to be turned: nobody knows how they lay when they were labelled.
pub(super) fn open(root: &Path, files: Option<&SplitFiles>, only_test: bool, bad: &Bad) -> Result<Found> {
    let named = match files {
        Some(files) => files.clone(),
        None => usual(root)?,
    };
    let classes = names(root)?;
    let mut flat = 0;
    let mut split = |files: &AnnotatedFiles| photos(root, files, &classes, &mut flat, bad);
    let train = match &named.train {
        Some(files) => Some(split(files)?),
        None if only_test => None,
        None => {
            return Err(user!(
                "{}: there is no folder images/train to train on; put photos there, or name their folder with data.files.train",
                root.display()
            ));
        }
    };
    let (validation, test) = (named.validation.as_ref().map(&mut split).transpose()?, split(&named.test)?);
    let notes = (flat > 0).then(|| format!("{flat} boxes without area are dropped, in training and in evaluation"));
    let categories = (0..classes.len() as i64).collect();
    Ok(Found { train, validation, test, classes, categories, notes: notes.into_iter().collect() })
}

/// The splits by their folders.
fn usual(root: &Path) -> Result<SplitFiles> {
    let there = |split: &str| root.join("images").join(split).is_dir();
    let folders =
        |split: &str| AnnotatedFiles { annotations: format!("labels/{split}"), photos: format!("images/{split}") };
    let (test, validation) = split_names(there("val"), there("test")).ok_or_else(|| {
        user!(
            "{} has neither a folder images/val nor images/test; put the photos to test on there and their labels in labels/val, or name the \
             folders with data.files",
            root.display()
        )
    })?;
    let train = there("train").then(|| folders("train"));
    Ok(SplitFiles { train, validation: validation.map(folders), test: folders(test) })
}

/// The classes' names by number.
fn names(root: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        List(Vec<String>),
        Map(BTreeMap<usize, String>),
    }
    #[derive(Deserialize)]
    struct Yaml {
        names: Names,
    }
    let read = |name: &str| {
        let path = root.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(user!("cannot read {}: {e}", path.display())),
        }
    };
    let (path, names) = if let Some((path, text)) = read("data.yaml")? {
        let yaml: Yaml = serde_saphyr::from_str(&text)
            .map_err(|e| user!("{}: {e}; it must have `names`, a list of the classes", path.display()))?;
        let names = match yaml.names {
            Names::List(names) => names,
            Names::Map(names) if names.keys().copied().eq(0..names.len()) => names.into_values().collect(),
            Names::Map(_) => {
                return Err(user!("{}: `names` must number the classes from 0 without gaps", path.display()));
            }
        };
        (path, names)
    } else if let Some((path, text)) = read("classes.txt")?.or(read("obj.names")?) {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        (path, lines.filter(|line| !line.is_empty()).map(String::from).collect())
    } else {
        return Err(user!(
            "{}: nothing names the classes; write classes.txt there, a name on each line, or data.yaml with `names`",
            root.display()
        ));
    };
    match names.is_empty() {
        true => Err(user!("{} names no class", path.display())),
        false => Ok(names),
    }
}

fn photos(root: &Path, files: &AnnotatedFiles, classes: &[String], flat: &mut usize, bad: &Bad) -> Result<Photos> {
    let (folder, labels) = (root.join(&files.photos), root.join(&files.annotations));
    let (photos, mut texts) = (listed(&folder)?, BTreeSet::new());
    if labels.is_dir() {
        texts = listed(&labels)?.into_iter().filter(|name| name.ends_with(".txt") && name != "classes.txt").collect();
    }
    let mut split = Files::new(&folder, &files.photos);
    for (place, photo) in photos.iter().filter(|name| is_picture(name)).enumerate() {
        let text = format!("{}.txt", photo.rsplit_once('.').map_or(photo.as_str(), |(stem, _)| stem));
        let lines = match texts.remove(&text) {
            true => boxes(&labels.join(text), classes)?,
            false => Vec::new(),
        };
        let size = match looked_at(&folder.join(photo)) {
            Ok(size) => size,
            Err(reason) => {
                bad.add(folder.join(photo).display().to_string(), "left out", &reason)?;
                continue;
            }
        };
        let [width, height] = size.map(f64::from);
        let truth = |(class, [cx, cy, w, h]): (usize, [f64; 4])| {
            let rect = [(cx - w / 2.0) * width, (cy - h / 2.0) * height, w * width, h * height];
            Truth { class, rect, area: rect[2] * rect[3], crowd: false, difficult: false }
        };
        let mut truths: Vec<Truth> = lines.into_iter().map(truth).collect();
        let all = truths.len();
        truths.retain(has_area);
        *flat += all - truths.len();
        split.add(&folder, photo, Annotated { id: place as i64, size, truths }, bad)?;
    }
    for text in texts {
        bad.add(labels.join(&text).display().to_string(), "left out", "it has labels for a photo that is not there")?;
    }
    match split.index.len() {
        0 => Err(user!("{} holds no photos ({})", folder.display(), endings())),
        _ => Ok(Photos::Files(split)),
    }
}

/// The names of all files in a folder and in the folders in it, below it, sorted.
fn listed(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut folders = vec![String::new()];
    while let Some(inner) = folders.pop() {
        let place = folder.join(&inner);
        let cannot = |e: std::io::Error| user!("cannot read the folder {}: {e}", place.display());
        for entry in fs::read_dir(&place).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(user!("{:?} has a name that is no UTF-8 text; rename it", entry.path()));
            };
            let name = if inner.is_empty() { name } else { format!("{inner}/{name}") };
            // Links are followed to files, not to folders, which might lead back up.
            match entry.file_type().map_err(cannot)?.is_dir() {
                true => folders.push(name),
                false => drop(names.insert(name)),
            }
        }
    }
    Ok(names)
}

/// Classes and boxes of a file of labels.
fn boxes(path: &Path, classes: &[String]) -> Result<Vec<(usize, [f64; 4])>> {
    let text = fs::read_to_string(path).map_err(|e| user!("cannot read the labels {}: {e}", path.display()))?;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = || format!("{}:{number}", path.display());
        let words: Vec<&str> = line.split_whitespace().collect();
        let [class, numbers @ ..] = &words[..] else { continue };
        let Some(class) = class.parse::<usize>().ok().filter(|class| *class < classes.len()) else {
            return Err(user!(
                "{}: label {class} is none of the {} classes 0 to {}; mend it, or name the class",
                place(),
                classes.len(),
                classes.len() - 1
            ));
        };
        let numbers: Option<Vec<f64>> = numbers.iter().map(|word| word.parse().ok()).collect();
        let Some(Ok(rect)) = numbers.map(<[f64; 4]>::try_from) else {
            return Err(user!("{}: `{line}` is no box; write class, centre, width and height: five numbers", place()));
        };
        let rect = finite(rect, place)?;
        if !rect[..2].iter().all(|centre| (0.0..=1.0).contains(centre)) {
            return Err(user!(
                "{}: a box has its centre at {}, {}; write fractions of the photo, from 0 to 1",
                place(),
                rect[0],
                rect[1]
            ));
        }
        found.push((class, rect));
    }
    Ok(found)
}

/// Width and height of a photo that lies as it was seen; of most photos the start of the file is enough.
fn looked_at(path: &Path) -> Result<[u32; 2], String> {
    let mut bytes = Vec::new();
    let told = |e: std::io::Error| format!("it cannot be read: {e}");
    let mut file = File::open(path).map_err(told)?;
    file.by_ref().take(START).read_to_end(&mut bytes).map_err(told)?;
    if size_of(&bytes).is_err() {
        file.read_to_end(&mut bytes).map_err(told)?;
    }
    let size = size_of(&bytes)?;
    match is_turned(&bytes) {
        true => Err("a camera noted that it is turned, and nobody knows how it lay when it was labelled: write it upright with its pixels \
                     turned, as by `mogrify -auto-orient`, and look at its boxes"
            .into()),
        false => Ok(size),
    }
}
