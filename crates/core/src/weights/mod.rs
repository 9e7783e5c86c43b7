//! Weights in and out: safetensors, strict both ways.
//!
//! tch's own loader broadcasts shapes, takes the file's dtype and ignores extra names (each a source of silently wrong numbers); this one
//! lists every missing, unexpected and misshapen tensor and refuses.

mod names;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::files::write_atomic;
use crate::{Error, Result, user};

pub use names::{below_prefix, check_prefixes};

/// Tensors by name, sorted, so that files and hashes do not depend on the order of creation.
pub type Named = BTreeMap<String, Tensor>;

/// The tensors of a recipe's parts, each under its part's name and a dot: what a checkpoint keeps.
pub fn together<'a>(parts: impl IntoIterator<Item = (&'a str, Named)>) -> Named {
    let named =
        |(part, tensors): (&'a str, Named)| tensors.into_iter().map(move |(name, t)| (format!("{part}.{name}"), t));
    parts.into_iter().flat_map(named).collect()
}

/// The metadata key under which everything that is not a tensor stands, as one JSON text: a second key would make the order of the
/// file's bytes random.
const META: &str = "repro";

struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.data.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

fn dtype(kind: Kind) -> Result<Dtype> {
    Ok(match kind {
        Kind::Uint8 => Dtype::U8,
        Kind::Int8 => Dtype::I8,
        Kind::Int16 => Dtype::I16,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Bool => Dtype::BOOL,
        other => return Err(Error::Failed(format!("tensors of kind {other:?} cannot be saved"))),
    })
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

fn bytes(tensor: &Tensor) -> Result<Bytes> {
    let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok(Bytes { dtype: dtype(tensor.kind())?, shape: tensor.size().iter().map(|&d| d as usize).collect(), data })
}

/// SHA-256 over sorted (name, dtype, shape, bytes): the same for equal tensors, whatever file or device they are on.
pub fn hash(tensors: &Named) -> Result<String> {
    let mut sha = Sha256::new();
    for (name, tensor) in tensors {
        let b = bytes(tensor)?;
        sha.update(format!("{name}\0{:?}\0{:?}\0", b.dtype, b.shape));
        sha.update(&b.data);
    }
    Ok(hex(&sha.finalize()))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes tensors and a JSON text, whole or not at all. Equal content gives equal bytes.
pub fn write(path: &Path, tensors: &Named, meta: Option<&str>) -> Result<()> {
    let views = tensors.iter().map(|(n, t)| Ok((n, bytes(t)?))).collect::<Result<Vec<_>>>()?;
    let meta = meta.map(|text| HashMap::from([(META.to_string(), text.to_string())]));
    let file = safetensors::serialize(views.iter().map(|(n, b)| (n, b)), meta)
        .map_err(|e| Error::Failed(format!("cannot serialise {}: {e}", path.display())))?;
    write_atomic(path, &[&file])
}

/// Reads all tensors of a file, on the CPU, and the JSON text if there is one. A file that is no safetensors file is the user's error.
pub fn read(path: &Path) -> Result<(Named, Option<String>)> {
    let file = fs::read(path).map_err(|e| user!("cannot read {}: {e}", path.display()))?;
    let damaged = |why: String| user!("{} is not a whole safetensors file: {why}", path.display());
    let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| damaged(e.to_string()))?;
    let meta = header.metadata().as_ref().and_then(|m| m.get(META).cloned());
    let mut tensors = Named::new();
    for (name, view) in SafeTensors::deserialize(&file).map_err(|e| damaged(e.to_string()))?.iter() {
        let kind = kind(view.dtype())
            .ok_or_else(|| damaged(format!("{name} has dtype {:?}, which libtorch lacks", view.dtype())))?;
        let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
        tensors.insert(name.to_string(), Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    Ok((tensors, meta))
}

/// Copies `source` into `targets` by name, bit for bit. Every missing, unexpected or misshapen tensor is listed, and nothing is
/// copied then. `origin` names the source in the message.
pub fn copy_into(targets: &Named, source: &Named, origin: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, target) in targets {
        match source.get(name) {
            None => wrong.push(format!("missing: {name} {:?}", target.size())),
            Some(s) if s.size() != target.size() => {
                wrong.push(format!("misshapen: {name} is {:?} and should be {:?}", s.size(), target.size()))
            }
            Some(s) if s.kind() != target.kind() => {
                wrong.push(format!("wrong kind: {name} is {:?} and should be {:?}", s.kind(), target.kind()))
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        source
            .iter()
            .filter(|(n, _)| !targets.contains_key(*n))
            .map(|(n, t)| format!("unexpected: {n} {:?}", t.size())),
    );
    if !wrong.is_empty() {
        return Err(user!("{origin} does not fit this model ({} differences):\n  {}", wrong.len(), wrong.join("\n  ")));
    }
    tch::no_grad(|| {
        for (name, target) in targets {
            // `copy_` through a handle: the model sees the new values.
            target.shallow_clone().f_copy_(&source[name])?;
        }
        Ok(())
    })
}

/// The entries whose names start with `prefix`, such as `model.`, without it.
pub fn below(state: &Named, prefix: &str) -> Named {
    state.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_string(), t.shallow_clone()))).collect()
}

/// The weights file that `path` means: itself, or of a run folder its `weights.safetensors`.
pub fn locate(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() { path.join("weights.safetensors") } else { path.to_owned() };
    if file.is_file() {
        return Ok(file);
    }
    let hint = if path.is_dir() { "this folder holds no finished run" } else { "no such file" };
    Err(user!("no weights at {}: {hint}; give a .safetensors file or a run folder", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn sample() -> Named {
        Named::from([
            ("a".to_string(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3])),
            ("n".to_string(), Tensor::from(7i64)),
        ])
    }

    #[test]
    fn file_returns_the_same_bits_and_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &sample(), Some("{}")).unwrap();
        let first = fs::read(&path).unwrap();
        let (back, meta) = read(&path).unwrap();
        assert_eq!(meta.as_deref(), Some("{}"));
        assert_eq!(hash(&back).unwrap(), hash(&sample()).unwrap());
        write(&path, &back, Some("{}")).unwrap();
        assert_eq!(first, fs::read(&path).unwrap());
    }

    #[test]
    fn channels_last_weights_are_saved_in_their_logical_order() {
        let plain = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
        let last = plain.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        let one = |t: Tensor| hash(&Named::from([("w".to_string(), t)])).unwrap();
        assert_eq!(one(plain), one(last));
    }

    #[test]
    fn all_differences_are_listed_and_nothing_is_copied() {
        let target = sample();
        let source = Named::from([
            ("a".to_string(), Tensor::zeros([1, 3], (Kind::Float, Device::Cpu))),
            ("extra".to_string(), Tensor::from(1.0f32)),
        ]);
        let text = copy_into(&target, &source, "x.safetensors").unwrap_err().to_string();
        for part in ["misshapen: a", "missing: n", "unexpected: extra", "3 differences"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(hash(&target).unwrap(), hash(&sample()).unwrap());
    }

    #[test]
    fn damaged_files_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &sample(), None).unwrap();
        let whole = fs::read(&path).unwrap();
        for bad in [&whole[..whole.len() - 1], &whole[..4], b"", b"not a safetensors file at all"] {
            fs::write(&path, bad).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
