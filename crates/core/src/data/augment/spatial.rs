//! Augmentation that moves pixels: crops and mirror images. What comes in from outside the picture is zero.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::Result;
use crate::data::random::below;

/// Zeros around the picture, then a crop of the first size at a uniform place.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Crop {
    /// Pixels on each side.
    pub pad: u64,
}

/// Left and right exchanged with probability one half.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Flip {}

impl Crop {
    /// Row and column of the crop's corner in the padded picture.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> [i64; 2] {
        let mut place = || below(rng, 2 * self.pad + 1) as i64;
        [place(), place()]
    }
}

pub(super) fn padded_crop(image: &Tensor, pad: i64, corners: &[[i64; 2]]) -> Result<Tensor> {
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

pub(super) fn mirror(image: &Tensor, mirrored: &[bool]) -> Result<Tensor> {
    let mask = Tensor::f_from_slice(mirrored)?.f_view([-1, 1, 1, 1])?.f_to_device(image.device())?;
    Ok(image.f_flip([3])?.f_where_self(&mask, image)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rng;

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
}
