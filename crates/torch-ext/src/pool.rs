//! Pooling.

use tch::Tensor;

use crate::{Result, ffi};

/// The mean of each 2×2 pixels: `[N, C, H, W]` → `[N, C, ⌊H/2⌋, ⌊W/2⌋]`; the values and gradients of `avg_pool2d`, bit for bit.
///
/// On the CPU, for even H and W in float32 or float64, several times as fast, and without a second derivative.
/// # Errors
/// Tensors that are not 4-dimensional or not of floating point.
pub fn avg_pool_2x2(image: &Tensor) -> Result<Tensor> {
    // SAFETY: `as_ptr` is a live `at::Tensor*`.
    ffi::tensor(unsafe { ffi::ext_avg_pool_2x2(image.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Both give the same means and the same gradients to the last bit.
    fn agrees(image: Tensor) {
        let both =
            [avg_pool_2x2, |image: &Tensor| Ok(image.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None).unwrap())];
        let [ours, theirs] = both.map(|pool| {
            let leaf = image.detach().set_requires_grad(true);
            let mean = pool(&leaf).unwrap();
            // A gradient that differs from place to place.
            (mean.sin() * 3.0).sum(mean.kind()).backward();
            (mean.detach(), leaf.grad())
        });
        assert_eq!(ours.0.size(), theirs.0.size());
        assert!(ours.0.equal(&theirs.0) && ours.1.equal(&theirs.1));
    }

    #[test]
    fn libtorchs_pooling_bit_for_bit() {
        for kind in [Kind::Float, Kind::Double] {
            // Large enough for several threads; one pixel; odd sizes; one column.
            for size in [[40, 6, 28, 28], [1, 1, 2, 2], [2, 3, 5, 7], [3, 2, 4, 2]] {
                agrees(Tensor::randn(size, (kind, Device::Cpu)));
            }
        }
        agrees(crate::channels_last(&Tensor::randn([2, 3, 4, 6], (Kind::Float, Device::Cpu))).unwrap());
        agrees(Tensor::randn([2, 3, 6, 4], (Kind::Float, Device::Cpu)).transpose(2, 3));
    }

    #[test]
    fn gradients_that_lie_otherwise_in_memory() {
        let leaf = Tensor::ones([2, 3, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mean = avg_pool_2x2(&leaf).unwrap();
        let weight = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 2, 2]).transpose(2, 3);
        (&mean * &weight).sum(Kind::Float).backward();
        let expected = (weight / 4.0).repeat_interleave_self_int(2, 2, None).repeat_interleave_self_int(2, 3, None);
        assert!(leaf.grad().equal(&expected));
    }

    #[test]
    fn other_shapes_and_kinds_are_errors() {
        assert!(avg_pool_2x2(&Tensor::zeros([4, 4], (Kind::Float, Device::Cpu))).is_err());
        assert!(avg_pool_2x2(&Tensor::zeros([1, 1, 4, 4], (Kind::Bool, Device::Cpu))).is_err());
    }
}
