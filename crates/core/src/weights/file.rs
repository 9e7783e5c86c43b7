//! One safetensors file: read and written tensor by tensor, so that memory holds the tensors and one of them twice, not the file as well.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::{Named, darknet, pickle};
use crate::files::write_atomic_with;
use crate::{Error, Result, user};

/// The metadata key under which everything that is not a tensor stands, as one JSON text: a second key would make the order of the
/// file's bytes random.
const META: &str = "repro";

/// Headers end here at the latest, as in the format's own library.
const LONGEST_HEADER: u64 = 100_000_000;

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

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&d| d as usize).collect()
}

/// The values in their logical order.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok(data)
}

/// SHA-256 over sorted (name, dtype, shape, bytes): the same for equal tensors, whatever file or device they are on.
///
/// # Errors
/// A kind that no file holds; libtorch's.
pub fn hash(tensors: &Named) -> Result<String> {
    let mut sha = Sha256::new();
    for (name, tensor) in tensors {
        sha.update(format!("{name}\0{:?}\0{:?}\0", dtype(tensor.kind())?, shape(tensor)));
        sha.update(bytes(tensor)?);
    }
    Ok(hex(&sha.finalize()))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes tensors and a JSON text, whole or not at all. Equal content gives equal bytes.
///
/// # Errors
/// A kind that no file holds; the disk's.
pub fn write(path: &Path, tensors: &Named, meta: Option<&str>) -> Result<()> {
    let mut order = tensors.iter().map(|(n, t)| Ok((n, t, dtype(t.kind())?))).collect::<Result<Vec<_>>>()?;
    // The order of the format's own library: the widest kind first, so that every tensor is aligned; then by name.
    order.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(b.0)));
    let mut end = 0;
    let infos = order.iter().map(|(name, tensor, dtype)| {
        let begin = end;
        end += tensor.numel() * tensor.kind().elt_size_in_bytes();
        ((*name).clone(), TensorInfo { dtype: *dtype, shape: shape(tensor), data_offsets: (begin, end) })
    });
    let meta = meta.map(|text| HashMap::from([(META.to_string(), text.to_string())]));
    let fail = |why: String| Error::Failed(format!("cannot serialise {}: {why}", path.display()));
    let header = Metadata::new(meta, infos.collect()).map_err(|e| fail(e.to_string()))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| fail(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomic_with(path, |put| {
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        order.iter().try_for_each(|(_, tensor, _)| put(&bytes(tensor)?))
    })
}

/// Reads all tensors of a file, on the CPU, and the JSON text if there is one. Of one of Darknet's, its numbers under
/// [`DARKNET`](super::DARKNET).
///
/// # Errors
/// A file that is neither is the user's; a PyTorch pickle is refused with the Python that converts it.
pub fn read(path: &Path) -> Result<(Named, Option<String>)> {
    let cannot = |e: std::io::Error| user!("cannot read {}: {e}", path.display());
    let damaged = |why: String| user!("{} is not a whole safetensors file: {why}", path.display());
    let mut file = BufReader::new(File::open(path).map_err(cannot)?);
    if let Some(refusal) = pickle::refusal(path, file.fill_buf().map_err(cannot)?) {
        return Err(refusal);
    }
    if darknet::is_darknet(file.fill_buf().map_err(cannot)?) {
        return Ok((darknet::read(path, file)?, None));
    }
    // Memory is asked for before it is filled, and a size that a damaged header claims may be more than there is.
    let mut part = |n: u64, what: &str| -> Result<Vec<u8>> {
        let mut part = Vec::new();
        let len = usize::try_from(n).unwrap_or(usize::MAX);
        part.try_reserve_exact(len).map_err(|e| damaged(format!("{what} claims {n} bytes: {e}")))?;
        file.by_ref().take(n).read_to_end(&mut part).map_err(cannot)?;
        if part.len() < len { Err(damaged(format!("it ends within {what}"))) } else { Ok(part) }
    };
    let length = part(8, "its first number")?.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    if length > LONGEST_HEADER {
        return Err(damaged(format!("its header would be {length} bytes long")));
    }
    let header: Metadata =
        serde_json::from_slice(&part(length, "its header")?).map_err(|e| damaged(format!("its header: {e}")))?;
    let mut tensors = Named::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let kind = kind(info.dtype)
            .ok_or_else(|| damaged(format!("{name} has dtype {:?}, which libtorch lacks", info.dtype)))?;
        let shape: Vec<i64> = info.shape.iter().map(|&d| d as i64).collect();
        let data = part((info.data_offsets.1 - info.data_offsets.0) as u64, &name)?;
        tensors.insert(name, Tensor::f_from_data_size(&data, &shape, kind)?);
    }
    if !file.fill_buf().map_err(cannot)?.is_empty() {
        return Err(damaged("it goes on after its last tensor".into()));
    }
    Ok((tensors, header.metadata().as_ref().and_then(|meta| meta.get(META).cloned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::View;
    use std::fs;
    use tch::Device;

    fn sample() -> Named {
        let values = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        let kinds = [Kind::Half, Kind::Double, Kind::Uint8, Kind::Bool, Kind::BFloat16];
        let others = kinds.map(|kind| (format!("k.{kind:?}"), values.to_kind(kind)));
        let few =
            [("a", values), ("n", Tensor::from(7i64)), ("none", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)))];
        few.map(|(n, t)| (n.to_string(), t)).into_iter().chain(others).collect()
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

    struct Whole(Dtype, Vec<usize>, Vec<u8>);

    impl View for &Whole {
        fn dtype(&self) -> Dtype {
            self.0
        }
        fn shape(&self) -> &[usize] {
            &self.1
        }
        fn data(&self) -> std::borrow::Cow<'_, [u8]> {
            self.2.as_slice().into()
        }
        fn data_len(&self) -> usize {
            self.2.len()
        }
    }

    /// Byte by byte what the format's own library writes, which holds a second copy of all tensors for it.
    #[test]
    fn files_are_those_of_the_safetensors_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensors = sample();
        let whole = |t: &Tensor| Whole(dtype(t.kind()).unwrap(), shape(t), bytes(t).unwrap());
        let views: Vec<_> = tensors.iter().map(|(n, t)| (n, whole(t))).collect();
        for meta in [None, Some("{\"classes\":[\"ä\"]}")] {
            write(&path, &tensors, meta).unwrap();
            let meta = meta.map(|text| HashMap::from([(META.to_string(), text.to_string())]));
            let expected = safetensors::serialize(views.iter().map(|(n, v)| (n, v)), meta).unwrap();
            assert!(fs::read(&path).unwrap() == expected);
        }
    }

    #[test]
    fn channels_last_weights_are_saved_in_their_logical_order() {
        let plain = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
        let last = plain.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        let one = |t: Tensor| hash(&Named::from([("w".to_string(), t)])).unwrap();
        assert_eq!(one(plain), one(last));
    }

    /// Cut anywhere, lengthened, or no such file at all.
    #[test]
    fn damaged_files_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &sample(), None).unwrap();
        let whole = fs::read(&path).unwrap();
        let claims = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let huge =
            claims(r#"{"a":{"dtype":"U8","shape":[4611686018427387904],"data_offsets":[0,4611686018427387904]}}"#);
        let fp8 = claims(r#"{"a":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[0,0]}}"#);
        let longer = [&whole[..], b"x"].concat();
        let cut = (0..whole.len()).step_by(7).map(|n| whole[..n].to_vec());
        let others =
            [whole[..whole.len() - 1].to_vec(), longer, huge, fp8, vec![0xff; 64], b"not such a file".to_vec()];
        for bad in cut.chain(others) {
            fs::write(&path, &bad).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("not a whole safetensors file"), "{error}");
        }
    }
}
