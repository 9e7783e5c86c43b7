//! Operations on whole numbers from 0 to 255 as Pillow reckons them on pictures of bytes, where that differs from torchvision's tensors.
//! Pictures are `[N, 3, H, W]`, such numbers in float32.

use tch::{Kind, Tensor};

use super::colour::column;
use super::equalize::smooth;
use super::upload;
use crate::Result;

/// `other + factor · (image − other)`, cut down to whole numbers. In this order and in float32, as Pillow's C does it: then both are the
/// same to the last bit.
fn blend(image: &Tensor, other: &Tensor, factors: &[f64]) -> Result<Tensor> {
    let factor = column(factors.iter().copied(), image)?;
    Ok(image.f_sub(other)?.f_mul_(&factor)?.f_add_(other)?.f_clamp_(0.0, 255.0)?.f_floor_()?)
}

/// A blend with black.
pub(super) fn brightness(image: &Tensor, factors: &[f64]) -> Result<Tensor> {
    let factor = column(factors.iter().copied(), image)?;
    Ok(image.f_mul(&factor)?.f_clamp_(0.0, 255.0)?.f_floor_()?)
}

/// A blend with the mean grey of the picture, rounded.
pub(super) fn contrast(image: &Tensor, factors: &[f64]) -> Result<Tensor> {
    let grey = grey(image)?;
    let (_, _, h, w) = grey.size4()?;
    // Whole numbers: exact in float64, so that no order of the sum matters.
    let sum = grey.f_sum_dim_intlist([1_i64, 2, 3].as_slice(), true, Kind::Double)?;
    let mean = sum.f_div_scalar((h * w) as f64)?.f_add_scalar_(0.5)?.f_floor_()?;
    blend(image, &mean.f_to_kind(image.kind())?, factors)
}

/// A blend with the picture's grey.
pub(super) fn color(image: &Tensor, factors: &[f64]) -> Result<Tensor> {
    blend(image, &grey(image)?, factors)
}

/// A blend with the smoothed picture.
pub(super) fn sharpness(image: &Tensor, factors: &[f64]) -> Result<Tensor> {
    blend(image, &smooth(image)?, factors)
}

/// `[N, 1, H, W]`: ITU-R 601 in 65,536ths, rounded. All that comes up is below 2²⁴, which float32 holds exactly.
fn grey(image: &Tensor) -> Result<Tensor> {
    let part = |channel: i64, weight: f64| image.f_narrow(1, channel, 1)?.f_mul_scalar(weight);
    let sum = part(0, 19_595.0)?.f_add_(&part(1, 38_470.0)?)?.f_add_(&part(2, 7_471.0)?)?;
    Ok(sum.f_add_scalar(32_768.0)?.f_div_scalar_(65_536.0)?.f_floor_()?)
}

/// Each channel stretched to the whole range, unless it is of one value; in float64, as Pillow makes its table.
pub(super) fn autocontrast(image: &Tensor) -> Result<Tensor> {
    let exact = image.f_to_kind(Kind::Double)?;
    let low = exact.f_amin([2, 3].as_slice(), true)?;
    let range = exact.f_amax([2, 3].as_slice(), true)?.f_sub(&low)?;
    let scale = range.f_full_like(255.0)?.f_div_(&range)?;
    let offset = low.f_neg()?.f_mul_(&scale)?;
    let stretched = exact.f_mul(&scale)?.f_add_(&offset)?.f_clamp_(0.0, 255.0)?.f_floor_()?;
    Ok(image.f_where_self(&range.f_eq(0.0)?, &stretched.f_to_kind(image.kind())?)?)
}

/// Values below 128 grow by the picture's number, to 255 at most.
pub(super) fn solarize_add(image: &Tensor, numbers: &[f64]) -> Result<Tensor> {
    let grown = image.f_add(&column(numbers.iter().copied(), image)?)?.f_clamp_(0.0, 255.0)?;
    Ok(grown.f_where_self(&image.f_lt(128.0)?, image)?)
}

/// Each picture read at the places that its map says, from output to input: rows `[a b c; d e f]` in pixels from the upper left corner, where
/// the first pixel has its centre at one half. Between pixels a cubic, along the rows, then along the columns, in float64; pixels at the border go on
/// beyond it; places outside are `fill`.
pub(super) fn read(image: &Tensor, maps: &[[f64; 6]], fill: [u8; 3]) -> Result<Tensor> {
    let (n, c, h, w) = image.size4()?;
    let device = image.device();
    let theta = upload(maps.as_flattened(), device)?.f_view([n, 6, 1, 1])?;
    let centres = |size: i64| Tensor::f_arange(size, (Kind::Double, device))?.f_add_scalar(0.5);
    let (x, y) = (centres(w)?.f_view([1, 1, 1, w])?, centres(h)?.f_view([1, 1, h, 1])?);
    let place = |row: i64| -> Result<Tensor> {
        let entry = |column: i64| theta.f_narrow(1, row + column, 1);
        Ok(entry(0)?.f_mul(&x)?.f_add(&entry(1)?.f_mul(&y)?)?.f_add(&entry(2)?)?)
    };
    let (across, down) = (place(0)?, place(3)?);
    let within = |place: &Tensor, size: i64| place.f_ge(0.0)?.f_logical_and(&place.f_lt(size)?);
    let inside = within(&across, w)?.f_logical_and(&within(&down, h)?)?;

    // The pixel before the place, and how far behind its centre the place is.
    let split = |place: &Tensor| -> Result<(Tensor, Tensor)> {
        let place = place.f_sub_scalar(0.5)?;
        let before = place.f_floor()?;
        Ok((before.f_to_kind(Kind::Int64)?, place.f_sub(&before)?))
    };
    let ((left, right_share), (top, low_share)) = (split(&across)?, split(&down)?);
    let pixels = image.f_to_kind(Kind::Double)?.f_reshape([n, c, h * w])?;
    let line = |offset: i64| -> Result<Tensor> {
        let start = top.f_add_scalar(offset)?.f_clamp_(0, h - 1)?.f_mul_scalar_(w)?;
        let tap = |offset: i64| -> Result<Tensor> {
            let index = left.f_add_scalar(offset)?.f_clamp_(0, w - 1)?.f_add_(&start)?;
            let index = index.f_view([n, 1, h * w])?.f_expand([n, c, h * w], false)?;
            Ok(pixels.f_gather(2, &index, false)?.f_view([n, c, h, w])?)
        };
        cubic([tap(-1)?, tap(0)?, tap(1)?, tap(2)?], &right_share)
    };
    let found = cubic([line(-1)?, line(0)?, line(1)?, line(2)?], &low_share)?.f_clamp_(0.0, 255.0)?.f_floor_()?;
    let fill = upload(&fill.map(f32::from), device)?.f_view([1, 3, 1, 1])?;
    Ok(found.f_to_kind(image.kind())?.f_where_self(&inside, &fill)?)
}

/// The value `share` of the way from `b` to `c`: Keys' cubic with a = −1, in Pillow's order.
fn cubic([a, b, c, d]: [Tensor; 4], share: &Tensor) -> Result<Tensor> {
    let slope = c.f_sub(&a)?;
    let bend = a.f_sub(&b)?.f_mul_scalar_(2.0)?.f_add_(&c)?.f_sub_(&d)?;
    let twist = b.f_sub(&a)?.f_sub_(&c)?.f_add_(&d)?;
    Ok(twist.f_mul(share)?.f_add_(&bend)?.f_mul_(share)?.f_add_(&slope)?.f_mul_(share)?.f_add_(&b)?)
}
