//! The boxes of a batch of pictures.

use tch::{Device, Kind, Tensor};

use crate::weights::Named;
use crate::{Result, user};

/// What a batch of N pictures has to be found in it: the boxes of all of them one after the other, M in all.
#[derive(Debug)]
pub struct Targets {
    /// `[M, 4]`: centre, width, height as fractions of the picture.
    pub boxes: Tensor,
    /// `[M]` int64, from 0.
    pub labels: Tensor,
    /// Boxes of each of the N pictures; they add up to M.
    pub counts: Vec<i64>,
}

impl Targets {
    /// Nothing to be found in so many pictures.
    pub fn none(pictures: usize) -> Self {
        let boxes = Tensor::empty([0, 4], (Kind::Float, Device::Cpu));
        Self { boxes, labels: Tensor::empty([0], (Kind::Int64, Device::Cpu)), counts: vec![0; pictures] }
    }

    /// `boxes`, `labels`, `counts` of `forward`'s input; `None` where it has none of them.
    ///
    /// # Errors
    /// Some of them only, shapes and kinds that do not fit each other or the `pictures`, a label that is none of `classes`, a box that is no
    /// number or has a negative side.
    pub fn given(input: &Named, pictures: i64, classes: i64) -> Result<Option<Self>> {
        let found = ["boxes", "labels", "counts"].map(|name| input.get(name));
        let [Some(boxes), Some(labels), Some(counts)] = found else {
            return match found.iter().any(Option::is_some) {
                true => Err(user!("the loss needs the input tensors boxes, labels and counts, all three or none")),
                false => Ok(None),
            };
        };
        let m = boxes.size().first().copied().unwrap_or(-1);
        if !boxes.is_floating_point() || boxes.size() != [m, 4] {
            return Err(user!(
                "boxes is {:?} of {:?}; it must be floating point of [M, 4]",
                boxes.kind(),
                boxes.size()
            ));
        }
        if labels.kind() != Kind::Int64 || labels.size() != [m] {
            let (kind, size) = (labels.kind(), labels.size());
            return Err(user!("labels is {kind:?} of {size:?}; with these boxes it must be int64 of [{m}]"));
        }
        if counts.kind() != Kind::Int64 || counts.size() != [pictures] {
            let (kind, size) = (counts.kind(), counts.size());
            return Err(user!("counts is {kind:?} of {size:?}; with this image it must be int64 of [{pictures}]"));
        }
        let counts: Vec<i64> = Vec::try_from(counts)?;
        if counts.iter().any(|&n| n < 0) || counts.iter().try_fold(0_i64, |sum, &n| sum.checked_add(n)) != Some(m) {
            return Err(user!("counts must be numbers of boxes that add up to {m}"));
        }
        if m > 0 && (labels.min().int64_value(&[]) < 0 || labels.max().int64_value(&[]) >= classes) {
            return Err(user!("labels must be from 0 to {}", classes - 1));
        }
        let sides = boxes.narrow(1, 2, 2);
        if m > 0 && (boxes.isfinite().all().int64_value(&[]) == 0 || sides.min().double_value(&[]) < 0.0) {
            return Err(user!("boxes must be finite numbers (cx, cy, w, h) with w and h at least 0"));
        }
        Ok(Some(Self { boxes: boxes.shallow_clone(), labels: labels.shallow_clone(), counts }))
    }

    /// For each picture its boxes `[m, 4]` and labels `[m]`, views of these.
    pub fn each(&self) -> impl Iterator<Item = (Tensor, Tensor)> + '_ {
        let start = |place: usize| self.counts[..place].iter().sum::<i64>();
        self.counts
            .iter()
            .enumerate()
            .map(move |(place, &n)| (self.boxes.narrow(0, start(place), n), self.labels.narrow(0, start(place), n)))
    }

    /// The part of `n` pictures from `start` on.
    pub fn part(&self, start: i64, n: i64) -> Self {
        let (start, n) = (start as usize, n as usize);
        let (before, counts) = (self.counts[..start].iter().sum(), self.counts[start..start + n].to_vec());
        let m = counts.iter().sum();
        Self { boxes: self.boxes.narrow(0, before, m), labels: self.labels.narrow(0, before, m), counts }
    }

    /// The same on a device.
    ///
    /// # Errors
    /// libtorch's.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        let (boxes, labels) = (self.boxes.f_to_device(device)?, self.labels.f_to_device(device)?);
        Ok(Self { boxes, labels, counts: self.counts.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(boxes: &[f32], labels: &[i64], counts: &[i64]) -> Named {
        let boxes = Tensor::from_slice(boxes).view([-1, 4]);
        let pairs = [("boxes", boxes), ("labels", Tensor::from_slice(labels)), ("counts", Tensor::from_slice(counts))];
        pairs.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect()
    }

    #[test]
    fn boxes_fall_to_their_pictures() {
        let given = input(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1], &[2, 0, 1], &[1, 0, 2]);
        let targets = Targets::given(&given, 3, 3).unwrap().unwrap();
        let labels: Vec<Vec<i64>> = targets.each().map(|(_, labels)| Vec::try_from(labels).unwrap()).collect();
        assert_eq!(labels, [vec![2], vec![], vec![0, 1]]);
        let part = targets.part(1, 2);
        assert_eq!((part.counts, Vec::<i64>::try_from(part.labels).unwrap()), (vec![0, 2], vec![0, 1]));
        assert!(Targets::given(&Named::new(), 3, 3).unwrap().is_none());
        let none = input(&[], &[], &[0, 0]);
        assert_eq!(Targets::given(&none, 2, 3).unwrap().unwrap().boxes.size(), [0, 4]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let told = |given: Named, pictures| Targets::given(&given, pictures, 3).unwrap_err().to_string();
        let whole = || input(&[0.1, 0.2, 0.3, 0.4], &[2], &[1]);
        let mut part = whole();
        part.remove("counts");
        assert!(told(part, 1).contains("boxes, labels and counts"));
        assert!(told(whole(), 2).starts_with("counts is"));
        assert!(told(input(&[0.1, 0.2, 0.3, 0.4], &[2, 1], &[1]), 1).starts_with("labels is"));
        assert!(told(input(&[0.1, 0.2, 0.3, 0.4], &[3], &[1]), 1).contains("from 0 to 2"));
        assert!(told(input(&[0.1, 0.2, 0.3, 0.4], &[2], &[2]), 1).contains("add up to 1"));
        assert!(told(input(&[0.1, f32::NAN, 0.3, 0.4], &[2], &[1]), 1).contains("finite"));
        assert!(told(input(&[0.1, 0.2, -0.3, 0.4], &[2], &[1]), 1).contains("at least 0"));
    }
}
