//! Pascal VOC's XML: `Annotations/NAME.xml` and `JPEGImages/NAME.jpg`, in splits by the lists `ImageSets/Main/{train,val,test}.txt` below the
//! root. `train` is trained on (without it `trainval`); `test` is tested on, and `val` then held out to choose by, or else tested on.
//!
//! A box is xmin, ymin to xmax, ymax as they stand, nothing added. Boxes without area are dropped.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use roxmltree::{Document, Node};

use super::photos::{Annotated, Files, Found, Photos, by_name, finite, has_area};
use crate::config::{AnnotatedFiles, SplitFiles};
use crate::data::stream::bad::Bad;
use crate::data::stream::folder::{ENDINGS, endings};
use crate::detection::Truth;
use crate::weights::some;
use crate::{Result, user};

/// A list of photos that was read.
struct Read<'a> {
    files: &'a AnnotatedFiles,
    photos: Vec<Photo>,
}

/// What an XML file tells.
struct Photo {
    name: String,
    size: [u32; 2],
    /// A class's name and a truth whose class is not known yet.
    objects: Vec<(String, Truth)>,
}

/// Reads the annotations of all splits. The classes are `known`, or else the names in the training split (where nothing is trained, in that
/// to test on), sorted.
///
/// # Errors
/// Lists and files that are missing or damaged; classes that are not known; photos that are missing, as far as they are not put up with.
pub(super) fn open(
    root: &Path,
    files: Option<&SplitFiles>,
    known: Option<&[String]>,
    only_test: bool,
    bad: &Bad,
) -> Result<Found> {
    let named = match files {
        Some(files) => files.clone(),
        None => usual(root)?,
    };
    let train = match &named.train {
        Some(files) => Some(read(root, files)?),
        None if only_test => None,
        None => {
            return Err(user!(
                "{}: nothing says what to train on; put a list ImageSets/Main/train.txt there, or name one with data.files.train",
                root.display()
            ));
        }
    };
    let validation = named.validation.as_ref().map(|files| read(root, files)).transpose()?;
    let test = read(root, &named.test)?;
    let classes = match known {
        Some(known) => known.to_vec(),
        None => {
            let objects = train.as_ref().unwrap_or(&test).photos.iter().flat_map(|photo| &photo.objects);
            objects.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
        }
    };
    if classes.is_empty() {
        return Err(user!("{}: no annotation has an object; there is nothing to learn", root.display()));
    }
    let mut flat = 0;
    let mut split = |read| photos(root, read, &classes, &mut flat, bad);
    let (train, validation, test) =
        (train.map(&mut split).transpose()?, validation.map(&mut split).transpose()?, split(test)?);
    let notes = (flat > 0).then(|| format!("{flat} boxes without area are dropped, in training and in evaluation"));
    let categories = (0..classes.len() as i64).collect();
    Ok(Found { train, validation, test, classes, categories, notes: notes.into_iter().collect() })
}

/// The splits by VOC's own lists.
fn usual(root: &Path) -> Result<SplitFiles> {
    let list = |split: &str| {
        let annotations = format!("ImageSets/Main/{split}.txt");
        root.join(&annotations).is_file().then(|| AnnotatedFiles { annotations, photos: "JPEGImages".into() })
    };
    let (test, validation) = match (list("test"), list("val")) {
        (Some(test), val) => (test, val),
        (None, Some(val)) => (val, None),
        (None, None) => {
            return Err(user!(
                "{} has neither ImageSets/Main/test.txt nor val.txt; point data.root at a folder in VOC's layout, or name the lists with data.files",
                root.display()
            ));
        }
    };
    Ok(SplitFiles { train: list("train").or_else(|| list("trainval")), validation, test })
}

fn read<'a>(root: &Path, files: &'a AnnotatedFiles) -> Result<Read<'a>> {
    let path = root.join(&files.annotations);
    let list = fs::read_to_string(&path).map_err(|e| user!("cannot read the list {}: {e}", path.display()))?;
    // Lists of one class have 1, 0 or -1 behind the name.
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let photos: Vec<Photo> = names.map(|name| photo(root, name)).collect::<Result<_>>()?;
    match photos.is_empty() {
        true => Err(user!("{} is empty; write the name of a photo on each line, without its ending", path.display())),
        false => Ok(Read { files, photos }),
    }
}

fn photo(root: &Path, name: &str) -> Result<Photo> {
    let path = root.join("Annotations").join(format!("{name}.xml"));
    let text = fs::read_to_string(&path).map_err(|e| user!("cannot read the annotations {}: {e}", path.display()))?;
    let document = Document::parse(&text).map_err(|e| user!("{}: no XML: {e}; mend it", path.display()))?;
    let root = document.root_element();
    let size = child(root, "size");
    let side = |tag| size.and_then(|size| text_of(size, tag)?.parse::<u32>().ok()).unwrap_or(0);
    let mut objects = Vec::new();
    for object in root.children().filter(|node| node.has_tag_name("object")) {
        let lacks = |tag: &str| user!("{}: an object has no {tag} that can be read; mend it", path.display());
        let class = text_of(object, "name").filter(|name| !name.is_empty()).ok_or_else(|| lacks("name"))?;
        let corners = child(object, "bndbox").ok_or_else(|| lacks("bndbox"))?;
        let number = |tag| text_of(corners, tag).and_then(|text| text.parse().ok()).ok_or_else(|| lacks(tag));
        let [x0, y0, x1, y1]: [f64; 4] = [number("xmin")?, number("ymin")?, number("xmax")?, number("ymax")?];
        let rect = finite([x0, y0, x1 - x0, y1 - y0], || path.display().to_string())?;
        let difficult = text_of(object, "difficult").is_some_and(|text| text == "1");
        let truth = Truth { class: 0, rect, area: rect[2] * rect[3], crowd: false, difficult };
        objects.push((class.to_string(), truth));
    }
    Ok(Photo { name: name.to_string(), size: [side("width"), side("height")], objects })
}

fn child<'a, 'i>(node: Node<'a, 'i>, tag: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(tag))
}

fn text_of<'a>(node: Node<'a, '_>, tag: &str) -> Option<&'a str> {
    child(node, tag)?.text().map(str::trim)
}

/// `flat` counts the boxes without area.
fn photos(
    root: &Path,
    Read { files, photos }: Read,
    classes: &[String],
    flat: &mut usize,
    bad: &Bad,
) -> Result<Photos> {
    let (folder, numbers) = (root.join(&files.photos), by_name(classes));
    let mut split = Files::new(&folder, &files.photos);
    for (place, Photo { name, size, objects }) in photos.into_iter().enumerate() {
        let mut truths = Vec::with_capacity(objects.len());
        for (class, truth) in objects {
            let Some(number) = numbers.get(class.as_str()) else {
                return Err(user!(
                    "{}: {name} has an object {class}, which is no class that is known; known are {}",
                    root.join(&files.annotations).display(),
                    some(&classes.iter().map(String::as_str).collect::<Vec<_>>())
                ));
            };
            match has_area(&truth) {
                true => truths.push(Truth { class: *number, ..truth }),
                false => *flat += 1,
            }
        }
        let file = ENDINGS.iter().map(|ending| format!("{name}{ending}")).find(|file| folder.join(file).exists());
        let file = file.unwrap_or_else(|| format!("{name}{}", ENDINGS[0]));
        split.add(&folder, &file, Annotated { id: place as i64, size, truths }, bad)?;
    }
    match split.index.len() {
        0 => Err(user!("none of the photos of {} is in {} ({})", files.annotations, folder.display(), endings())),
        _ => Ok(Photos::Files(split)),
    }
}
