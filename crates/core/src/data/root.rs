//! Where the files of a data set lie.

use std::path::{Path, PathBuf};

use super::DataConfig;
use crate::{Result, user};

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
        let path = PathBuf::from(root);
        if path.starts_with("~") && !path.exists() {
            return Err(user!(
                "data.root: there is no folder {root}; a shell leaves ~ as it is in the middle of a word, write $HOME in its place"
            ));
        }
        return Ok(path);
    }
    if let Some(shared) = shared.filter(|path| !path.as_os_str().is_empty()) {
        return Ok(shared.join(name));
    }
    let own = ["folder", "shards"].contains(&name.as_str());
    let found = here.ancestors().map(|folder| folder.join("data").join(name)).find(|folder| folder.is_dir() && !own);
    found.ok_or_else(|| {
        if own || ["coco", "voc", "yolo"].contains(&name.as_str()) {
            return user!("data.root is missing: data.name: {name} means photos of your own; point data.root at their folder");
        }
        user!(
            "{name} is not here: no folder data/{name} in {} or above it; get it with `scripts/get_data.sh {name}`, or point data.root at its folder",
            here.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> DataConfig {
        DataConfig::named(name)
    }

    #[test]
    fn the_root_is_the_first_that_is_given() {
        let folder = tempfile::TempDir::new().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::create_dir_all(folder.path().join("data/mnist")).unwrap();
        let here = |config: &DataConfig, shared: Option<&str>| root(config, shared.map(PathBuf::from), &inner);
        assert_eq!(here(&named("mnist"), None).unwrap(), folder.path().join("data/mnist"));
        assert_eq!(here(&named("mnist"), Some("")).unwrap(), folder.path().join("data/mnist"));
        assert_eq!(here(&named("mnist"), Some("/sets")).unwrap(), Path::new("/sets/mnist"));
        let given = DataConfig { root: Some("/mine".into()), ..named("mnist") };
        assert_eq!(here(&given, Some("/sets")).unwrap(), Path::new("/mine"));
        let home = DataConfig { root: Some("~/photos".into()), ..named("folder") };
        let text = here(&home, None).unwrap_err().to_string();
        assert!(text.contains("~/photos") && text.contains("$HOME"), "{text}");
        let text = here(&named("fashion_mnist"), None).unwrap_err().to_string();
        assert!(text.contains("scripts/get_data.sh fashion_mnist"), "{text}");
    }
}
