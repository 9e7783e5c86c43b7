//! Image folders: `train/CLASS/…` and `val/CLASS/…` or `test/CLASS/…`, as torchvision's ImageFolder reads them.

use std::fs;
use std::path::{Path, PathBuf};

use super::index::Index;
use crate::{Error, Result, user};

/// Folders within folders that are followed; more are taken for links in a circle.
const DEPTH: usize = 32;

/// The splits of a set, as they lie there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) train: Index,
    /// What `val` holds, where there is a `test` beside it.
    pub(super) validation: Option<Index>,
    /// What is tested on, under the name that it has there.
    pub(super) test: (&'static str, Index),
    pub(super) classes: Vec<String>,
}

/// Reads the names and sizes of all pictures below `root`.
///
/// # Errors
/// A split or class without pictures, a class in `val` or `test` that `train` lacks, names that are no text, folders that cannot be read.
pub(super) fn open(root: &Path) -> Result<Found> {
    let train_folder = root.join("train");
    let classes = folders(&train_folder).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => user!(
            "{} has no folder `train`; an image folder has train/CLASS/*.jpg and val/CLASS/*.jpg (or test/CLASS/*.jpg); point data.root at it",
            root.display()
        ),
        _ => cannot_read(&train_folder, &e),
    })?;
    if classes.is_empty() {
        return Err(user!(
            "{} has no folders; each class is a folder in it that holds the class's pictures",
            train_folder.display()
        ));
    }
    let split = |name: &str| split(root, name, &classes);
    let (test, validation) = split_names(root.join("val").is_dir(), root.join("test").is_dir()).ok_or_else(|| {
        user!(
            "{} has neither `val` nor `test`; put the pictures to test on there, a folder for each class",
            root.display()
        )
    })?;
    Ok(Found {
        train: split("train")?,
        validation: validation.map(split).transpose()?,
        test: (test, split(test)?),
        classes,
    })
}

/// What is tested on, and what is held out to choose by: `val` is the latter only where there is a `test` beside it.
pub(super) fn split_names(val: bool, test: bool) -> Option<(&'static str, Option<&'static str>)> {
    match (val, test) {
        (true, true) => Some(("test", Some("val"))),
        (true, false) => Some(("val", None)),
        (false, true) => Some(("test", None)),
        (false, false) => None,
    }
}

/// The names of the folders in `folder`, sorted.
fn folders(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str());
            let name =
                name.ok_or_else(|| std::io::Error::other(format!("{path:?} has a name that is no UTF-8 text")))?;
            names.push(name.to_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The pictures of one split: class by class, in each class folder by folder, in each folder by name.
fn split(root: &Path, name: &str, classes: &[String]) -> Result<Index> {
    let folder = root.join(name);
    let mut index = Index::new();
    for class_name in folders(&folder).map_err(|e| cannot_read(&folder, &e))? {
        let Ok(label) = classes.binary_search(&class_name) else {
            return Err(user!(
                "{}/{class_name} is a class that {} lacks; a network cannot be tested on what it never learns: remove it, or add the class there",
                folder.display(),
                root.join("train").display()
            ));
        };
        let before = index.len();
        class(&folder.join(&class_name), &format!("{name}/{class_name}"), label as u32, &mut index)?;
        if index.len() == before {
            return Err(user!(
                "{}/{class_name} holds no pictures (.jpg, .jpeg or .png); put some there or remove the folder",
                folder.display()
            ));
        }
    }
    if index.len() == 0 {
        return Err(user!("{} holds no folders with pictures; each class is a folder in it", folder.display()));
    }
    Ok(index)
}

/// A folder with its name below the root, and the names and sizes of the pictures in it.
type Listed = (String, PathBuf, Vec<(String, u64)>);

/// Adds the pictures in `folder` and in the folders in it: folder by folder in the order of their paths, which is torchvision's.
fn class(folder: &Path, name: &str, label: u32, index: &mut Index) -> Result<()> {
    let mut found = Vec::new();
    walk(folder, name, 0, &mut found)?;
    found.sort_unstable();
    for (name, folder, files) in found {
        index.container(folder, name, None);
        for (file, size) in files {
            index.add(&file, label, 0, size)?;
        }
    }
    Ok(())
}

fn walk(folder: &Path, name: &str, depth: usize, found: &mut Vec<Listed>) -> Result<()> {
    if depth > DEPTH {
        return Err(user!(
            "{} lies more than {DEPTH} folders deep; is there a link that leads back up?",
            folder.display()
        ));
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| cannot_read(folder, &e))? {
        let path = entry.map_err(|e| cannot_read(folder, &e))?.path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(user!("{path:?} has a name that is no UTF-8 text; rename it"));
        };
        let picture = is_picture(file);
        // Links are followed; one that leads nowhere is a bad picture when it is read.
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => walk(&path, &format!("{name}/{file}"), depth + 1, found)?,
            Ok(meta) if picture => files.push((file.to_string(), meta.len())),
            Err(_) if picture => files.push((file.to_string(), 0)),
            _ => {}
        }
    }
    if !files.is_empty() {
        files.sort_unstable();
        found.push((name.to_string(), folder.to_owned(), files));
    }
    Ok(())
}

/// Whether the name says that a file is a picture of a kind that is read.
pub(super) fn is_picture(name: &str) -> bool {
    let ends = |ending: &str| {
        name.len() > ending.len()
            && name.as_bytes()[name.len() - ending.len()..].eq_ignore_ascii_case(ending.as_bytes())
    };
    [".jpg", ".jpeg", ".png"].into_iter().any(ends)
}

fn cannot_read(folder: &Path, error: &std::io::Error) -> Error {
    user!("cannot read the folder {}: {error}", folder.display())
}
