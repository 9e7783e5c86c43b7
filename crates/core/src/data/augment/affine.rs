//! The planar distortions of the LeNet paper, one for each picture of a batch.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::Tensor;

use super::{always, demand, upload};
use crate::Result;
use crate::random::uniform;

/// The planar distortions of the LeNet paper (section III): each parameter is uniform in plus or minus what is given here.
///
/// About the centre of the picture the output is `R(rotate) · Shear · Squeeze · scale` of the input, then shifted. Read
/// bilinearly, zero outside. In YAML: `{kind: affine, rotate: 10, scale: 0.1, squeeze: 0.1, shear: 10, shift: 2}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
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
    /// The share of the pictures that are distorted, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

/// The drawn distortion of one picture. Meaning and units as in [`Affine`], angles in radians.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distortion {
    rotate: f64,
    scale: f64,
    squeeze: f64,
    shear: f64,
    shift: [f64; 2],
}

impl Affine {
    pub(super) fn check(&self, [_, height, width]: [i64; 3]) -> Result<()> {
        for (key, value, limit) in [
            ("affine.rotate", self.rotate, 360.0),
            ("affine.scale", self.scale, 1.0),
            ("affine.squeeze", self.squeeze, 1.0),
            ("affine.shear", self.shear, 90.0),
            ("affine.shift", self.shift, height.min(width) as f64),
        ] {
            demand((0.0..limit).contains(&value), key, value, &format!("a number from 0 to below {limit}"))?;
        }
        Ok(())
    }

    /// Always six draws in this order, so that one range does not move the others' numbers.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Distortion {
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
        let (x, y) = ((1.0 + self.scale) * (1.0 + self.squeeze), (1.0 + self.scale) / (1.0 + self.squeeze));
        let [a, b] = [(cos + k * sin) / x, (sin - k * cos) / x];
        let [d, e] = [-sin / y, cos / y];
        let [tx, ty] = self.shift;
        normalised([a, b, -(a * tx + b * ty), d, e, -(d * tx + e * ty)], height, width)
    }
}

/// How a picture is read between its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The four pixels around the place, by distance.
    Bilinear,
    /// The nearest pixel.
    Nearest,
}

/// A map in pixels from the middle of the picture, rows `[a b c; d e f]`, in libtorch's coordinates: -1 to 1 from edge to edge.
pub(super) fn normalised([a, b, c, d, e, f]: [f64; 6], height: f64, width: f64) -> [f32; 6] {
    let (half_height, half_width) = (height / 2.0, width / 2.0);
    [a, b * half_height / half_width, c / half_width, d * half_width / half_height, e, f / half_height]
        .map(|value| value as f32)
}

/// Reads each picture at the places that its distortion maps there.
pub(super) fn distort(image: &Tensor, plans: &[Distortion]) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    let maps: Vec<[f32; 6]> = plans.iter().map(|plan| plan.sampling(h as f64, w as f64)).collect();
    read(image, &maps, Reading::Bilinear)
}

/// Reads each picture at the places that its map, from output to input, says; zero outside.
///
/// The grid is libtorch's affine grid, but laid out `[N, 2, H, W]` by two broadcasts, which took a third of the time on a CPU.
pub(super) fn read(image: &Tensor, maps: &[[f32; 6]], reading: Reading) -> Result<Tensor> {
    let (n, _, h, w) = image.size4()?;
    let theta = upload(maps.as_flattened(), image.device())?.f_view([n, 2, 3, 1])?;
    let column = |place: i64| theta.f_narrow(2, place, 1);
    let (x, y) = (centres(w, image)?.f_view([1, w])?, centres(h, image)?.f_view([h, 1])?);
    let grid = column(2)?.f_addcmul(&column(1)?, &y)?.f_addcmul(&column(0)?, &x)?;
    let (mode, zeros) = (i64::from(reading == Reading::Nearest), 0);
    Ok(image.f_grid_sampler(&grid.f_permute([0, 2, 3, 1])?, mode, zeros, false)?)
}

/// The centres of `count` pixels in libtorch's coordinates.
fn centres(count: i64, image: &Tensor) -> Result<Tensor> {
    let centres: Vec<f32> = (0..count).map(|place| ((2 * place + 1) as f64 / count as f64 - 1.0) as f32).collect();
    upload(&centres, image.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;
    use proptest::prelude::*;
    use tch::Kind;

    const STILL: Distortion = Distortion { rotate: 0.0, scale: 0.0, squeeze: 0.0, shear: 0.0, shift: [0.0, 0.0] };

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
                if inside { f64::from(pixels[((plane * h + row) * w + column) as usize]) } else { 0.0 }
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
                    let upper = read(top, left) * (1.0 - right_share) + read(top, left + 1) * right_share;
                    let lower = read(top + 1, left) * (1.0 - right_share) + read(top + 1, left + 1) * right_share;
                    output.push(upper * (1.0 - low_share) + lower * low_share);
                }
            }
        }
        Tensor::from_slice(&output).view([n, c, h, w]).to_kind(Kind::Float)
    }

    #[test]
    fn no_distortion_changes_nothing() {
        let image = pictures(28, 28);
        assert!(difference(&distort(&image, &[STILL; 2]).unwrap(), &image) < 1e-5);
    }

    #[test]
    fn a_shift_by_whole_pixels_is_a_shift() {
        let image = pictures(6, 8);
        let plan = Distortion { shift: [2.0, -1.0], ..STILL };
        let expected = image.zeros_like();
        // Two to the right, one up.
        expected.narrow(2, 0, 5).narrow(3, 2, 6).copy_(&image.narrow(2, 1, 5).narrow(3, 0, 6));
        assert!(difference(&distort(&image, &[plan; 2]).unwrap(), &expected) < 1e-5);
    }

    #[test]
    fn a_quarter_turn_is_clockwise_on_the_screen() {
        for side in [6, 7] {
            let image = pictures(side, side);
            let plan = Distortion { rotate: 90_f64.to_radians(), ..STILL };
            let expected = image.transpose(2, 3).flip([3]);
            assert!(difference(&distort(&image, &[plan; 2]).unwrap(), &expected) < 1e-5);
        }
    }

    #[test]
    fn each_picture_has_its_own_distortion() {
        let image = pictures(9, 9);
        let turn = Distortion { rotate: 0.3, ..STILL };
        let squeeze = Distortion { squeeze: 0.2, shear: -0.2, ..STILL };
        let both = distort(&image, &[turn, squeeze]).unwrap();
        assert!(difference(&both.narrow(0, 0, 1), &reference(&image.narrow(0, 0, 1), &turn)) < 1e-5);
        assert!(difference(&both.narrow(0, 1, 1), &reference(&image.narrow(0, 1, 1), &squeeze)) < 1e-5);
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
        let limits = Affine { rotate: 10.0, scale: 0.1, squeeze: 0.2, shear: 15.0, shift: 2.0, p: 1.0 };
        let n = 10_000;
        let draws: Vec<[f64; 6]> = (0..n)
            .map(|sample| {
                let Distortion { rotate, scale, squeeze, shear, shift } = limits.draw(&mut rng(5, 0, sample, "affine"));
                let [x, y] = shift;
                // Each as a share of its limit: uniform in [-1, 1).
                [rotate.to_degrees() / 10.0, scale / 0.1, squeeze / 0.2, shear.to_degrees() / 15.0, x / 2.0, y / 2.0]
            })
            .collect();
        for i in 0..6 {
            let mut values: Vec<f64> = draws.iter().map(|draw| draw[i]).collect();
            values.sort_by(f64::total_cmp);
            assert!(values[0] >= -1.0 - 1e-12 && values[n as usize - 1] < 1.0 + 1e-12);
            // Kolmogorov and Smirnov: exceeded once in a thousand uniform samples.
            let gap = |(k, value): (usize, &f64)| ((k as f64 + 0.5) / n as f64 - (value + 1.0) / 2.0).abs();
            let largest = values.iter().enumerate().map(gap).fold(0.0, f64::max);
            assert!(largest < 1.95 / (n as f64).sqrt(), "parameter {i}: {largest}");
            let mean = values.iter().sum::<f64>() / n as f64;
            assert!(mean.abs() < 4.0 / (3.0 * n as f64).sqrt(), "parameter {i}: {mean}");
            for j in 0..i {
                let correlation = draws.iter().map(|draw| 3.0 * draw[i] * draw[j]).sum::<f64>() / n as f64;
                assert!(correlation.abs() < 4.0 / (n as f64).sqrt(), "{i} {j}: {correlation}");
            }
        }
    }

    #[test]
    fn one_range_does_not_move_the_others() {
        let all = Affine { rotate: 10.0, scale: 0.1, squeeze: 0.2, shear: 15.0, shift: 2.0, p: 1.0 };
        let upright = Affine { rotate: 0.0, ..all.clone() };
        let (a, b) = (all.draw(&mut rng(1, 2, 3, "affine")), upright.draw(&mut rng(1, 2, 3, "affine")));
        assert_eq!((a.scale, a.squeeze, a.shear, a.shift), (b.scale, b.squeeze, b.shear, b.shift));
        assert_eq!(b.rotate, 0.0);
    }
}
