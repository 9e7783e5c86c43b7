//! COCO's JSON of instances: `annotations/instances_{train,val}2017.json` and the folders `train2017` and `val2017` below the root, or files
//! that `data.files` names.
//!
//! Boxes stay as they are written, of crowds, without area and beyond the photo, too: the evaluation takes them as pycocotools does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::Ids;
use super::photos::{Annotated, Files, Found, Photos};
use crate::config::{AnnotatedFiles, SplitFiles};
use crate::data::stream::bad::Bad;
use crate::detection::Truth;
use crate::weights::some;
use crate::{Result, user};

/// Most classes by category ids: an id beyond is a number, not a place in a list.
const MOST_IDS: i64 = 10_000;

/// Classes that no category has.
const GAP: &str = "N/A";

#[derive(Deserialize)]
struct Instances {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

/// A file that was read.
struct Read<'a> {
    files: &'a AnnotatedFiles,
    /// As it is told.
    path: String,
    instances: Instances,
}

/// Categories by id, as the first file has them.
struct Categories {
    path: String,
    names: BTreeMap<i64, String>,
}

/// Reads the annotations of all splits.
///
/// # Errors
/// Files that are missing or no such JSON; annotations of categories or photos that their file does not list; photos that are missing, as far
/// as they are not put up with.
pub(super) fn open(root: &Path, files: Option<&SplitFiles>, ids: Ids, only_test: bool, bad: &Bad) -> Result<Found> {
    let usual = |split: &str| AnnotatedFiles {
        annotations: format!("annotations/instances_{split}2017.json"),
        photos: format!("{split}2017"),
    };
    let named = match files {
        Some(files) => files.clone(),
        None => SplitFiles { train: Some(usual("train")), validation: None, test: usual("val") },
    };
    let train = match &named.train {
        Some(files) if root.join(&files.annotations).exists() => Some(files),
        _ if only_test => None,
        Some(files) => {
            return Err(user!(
                "{}: there is no {} to train on; put it there, or name the files, such as data.files={{train: {{annotations: annotations/mine.json, \
                 photos: photos}}, test: {{annotations: …, photos: …}}}}",
                root.display(),
                files.annotations
            ));
        }
        None => return Err(user!("data.files.train is missing; name the annotations and the photos to train on")),
    };
    let test = read(root, &named.test)?;
    let train = train.map(|files| read(root, files)).transpose()?;
    let validation = named.validation.as_ref().map(|files| read(root, files)).transpose()?;
    let categories = Categories::of(train.as_ref().unwrap_or(&test), ids)?;
    let split = |read| photos(root, read, &categories, ids, bad);
    Ok(Found {
        classes: categories.classes(ids),
        categories: categories.ids(ids),
        train: train.map(split).transpose()?,
        validation: validation.map(split).transpose()?,
        test: split(test)?,
        notes: Vec::new(),
    })
}

fn read<'a>(root: &Path, files: &'a AnnotatedFiles) -> Result<Read<'a>> {
    let path = root.join(&files.annotations);
    let bytes = fs::read(&path).map_err(|e| {
        user!(
            "cannot read {}: {e}; point data.root at a folder in COCO's layout, or name the files with data.files",
            path.display()
        )
    })?;
    let path = path.display().to_string();
    let instances = serde_json::from_slice(&bytes).map_err(|e| {
        user!(
            "{path}: {e}; a COCO file of instances has lists `images` (id, file_name), `annotations` (image_id, category_id, bbox of four finite \
             numbers) and `categories` (id, name)"
        )
    })?;
    Ok(Read { files, path, instances })
}

impl Categories {
    fn of(Read { path, instances, .. }: &Read, ids: Ids) -> Result<Self> {
        let mut names = BTreeMap::new();
        for Category { id, name } in &instances.categories {
            if ids == Ids::Category && !(0..MOST_IDS).contains(id) {
                return Err(user!(
                    "{path}: category {name} has the id {id}; this network has a class for each id up to the largest, so write ids from 0 to {}",
                    MOST_IDS - 1
                ));
            }
            if names.insert(*id, name.clone()).is_some() {
                return Err(user!("{path}: two categories have the id {id}; give each its own"));
            }
        }
        match names.is_empty() {
            true => Err(user!("{path}: its list `categories` is empty; write each category's id and name there")),
            false => Ok(Self { path: path.clone(), names }),
        }
    }

    /// Names by class.
    fn classes(&self, ids: Ids) -> Vec<String> {
        self.ids(ids).iter().map(|id| self.names.get(id).map_or(GAP, String::as_str).to_string()).collect()
    }

    /// Category ids by class.
    fn ids(&self, ids: Ids) -> Vec<i64> {
        match ids {
            Ids::Category => (0..=self.names.keys().max().copied().unwrap_or(0)).collect(),
            Ids::Dense => self.names.keys().copied().collect(),
        }
    }

    /// The class of each id.
    fn numbers(&self, ids: Ids) -> HashMap<i64, usize> {
        let of_ids = self.ids(ids).into_iter().enumerate().map(|(class, id)| (id, class));
        of_ids.filter(|(id, _)| self.names.contains_key(id)).collect()
    }
}

/// The photos of a file in the order of their ids, which is that of torchvision's CocoDetection.
fn photos(root: &Path, read: Read, categories: &Categories, ids: Ids, bad: &Bad) -> Result<Photos> {
    let Read { files, path, instances: Instances { mut images, annotations, categories: own } } = read;
    for Category { id, name } in &own {
        if categories.names.get(id) != Some(name) {
            return Err(user!(
                "{path}: its category {id} is {name}, and {} has {} there; number both alike",
                categories.path,
                categories.names.get(id).map_or("none", String::as_str)
            ));
        }
    }
    let numbers = categories.numbers(ids);
    images.sort_by_key(|image| image.id);
    if let Some(twice) = images.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(user!("{path}: two images have the id {}; give each its own", twice[0].id));
    }
    let mut truths: HashMap<i64, Vec<Truth>> = images.iter().map(|image| (image.id, Vec::new())).collect();
    let mut unknown = BTreeSet::new();
    for Annotation { image_id, category_id, bbox: rect, area, iscrowd } in annotations {
        let Some(class) = numbers.get(&category_id).copied() else {
            return Err(user!(
                "{path}: an annotation of image {image_id} has category_id {category_id}, which `categories` does not list; it has {}",
                some(
                    &numbers
                        .keys()
                        .map(|id| id.to_string())
                        .collect::<BTreeSet<_>>()
                        .iter()
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                )
            ));
        };
        let area = area.unwrap_or(rect[2] * rect[3]);
        match truths.get_mut(&image_id) {
            Some(list) => list.push(Truth { class, rect, area, crowd: iscrowd != 0, difficult: false }),
            None => drop(unknown.insert(image_id)),
        }
    }
    for id in unknown {
        bad.add(format!("{path}: image {id}"), "left out", "annotations name it, and `images` does not")?;
    }
    let folder = root.join(&files.photos);
    let mut split = Files::new(&folder, &files.photos);
    for Image { id, file_name, width, height } in images {
        let truths = truths.remove(&id).unwrap_or_default();
        split.add(&folder, &file_name, Annotated { id, size: [width, height], truths }, bad)?;
    }
    match split.index.len() {
        0 => Err(user!("{path}: none of its photos is in {}", folder.display())),
        _ => Ok(Photos::Files(split)),
    }
}
