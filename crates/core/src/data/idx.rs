//! The idx files of MNIST and Fashion-MNIST: a big-endian header (magic, then sizes), then the bytes; plain or gzipped.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{ImageSet, Splits};
use crate::{Result, user};

/// Unsigned bytes (08) in three dimensions: pictures, rows, columns.
const IMAGES: u32 = 0x0803;
/// Unsigned bytes in one dimension.
const LABELS: u32 = 0x0801;

/// Both splits of the set `name` from the four files in `root`.
///
/// # Errors
/// A file that is missing or damaged in any way: the message names it and says how to get a whole one.
pub(super) fn splits(name: &str, root: &Path, classes: &[&str]) -> Result<Splits> {
    let folder = Folder { name, root };
    if !root.is_dir() {
        return Err(user!("{}: no such folder; {}", root.display(), folder.remedy()));
    }
    let (train, test) = (folder.split("train", classes)?, folder.split("t10k", classes)?);
    if train.shape() != test.shape() {
        return Err(user!(
            "{}: pictures for training and for testing differ in size; {}",
            root.display(),
            folder.remedy()
        ));
    }
    Ok(Splits { train, validation: None, test })
}

struct Folder<'a> {
    name: &'a str,
    root: &'a Path,
}

impl Folder<'_> {
    fn remedy(&self) -> String {
        format!("get the files with `scripts/get_data.sh {}`, or point data.root at a folder that has them", self.name)
    }

    fn split(&self, part: &str, classes: &[&str]) -> Result<ImageSet> {
        let images = self.find(&format!("{part}-images"), "idx3-ubyte")?;
        let labels = self.find(&format!("{part}-labels"), "idx1-ubyte")?;
        let ([count, rows, columns], pixels) = self.read(&images, IMAGES)?;
        let ([labelled], truth) = self.read(&labels, LABELS)?;
        if count != labelled {
            return Err(self.damaged(
                &labels,
                &format!("it holds {labelled} labels for the {count} pictures of {}", images.display()),
            ));
        }
        if let Some(place) = truth.iter().position(|label| usize::from(*label) >= classes.len()) {
            let what = format!("label {} of picture {place} is not one of the {} classes", truth[place], classes.len());
            return Err(self.damaged(&labels, &what));
        }
        ImageSet::new(&pixels, [1, rows, columns], &truth, classes)
    }

    /// `train-images-idx3-ubyte` or, as some unpackers name it, `train-images.idx3-ubyte`, each with or without `.gz`.
    fn find(&self, stem: &str, kind: &str) -> Result<PathBuf> {
        let names = ["-", "."].iter().flat_map(|dash| ["", ".gz"].map(|ending| format!("{stem}{dash}{kind}{ending}")));
        let found = names.map(|name| self.root.join(name)).find(|path| path.exists());
        found.ok_or_else(|| {
            user!("{}: no file {stem}-{kind} or {stem}-{kind}.gz; {}", self.root.display(), self.remedy())
        })
    }

    /// Sizes and content of an idx file of D dimensions.
    fn read<const D: usize>(&self, path: &Path, magic: u32) -> Result<([usize; D], Vec<u8>)> {
        let mut bytes =
            fs::read(path).map_err(|error| user!("{}: cannot be read ({error}); {}", path.display(), self.remedy()))?;
        if path.extension().is_some_and(|ending| ending == "gz") {
            bytes = self.unpack(path, &bytes)?;
        }
        let header = 4 * (D + 1);
        if bytes.len() < header {
            return Err(
                self.damaged(path, &format!("it holds {} bytes, fewer than its header of {header}", bytes.len()))
            );
        }
        let word = |place: usize| {
            u32::from_be_bytes([bytes[4 * place], bytes[4 * place + 1], bytes[4 * place + 2], bytes[4 * place + 3]])
        };
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Err(self.damaged(path, "it is gzipped but its name does not end in .gz; rename it"));
        }
        if word(0) != magic {
            return Err(self.damaged(
                path,
                &format!("it begins with {:#010x} instead of {magic:#010x}, so it is another kind of file", word(0)),
            ));
        }
        let sizes: [usize; D] = std::array::from_fn(|dimension| word(dimension + 1) as usize);
        let promised = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let content = bytes.split_off(header);
        if promised == Some(0) {
            return Err(self.damaged(path, &format!("its header promises nothing: sizes {sizes:?}")));
        }
        if promised != Some(content.len()) {
            return Err(
                self.damaged(path, &format!("its header promises sizes {sizes:?}, but {} bytes follow", content.len()))
            );
        }
        Ok((sizes, content))
    }

    fn unpack(&self, path: &Path, packed: &[u8]) -> Result<Vec<u8>> {
        if !packed.starts_with(&[0x1f, 0x8b]) {
            return Err(self.damaged(path, "its name ends in .gz but it is not gzipped"));
        }
        let mut bytes = Vec::new();
        match MultiGzDecoder::new(packed).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => {
                Err(self.damaged(path, &format!("it cannot be unpacked ({error}), so it is cut off or damaged")))
            }
        }
    }

    fn damaged(&self, path: &Path, what: &str) -> crate::Error {
        user!("{}: {what}. Delete it, then {}", path.display(), self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;
    use crate::Error;

    fn idx(magic: u32, sizes: &[u32], content: &[u8]) -> Vec<u8> {
        let header = std::iter::once(&magic).chain(sizes).flat_map(|word| word.to_be_bytes());
        header.chain(content.iter().copied()).collect()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    /// Two pictures of 2×3 to train on, one to test on.
    fn folder() -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, bytes) in [
            ("train-images-idx3-ubyte", idx(IMAGES, &[2, 2, 3], &(0..12).collect::<Vec<u8>>())),
            ("train-labels-idx1-ubyte", idx(LABELS, &[2], &[1, 0])),
            ("t10k-images-idx3-ubyte", idx(IMAGES, &[1, 2, 3], &[9; 6])),
            ("t10k-labels-idx1-ubyte", idx(LABELS, &[1], &[1])),
        ] {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn read(folder: &TempDir) -> Result<Splits> {
        splits("mnist", folder.path(), &["0", "1"])
    }

    #[test]
    fn all_four_names_give_the_same_set() {
        let plain = read(&folder()).unwrap();
        assert_eq!((plain.train.len(), plain.test.len(), plain.train.shape()), (2, 1, [1, 2, 3]));
        let images = plain.train.in_order(2).next().unwrap();
        let values: Vec<f32> = Vec::try_from(images.image.reshape([-1])).unwrap();
        assert_eq!(values, (0..12_u8).map(|value| f32::from(value) / 255.0).collect::<Vec<_>>());
        assert_eq!(Vec::<i64>::try_from(&images.label).unwrap(), [1, 0]);
        for (other, packed) in [
            ("train-images.idx3-ubyte", false),
            ("train-images-idx3-ubyte.gz", true),
            ("train-images.idx3-ubyte.gz", true),
        ] {
            let folder = folder();
            let old = folder.path().join("train-images-idx3-ubyte");
            let bytes = fs::read(&old).unwrap();
            fs::remove_file(old).unwrap();
            fs::write(folder.path().join(other), if packed { gz(&bytes) } else { bytes }).unwrap();
            assert_eq!(read(&folder).unwrap().train.sha256(), plain.train.sha256(), "{other}");
        }
    }

    #[test]
    fn every_damage_is_named() {
        let images = "train-images-idx3-ubyte";
        let labels = "train-labels-idx1-ubyte";
        let whole = idx(IMAGES, &[2, 2, 3], &[0; 12]);
        let packed = gz(&whole);
        let cases: [(&str, Vec<u8>, &str); 13] = [
            (images, whole[..27].to_vec(), "11 bytes follow"),
            (images, [&whole[..], &[0]].concat(), "13 bytes follow"),
            (images, whole[..9].to_vec(), "fewer than its header"),
            (images, Vec::new(), "holds 0 bytes"),
            (images, idx(LABELS, &[2, 2, 3], &[0; 12]), "begins with 0x00000801"),
            (images, idx(IMAGES, &[u32::MAX; 3], &[0; 12]), "promises sizes"),
            (images, idx(IMAGES, &[0, 2, 3], &[]), "promises nothing"),
            (images, packed.clone(), "rename it"),
            (labels, idx(LABELS, &[3], &[0; 3]), "3 labels for the 2 pictures"),
            (labels, idx(LABELS, &[2], &[0, 2]), "label 2 of picture 1"),
            ("train-images-idx3-ubyte.gz", packed[..packed.len() / 2].to_vec(), "cannot be unpacked"),
            ("train-images-idx3-ubyte.gz", whole.clone(), "not gzipped"),
            ("train-images-idx3-ubyte.gz", Vec::new(), "not gzipped"),
        ];
        for (name, bytes, expected) in cases {
            let folder = folder();
            fs::remove_file(folder.path().join(name.trim_end_matches(".gz"))).unwrap();
            fs::write(folder.path().join(name), bytes).unwrap();
            assert_refused(read(&folder), &[name, expected, "scripts/get_data.sh mnist"]);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_gz_is_caught() {
        let folder = folder();
        let mut packed = gz(&idx(IMAGES, &[2, 2, 3], &[7; 12]));
        let checksum = packed.len() - 8;
        packed[checksum] ^= 1;
        fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
        fs::write(folder.path().join("train-images-idx3-ubyte.gz"), packed).unwrap();
        assert_refused(read(&folder), &["cannot be unpacked"]);
    }

    #[test]
    fn missing_files_and_folders_are_named() {
        let folder = folder();
        fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        assert_refused(read(&folder), &["no file t10k-labels-idx1-ubyte", "scripts/get_data.sh mnist"]);
        fs::create_dir(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        assert_refused(read(&folder), &["t10k-labels-idx1-ubyte: cannot be read"]);
        assert_refused(
            splits("mnist", &folder.path().join("none"), &["0", "1"]),
            &["none: no such folder", "scripts/get_data.sh mnist"],
        );
    }

    fn assert_refused(result: Result<Splits>, words: &[&str]) {
        match result {
            Err(Error::User(text)) => {
                assert!(words.iter().all(|word| text.contains(word)), "{text}")
            }
            other => panic!("{words:?}: {other:?}"),
        }
    }
}
