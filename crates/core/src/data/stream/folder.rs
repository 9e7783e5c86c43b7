//! Image folders: `train/CLASS/…` and `val/CLASS/…` or `test/CLASS/…`, as torchvision's ImageFolder reads them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::index::Index;
use crate::{Error, Result, user};

/// How the names of pictures that are read end.
pub(super) const ENDINGS: [&str; 5] = [".jpg", ".jpeg", ".png", ".webp", ".bmp"];

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
    /// The names of the classes, by label.
    pub(super) classes: Vec<String>,
    /// Files that are no pictures by their names.
    pub(super) passed_over: PassedOver,
}

/// What a set is opened for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// `data.name`.
    pub(super) set: &'a str,
    /// The classes of the weights that are tested, by label. `None`: the set's own.
    pub(super) known: Option<&'a [String]>,
    /// Whether nothing is trained, so that there need be nothing to train on.
    pub(super) only_test: bool,
}

/// Files that are no pictures by their names, counted by their endings.
#[derive(Debug, Default)]
pub struct PassedOver(BTreeMap<String, u64>);

impl PassedOver {
    fn add(&mut self, file: &str) {
        // Files that begin with a dot are those that systems leave behind.
        if !file.starts_with('.') {
            let ending = file.rsplit_once('.').map_or("no ending".into(), |(_, ending)| format!(".{ending}"));
            *self.0.entry(ending).or_default() += 1;
        }
    }

    /// What the user must know of them, if there are any.
    pub fn note(&self) -> Option<String> {
        let each: Vec<String> = self.0.iter().map(|(ending, count)| format!("{ending} ({count})")).collect();
        let total: u64 = self.0.values().sum();
        let form = if total == 1 { "1 file is" } else { "files are" };
        let count = if total == 1 { String::new() } else { format!("{total} ") };
        (total > 0)
            .then(|| format!("{count}{form} passed over for the ending: {}; read are {}", each.join(", "), endings()))
    }
}

/// Reads the names and sizes of all pictures below `root`.
///
/// # Errors
/// A split or class without pictures, a class in `val` or `test` that `train` lacks or given weights do not know, two folders of one class,
/// names that are no text, folders that cannot be read.
pub(super) fn open(root: &Path, wanted: &Wanted) -> Result<Found> {
    let trained = match wanted.only_test && !root.join("train").exists() {
        true => None,
        false => Some(class_folders(root)?),
    };
    let (test, validation) = split_names(root.join("val").is_dir(), root.join("test").is_dir()).ok_or_else(|| {
        user!(
            "{} has neither `val` nor `test`; put the pictures to test on there, a folder for each class",
            root.display()
        )
    })?;
    let classes = match (wanted.known, &trained) {
        (Some(known), _) => Classes::of_weights(wanted.set, known),
        (None, Some(folders)) => Classes::own(wanted.set, folders),
        (None, None) => {
            let folder = root.join(test);
            Classes::own(wanted.set, &folders(&folder).map_err(|e| cannot_read(&folder, &e))?)
        }
    };
    let mut passed_over = PassedOver::default();
    let mut split = |name: &str| split(root, name, &classes, &mut passed_over);
    Ok(Found {
        train: if trained.is_some() { split("train")? } else { Index::new() },
        validation: validation.map(&mut split).transpose()?,
        test: (test, split(test)?),
        classes: classes.names,
        passed_over,
    })
}

/// The folders of the classes to train on, sorted.
///
/// # Errors
/// There is no folder `train`, or none in it.
pub(super) fn class_folders(root: &Path) -> Result<Vec<String>> {
    let train = root.join("train");
    let classes = folders(&train).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => user!(
            "{} has no folder `train`; an image folder has train/CLASS/*.jpg and val/CLASS/*.jpg (or test/CLASS/*.jpg); point data.root at it",
            root.display()
        ),
        _ => cannot_read(&train, &e),
    })?;
    if classes.is_empty() {
        return Err(user!(
            "{} has no folders; each class is a folder in it that holds the class's pictures",
            train.display()
        ));
    }
    Ok(classes)
}

/// All pictures in a folder and in the folders in it, in the order of their paths, and what lies beside them.
///
/// # Errors
/// Folders that cannot be read; names that are no text.
pub fn photos_in(folder: &Path) -> Result<(Vec<PathBuf>, PassedOver)> {
    let (mut found, mut passed_over) = (Vec::new(), PassedOver::default());
    walk(folder, "", 0, &mut found, &mut passed_over)?;
    found.sort_unstable();
    let files = |(_, folder, files): Listed| files.into_iter().map(move |(file, _)| folder.join(file));
    Ok((found.into_iter().flat_map(files).collect(), passed_over))
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
fn split(root: &Path, name: &str, classes: &Classes, passed_over: &mut PassedOver) -> Result<Index> {
    let folder = root.join(name);
    let (mut index, mut seen) = (Index::new(), HashMap::new());
    let here = folders(&folder).map_err(|e| cannot_read(&folder, &e))?;
    for class_name in &here {
        let label = classes
            .label(class_name)
            .ok_or_else(|| classes.refuse(&folder.display().to_string(), class_name, &here))?;
        if let Some(other) = seen.insert(label, class_name) {
            return Err(user!(
                "{}: the folders \"{}\" and \"{}\" are one class: names that look alike are written in two Unicode forms there, as happens when \
                 folders come from several systems; put the pictures of both into one folder",
                folder.display(),
                other.escape_default(),
                class_name.escape_default()
            ));
        }
        let before = index.len();
        class(&folder.join(class_name), &format!("{name}/{class_name}"), label, &mut index, passed_over)?;
        if index.len() == before {
            return Err(user!(
                "{}/{class_name} holds no pictures ({}); put some there or remove the folder",
                folder.display(),
                endings()
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
fn class(folder: &Path, name: &str, label: u32, index: &mut Index, passed_over: &mut PassedOver) -> Result<()> {
    let mut found = Vec::new();
    walk(folder, name, 0, &mut found, passed_over)?;
    found.sort_unstable();
    for (name, folder, files) in found {
        index.container(folder, name, None);
        for (file, size) in files {
            index.add(&file, label, 0, size)?;
        }
    }
    Ok(())
}

fn walk(folder: &Path, name: &str, depth: usize, found: &mut Vec<Listed>, passed_over: &mut PassedOver) -> Result<()> {
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
            Ok(meta) if meta.is_dir() => walk(&path, &format!("{name}/{file}"), depth + 1, found, passed_over)?,
            Ok(meta) if picture => files.push((file.to_string(), meta.len())),
            Err(_) if picture => files.push((file.to_string(), 0)),
            _ => passed_over.add(file),
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
    ENDINGS.into_iter().any(ends)
}

/// `.jpg, .jpeg, .png, .webp and .bmp`
pub(super) fn endings() -> String {
    let [first @ .., last] = ENDINGS;
    format!("{} and {last}", first.join(", "))
}

fn cannot_read(folder: &Path, error: &std::io::Error) -> Error {
    user!("cannot read the folder {}: {error}", folder.display())
}
