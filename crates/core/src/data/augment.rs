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

fn distort(image: &Tensor, plans: &[Distortion]) -> Result<Tensor> {
    let (n, c, h, w) = image.size4()?;
    let theta: Vec<f32> = plans
        .iter()
        .flat_map(|plan| plan.sampling(h as f64, w as f64))
        .collect();
    let theta = Tensor::f_from_slice(&theta)?
        .f_view([n, 2, 3])?
        .f_to_device(image.device())?;
    let grid = Tensor::f_affine_grid_generator(&theta, [n, c, h, w], false)?;
    // Mode 0: bilinear; padding 0: zeros.
    Ok(image.f_grid_sampler(&grid, 0, 0, false)?)
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
