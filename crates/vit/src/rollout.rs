//! Attention roll-out (arXiv:2005.00928, §3): how much each patch can have reached the classifier, through all blocks.

use repro::{Error, Result};
use tch::{Kind, Tensor};

use crate::variant::{Pool, Variant};

/// The weights `[1, heads, L, L]` of each block, first to last → `[grid, grid]` in [0, 1], the most 1.
///
/// Each block is (A + 1)/2 with A the mean over its heads and 1 for the shortcut; they are multiplied; what is left is the class token's row, or
/// the mean of the patches' rows where the classifier reads their mean (Appendix D.7 of the paper draws the same).
///
/// # Errors
/// No block; libtorch's.
pub fn rollout(weights: &[Tensor], variant: &Variant) -> Result<Tensor> {
    let mut reached: Option<Tensor> = None;
    for block in weights {
        let mean = block.f_to_kind(Kind::Double)?.f_mean_dim([0_i64, 1].as_slice(), false, Kind::Double)?;
        let length = mean.size()[0];
        let both = (mean + Tensor::f_eye(length, (Kind::Double, block.device()))?) / 2.0;
        reached = Some(match reached {
            None => both,
            Some(before) => both.f_matmul(&before)?,
        });
    }
    let reached = reached.ok_or_else(|| Error::Failed("internal error: roll-out of no blocks".into()))?;
    read(&reached, variant)
}

/// What each head of a block looks at for the classifier: of its weights `[1, heads, L, L]` a map for each head, `[grid, grid]` in [0, 1], the most 1.
///
/// # Errors
/// libtorch's.
pub fn by_head(weights: &Tensor, variant: &Variant) -> Result<Vec<(String, Tensor)>> {
    let heads = weights.f_to_kind(Kind::Double)?.f_get(0)?;
    (0..variant.heads).map(|head| Ok((format!("head {}", head + 1), read(&heads.f_get(head)?, variant)?))).collect()
}

/// Of a matrix `[L, L]` of what reads what: what the classifier reads of the patches, `[grid, grid]`, the most 1.
fn read(reached: &Tensor, variant: &Variant) -> Result<Tensor> {
    let (prefix, grid) = (variant.prefix(), variant.grid());
    let row = match variant.pool {
        Pool::Class => reached.f_get(0)?,
        Pool::Mean => reached.f_narrow(0, prefix, grid * grid)?.f_mean_dim([0_i64].as_slice(), false, Kind::Double)?,
    };
    let map = row.f_narrow(0, prefix, grid * grid)?.f_reshape([grid, grid])?;
    let most = map.max().double_value(&[]);
    Ok(if most > 0.0 { map / most } else { map })
}
