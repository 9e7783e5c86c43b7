//! Parts of a split: the start and the end of one permutation.

use crate::random::{permutation, rng};
use crate::{Result, user};

/// The permutation that limits are the start of and held-out parts the end, the same for every seed.
pub(super) fn fixed_order(n: u64) -> Vec<i64> {
    permutation(&mut rng(0, 0, 0, "limit"), n)
}

/// What is left of a training split of `len` pictures, and the `n` that are held out of it.
///
/// # Errors
/// They are all of them.
pub(super) fn hold_out(len: u64, n: u64) -> Result<(Vec<i64>, Vec<i64>)> {
    if n >= len {
        return Err(user!("data.validation: {n} pictures cannot be held out of {len}; choose 1 to {}", len - 1));
    }
    let mut left = fixed_order(len);
    let out = left.split_off((len - n) as usize);
    Ok((left, out))
}

/// The first `n` of `len` pictures, as `data.{key}` says.
///
/// # Errors
/// There are not so many.
pub(super) fn limited(len: u64, n: u64, key: &str) -> Result<Vec<i64>> {
    if n == 0 || n > len {
        return Err(user!("data.{key}: {n} does not fit a split of {len} pictures; choose 1 to {len}"));
    }
    let mut order = fixed_order(len);
    order.truncate(n as usize);
    Ok(order)
}
