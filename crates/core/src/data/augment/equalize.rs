//! Operations of RandAugment and AutoAugment on whole numbers from 0 to 255 that are not blends, as torchvision reckons them on uint8 tensors.
//! Pictures are `[N, C, H, W]`, such numbers in float32, which holds all that comes up exactly.

use tch::{Kind, Tensor};

use super::colour::{Levels, blend, column};
use crate::Result;

/// Of each picture the given number of highest bits is kept.
pub(super) fn posterize(image: &Tensor, bits: &[f64]) -> Result<Tensor> {
    let step = column(bits.iter().map(|bits| (8.0 - bits).exp2()), image)?;
    Ok(image.f_div(&step)?.f_floor_()?.f_mul_(&step)?)
}

/// Values of at least the picture's threshold are inverted.
pub(super) fn solarize(image: &Tensor, thresholds: &[f64]) -> Result<Tensor> {
    Ok(invert(image)?.f_where_self(&image.f_ge_tensor(&column(thresholds.iter().copied(), image)?)?, image)?)
}

/// 255 less each value.
pub(super) fn invert(image: &Tensor) -> Result<Tensor> {
    Ok(image.f_neg()?.f_add_scalar_(255.0)?)
}

/// Each channel stretched to the whole range, unless it is of one value.
pub(super) fn autocontrast(image: &Tensor) -> Result<Tensor> {
    let low = image.f_amin([2, 3].as_slice(), true)?;
    let range = image.f_amax([2, 3].as_slice(), true)?.f_sub(&low)?;
    let flat = range.f_eq(0.0)?;
    // First the reciprocal: one division would round otherwise than torchvision does.
    let scale = range.f_reciprocal()?.f_mul_scalar(255.0)?;
    let stretched = image.f_sub(&low)?.f_mul_(&scale)?.f_clamp_(0.0, 255.0)?.f_floor_()?;
    Ok(image.f_where_self(&flat, &stretched)?)
}

/// A blend with the smoothed picture.
pub(super) fn sharpness(image: &Tensor, factors: &[f64]) -> Result<Tensor> {
    blend(image, &smooth(image)?, factors, Levels::Bytes)
}

/// The picture smoothed by the kernel of ones with a 5 in the middle, divided by 13 and rounded; the border is not smoothed.
pub(super) fn smooth(image: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    if h <= 2 || w <= 2 {
        return Ok(image.shallow_clone());
    }
    let three = |x: &Tensor, axis: i64, inner: i64| -> Result<Tensor> {
        Ok(x.f_narrow(axis, 0, inner)?.f_add(&x.f_narrow(axis, 1, inner)?)?.f_add(&x.f_narrow(axis, 2, inner)?)?)
    };
    let middle = image.f_narrow(2, 1, h - 2)?.f_narrow(3, 1, w - 2)?;
    let sum = three(&three(image, 2, h - 2)?, 3, w - 2)?.f_add(&middle.f_mul_scalar(4.0)?)?;
    // Thirteenths are never half way, so it is all the same how halves are rounded.
    let inner = sum.f_div_scalar(13.0)?.f_round_()?;
    let rows = Tensor::f_cat(&[&middle_rows(image, 0, h)?, &inner, &middle_rows(image, w - 1, h)?], 3)?;
    Ok(Tensor::f_cat(&[&image.f_narrow(2, 0, 1)?, &rows, &image.f_narrow(2, h - 1, 1)?], 2)?)
}

/// A column without its first and last pixel.
fn middle_rows(image: &Tensor, column: i64, height: i64) -> Result<Tensor> {
    Ok(image.f_narrow(3, column, 1)?.f_narrow(2, 1, height - 2)?)
}

/// Each channel mapped so that its values are spread evenly, unless its histogram is too narrow for a step.
pub(super) fn equalize(image: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = image.size4()?;
    let index = image.f_reshape([n * c, h * w])?.f_to_kind(Kind::Int64)?;
    let ones = index.f_ones_like()?;
    let counts = Tensor::f_zeros([n * c, 256], (Kind::Int64, image.device()))?.f_scatter_add(1, &index, &ones)?;
    // All pixels but those of the highest value that occurs, over 255.
    let highest = index.f_amax([1].as_slice(), true)?;
    let step = counts.f_gather(1, &highest, false)?.f_neg()?.f_add_scalar(h * w)?.f_div_scalar_mode(255, "floor")?;
    let none = step.f_eq(0)?;
    let step = step.f_clamp_min(1)?;
    // What lies below each value, in steps, rounded.
    let below = counts.f_cumsum(1, Kind::Int64)?.f_sub(&counts)?;
    let table =
        below.f_add(&step.f_div_scalar_mode(2, "floor")?)?.f_div_tensor_mode(&step, "floor")?.f_clamp(0, 255)?;
    let spread = index.f_where_self(&none, &table.f_gather(1, &index, false)?)?;
    Ok(spread.f_to_kind(image.kind())?.f_view([n, c, h, w])?)
}
