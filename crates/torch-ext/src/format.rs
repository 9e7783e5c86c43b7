//! Memory format: where the numbers of an image batch lie.

use tch::Tensor;

use crate::{Result, ffi};

/// The same `[N, C, H, W]` values with the channels next to each other in memory; the tensor itself if they already are.
/// # Errors
/// Tensors that are not 4-dimensional.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    // SAFETY: `as_ptr` is a live `at::Tensor*`.
    ffi::tensor(unsafe { ffi::ext_channels_last(tensor.as_ptr()) })
}

/// Whether the channels of an `[N, C, H, W]` tensor lie next to each other in memory.
/// # Errors
/// Undefined tensors.
pub fn is_channels_last(tensor: &Tensor) -> Result<bool> {
    let mut answer = false;
    // SAFETY: `as_ptr` is a live `at::Tensor*`, `answer` outlives the call.
    ffi::check(unsafe { ffi::ext_is_channels_last(tensor.as_ptr(), &mut answer) })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn channels_last_changes_strides_and_not_values() {
        let image = Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, Device::Cpu)).view([2, 3, 4, 5]);
        assert!(!is_channels_last(&image).unwrap());
        let moved = channels_last(&image).unwrap();
        assert!(is_channels_last(&moved).unwrap());
        assert_eq!(moved.stride(), [60, 1, 15, 3]);
        assert!(moved.equal(&image));
    }

    #[test]
    fn channels_last_refuses_other_ranks_in_one_line() {
        let error = channels_last(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))).unwrap_err().to_string();
        assert!(error.contains("rank 4"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}
