//! Crops and mirror images: each picture is read through a window of its own.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::{demand, upload};
use crate::Result;
use crate::random::{below, uniform};

/// Padding around the picture, then a square from a uniform place. In YAML: `{kind: crop, pad: 4, fill: reflect}`, `{kind: crop, pad: 0, size: 24}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Crop {
    /// Pixels on each side.
    pub pad: u64,
    /// What stands in the padding; `zero` if it is left away.
    #[serde(default)]
    pub fill: Fill,
    /// Edge of what is cut out, in pixels. `None`: the picture's own size.
    pub size: Option<u64>,
}

/// What stands outside a picture.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// Zeros: black before centring, the mean after it.
    #[default]
    Zero,
    /// The picture mirrored at its border, whose pixels are not repeated: 2 1 | 0 1 2 | 1 0.
    Reflect,
}

/// Left and right exchanged. In YAML: `{kind: flip}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Flip {
    /// The share of the pictures that are mirrored, above 0 and at most 1; one half if it is left away.
    #[serde(default = "half")]
    pub p: f64,
}

fn half() -> f64 {
    0.5
}

/// What one picture shows: the padded picture from this corner on, then mirrored or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    pub(super) row: i64,
    pub(super) column: i64,
    pub(super) mirrored: bool,
}

impl Crop {
    pub(super) fn check(&self, [_, height, width]: [i64; 3]) -> Result<()> {
        let limit = height.min(width);
        demand(self.pad < limit as u64, "crop.pad", self.pad, &format!("a number from 0 to below {limit}"))?;
        let (size, most) = (self.size.unwrap_or(1), limit as u64 + 2 * self.pad);
        demand((1..=most).contains(&size), "crop.size", size, &format!("a number from 1 to {most}"))
    }

    /// Height and width of what is cut out of a picture of this height and width.
    pub(super) fn cut(&self, picture: [i64; 2]) -> [i64; 2] {
        self.size.map_or(picture, |size| [size as i64; 2])
    }

    /// Row and column of the crop's corner in the padded picture of this height and width.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng, picture: [i64; 2]) -> [i64; 2] {
        let [height, width] = self.cut(picture);
        // A crop may be larger than the picture, as long as the border makes up for it.
        let mut place = |left: i64| below(rng, (left + 2 * self.pad as i64 + 1) as u64) as i64;
        [place(picture[0] - height), place(picture[1] - width)]
    }
}

impl Flip {
    pub(super) fn check(&self) -> Result<()> {
        demand(self.p > 0.0 && self.p <= 1.0, "flip.p", self.p, "a number above 0 and at most 1")
    }

    /// Whether a picture is mirrored.
    pub(in crate::data) fn draw(&self, rng: &mut ChaCha8Rng) -> bool {
        uniform(rng, 0.0, 1.0) >= 1.0 - self.p
    }
}

/// Reads each picture of `[N, C, H, W]`, padded by `pad`, through its window of height and width `cut`.
///
/// A crop and the mirror image that follows it are one gather: pixel (i, j) lies at `start + i·stride ± j` of its padded plane.
pub(super) fn windows(image: &Tensor, pad: i64, fill: Fill, [h, w]: [i64; 2], windows: &[Window]) -> Result<Tensor> {
    let (n, c, _, width) = image.size4()?;
    let padded = match (pad, fill) {
        (0, _) => image.shallow_clone(),
        (_, Fill::Zero) => image.f_constant_pad_nd([pad; 4])?,
        (_, Fill::Reflect) => image.f_reflection_pad2d([pad; 4])?,
    };
    let stride = width + 2 * pad;
    let column = |of: &dyn Fn(&Window) -> i64| -> Result<Tensor> {
        let values: Vec<i64> = windows.iter().map(of).collect();
        Ok(upload(&values, image.device())?.f_view([n, 1, 1])?)
    };
    let start = column(&|at| at.row * stride + at.column + if at.mirrored { w - 1 } else { 0 })?;
    let step = column(&|at| if at.mirrored { -1 } else { 1 })?;
    let options = (Kind::Int64, image.device());
    let columns = start.f_addcmul(&step, &Tensor::f_arange(w, options)?)?;
    let rows = Tensor::f_arange_start_step(0, h * stride, stride, options)?.f_view([h, 1])?;
    let index = columns.f_add(&rows)?.f_view([n, 1, h * w])?.f_expand([n, c, h * w], false)?;
    Ok(padded.f_flatten(2, 3)?.f_gather(2, &index, false)?.f_view([n, c, h, w])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;
    use proptest::prelude::*;

    fn pictures(height: i64, width: i64) -> Tensor {
        let count = 4 * height * width;
        let values: Vec<f32> = (0..count).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        Tensor::from_slice(&values).view([2, 2, height, width])
    }

    fn at(row: i64, column: i64, mirrored: bool) -> Window {
        Window { row, column, mirrored }
    }

    #[test]
    fn a_crop_is_a_window_of_the_padded_picture() {
        let image = pictures(5, 7);
        let padded = image.constant_pad_nd([2, 2, 2, 2]);
        let corners = [at(0, 4, false), at(3, 1, false)];
        let cropped = windows(&image, 2, Fill::Zero, [5, 7], &corners).unwrap();
        for (i, Window { row, column, .. }) in corners.into_iter().enumerate() {
            let window = padded.get(i as i64).narrow(1, row, 5).narrow(2, column, 7);
            assert_eq!(cropped.get(i as i64), window);
        }
        assert_eq!(windows(&image, 2, Fill::Zero, [5, 7], &[at(2, 2, false); 2]).unwrap(), image);
    }

    #[test]
    fn a_flip_mirrors_those_that_are_drawn() {
        let image = pictures(3, 4);
        let mirrored = windows(&image, 0, Fill::Zero, [3, 4], &[at(0, 0, true), at(0, 0, false)]).unwrap();
        assert_eq!(mirrored.get(0), image.get(0).flip([2]));
        assert_eq!(mirrored.get(1), image.get(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn each_pixel_is_where_the_definition_has_it(
            (h, w) in (4_i64..8, 4_i64..8), pad in 0_i64..4, reflect: bool, mirrored: bool, place in (0_i64..7, 0_i64..7),
        ) {
            let (row, column) = (place.0 % (2 * pad + 1), place.1 % (2 * pad + 1));
            let image = pictures(h, w);
            let fill = if reflect { Fill::Reflect } else { Fill::Zero };
            let found = windows(&image, pad, fill, [h, w], &[at(row, column, mirrored), at(pad, pad, false)]).unwrap();
            let (pixels, found): (Vec<f32>, Vec<f32>) =
                (image.view(-1).try_into().unwrap(), found.view(-1).try_into().unwrap());
            prop_assert_eq!(&found[(2 * h * w) as usize..], &pixels[(2 * h * w) as usize..]);
            let folded = |x: i64, size: i64| if x < 0 { -x } else if x >= size { 2 * (size - 1) - x } else { x };
            for c in 0..2 {
                for i in 0..h {
                    for j in 0..w {
                        let x = column - pad + if mirrored { w - 1 - j } else { j };
                        let y = row - pad + i;
                        let inside = (0..h).contains(&y) && (0..w).contains(&x);
                        let (y, x) = (folded(y, h), folded(x, w));
                        let expected = if inside || reflect { pixels[((c * h + y) * w + x) as usize] } else { 0.0 };
                        prop_assert_eq!(found[((c * h + i) * w + j) as usize], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn crops_and_flips_are_uniform() {
        let mut places = [0_i64; 25];
        let mut flips = 0_i64;
        let crop = Crop { pad: 2, fill: Fill::Zero, size: None };
        for sample in 0..10_000 {
            let [row, column] = crop.draw(&mut rng(5, 0, sample, "crop"), [8, 8]);
            places[(row * 5 + column) as usize] += 1;
            flips += i64::from(Flip { p: 0.5 }.draw(&mut rng(5, 0, sample, "flip")));
        }
        // Expected 400 with a standard deviation of 20, and 5000 with one of 50.
        assert!(places.iter().all(|count| (count - 400).abs() < 90), "{places:?}");
        assert!((flips - 5000).abs() < 200, "{flips}");
    }

    #[test]
    fn smaller_squares_come_from_all_places() {
        let crop = Crop { pad: 0, fill: Fill::Zero, size: Some(3) };
        crop.check([2, 5, 7]).unwrap();
        assert!(crop.check([2, 2, 7]).is_err());
        let drawn = |sample| crop.draw(&mut rng(5, 0, sample, "crop"), [5, 7]);
        let seen: std::collections::BTreeSet<_> = (0..500).map(drawn).collect();
        assert_eq!(seen.len(), 15, "3 rows by 5 columns");
        let image = pictures(5, 7);
        let cut = windows(&image, 0, Fill::Zero, [3, 3], &[at(2, 4, true), at(0, 1, false)]).unwrap();
        assert_eq!(cut.get(0), image.get(0).narrow(1, 2, 3).narrow(2, 4, 3).flip([2]));
        assert_eq!(cut.get(1), image.get(1).narrow(1, 0, 3).narrow(2, 1, 3));
    }
}
