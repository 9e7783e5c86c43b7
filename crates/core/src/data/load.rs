//! Data sets by name.

use std::path::{Path, PathBuf};

use tch::Device;

use super::{DataConfig, ImageSet, Splits, cifar, idx, stream, synthetic};
use crate::{Result, user};

/// The sets that [`load`] knows.
const NAMES: [&str; 6] = ["mnist", "fashion_mnist", "cifar10", "cifar100", "synthetic", "synthetic_colour"];

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// In the order of the labels; from the data set's own page.
const FASHION: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// The training and the test split of `config.name`, limited as `config` says, on `device`.
///
/// # Errors
/// An unknown name, files that are missing or damaged, a limit larger than the split, or a key that cannot act on this set.
pub fn load(config: &DataConfig, device: Device) -> Result<Splits> {
    let name = config.name.as_str();
    if !NAMES.contains(&name) {
        if stream::names().any(|photos| photos == name) {
            return Err(user!(
                "data.name: {name} has photos of all sizes, which this paper's networks do not take; choose one of {}",
                NAMES.join(", ")
            ));
        }
        let known: Vec<&str> = NAMES.into_iter().chain(stream::names()).collect();
        let likeness = |a: &&&str, b: &&&str| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name));
        return Err(user!(
            "data.name: no data set `{name}`; known are {}; the nearest is `{}`",
            known.join(", "),
            known.iter().max_by(likeness).unwrap_or(&NAMES[0])
        ));
    }
    for (key, value) in [("workers", config.workers), ("max_bad", config.max_bad)] {
        if value.is_some() {
            return Err(user!("data.{key} cannot act on {name}, which is read into memory as a whole; remove the key"));
        }
    }
    let splits = match name {
        "synthetic" | "synthetic_colour" if config.root.is_some() => {
            return Err(user!("data.root cannot act on {name}, which is drawn by code; remove the key"));
        }
        "synthetic" => synthetic::splits()?,
        "synthetic_colour" => synthetic::colour_splits()?,
        _ => {
            let root = folder_of(config)?;
            match name {
                "cifar10" => cifar::ten(&root)?,
                "cifar100" => cifar::hundred(&root)?,
                "mnist" => idx::splits(name, &root, &DIGITS)?,
                _ => idx::splits(name, &root, &FASHION)?,
            }
        }
    };
    let (train, validation) = match config.validation {
        Some(n) => {
            let (train, out) = splits.train.hold_out(n).map_err(|e| user!("data.validation: {e}"))?;
            (train, Some(out.to_device(device)?))
        }
        None => (splits.train, None),
    };
    Ok(Splits {
        train: limited(train, config.limit_train, "limit_train")?.to_device(device)?,
        validation,
        test: limited(splits.test, config.limit_test, "limit_test")?.to_device(device)?,
    })
}

fn limited(set: ImageSet, limit: Option<u64>, key: &str) -> Result<ImageSet> {
    match limit {
        None => Ok(set),
        Some(n) if n == 0 || n > set.len() => {
            Err(user!("data.{key}: {n} does not fit a split of {} pictures; choose 1 to {}", set.len(), set.len()))
        }
        Some(n) => set.limit(n),
    }
}

/// The folder that holds the files of `config.name`.
///
/// # Errors
/// There is none.
pub(super) fn folder_of(config: &DataConfig) -> Result<PathBuf> {
    let shared = std::env::var_os("REPRO_DATA").map(PathBuf::from);
    root(config, shared, &std::env::current_dir().unwrap_or_default())
}

/// Where the files lie: `data.root`, else `$REPRO_DATA/<name>`, else `data/<name>` in `here` or the nearest folder above that has it.
fn root(config: &DataConfig, shared: Option<PathBuf>, here: &Path) -> Result<PathBuf> {
    let name = &config.name;
    if let Some(root) = &config.root {
        return Ok(PathBuf::from(root));
    }
    if let Some(shared) = shared.filter(|path| !path.as_os_str().is_empty()) {
        return Ok(shared.join(name));
    }
    if ["folder", "shards"].contains(&name.as_str()) {
        return Err(user!(
            "data.root is missing: data.name: {name} means photos of your own; point data.root at their folder"
        ));
    }
    let found = here.ancestors().map(|folder| folder.join("data").join(name)).find(|folder| folder.is_dir());
    found.ok_or_else(|| {
        user!(
            "{name} is not here: no folder data/{name} in {} or above it; get it with `scripts/get_data.sh {name}`, or point data.root at its folder",
            here.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::data::overlap;

    fn config(name: &str) -> DataConfig {
        DataConfig {
            name: name.into(),
            root: None,
            workers: None,
            validation: None,
            limit_train: None,
            limit_test: None,
            max_bad: None,
        }
    }

    fn assert_refused(config: &DataConfig, words: &[&str]) {
        match load(config, Device::Cpu) {
            Err(Error::User(text)) => {
                assert!(words.iter().all(|word| text.contains(word)), "{text}")
            }
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        assert_refused(
            &config("fashion-mnist"),
            &["mnist, fashion_mnist, cifar10, cifar100, synthetic", "the nearest is `fashion_mnist`"],
        );
    }

    #[test]
    fn keys_that_cannot_act_are_refused() {
        assert_refused(&DataConfig { workers: Some(2), ..config("synthetic") }, &["data.workers"]);
        assert_refused(&DataConfig { max_bad: Some(2), ..config("mnist") }, &["data.max_bad"]);
        assert_refused(&DataConfig { root: Some("x".into()), ..config("synthetic") }, &["data.root"]);
    }

    #[test]
    fn limits_take_a_part_and_no_more_than_all() {
        let limited = DataConfig { limit_train: Some(100), limit_test: Some(500), ..config("synthetic") };
        let splits = load(&limited, Device::Cpu).unwrap();
        assert_eq!((splits.train.len(), splits.test.len()), (100, 500));
        assert_refused(
            &DataConfig { limit_test: Some(501), ..config("synthetic") },
            &["data.limit_test: 501", "1 to 500"],
        );
        assert_refused(&DataConfig { limit_train: Some(0), ..config("synthetic") }, &["data.limit_train: 0"]);
    }

    #[test]
    fn the_drawn_set_is_balanced_and_has_no_overlap() {
        let splits = load(&config("synthetic"), Device::Cpu).unwrap();
        assert_eq!(splits.train.class_counts().unwrap(), [200; 10]);
        assert_eq!(splits.test.class_counts().unwrap(), [50; 10]);
        assert_eq!(overlap(&splits.train, &splits.test).unwrap(), 0);
    }

    #[test]
    fn the_root_is_the_first_that_is_given() {
        let folder = tempfile::TempDir::new().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::create_dir_all(folder.path().join("data/mnist")).unwrap();
        let here = |config: &DataConfig, shared: Option<&str>| root(config, shared.map(PathBuf::from), &inner);
        assert_eq!(here(&config("mnist"), None).unwrap(), folder.path().join("data/mnist"));
        assert_eq!(here(&config("mnist"), Some("")).unwrap(), folder.path().join("data/mnist"));
        assert_eq!(here(&config("mnist"), Some("/sets")).unwrap(), Path::new("/sets/mnist"));
        let given = DataConfig { root: Some("/mine".into()), ..config("mnist") };
        assert_eq!(here(&given, Some("/sets")).unwrap(), Path::new("/mine"));
        let text = here(&config("fashion_mnist"), None).unwrap_err().to_string();
        assert!(text.contains("scripts/get_data.sh fashion_mnist"), "{text}");
    }
}
