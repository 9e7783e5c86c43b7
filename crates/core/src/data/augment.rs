//! Augmentation of a batch on its device. The parameters of each picture are drawn on the host from its own stream.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::affine::{Affine, Distortion, distort};
use super::random::{below, rng};
use crate::{Result, user};

/// One kind of augmentation. In YAML a list of blocks: `- {kind: affine, rotate: 10, …}`, `- {kind: crop, pad: 4}`, `- {kind: flip}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// Planar distortion.
    Affine(Affine),
    /// Padding, then a crop of the first size.
    Crop(Crop),
    /// A mirror image, left and right exchanged.
    Flip(Flip),
}

/// Zeros around the picture, then a crop of the first size at a uniform place.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Crop {
    /// Pixels on each side.
    pub pad: u64,
}

/// Left and right exchanged with probability one half.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Flip {}

impl Augment {
    /// Refuses what cannot act on pictures `[C, H, W]`, and a kind that stands twice (both would draw the same numbers).
    ///
    /// # Errors
    /// Names the parameter and its range.
    pub fn check_all(list: &[Augment], [_, height, width]: [i64; 3]) -> Result<()> {
        for (place, augment) in list.iter().enumerate() {
            let kind = augment.operation();
            if list[..place].iter().any(|other| other.operation() == kind) {
                return Err(user!("augment: `{kind}` stands twice; keep one"));
            }
            let range = |name: &str, value: f64, limit: f64| {
                let fits = (0.0..limit).contains(&value);
                if fits {
                    Ok(())
                } else {
                    Err(user!("augment: `{kind}.{name}` is {value}; choose a number from 0 to below {limit}"))
                }
            };
            match augment {
                Augment::Affine(affine) => {
                    range("rotate", affine.rotate, 360.0)?;
                    range("scale", affine.scale, 1.0)?;
                    range("squeeze", affine.squeeze, 1.0)?;
                    range("shear", affine.shear, 90.0)?;
                    range("shift", affine.shift, height.min(width) as f64)?;
                }
                Augment::Crop(crop) => range("pad", crop.pad as f64, height.min(width) as f64)?,
                Augment::Flip(Flip {}) => {}
            }
        }
        Ok(())
    }

    /// The name under which the parameters are drawn.
    fn operation(&self) -> &'static str {
        match self {
            Augment::Affine(_) => "affine",
            Augment::Crop(_) => "crop",
            Augment::Flip(_) => "flip",
        }
    }

    /// Augments `image` (`[N, C, H, W]`, float32), whose pictures are those at `samples` of the set, in `epoch`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn apply(&self, image: &Tensor, seed: u64, epoch: u64, samples: &[i64]) -> Result<Tensor> {
        let draws = samples.iter().map(|sample| rng(seed, epoch, *sample as u64, self.operation()));
        match self {
            Augment::Affine(affine) => {
                let plans: Vec<Distortion> = draws.map(|mut rng| affine.draw(&mut rng)).collect();
                distort(image, &plans)
            }
            Augment::Crop(crop) => {
                let corners: Vec<[i64; 2]> = draws.map(|mut rng| crop.draw(&mut rng)).collect();
                padded_crop(image, crop.pad as i64, &corners)
            }
            Augment::Flip(Flip {}) => {
                let mirrored: Vec<bool> = draws.map(|mut rng| below(&mut rng, 2) == 1).collect();
                mirror(image, &mirrored)
            }
        }
    }
}

impl Crop {
    /// Row and column of the crop's corner in the padded picture.
    fn draw(&self, rng: &mut ChaCha8Rng) -> [i64; 2] {
        let mut place = || below(rng, 2 * self.pad + 1) as i64;
        [place(), place()]
    }
}

fn padded_crop(image: &Tensor, pad: i64, corners: &[[i64; 2]]) -> Result<Tensor> {
    let (n, c, h, w) = image.size4()?;
    let padded = image.f_constant_pad_nd([pad, pad, pad, pad])?;
    let stride = w + 2 * pad;
    let corners: Vec<i64> = corners.iter().map(|[row, column]| row * stride + column).collect();
    let corners = Tensor::f_from_slice(&corners)?.f_view([n, 1, 1, 1])?.f_to_device(image.device())?;
    let options = (Kind::Int64, image.device());
    let rows = Tensor::f_arange(h, options)?.f_view([h, 1])? * stride;
    let index = corners + rows + Tensor::f_arange(w, options)?;
    let index = index.f_view([n, 1, h * w])?.f_expand([n, c, h * w], false)?;
    Ok(padded.f_flatten(2, 3)?.f_gather(2, &index, false)?.f_view([n, c, h, w])?)
}

fn mirror(image: &Tensor, mirrored: &[bool]) -> Result<Tensor> {
    let mask = Tensor::f_from_slice(mirrored)?.f_view([-1, 1, 1, 1])?.f_to_device(image.device())?;
    Ok(image.f_flip([3])?.f_where_self(&mask, image)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(height: i64, width: i64) -> Tensor {
        let count = 4 * height * width;
        let values: Vec<f32> = (0..count).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        Tensor::from_slice(&values).view([2, 2, height, width])
    }

    #[test]
    fn a_crop_is_a_window_of_the_padded_picture() {
        let image = pictures(5, 7);
        let padded = image.constant_pad_nd([2, 2, 2, 2]);
        let corners = [[0, 4], [3, 1]];
        let cropped = padded_crop(&image, 2, &corners).unwrap();
        for (i, [row, column]) in corners.into_iter().enumerate() {
            let window = padded.get(i as i64).narrow(1, row, 5).narrow(2, column, 7);
            assert_eq!(cropped.get(i as i64), window);
        }
        assert_eq!(padded_crop(&image, 2, &[[2, 2]; 2]).unwrap(), image);
    }

    #[test]
    fn crops_and_flips_are_uniform() {
        let mut places = [0_i64; 25];
        let mut flips = 0_i64;
        for sample in 0..10_000 {
            let [row, column] = Crop { pad: 2 }.draw(&mut rng(5, 0, sample, "crop"));
            places[(row * 5 + column) as usize] += 1;
            flips += below(&mut rng(5, 0, sample, "flip"), 2) as i64;
        }
        // Expected 400 with a standard deviation of 20, and 5000 with one of 50.
        assert!(places.iter().all(|count| (count - 400).abs() < 90), "{places:?}");
        assert!((flips - 5000).abs() < 200, "{flips}");
    }

    #[test]
    fn a_flip_mirrors_those_that_are_drawn() {
        let image = pictures(3, 4);
        let mirrored = mirror(&image, &[true, false]).unwrap();
        assert_eq!(mirrored.get(0), image.get(0).flip([2]));
        assert_eq!(mirrored.get(1), image.get(1));
    }

    #[test]
    fn what_cannot_act_is_refused() {
        let affine = Affine { rotate: 10.0, scale: 0.1, squeeze: 0.2, shear: 15.0, shift: 2.0 };
        let refused = |list: &[Augment], word: &str| match Augment::check_all(list, [1, 28, 28]) {
            Err(crate::Error::User(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        };
        Augment::check_all(
            &[Augment::Affine(affine.clone()), Augment::Crop(Crop { pad: 2 }), Augment::Flip(Flip {})],
            [1, 28, 28],
        )
        .unwrap();
        refused(&[Augment::Flip(Flip {}), Augment::Flip(Flip {})], "`flip` stands twice");
        refused(&[Augment::Affine(Affine { scale: 1.0, ..affine.clone() })], "`affine.scale` is 1");
        refused(&[Augment::Affine(Affine { shear: f64::NAN, ..affine.clone() })], "`affine.shear` is NaN");
        refused(&[Augment::Affine(Affine { shift: -1.0, ..affine })], "`affine.shift` is -1");
        refused(&[Augment::Crop(Crop { pad: 28 })], "`crop.pad` is 28");
    }
}
