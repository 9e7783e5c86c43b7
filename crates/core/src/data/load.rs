//! Data sets by name.

use tch::Device;

use super::root::folder_of;
use super::{DataConfig, ImageSet, Splits, cifar, idx, stream, synthetic};
use crate::classes::{DIGITS, FASHION};
use crate::{Result, user};

/// The sets that [`load`] knows.
const NAMES: [&str; 6] = ["mnist", "fashion_mnist", "cifar10", "cifar100", "synthetic", "synthetic_colour"];

/// The training and the test split of `config.name`, limited as `config` says, on `device`.
///
/// # Errors
/// An unknown name, files that are missing or damaged, a limit larger than the split, or a key that cannot act on this set.
pub fn load(config: &DataConfig, device: Device) -> Result<Splits> {
    let name = config.name.as_str();
    if !NAMES.contains(&name) {
        if stream::SCENES.contains(&name) {
            return Err(user!(
                "data.name: {name} has pictures with boxes, and this paper's networks learn from labels; choose one of {}",
                NAMES.join(", ")
            ));
        }
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
    for (key, given) in [("files", config.files.is_some()), ("canvases", config.canvases.is_some())] {
        if given {
            return Err(user!("data.{key} cannot act on {name}, whose pictures have no boxes; remove the key"));
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
        train: limited(train, config.limit_train, config.balanced == Some(true), "limit_train")?.to_device(device)?,
        validation,
        test: limited(splits.test, config.limit_test, false, "limit_test")?.to_device(device)?,
    })
}

fn limited(set: ImageSet, limit: Option<u64>, even: bool, key: &str) -> Result<ImageSet> {
    match limit {
        None => Ok(set),
        Some(n) if n == 0 || n > set.len() => {
            Err(user!("data.{key}: {n} does not fit a split of {} pictures; choose 1 to {}", set.len(), set.len()))
        }
        Some(n) => set.limit(n, even),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::data::{CanvasConfig, overlap};

    fn config(name: &str) -> DataConfig {
        DataConfig::named(name)
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
        assert_refused(&config("coco"), &["coco has pictures with boxes"]);
        let canvases = CanvasConfig { train: 1, test: 1, objects: [1, 1], size: [8, 8] };
        assert_refused(
            &DataConfig { canvases: Some(canvases), ..config("mnist") },
            &["data.canvases", "have no boxes"],
        );
    }

    #[test]
    fn balanced_limits_have_as_many_of_each_class() {
        let counts = |n| {
            let config = DataConfig { limit_train: Some(n), balanced: Some(true), ..config("synthetic") };
            load(&config, Device::Cpu).unwrap().train.class_counts().unwrap()
        };
        assert_eq!(counts(50), [5; 10]);
        let uneven = counts(57);
        assert!(uneven.iter().sum::<u64>() == 57 && uneven.iter().all(|n| [5, 6].contains(n)), "{uneven:?}");
        // More than a class has: the others give the rest, and all is all.
        let whole = load(&config("synthetic"), Device::Cpu).unwrap().train;
        assert_eq!(counts(whole.len()), whole.class_counts().unwrap());
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
}
