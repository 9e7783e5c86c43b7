//! Where weights lie: a file, or a folder as runs, diffusers and the Hugging Face hub lay them out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::names::some;
use super::{Named, hub, read};
use crate::{Result, user};

/// How the list of a model's shards ends.
pub(super) const INDEX: &str = ".safetensors.index.json";

/// How PyTorch's pickles end, most often.
const PICKLES: [&str; 5] = [".pth", ".pt", ".bin", ".ckpt", ".th"];

/// Reads the weights that `path` means, as [`locate`] finds them, and the JSON text beside them if there is one.
///
/// # Errors
/// Those of [`locate`] and [`read`]; shards that do not hold what their index says, or that hold a tensor twice.
pub fn load(path: &Path) -> Result<(Named, Option<String>)> {
    let file = locate(path)?;
    if !name(&file).ends_with(INDEX) {
        return read(&file);
    }
    let wrong = |why: String| user!("{}: {why}", file.display());
    let index = index(&file)?;
    let shards = index.shards();
    let lost: Vec<&str> = shards.iter().copied().filter(|shard| !file.with_file_name(shard).is_file()).collect();
    if !lost.is_empty() {
        return Err(wrong(format!("of {} shards {} are not there: {}", shards.len(), lost.len(), some(&lost))));
    }
    let (mut tensors, mut meta) = (Named::new(), None);
    for shard in shards {
        let (part, text) = read(&file.with_file_name(shard))?;
        meta = meta.or(text);
        for (name, tensor) in part {
            if index.weight_map.get(&name).is_none_or(|listed| listed != shard) {
                return Err(wrong(format!("{shard} holds {name}, which is not listed there")));
            }
            tensors.insert(name, tensor);
        }
    }
    let absent: Vec<&str> = index.weight_map.keys().map(String::as_str).filter(|n| !tensors.contains_key(*n)).collect();
    if !absent.is_empty() {
        return Err(wrong(format!("{} tensors are listed and not there: {}", absent.len(), some(&absent))));
    }
    Ok((tensors, meta))
}

/// Which shard holds which tensor.
#[derive(Deserialize)]
pub(super) struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    pub(super) fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// Reads the list of a model's shards.
pub(super) fn index(file: &Path) -> Result<Index> {
    let text = fs::read_to_string(file).map_err(|e| user!("cannot read {}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| user!("{}: is no index of shards: {e}", file.display()))
}

/// The file that `path` means: itself; of `hf:owner/name`, an address in the Hugging Face hub, the one in its cache, fetched if it is not
/// there (`hub.rs`); or of a folder
///
/// * of a run, `weights.safetensors`, or where only a later stage has left its weights, `weights-<stage>.safetensors`;
/// * of a model, the one index of shards, or else the one safetensors file, or else the one `.weights` of Darknet;
/// * of the hub's cache (`models--owner--name`), those of the snapshot that `refs/main` names.
///
/// # Errors
/// [`crate::Error::User`] that says what is there instead, or why it could not be fetched.
pub fn locate(path: &Path) -> Result<PathBuf> {
    if let Some(file) = hub::file(path)? {
        return Ok(file);
    }
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        return Err(user!("no weights at {}: no such file; give a .safetensors file or a folder", path.display()));
    }
    if let Ok(revision) = fs::read_to_string(path.join("refs/main")) {
        return locate(&path.join("snapshots").join(revision.trim()));
    }
    let entries = fs::read_dir(path).map_err(|e| user!("cannot read {}: {e}", path.display()))?;
    // A link to nothing is not there.
    let mut there: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    there.retain(|name| !name.starts_with('.'));
    there.sort();
    let ending = |ends: &[&str]| -> Vec<&str> {
        there.iter().map(String::as_str).filter(|name| ends.iter().any(|end| name.ends_with(end))).collect()
    };
    if there.iter().any(|name| name == "weights.safetensors") {
        return Ok(path.join("weights.safetensors"));
    }
    let mut averages = ending(&[".safetensors"]);
    averages.retain(|name| !name.starts_with("weights-ema"));
    for choice in [ending(&[INDEX]), averages, ending(&[".weights"]), ending(&PICKLES)] {
        match choice[..] {
            [] => {}
            // A pickle is refused where it is read, with what converts it.
            [one] => return Ok(path.join(one)),
            _ => return Err(user!("{} holds several weights; name one of {}", path.display(), some(&choice))),
        }
    }
    let what = match there.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "the folder is empty".to_string(),
        ref names if names.contains(&"model_index.json") => {
            let parts: Vec<&str> = names.iter().copied().filter(|name| path.join(name).is_dir()).collect();
            format!("this is a pipeline of several models; name the folder of one: {}", some(&parts))
        }
        ref names if names.contains(&"config.yaml") => format!("this run is not finished; it holds {}", some(names)),
        ref names => format!("the folder holds {}", some(names)),
    };
    Err(user!("no weights at {}: {what}; give a .safetensors file, or the folder of a run or a model", path.display()))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{hash, write};
    use tch::{Device, Kind, Tensor};

    struct Folder(tempfile::TempDir);

    impl Folder {
        /// Files of tensors, one tensor for each name.
        fn of(files: &[(&str, &[&str])]) -> Self {
            let folder = Folder(tempfile::tempdir().unwrap());
            for (file, names) in files {
                let tensors = tensors(names);
                fs::create_dir_all(folder.at(file).parent().unwrap()).unwrap();
                write(&folder.at(file), &tensors, None).unwrap();
            }
            folder
        }

        fn text(self, file: &str, text: &str) -> Self {
            fs::create_dir_all(self.at(file).parent().unwrap()).unwrap();
            fs::write(self.at(file), text).unwrap();
            self
        }

        fn at(&self, file: &str) -> PathBuf {
            self.0.path().join(file)
        }

        fn found(&self) -> String {
            locate(self.0.path()).unwrap().strip_prefix(self.0.path()).unwrap().display().to_string()
        }

        fn refusal(&self) -> String {
            let error = load(self.0.path()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        }
    }

    fn tensors(names: &[&str]) -> Named {
        names.iter().map(|n| (n.to_string(), Tensor::full([3], n.len() as i64, (Kind::Float, Device::Cpu)))).collect()
    }

    fn index(shards: &[(&str, &str)]) -> String {
        let map: BTreeMap<_, _> = shards.iter().copied().collect();
        serde_json::json!({"metadata": {"total_size": 36}, "weight_map": map}).to_string()
    }

    #[test]
    fn folders_as_they_are_laid_out() {
        let run = Folder::of(&[("weights.safetensors", &["a"]), ("weights-ema.safetensors", &["a"])]);
        assert_eq!(run.found(), "weights.safetensors");
        assert_eq!(locate(&run.at("weights-ema.safetensors")).unwrap(), run.at("weights-ema.safetensors"));
        let stage = Folder::of(&[("weights-probe.safetensors", &["a"]), ("weights-ema-probe.safetensors", &["a"])]);
        assert_eq!(stage.found(), "weights-probe.safetensors");
        let unet = Folder::of(&[("diffusion_pytorch_model.safetensors", &["a"])]).text("config.json", "{}");
        assert_eq!(unet.found(), "diffusion_pytorch_model.safetensors");
        let hub = Folder::of(&[("snapshots/1f/model.safetensors", &["a"]), ("snapshots/2e/model.safetensors", &["a"])]);
        assert_eq!(hub.text("refs/main", "2e").found(), "snapshots/2e/model.safetensors");
    }

    #[test]
    fn what_is_there_instead_is_said() {
        let two = Folder::of(&[("a.safetensors", &["a"]), ("b.safetensors", &["a"])]);
        assert!(two.refusal().contains("holds several weights; name one of a.safetensors, b.safetensors"));
        let pipeline =
            Folder::of(&[("unet/x.safetensors", &["a"])]).text("vae/config.json", "{}").text("model_index.json", "{}");
        assert!(pipeline.refusal().contains("a pipeline of several models; name the folder of one: unet, vae"));
        assert!(Folder::of(&[]).refusal().contains("the folder is empty"));
        assert!(Folder::of(&[]).text("notes.txt", "").refusal().contains("the folder holds notes.txt"));
        assert!(
            Folder::of(&[])
                .text("config.yaml", "")
                .refusal()
                .contains("this run is not finished; it holds config.yaml")
        );
        let pickle = Folder::of(&[]).text("pytorch_model.bin", "\u{80}").text("config.json", "{}");
        fs::write(pickle.at("pytorch_model.bin"), b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
        assert!(pickle.refusal().contains("is a PyTorch pickle"));
        let error = load(&pickle.at("none.safetensors")).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("no such file"), "{error}");
    }

    #[test]
    fn shards_are_read_as_one() {
        let map = [("a", "m-1.safetensors"), ("bb", "m-2.safetensors"), ("ccc", "m-1.safetensors")];
        let sharded = || Folder::of(&[("m-1.safetensors", &["a", "ccc"]), ("m-2.safetensors", &["bb"])]);
        let folder = sharded().text("m.safetensors.index.json", &index(&map));
        let whole = hash(&tensors(&["a", "bb", "ccc"])).unwrap();
        for path in [folder.0.path(), &folder.at("m.safetensors.index.json")] {
            assert_eq!(hash(&load(path).unwrap().0).unwrap(), whole);
        }
        let refused = |map: &[(&str, &str)]| sharded().text("m.safetensors.index.json", &index(map)).refusal();
        assert!(refused(&map[..2]).contains("m-1.safetensors holds ccc, which is not listed there"));
        let more = [&map[..], &[("d", "m-2.safetensors"), ("e", "m-2.safetensors")]].concat();
        assert!(refused(&more).contains("2 tensors are listed and not there: d, e"));
        let lost = [&map[..], &[("d", "m-3.safetensors")]].concat();
        assert!(refused(&lost).contains("of 3 shards 1 are not there: m-3.safetensors"));
        assert!(sharded().text("m.safetensors.index.json", "{").refusal().contains("no index of shards"));
        fs::write(folder.at("m-2.safetensors"), b"cut").unwrap();
        assert!(folder.refusal().contains("m-2.safetensors is not a whole safetensors file"));
    }
}
