//! Augmentation of a batch on its device. The parameters of each picture are drawn on the host from its own stream.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::random::{below, rng, uniform};
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

/// The planar distortions of the LeNet paper (section III-C): each parameter is uniform in plus or minus what is given here.
///
/// About the centre of the picture the output is `R(rotate) · Shear · Squeeze · scale` of the input, then shifted. Read
/// bilinearly, zero outside.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Affine {
    /// Degrees; positive turns x towards y, which is clockwise on the screen.
    pub rotate: f64,
    /// Fraction s in [0, 1): both axes by 1 + s.
    pub scale: f64,
    /// Fraction s in [0, 1): x by 1 + s, y by 1 / (1 + s).
    pub squeeze: f64,
    /// Degrees in [0, 90): the angle that a vertical line leans, x by x + tan(shear)·y.
    pub shear: f64,
    /// Pixels, of x and of y independently.
    pub shift: f64,
}

/// Zeros around the picture, then a crop of the first size at a uniform place.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// Pixels on each side.
    pub pad: u64,
}

/// Left and right exchanged with probability one half.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
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
                    Err(user!(
                        "augment: `{kind}.{name}` is {value}; choose a number from 0 to below {limit}"
                    ))
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
        let draws = samples
            .iter()
            .map(|sample| rng(seed, epoch, *sample as u64, self.operation()));
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

/// The drawn distortion of one picture. Meaning and units as in [`Affine`], angles in radians.
#[derive(Debug, Clone, Copy)]
struct Distortion {
    rotate: f64,
    scale: f64,
    squeeze: f64,
    shear: f64,
    shift: [f64; 2],
}

impl Affine {
    /// Always six draws in this order, so that one range does not move the others' numbers.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Distortion {
        let mut within = |limit: f64| uniform(rng, -limit, limit);
        Distortion {
            rotate: within(self.rotate).to_radians(),
            scale: within(self.scale),
            squeeze: within(self.squeeze),
            shear: within(self.shear).to_radians(),
            shift: [within(self.shift), within(self.shift)],
        }
    }
}

impl Distortion {
    /// The inverse map, from output to input, as rows `[a b c; d e f]` in libtorch's coordinates: -1 to 1 from edge to edge.
    fn sampling(&self, height: f64, width: f64) -> [f32; 6] {
        // Output = R·S·D·input + t with S = [1 k; 0 1], D = diag(x, y); so input = D⁻¹·S⁻¹·R⁻¹·(output − t).
        let (sin, cos) = self.rotate.sin_cos();
        let k = self.shear.tan();
        let (x, y) = (
            (1.0 + self.scale) * (1.0 + self.squeeze),
            (1.0 + self.scale) / (1.0 + self.squeeze),
        );
        let [a, b] = [(cos + k * sin) / x, (sin - k * cos) / x];
        let [d, e] = [-sin / y, cos / y];
        let [tx, ty] = self.shift;
        let (half_height, half_width) = (height / 2.0, width / 2.0);
        [
            a,
            b * half_height / half_width,
            -(a * tx + b * ty) / half_width,
            d * half_width / half_height,
            e,
            -(d * tx + e * ty) / half_height,
        ]
        .map(|value| value as f32)
    }
}

/// As libtorch's affine grid and grid sampler, but the grid is laid out `[N, 2, H, W]` by two broadcasts, which took a third of the time on a CPU.
fn distort(image: &Tensor, plans: &[Distortion]) -> Result<Tensor> {
    let (n, _, h, w) = image.size4()?;
    let theta: Vec<f32> = plans
        .iter()
        .flat_map(|plan| plan.sampling(h as f64, w as f64))
        .collect();
    let theta = Tensor::f_from_slice(&theta)?
        .f_view([n, 2, 3, 1])?
        .f_to_device(image.device())?;
    let column = |place: i64| theta.f_narrow(2, place, 1);
    let (x, y) = (
        centres(w, image)?.f_view([1, w])?,
        centres(h, image)?.f_view([h, 1])?,
    );
    let grid = column(2)?
        .f_addcmul(&column(1)?, &y)?
        .f_addcmul(&column(0)?, &x)?;
    // Mode 0: bilinear; padding 0: zeros.
    Ok(image.f_grid_sampler(&grid.f_permute([0, 2, 3, 1])?, 0, 0, false)?)
}

/// The centres of `count` pixels in libtorch's coordinates.
fn centres(count: i64, image: &Tensor) -> Result<Tensor> {
    let centres: Vec<f32> = (0..count)
        .map(|place| ((2 * place + 1) as f64 / count as f64 - 1.0) as f32)
        .collect();
    Ok(Tensor::f_from_slice(&centres)?.f_to_device(image.device())?)
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
    let corners: Vec<i64> = corners
        .iter()
        .map(|[row, column]| row * stride + column)
        .collect();
    let corners = Tensor::f_from_slice(&corners)?
        .f_view([n, 1, 1, 1])?
        .f_to_device(image.device())?;
    let options = (Kind::Int64, image.device());
    let rows = Tensor::f_arange(h, options)?.f_view([h, 1])? * stride;
    let index = corners + rows + Tensor::f_arange(w, options)?;
    let index = index
        .f_view([n, 1, h * w])?
        .f_expand([n, c, h * w], false)?;
    Ok(padded
        .f_flatten(2, 3)?
        .f_gather(2, &index, false)?
        .f_view([n, c, h, w])?)
}

fn mirror(image: &Tensor, mirrored: &[bool]) -> Result<Tensor> {
    let mask = Tensor::f_from_slice(mirrored)?
        .f_view([-1, 1, 1, 1])?
        .f_to_device(image.device())?;
    Ok(image.f_flip([3])?.f_where_self(&mask, image)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STILL: Distortion = Distortion {
        rotate: 0.0,
        scale: 0.0,
        squeeze: 0.0,
        shear: 0.0,
        shift: [0.0, 0.0],
    };

    /// `[2, 2, height, width]` of different numbers in [0, 1).
    fn pictures(height: i64, width: i64) -> Tensor {
        let count = 4 * height * width;
        let values: Vec<f32> = (0..count).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        Tensor::from_slice(&values).view([2, 2, height, width])
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    type Matrix = [[f64; 2]; 2];

    fn product(a: Matrix, b: Matrix) -> Matrix {
        let cell = |row: usize, column: usize| a[row][0] * b[0][column] + a[row][1] * b[1][column];
        [[cell(0, 0), cell(0, 1)], [cell(1, 0), cell(1, 1)]]
    }

    /// The definition in float64: output pixel p shows the bilinear value at `M⁻¹(p − centre − shift) + centre`, zero outside.
    fn reference(image: &Tensor, plan: &Distortion) -> Tensor {
        let (n, c, h, w) = image.size4().unwrap();
        let (sin, cos) = plan.rotate.sin_cos();
        let (zoom, squeeze) = (1.0 + plan.scale, 1.0 + plan.squeeze);
        let stretch = [[zoom * squeeze, 0.0], [0.0, zoom / squeeze]];
        let lean = [[1.0, plan.shear.tan()], [0.0, 1.0]];
        let m = product([[cos, -sin], [sin, cos]], product(lean, stretch));
        let determinant = m[0][0] * m[1][1] - m[0][1] * m[1][0];
        let centre = ((w - 1) as f64 / 2.0, (h - 1) as f64 / 2.0);
        let pixels: Vec<f32> = Vec::try_from(image.reshape([-1])).unwrap();
        let mut output = Vec::new();
        for plane in 0..n * c {
            let read = |row: i64, column: i64| {
                let inside = (0..h).contains(&row) && (0..w).contains(&column);
                if inside {
                    f64::from(pixels[((plane * h + row) * w + column) as usize])
                } else {
                    0.0
                }
            };
            for row in 0..h {
                for column in 0..w {
                    let u = column as f64 - centre.0 - plan.shift[0];
                    let v = row as f64 - centre.1 - plan.shift[1];
                    let x = (m[1][1] * u - m[0][1] * v) / determinant + centre.0;
                    let y = (m[0][0] * v - m[1][0] * u) / determinant + centre.1;
                    let (left, top) = (x.floor(), y.floor());
                    let (right_share, low_share) = (x - left, y - top);
                    let (left, top) = (left as i64, top as i64);
                    let upper =
                        read(top, left) * (1.0 - right_share) + read(top, left + 1) * right_share;
                    let lower = read(top + 1, left) * (1.0 - right_share)
                        + read(top + 1, left + 1) * right_share;
                    output.push(upper * (1.0 - low_share) + lower * low_share);
                }
            }
        }
        Tensor::from_slice(&output)
            .view([n, c, h, w])
            .to_kind(Kind::Float)
    }

    #[test]
    fn no_distortion_changes_nothing() {
        let image = pictures(28, 28);
        assert!(difference(&distort(&image, &[STILL; 2]).unwrap(), &image) < 1e-5);
    }

    #[test]
    fn a_shift_by_whole_pixels_is_a_shift() {
        let image = pictures(6, 8);
        let plan = Distortion {
            shift: [2.0, -1.0],
            ..STILL
        };
        let expected = image.zeros_like();
        // Two to the right, one up.
        expected
            .narrow(2, 0, 5)
            .narrow(3, 2, 6)
            .copy_(&image.narrow(2, 1, 5).narrow(3, 0, 6));
        assert!(difference(&distort(&image, &[plan; 2]).unwrap(), &expected) < 1e-5);
    }

    #[test]
    fn a_quarter_turn_is_clockwise_on_the_screen() {
        for side in [6, 7] {
            let image = pictures(side, side);
            let plan = Distortion {
                rotate: 90_f64.to_radians(),
                ..STILL
            };
            let expected = image.transpose(2, 3).flip([3]);
            assert!(difference(&distort(&image, &[plan; 2]).unwrap(), &expected) < 1e-5);
        }
    }

    #[test]
    fn each_picture_has_its_own_distortion() {
        let image = pictures(9, 9);
        let turn = Distortion {
            rotate: 0.3,
            ..STILL
        };
        let squeeze = Distortion {
            squeeze: 0.2,
            shear: -0.2,
            ..STILL
        };
        let both = distort(&image, &[turn, squeeze]).unwrap();
        assert!(
            difference(
                &both.narrow(0, 0, 1),
                &reference(&image.narrow(0, 0, 1), &turn)
            ) < 1e-5
        );
        assert!(
            difference(
                &both.narrow(0, 1, 1),
                &reference(&image.narrow(0, 1, 1), &squeeze)
            ) < 1e-5
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_distortion_is_the_definition(
            (h, w) in (2_i64..12, 2_i64..12),
            rotate in -3.0_f64..3.0, scale in -0.5_f64..0.5, squeeze in -0.5_f64..0.5, shear in -0.8_f64..0.8,
            x in -3.0_f64..3.0, y in -3.0_f64..3.0,
        ) {
            let plan = Distortion { rotate, scale, squeeze, shear, shift: [x, y] };
            let image = pictures(h, w);
            let gap = difference(&distort(&image, &[plan; 2]).unwrap(), &reference(&image, &plan));
            prop_assert!(gap < 5e-5, "{gap}");
        }
    }

    #[test]
    fn draws_are_uniform_and_unrelated() {
        let limits = Affine {
            rotate: 10.0,
            scale: 0.1,
            squeeze: 0.2,
            shear: 15.0,
            shift: 2.0,
        };
        let n = 10_000;
        let draws: Vec<[f64; 6]> = (0..n)
            .map(|sample| {
                let Distortion {
                    rotate,
                    scale,
                    squeeze,
                    shear,
                    shift,
                } = limits.draw(&mut rng(5, 0, sample, "affine"));
                let [x, y] = shift;
                // Each as a share of its limit: uniform in [-1, 1).
                [
                    rotate.to_degrees() / 10.0,
                    scale / 0.1,
                    squeeze / 0.2,
                    shear.to_degrees() / 15.0,
                    x / 2.0,
                    y / 2.0,
                ]
            })
            .collect();
        for i in 0..6 {
            let mut values: Vec<f64> = draws.iter().map(|draw| draw[i]).collect();
            values.sort_by(f64::total_cmp);
            assert!(values[0] >= -1.0 - 1e-12 && values[n as usize - 1] < 1.0 + 1e-12);
            // Kolmogorov and Smirnov: exceeded once in a thousand uniform samples.
            let gap = |(k, value): (usize, &f64)| {
                ((k as f64 + 0.5) / n as f64 - (value + 1.0) / 2.0).abs()
            };
            let largest = values.iter().enumerate().map(gap).fold(0.0, f64::max);
            assert!(
                largest < 1.95 / (n as f64).sqrt(),
                "parameter {i}: {largest}"
            );
            let mean = values.iter().sum::<f64>() / n as f64;
            assert!(
                mean.abs() < 4.0 / (3.0 * n as f64).sqrt(),
                "parameter {i}: {mean}"
            );
            for j in 0..i {
                let correlation = draws
                    .iter()
                    .map(|draw| 3.0 * draw[i] * draw[j])
                    .sum::<f64>()
                    / n as f64;
                assert!(
                    correlation.abs() < 4.0 / (n as f64).sqrt(),
                    "{i} {j}: {correlation}"
                );
            }
        }
    }

    #[test]
    fn one_range_does_not_move_the_others() {
        let all = Affine {
            rotate: 10.0,
            scale: 0.1,
            squeeze: 0.2,
            shear: 15.0,
            shift: 2.0,
        };
        let upright = Affine {
            rotate: 0.0,
            ..all.clone()
        };
        let (a, b) = (
            all.draw(&mut rng(1, 2, 3, "affine")),
            upright.draw(&mut rng(1, 2, 3, "affine")),
        );
        assert_eq!(
            (a.scale, a.squeeze, a.shear, a.shift),
            (b.scale, b.squeeze, b.shear, b.shift)
        );
        assert_eq!(b.rotate, 0.0);
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
        assert!(
            places.iter().all(|count| (count - 400).abs() < 90),
            "{places:?}"
        );
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
        let affine = Affine {
            rotate: 10.0,
            scale: 0.1,
            squeeze: 0.2,
            shear: 15.0,
            shift: 2.0,
        };
        let refused = |list: &[Augment], word: &str| match Augment::check_all(list, [1, 28, 28]) {
            Err(crate::Error::User(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        };
        Augment::check_all(
            &[
                Augment::Affine(affine.clone()),
                Augment::Crop(Crop { pad: 2 }),
                Augment::Flip(Flip {}),
            ],
            [1, 28, 28],
        )
        .unwrap();
        refused(
            &[Augment::Flip(Flip {}), Augment::Flip(Flip {})],
            "`flip` stands twice",
        );
        refused(
            &[Augment::Affine(Affine {
                scale: 1.0,
                ..affine.clone()
            })],
            "`affine.scale` is 1",
        );
        refused(
            &[Augment::Affine(Affine {
                shear: f64::NAN,
                ..affine.clone()
            })],
            "`affine.shear` is NaN",
        );
        refused(
            &[Augment::Affine(Affine {
                shift: -1.0,
                ..affine
            })],
            "`affine.shift` is -1",
        );
        refused(&[Augment::Crop(Crop { pad: 28 })], "`crop.pad` is 28");
    }
}
