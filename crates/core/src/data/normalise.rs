//! Centring of pictures.

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::ImageSet;
use crate::{Result, user};

/// What is subtracted from pixels in [0, 1], and what they are divided by.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Given numbers, one for each channel.
    Channels {
        /// Subtracted.
        mean: Vec<f64>,
        /// Divided by; above 0.
        std: Vec<f64>,
    },
    /// The mean picture of the training set is subtracted: §4.2 of arXiv:1512.03385.
    PixelMean {
        /// The difference is multiplied by this; above 0. 255 gives the range of bytes. `None`: 1.
        scale: Option<f64>,
    },
}

/// [`Normalise`] with its numbers, on a device.
#[derive(Debug)]
pub struct Normaliser {
    /// `[1, C, H, W]` or `[1, C, 1, 1]`; nothing is done without it.
    mean: Option<Tensor>,
    /// `[1, C, 1, 1]`.
    std: Option<Tensor>,
}

impl Normalise {
    /// Refuses numbers that do not fit pictures of `channels` channels.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self, channels: i64) -> Result<()> {
        let (mean, std) = match self {
            Normalise::Channels { mean, std } => (mean, std),
            Normalise::PixelMean { scale: None } => return Ok(()),
            Normalise::PixelMean { scale: Some(scale) } if *scale > 0.0 && scale.is_finite() => return Ok(()),
            Normalise::PixelMean { scale: Some(scale) } => {
                return Err(user!("normalise.scale is {scale}; it must be greater than 0, such as 255"));
            }
        };
        for (key, numbers) in [("mean", mean), ("std", std)] {
            if numbers.len() as i64 != channels {
                return Err(user!(
                    "normalise.{key} has {} numbers, but the pictures have {channels} channels",
                    numbers.len()
                ));
            }
            if numbers.iter().any(|x| !x.is_finite() || (key == "std" && *x <= 0.0)) {
                return Err(user!("normalise.{key} is {numbers:?}; write finite numbers, those of std above 0"));
            }
        }
        Ok(())
    }

    /// The numbers; those of [`Normalise::PixelMean`] come from the training set.
    ///
    /// # Errors
    /// What [`Self::check`] finds; a mean picture without a set that lies on the device.
    pub fn of(&self, train: Option<&ImageSet>, channels: i64, device: Device) -> Result<Normaliser> {
        self.check(channels)?;
        let row = |numbers: &[f64]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(numbers)?.f_to_kind(Kind::Float)?.f_view([1, -1, 1, 1])?.f_to_device(device)?)
        };
        match (self, train) {
            (Normalise::Channels { mean, std }, _) => Ok(Normaliser { mean: Some(row(mean)?), std: Some(row(std)?) }),
            (Normalise::PixelMean { scale }, Some(set)) => {
                let std = scale.map(|scale| row(&vec![1.0 / scale; channels as usize])).transpose()?;
                Ok(Normaliser { mean: Some(set.mean_picture()?.f_to_device(device)?), std })
            }
            (Normalise::PixelMean { .. }, None) => Err(user!(
                "normalise: pixel_mean needs a set that is read as a whole; for photos write kind: channels with mean and std"
            )),
        }
    }
}

impl Normaliser {
    /// One that does nothing.
    pub fn none() -> Self {
        Self { mean: None, std: None }
    }

    /// One that subtracts `mean`, `[1, C, H, W]` or `[1, C, 1, 1]`, and divides by `std` if it is given.
    pub fn given(mean: Tensor, std: Option<Tensor>) -> Self {
        Self { mean: Some(mean), std }
    }

    /// The same on the same memory.
    pub(super) fn shallow_clone(&self) -> Self {
        let shared = |numbers: &Option<Tensor>| numbers.as_ref().map(Tensor::shallow_clone);
        Self { mean: shared(&self.mean), std: shared(&self.std) }
    }

    /// The same on a device.
    pub(super) fn to_device(&self, device: Device) -> Result<Self> {
        let moved = |numbers: &Option<Tensor>| numbers.as_ref().map(|t| t.f_to_device(device)).transpose();
        Ok(Self { mean: moved(&self.mean)?, std: moved(&self.std)? })
    }

    /// Whether it does nothing.
    pub(super) fn is_none(&self) -> bool {
        self.mean.is_none() && self.std.is_none()
    }

    /// Height and width of a mean picture; `None` where the mean is the same everywhere.
    pub(super) fn mean_size(&self) -> Option<[i64; 2]> {
        match self.mean.as_ref()?.size()[..] {
            [_, _, height, width] if height > 1 || width > 1 => Some([height, width]),
            _ => None,
        }
    }

    /// What is subtracted and what is divided by, for the file that a trained network is kept in.
    pub fn numbers(&self) -> (Option<&Tensor>, Option<&Tensor>) {
        (self.mean.as_ref(), self.std.as_ref())
    }

    /// Pictures `[N, C, H, W]` in [0, 1] → centred ones. Of a mean picture that is larger, the middle counts.
    ///
    /// # Errors
    /// libtorch's, e.g. that the shapes do not fit.
    pub fn apply(&self, image: &Tensor) -> Result<Tensor> {
        let centred = match &self.mean {
            Some(mean) => image.f_sub(&middle(mean, image)?)?,
            None => image.shallow_clone(),
        };
        match &self.std {
            // `centred` is ours alone only where a mean was subtracted; a std never stands without one.
            Some(std) => Ok(centred.f_div(std)?),
            None => Ok(centred),
        }
    }
}

impl Normaliser {
    /// Centred pictures as they were, in [0, 1] but for what augmentation moved out of it.
    ///
    /// # Errors
    /// libtorch's.
    pub fn undo(&self, image: &Tensor) -> Result<Tensor> {
        let scaled = match &self.std {
            Some(std) => image.f_mul(std)?,
            None => image.shallow_clone(),
        };
        match &self.mean {
            Some(mean) => Ok(scaled.f_add(&middle(mean, image)?)?),
            None => Ok(scaled),
        }
    }
}

/// The part of `mean` `[1, C, H, W]` that lies over the middle of it, of the size of smaller pictures.
fn middle(mean: &Tensor, image: &Tensor) -> Result<Tensor> {
    let mut part = mean.shallow_clone();
    // A mean of fewer dimensions is the same everywhere.
    for dim in if mean.dim() == 4 { 2..4 } else { 0..0 } {
        let (whole, size) = (mean.size()[dim], image.size()[dim]);
        if whole > size {
            part = part.f_narrow(dim as i64, (whole - size) / 2, size)?;
        }
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn set() -> ImageSet {
        let pixels: Vec<u8> = (0..24).map(|i| i * 10).collect();
        ImageSet::new(&pixels, [3, 2, 2], &[0, 0], &["a"]).unwrap()
    }

    #[test]
    fn channels_are_centred_by_their_numbers() {
        let kind = Normalise::Channels { mean: vec![0.5, 0.25, 0.0], std: vec![0.5, 2.0, 1.0] };
        let image = Tensor::full([1, 3, 1, 2], 0.75, (Kind::Float, Device::Cpu));
        let centred = kind.of(None, 3, Device::Cpu).unwrap().apply(&image).unwrap();
        assert_eq!(Vec::<f32>::try_from(centred.view(-1)).unwrap(), [0.5, 0.5, 0.25, 0.25, 0.75, 0.75]);
    }

    #[test]
    fn the_mean_picture_is_that_of_the_training_set() {
        let set = set();
        let images = set.in_order(2).next().unwrap().image;
        let centred = |scale| {
            let normaliser = Normalise::PixelMean { scale }.of(Some(&set), 3, Device::Cpu).unwrap();
            normaliser.apply(&images).unwrap()
        };
        assert_eq!(centred(Some(0.25)), centred(None) * 0.25);
        let normaliser = Normalise::PixelMean { scale: None }.of(Some(&set), 3, Device::Cpu).unwrap();
        let corner = images.narrow(2, 0, 1).narrow(3, 0, 1);
        assert_eq!(normaliser.apply(&corner).unwrap(), centred(None).narrow(2, 0, 1).narrow(3, 0, 1));
        let centred = centred(None);
        // Pixel i of the two pictures is 10·i and 10·i + 120, so that each is 60 from the mean.
        let expected: Vec<f32> = (0..24).map(|i| if i < 12 { -60.0 / 255.0 } else { 60.0 / 255.0 }).collect();
        for (ours, expected) in Vec::<f32>::try_from(centred.view(-1)).unwrap().iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-6, "{ours} {expected}");
        }
        assert_eq!(Normaliser::none().apply(&images).unwrap(), images);
    }

    #[test]
    fn misfits_are_refused() {
        for (kind, word) in [
            (Normalise::Channels { mean: vec![0.5], std: vec![0.5; 3] }, "normalise.mean has 1"),
            (Normalise::Channels { mean: vec![0.5; 3], std: vec![0.0; 3] }, "normalise.std"),
            (Normalise::PixelMean { scale: None }, "as a whole"),
            (Normalise::PixelMean { scale: Some(0.0) }, "normalise.scale is 0"),
        ] {
            match kind.of(None, 3, Device::Cpu) {
                Err(Error::User(text)) => assert!(text.contains(word), "{text}"),
                other => panic!("{word}: {other:?}"),
            }
        }
    }
}
