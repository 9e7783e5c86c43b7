//! Data sets by name.

use std::path::{Path, PathBuf};

use tch::Device;

use super::{DataConfig, ImageSet, Splits, idx, synthetic};
use crate::{Result, user};

/// The sets that [`load`] knows.
const NAMES: [&str; 3] = ["mnist", "fashion_mnist", "synthetic"];

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// In the order of the labels; from the data set's own page.
const FASHION: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// The training and the test split of `config.name`, limited as `config` says, on `device`.
///
/// # Errors
/// An unknown name, files that are missing or damaged, a limit larger than the split, or a key that cannot act on this set.
pub fn load(config: &DataConfig, device: Device) -> Result<Splits> {
    let name = config.name.as_str();
    if !NAMES.contains(&name) {
        let nearest = NAMES
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        return Err(user!(
            "data.name: no data set `{name}`; known are {}; the nearest is `{}`",
            NAMES.join(", "),
            nearest.unwrap_or(&NAMES[0])
        ));
    }
    for (key, value) in [("workers", config.workers), ("max_bad", config.max_bad)] {
        if value.is_some() {
            return Err(user!(
                "data.{key} cannot act on {name}, which is read into memory as a whole; remove the key"
            ));
        }
    }
    let splits = match name {
        "synthetic" if config.root.is_some() => {
            return Err(user!(
                "data.root cannot act on synthetic, which is drawn by code; remove the key"
            ));
        }
        "synthetic" => synthetic::splits()?,
        _ => {
            let root = root(
                config,
                std::env::var_os("REPRO_DATA").map(PathBuf::from),
                &std::env::current_dir().unwrap_or_default(),
            )?;
            let classes = if name == "mnist" { &DIGITS } else { &FASHION };
            idx::splits(name, &root, classes)?
        }
    };
    Ok(Splits {
        train: limited(splits.train, config.limit_train, "limit_train")?.to_device(device)?,
        test: limited(splits.test, config.limit_test, "limit_test")?.to_device(device)?,
    })
}

fn limited(set: ImageSet, limit: Option<u64>, key: &str) -> Result<ImageSet> {
    match limit {
        None => Ok(set),
        Some(n) if n == 0 || n > set.len() => Err(user!(
            "data.{key}: {n} does not fit a split of {} pictures; choose 1 to {}",
            set.len(),
            set.len()
        )),
        Some(n) => set.limit(n),
    }
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
    let found = here
        .ancestors()
        .map(|folder| folder.join("data").join(name))
        .find(|folder| folder.is_dir());
    found.ok_or_else(|| {
        user!(
            "{name} is not here: no folder data/{name} in {} or above it; get it with `scripts/get_data.sh {name}`, or point data.root at its folder",
            here.display()
        )
    })
}
