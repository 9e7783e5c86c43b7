//! CIFAR-10 and CIFAR-100 as their authors publish them: records of one or two labels and 3,072 bytes of red, green and blue planes.

use std::fs;
use std::path::Path;

use super::{ImageSet, Splits};
use crate::classes::CIFAR10;
use crate::{Result, user};

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

/// CIFAR-10 from `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` in `root`.
///
/// # Errors
/// A file that is missing or damaged: the message names it and says how to get a whole one.
pub(super) fn ten(root: &Path) -> Result<Splits> {
    let train = (1..=5).map(|number| read(root, "cifar10", &format!("data_batch_{number}.bin"), 1, 10_000));
    let train = train.collect::<Result<Vec<_>>>()?;
    let set = |parts: &[Part]| {
        let (pixels, labels) = joined(parts);
        ImageSet::new(&pixels, SHAPE, &labels, &CIFAR10)
    };
    let test = read(root, "cifar10", "test_batch.bin", 1, 10_000)?;
    Ok(Splits { train: set(&train)?, validation: None, test: set(&[test])? })
}

/// CIFAR-100 from `train.bin`, `test.bin` and the names in `fine_label_names.txt` in `root`, by its 100 fine labels.
///
/// # Errors
/// As [`ten`].
pub(super) fn hundred(root: &Path) -> Result<Splits> {
    let path = root.join("fine_label_names.txt");
    let names =
        fs::read_to_string(&path).map_err(|e| user!("cannot read {}: {e}; {}", path.display(), remedy("cifar100")))?;
    let names: Vec<&str> = names.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.len() != 100 {
        return Err(user!("{} has {} names instead of 100; {}", path.display(), names.len(), remedy("cifar100")));
    }
    let set = |part: Part| ImageSet::new(&part.pixels, SHAPE, &part.labels, &names);
    let (train, test) =
        (read(root, "cifar100", "train.bin", 2, 50_000)?, read(root, "cifar100", "test.bin", 2, 10_000)?);
    Ok(Splits { train: set(train)?, validation: None, test: set(test)? })
}

/// The records of one file.
#[derive(Debug)]
struct Part {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// Reads `count` records of `labels` label bytes, of which the last counts, and the pixels.
fn read(root: &Path, name: &str, file: &str, labels: usize, count: usize) -> Result<Part> {
    let path = root.join(file);
    let bytes = fs::read(&path).map_err(|e| user!("cannot read {}: {e}; {}", path.display(), remedy(name)))?;
    let record = labels + PIXELS;
    if bytes.len() != count * record {
        return Err(user!(
            "{} has {} bytes instead of {}: it is cut off or another file; {}",
            path.display(),
            bytes.len(),
            count * record,
            remedy(name)
        ));
    }
    let records = || bytes.chunks_exact(record);
    let classes = if labels == 1 { 10 } else { 100 };
    if let Some((place, wrong)) = records().map(|r| r[labels - 1]).enumerate().find(|(_, label)| *label >= classes) {
        return Err(user!(
            "{}: label {wrong} of picture {place} is not one of the {classes} classes; {}",
            path.display(),
            remedy(name)
        ));
    }
    Ok(Part {
        pixels: records().flat_map(|r| &r[labels..]).copied().collect(),
        labels: records().map(|r| r[labels - 1]).collect(),
    })
}

fn joined(parts: &[Part]) -> (Vec<u8>, Vec<u8>) {
    (parts.iter().flat_map(|p| &p.pixels).copied().collect(), parts.iter().flat_map(|p| &p.labels).copied().collect())
}

fn remedy(name: &str) -> String {
    format!("get the files with `scripts/get_data.sh {name}`, or point data.root at a folder that has them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use tch::Tensor;

    /// A file of `count` records whose pixels tell plane, row and picture apart.
    fn write(root: &Path, file: &str, labels: usize, count: usize) {
        let mut bytes = Vec::with_capacity(count * (labels + PIXELS));
        for picture in 0..count {
            bytes.extend((0..labels).map(|place| if place + 1 == labels { (picture % 10) as u8 } else { 99 }));
            bytes.extend((0..PIXELS).map(|i| (i / 1024 * 80 + i / 32 % 32 + picture % 7) as u8));
        }
        fs::write(root.join(file), bytes).unwrap();
    }

    fn refused(result: Result<Splits>, words: &[&str]) {
        match result {
            Err(Error::User(text)) => assert!(words.iter().all(|word| text.contains(word)), "{text}"),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn records_become_pictures_with_their_labels_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        refused(ten(root), &["data_batch_1.bin", "scripts/get_data.sh cifar10"]);
        (1..=5).for_each(|n| write(root, &format!("data_batch_{n}.bin"), 1, 10_000));
        write(root, "test_batch.bin", 1, 10_000);
        let splits = ten(root).unwrap();
        assert_eq!((splits.train.len(), splits.test.len(), splits.train.shape()), (50_000, 10_000, [3, 32, 32]));
        let images = splits.train.select(&Tensor::from_slice(&[10_003_i64]));
        assert_eq!(images.label.int64_value(&[0]), 3);
        // Picture 3 of the second file, green plane, row 5: 80 + 5 + 3.
        assert_eq!((images.image.double_value(&[0, 1, 5, 9]) * 255.0).round(), 88.0);

        let whole = fs::read(root.join("test_batch.bin")).unwrap();
        fs::write(root.join("test_batch.bin"), &whole[..whole.len() - 1]).unwrap();
        refused(ten(root), &["test_batch.bin", "cut off"]);
        let mut wrong = whole;
        wrong[3073] = 10;
        fs::write(root.join("test_batch.bin"), wrong).unwrap();
        refused(ten(root), &["label 10 of picture 1"]);
    }

    #[test]
    fn the_fine_label_is_the_one_that_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "train.bin", 2, 50_000);
        write(root, "test.bin", 2, 10_000);
        refused(hundred(root), &["fine_label_names.txt"]);
        fs::write(root.join("fine_label_names.txt"), "apple\n").unwrap();
        refused(hundred(root), &["1 names instead of 100"]);
        let names: Vec<String> = (0..100).map(|i| format!("name{i}")).collect();
        fs::write(root.join("fine_label_names.txt"), names.join("\n")).unwrap();
        let splits = hundred(root).unwrap();
        assert_eq!(
            splits.test.class_counts().unwrap()[..11],
            [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 0]
        );
        assert_eq!(splits.train.classes().len(), 100);
    }
}
