//! The container of Darknet's `.weights` files: a header, and then numbers without names. What they stand for, the list of the network's
//! sections tells, which only the paper knows (`App::renamed`).

use std::io::Read;
use std::path::Path;

use tch::{Kind, Tensor};

use super::Named;
use crate::files::write_atomic_with;
use crate::{Error, Result, user};

/// The name under which the numbers of such a file stand, `[n]` in float32, until they have those of a network.
pub const DARKNET: &str = "darknet.numbers";

/// Bytes of major, minor and revision, 32 bits each.
const VERSION: usize = 12;

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// Whether a file that starts so is one: versions 0.1, 0.2 and the like. A safetensors file would have a header of 4 GB.
pub(super) fn is_darknet(start: &[u8]) -> bool {
    start.len() >= 8 && word(start) <= 9 && (1..=9).contains(&word(&start[4..]))
}

/// The numbers of a file, [`DARKNET`].
///
/// # Errors
/// It ends within its header or within a number.
pub(super) fn read(path: &Path, mut file: impl Read) -> Result<Named> {
    let damaged = |why: &str| user!("{} is not a whole Darknet file: {why}", path.display());
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| user!("cannot read {}: {e}", path.display()))?;
    let version = bytes.get(..VERSION).ok_or_else(|| damaged("it ends within its header"))?;
    // From 0.2 on, the pictures seen in training have 64 bits.
    let seen = if 10 * word(version) + word(&version[4..]) >= 2 { 8 } else { 4 };
    let numbers = bytes.get(VERSION + seen..).ok_or_else(|| damaged("it ends within its header"))?;
    if !numbers.len().is_multiple_of(4) {
        return Err(damaged("it ends within a number"));
    }
    let n = (numbers.len() / 4) as i64;
    Ok(Named::from([(DARKNET.to_string(), Tensor::f_from_data_size(numbers, &[n], Kind::Float)?)]))
}

/// Writes the numbers of tensors one after the other as a file of version 0.2 that has seen no pictures, whole or not at all.
///
/// # Errors
/// The disk's.
pub fn write_darknet(path: &Path, tensors: &[Tensor]) -> Result<()> {
    write_atomic_with(path, |put| {
        put(&[&[0; 4][..], &2_u32.to_le_bytes(), &[0; 12]].concat())?;
        for tensor in tensors {
            let flat = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
            let numbers = Vec::<f32>::try_from(flat).map_err(Error::from)?;
            put(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::read;
    use std::fs;

    fn header(major: u32, minor: u32, seen: usize) -> Vec<u8> {
        [&major.to_le_bytes()[..], &minor.to_le_bytes(), &[0; 4], &vec![7; seen]].concat()
    }

    fn numbers(path: &Path) -> Vec<f32> {
        Vec::try_from(&read(path).unwrap().0[DARKNET]).unwrap()
    }

    #[test]
    fn both_headers_are_read_and_ours_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.weights");
        let data: Vec<u8> = [1.5f32, -2.0, 0.25].iter().flat_map(|x| x.to_le_bytes()).collect();
        for (minor, seen) in [(1, 4), (2, 8), (5, 8)] {
            fs::write(&path, [header(0, minor, seen), data.clone()].concat()).unwrap();
            assert_eq!(numbers(&path), [1.5, -2.0, 0.25], "version 0.{minor}");
        }
        write_darknet(&path, &[Tensor::from_slice(&[1.5f32]), Tensor::from_slice(&[-2.0f64, 0.25]).view([1, 2])])
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 20 + 12);
        assert_eq!(numbers(&path), [1.5, -2.0, 0.25]);
    }

    #[test]
    fn cut_files_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.weights");
        let whole = [header(0, 2, 8), vec![0; 8]].concat();
        for (length, why) in [(8, "within its header"), (19, "within its header"), (23, "within a number")] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(why), "{error}");
        }
    }
}
