//! Labelled pictures that stay on the device as bytes.

use std::collections::HashSet;
use std::ops::Range;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::random::{balanced, permutation, rng};
use crate::{Result, user};

/// Labelled pictures as a model takes them.
#[derive(Debug)]
pub struct Images {
    /// `[N, C, H, W]`, float32 in [0, 1], on the set's device.
    pub image: Tensor,
    /// `[N]`, int64 in `0..K`, on the set's device.
    pub label: Tensor,
    /// Of pictures that mixup or cutmix made: what else is in them.
    pub mix: Option<Mix>,
}

impl Images {
    /// The same on the same memory.
    pub fn shallow_clone(&self) -> Self {
        let mix = self.mix.as_ref().map(|mix| Mix { label: mix.label.shallow_clone(), share: mix.share });
        Self { image: self.image.shallow_clone(), label: self.label.shallow_clone(), mix }
    }

    /// `n` of them from place `start` on.
    pub fn part(&self, start: i64, n: i64) -> Self {
        let mix = self.mix.as_ref().map(|mix| Mix { label: mix.label.narrow(0, start, n), share: mix.share });
        Self { image: self.image.narrow(0, start, n), label: self.label.narrow(0, start, n), mix }
    }
}

/// The second label of pictures that are blended of two.
#[derive(Debug)]
pub struct Mix {
    /// `[N]`, int64 in `0..K`.
    pub label: Tensor,
    /// λ, the share of [`Images::label`] in the loss; that of the second label is 1 − λ.
    pub share: f64,
}

/// A set of labelled pictures of one size, on a device as bytes.
#[derive(Debug)]
pub struct ImageSet {
    /// `[N, C, H, W]`, uint8.
    pixels: Tensor,
    /// `[N]`, int64 in `0..K`.
    labels: Tensor,
    classes: Vec<String>,
    sha256: String,
}

/// The two published parts of a set.
#[derive(Debug)]
pub struct Splits {
    /// What is trained on.
    pub train: ImageSet,
    /// What was held out of it to choose by.
    pub validation: Option<ImageSet>,
    /// What is tested on.
    pub test: ImageSet,
}

impl ImageSet {
    /// A set from pixels `[N, C, H, W]` as bytes in that order, a label for each picture, and a name for each of the K classes.
    ///
    /// # Errors
    /// Numbers of bytes, labels and pictures that disagree, no pictures, or a label that is not below K.
    pub fn new(pixels: &[u8], [channels, height, width]: [usize; 3], labels: &[u8], classes: &[&str]) -> Result<Self> {
        if labels.is_empty() || pixels.len() != labels.len() * channels * height * width {
            return Err(user!(
                "{} labels do not fit {} bytes of pictures of {channels}×{height}×{width}",
                labels.len(),
                pixels.len()
            ));
        }
        if let Some((place, label)) = labels.iter().enumerate().find(|(_, label)| usize::from(**label) >= classes.len())
        {
            return Err(user!(
                "label {label} of picture {place} is not one of the {} classes 0 to {}",
                classes.len(),
                classes.len() - 1
            ));
        }
        let shape = [labels.len(), channels, height, width].map(|size| size as i64);
        let labels: Vec<i64> = labels.iter().map(|label| i64::from(*label)).collect();
        let classes = classes.iter().map(|name| (*name).to_string()).collect();
        Self::hashed(Tensor::f_from_data_size(pixels, &shape, Kind::Uint8)?, Tensor::f_from_slice(&labels)?, classes)
    }

    /// The set of these tensors, with its hash.
    fn hashed(pixels: Tensor, labels: Tensor, classes: Vec<String>) -> Result<Self> {
        let mut hash = Sha256::new();
        for size in pixels.size() {
            hash.update(size.to_le_bytes());
        }
        hash.update(bytes(&pixels)?);
        for label in Vec::<i64>::try_from(&labels)? {
            hash.update(label.to_le_bytes());
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { pixels, labels, classes, sha256 })
    }

    /// The first `n` of a permutation that is the same for every seed, so that smaller limits are parts of larger ones; `even`: as many of each
    /// class as far as that divides.
    ///
    /// # Errors
    /// `n` is zero or more than there are.
    pub fn limit(&self, n: u64, even: bool) -> Result<Self> {
        if n == 0 || n > self.len() {
            return Err(user!(
                "a limit of {n} pictures does not fit a set of {}; choose 1 to {}",
                self.len(),
                self.len()
            ));
        }
        let order = permutation(&mut rng(0, 0, 0, "limit"), self.len());
        if even {
            let labels = Vec::<i64>::try_from(&self.labels)?;
            return self.part(&balanced(&order, n, |place| labels[place as usize]));
        }
        self.part(&order[..n as usize])
    }

    /// Two parts: all but the last `n` of the permutation that [`Self::limit`] takes the first of, and those `n`.
    ///
    /// # Errors
    /// Nothing would be held out, or nothing left.
    pub fn hold_out(&self, n: u64) -> Result<(Self, Self)> {
        if n == 0 || n >= self.len() {
            return Err(user!(
                "{n} pictures cannot be held out of a set of {}; choose 1 to {}",
                self.len(),
                self.len() - 1
            ));
        }
        let order = permutation(&mut rng(0, 0, 0, "limit"), self.len());
        let (left, out) = order.split_at((self.len() - n) as usize);
        Ok((self.part(left)?, self.part(out)?))
    }

    /// The set of the pictures at these places.
    fn part(&self, places: &[i64]) -> Result<Self> {
        let index = Tensor::f_from_slice(places)?.f_to_device(self.device())?;
        Self::hashed(
            self.pixels.f_index_select(0, &index)?,
            self.labels.f_index_select(0, &index)?,
            self.classes.clone(),
        )
    }

    /// The same pictures as squares of `edge` pixels, each the nearest of before.
    pub(super) fn squares(&self, edge: i64) -> Result<Self> {
        let (labels, pixels) = self.host()?;
        let [channels, height, width] = self.shape().map(|n| n as usize);
        let side = edge as usize;
        let mut scaled = Vec::with_capacity(labels.len() * channels * side * side);
        for plane in pixels.chunks_exact(height * width) {
            for row in (0..side).map(|y| y * height / side) {
                scaled.extend((0..side).map(|x| plane[row * width + x * width / side]));
            }
        }
        let classes: Vec<&str> = self.classes.iter().map(String::as_str).collect();
        Self::new(&scaled, [channels, side, side], &labels, &classes)?.to_device(self.device())
    }

    /// The same set on `device`.
    ///
    /// # Errors
    /// libtorch's, e.g. that the device's memory is full.
    pub fn to_device(self, device: Device) -> Result<Self> {
        Ok(Self { pixels: self.pixels.f_to_device(device)?, labels: self.labels.f_to_device(device)?, ..self })
    }

    /// Number of pictures, N.
    pub fn len(&self) -> u64 {
        self.labels.size()[0] as u64
    }

    /// Whether there are no pictures; never so for a set made by [`ImageSet::new`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `[C, H, W]` of one picture.
    pub fn shape(&self) -> [i64; 3] {
        let size = self.pixels.size();
        [size[1], size[2], size[3]]
    }

    /// Where the set lies.
    pub fn device(&self) -> Device {
        self.pixels.device()
    }

    /// The names of the K classes, by label.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// SHA-256 in hexadecimal over N, C, H, W, all pixels and all labels (integers as 8 bytes, little-endian).
    /// It does not depend on how the files were compressed, and does on limits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The pictures at `index`: `[n]`, int64 in `0..N`, on the set's device.
    pub fn select(&self, index: &Tensor) -> Images {
        Images {
            image: unit(&self.pixels.index_select(0, index)),
            label: self.labels.index_select(0, index),
            mix: None,
        }
    }

    /// The pictures at these places, to be looked at: `[n, C, H, W]` in [0, 1].
    ///
    /// # Errors
    /// libtorch's.
    pub fn show(&self, places: &[i64]) -> Result<Tensor> {
        Ok(self.select(&Tensor::f_from_slice(places)?.f_to_device(self.device())?).image)
    }

    /// All pictures in the set's own order, `batch` at a time; the last batch holds what is left.
    pub fn in_order(&self, batch: i64) -> impl Iterator<Item = Images> + '_ {
        self.range_in_order(0..self.len(), batch)
    }

    /// The pictures at these places likewise.
    pub fn range_in_order(&self, range: Range<u64>, batch: i64) -> impl Iterator<Item = Images> + '_ {
        let (start, end, batch) = (range.start as i64, range.end.min(self.len()) as i64, batch.max(1));
        (start..end).step_by(batch as usize).map(move |start| {
            let size = batch.min(end - start);
            Images {
                image: unit(&self.pixels.narrow(0, start, size)),
                label: self.labels.narrow(0, start, size),
                mix: None,
            }
        })
    }

    /// Labels and pixels in row-major order.
    pub(super) fn host(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let labels = Vec::<i64>::try_from(&self.labels)?.into_iter().map(|label| label as u8).collect();
        Ok((labels, bytes(&self.pixels)?))
    }

    /// Pictures of each class, by label.
    ///
    /// # Errors
    /// libtorch's.
    pub fn class_counts(&self) -> Result<Vec<u64>> {
        let mut counts = vec![0; self.classes.len()];
        for label in Vec::<i64>::try_from(&self.labels)? {
            counts[label as usize] += 1;
        }
        Ok(counts)
    }

    /// The mean picture `[1, C, H, W]`, float32 in [0, 1].
    ///
    /// # Errors
    /// libtorch's.
    pub fn mean_picture(&self) -> Result<Tensor> {
        // Sums of bytes are exact in integers.
        let sum = self.pixels.f_sum_dim_intlist([0_i64].as_slice(), true, Kind::Int64)?;
        Ok((sum.f_to_kind(Kind::Double)? / (255.0 * self.len() as f64)).f_to_kind(Kind::Float)?)
    }

    /// Mean and standard deviation (over all pixels, not their sample estimate) of each channel, of values in [0, 1].
    ///
    /// # Errors
    /// libtorch's.
    pub fn mean_std(&self) -> Result<Vec<(f64, f64)>> {
        let [channels, height, width] = self.shape();
        // Sums of bytes and of their squares are exact in integers.
        let mut sums = vec![(0_u64, 0_u64); channels as usize];
        for (plane, pixels) in bytes(&self.pixels)?.chunks_exact((height * width) as usize).enumerate() {
            let (sum, squares) = &mut sums[plane % channels as usize];
            for pixel in pixels {
                let value = u64::from(*pixel);
                *sum += value;
                *squares += value * value;
            }
        }
        let count = (self.len() as i64 * height * width) as f64;
        let moments = |(sum, squares): (u64, u64)| {
            let mean = sum as f64 / count;
            let variance = squares as f64 / count - mean * mean;
            (mean / 255.0, variance.max(0.0).sqrt() / 255.0)
        };
        Ok(sums.into_iter().map(moments).collect())
    }
}

/// How many pictures of `test` are, pixel for pixel, in `train` as well. A sound protocol has none (MNIST has none).
///
/// # Errors
/// libtorch's.
pub fn overlap(train: &ImageSet, test: &ImageSet) -> Result<usize> {
    if train.shape() != test.shape() {
        return Ok(0);
    }
    let size = train.shape().iter().product::<i64>() as usize;
    let (train, test) = (bytes(&train.pixels)?, bytes(&test.pixels)?);
    let seen: HashSet<&[u8]> = test.chunks_exact(size).collect();
    let found: HashSet<&[u8]> = train.chunks_exact(size).filter(|image| seen.contains(image)).collect();
    Ok(test.chunks_exact(size).filter(|image| found.contains(image)).count())
}

/// Bytes to float32 in [0, 1].
fn unit(pixels: &Tensor) -> Tensor {
    pixels.to_kind(Kind::Float).g_div_scalar_(255.0)
}

/// The elements in row-major order.
fn bytes(pixels: &Tensor) -> Result<Vec<u8>> {
    Ok(Vec::try_from(pixels.f_reshape([-1])?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    /// Four pictures of 2 channels, 1×2: pixel values 0..16.
    fn four() -> ImageSet {
        let pixels: Vec<u8> = (0..16).collect();
        ImageSet::new(&pixels, [2, 1, 2], &[0, 1, 2, 1], &["a", "b", "c"]).unwrap()
    }

    #[test]
    fn selects_pictures_in_the_unit_range() {
        let images = four().select(&Tensor::from_slice(&[3_i64, 0]));
        assert_eq!(images.image.size(), [2, 2, 1, 2]);
        let values = Vec::<f32>::try_from(images.image.reshape([-1])).unwrap();
        assert_eq!(values, [12, 13, 14, 15, 0, 1, 2, 3].map(|value: u8| f32::from(value) / 255.0));
        assert_eq!(Vec::<i64>::try_from(&images.label).unwrap(), [1, 0]);
    }

    #[test]
    fn in_order_keeps_the_last_partial_batch() {
        let set = four();
        let sizes: Vec<i64> = set.in_order(3).map(|images| images.label.size()[0]).collect();
        assert_eq!(sizes, [3, 1]);
        let labels: Vec<Tensor> = set.in_order(3).map(|images| images.label).collect();
        assert_eq!(Vec::<i64>::try_from(Tensor::cat(&labels, 0)).unwrap(), [0, 1, 2, 1]);
    }

    #[test]
    fn counts_and_moments_by_hand() {
        let set = four();
        assert_eq!(set.class_counts().unwrap(), [1, 2, 1]);
        // Channel 0 holds 0 1 4 5 8 9 12 13: mean 6.5, variance 20.25; channel 1 the same plus 2.
        let moments = set.mean_std().unwrap();
        for ((mean, std), expected) in moments.iter().zip([6.5, 8.5]) {
            assert!((mean * 255.0 - expected).abs() < 1e-12 && (std * 255.0 - 4.5).abs() < 1e-12, "{moments:?}");
        }
    }

    #[test]
    fn limits_are_nested_and_change_the_hash() {
        let pixels: Vec<u8> = (0..100).collect();
        let set = ImageSet::new(&pixels, [1, 1, 1], &[0; 100], &["a"]).unwrap();
        let first = |n| bytes(&set.limit(n, false).unwrap().pixels).unwrap();
        assert_eq!(first(10), first(60)[..10]);
        assert_ne!(first(10), (0..10).collect::<Vec<u8>>());
        let mut all = first(100);
        all.sort_unstable();
        assert_eq!(all, pixels);
        assert_ne!(set.limit(10, false).unwrap().sha256(), set.limit(11, false).unwrap().sha256());
        assert_eq!(set.limit(10, false).unwrap().sha256(), set.limit(10, false).unwrap().sha256());
        for n in [0, 101] {
            assert!(matches!(set.limit(n, false), Err(Error::User(_))));
        }
    }

    #[test]
    fn what_is_held_out_is_the_rest_and_the_same_for_all() {
        let pixels: Vec<u8> = (0..100).collect();
        let set = ImageSet::new(&pixels, [1, 1, 1], &[0; 100], &["a"]).unwrap();
        let (left, out) = set.hold_out(10).unwrap();
        let mut both = [bytes(&left.pixels).unwrap(), bytes(&out.pixels).unwrap()].concat();
        assert_eq!((left.len(), out.len()), (90, 10));
        assert_eq!(both, bytes(&set.limit(100, false).unwrap().pixels).unwrap());
        both.sort_unstable();
        assert_eq!(both, pixels);
        for n in [0, 100] {
            assert!(matches!(set.hold_out(n), Err(Error::User(_))));
        }
    }

    #[test]
    fn the_hash_is_that_of_the_documented_bytes() {
        // printf of 1, 1, 1, 2 as 8 little-endian bytes each, bytes 7 and 9, label 0 as 8 bytes.
        let set = ImageSet::new(&[7, 9], [1, 1, 2], &[0], &["a"]).unwrap();
        let mut text = Vec::new();
        for size in [1_u64, 1, 1, 2] {
            text.extend(size.to_le_bytes());
        }
        text.extend([7, 9]);
        text.extend([0; 8]);
        let expected: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(set.sha256(), expected);
    }

    #[test]
    fn misfits_are_refused() {
        for (pixels, labels) in [(&[1_u8, 2, 3][..], &[0_u8][..]), (&[1, 2], &[1]), (&[], &[])] {
            assert!(matches!(ImageSet::new(pixels, [1, 1, 2], labels, &["a"]), Err(Error::User(_))));
        }
    }

    #[test]
    fn overlap_counts_test_pictures_seen_in_training() {
        let set = |pixels: &[u8]| ImageSet::new(pixels, [1, 1, 2], &vec![0; pixels.len() / 2], &["a"]).unwrap();
        let train = set(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(overlap(&train, &set(&[2, 1, 4, 3])).unwrap(), 0);
        assert_eq!(overlap(&train, &set(&[5, 6, 9, 9, 1, 2, 5, 6])).unwrap(), 3);
    }
}
