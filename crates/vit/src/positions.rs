//! Positions for another number of patches (§3.2, "Fine-tuning and higher resolution"), resized as timm does it, and positions that nobody learns.

use repro::weights::Named;
use repro::{Result, user};
use tch::Tensor;

use crate::variant::Variant;

/// Positions `[1, prefix + g², D]` for `grid` × `grid` patches, `[1, prefix + grid², D]`: those of the patches are a picture of D channels that
/// is resized bicubically, with a wider kernel where it shrinks; those of the `prefix` tokens in front stay.
///
/// # Errors
/// Positions of no square of patches; libtorch's.
pub fn resize(positions: &Tensor, prefix: i64, grid: i64) -> Result<Tensor> {
    let (old, width) = square(positions, prefix)?;
    if old == grid {
        return Ok(positions.shallow_clone());
    }
    let front = positions.f_narrow(1, 0, prefix)?;
    let picture = positions.f_narrow(1, prefix, old * old)?.f_reshape([1, old, old, width])?.f_permute([0, 3, 1, 2])?;
    let resized = picture.f_contiguous()?.f_internal_upsample_bicubic2d_aa([grid, grid], false, None, None)?;
    let patches = resized.f_permute([0, 2, 3, 1])?.f_reshape([1, grid * grid, width])?;
    Ok(Tensor::f_cat(&[front, patches], 1)?)
}

/// The fixed positions of MAE (arXiv:2111.06377, Appendix A.1; arXiv:2104.02057, §4.3): `[1, prefix + grid², D]`, D a multiple of 4. The first half
/// of D tells the column of a patch, the second its row: sines, then cosines, of D/4 frequencies from 1 down to nearly 1/10000. Tokens in front have
/// zeros.
pub fn sin_cos(grid: i64, prefix: i64, width: i64) -> Tensor {
    let quarter = width / 4;
    let mut numbers = vec![0.0f32; (prefix * width) as usize];
    for (row, column) in (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column))) {
        for place in [column, row] {
            // In the authors' order of rounding, so that the table is theirs to the bit.
            let angle = |k: i64| place as f64 * (1.0 / 10000f64.powf(k as f64 / quarter as f64));
            numbers.extend((0..quarter).map(|k| angle(k).sin() as f32));
            numbers.extend((0..quarter).map(|k| angle(k).cos() as f32));
        }
    }
    Tensor::from_slice(&numbers).view([1, prefix + grid * grid, width])
}

/// Patches along an edge, and D.
fn square(positions: &Tensor, prefix: i64) -> Result<(i64, i64)> {
    let size = positions.size();
    if let [1, count, width] = size[..] {
        let edge = ((count - prefix).max(0) as f64).sqrt().round() as i64;
        if edge > 0 && edge * edge + prefix == count {
            return Ok((edge, width));
        }
    }
    Err(user!(
        "pos_embed is {size:?}, which is no square of patches behind {prefix} tokens: these are the weights of another network"
    ))
}

/// The weights that a run starts from (`model.…`), their positions resized to the network's patches if `asked`.
///
/// # Errors
/// Positions for another number of patches, and not `asked`.
pub fn fit(init: &Named, variant: &Variant, asked: bool) -> Result<Named> {
    let mut fitted: Named = init.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    let found = init.iter().find(|(name, _)| name.starts_with("model.") && name.ends_with(".pos_embed"));
    let Some((name, positions)) = found else { return Ok(fitted) };
    let prefix = variant.prefix_with_positions();
    let (theirs, ours) = (square(positions, prefix)?.0, variant.grid());
    if theirs != ours && !asked {
        return Err(user!(
            "the weights have positions for {theirs} × {theirs} patches, and this network cuts pictures of {} pixels into {ours} × {ours}: \
             model.resize_positions=true resizes them, model.image_size={} keeps theirs",
            variant.edge,
            theirs * variant.patch
        ));
    }
    fitted.insert(name.clone(), resize(positions, prefix, ours)?);
    Ok(fitted)
}
