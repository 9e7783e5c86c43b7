//! The arithmetic of convolution and pooling.

/// Outputs along one axis of `n` pixels, for a kernel of `kernel` pixels, `padding` on both sides, `dilation` ≥ 1 and
/// `stride` ≥ 1, where the kernel fits: ⌊(n + 2p − d(k − 1) − 1) / s⌋ + 1.
pub fn output_size(n: i64, kernel: i64, padding: i64, dilation: i64, stride: i64) -> i64 {
    (n + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::{Device, Kind, Tensor};

    use super::output_size;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn convolution_is_as_large_as_the_formula_says(n in 1i64..40, k in 1i64..7, p in 0i64..5, d in 1i64..4, s in 1i64..5) {
            prop_assume!(d * (k - 1) < n + 2 * p);
            let picture = Tensor::zeros([1, 1, n, n + 1], (Kind::Float, Device::Cpu));
            let weight = Tensor::zeros([1, 1, k, k], (Kind::Float, Device::Cpu));
            let out = picture.conv2d::<Tensor>(&weight, None, s, p, d, 1).size();
            prop_assert_eq!(&out[2..], &[output_size(n, k, p, d, s), output_size(n + 1, k, p, d, s)]);
        }

        #[test]
        fn pooling_follows_the_same_formula(n in 1i64..40, k in 1i64..7, half in 0i64..4, s in 1i64..5) {
            let p = half.min(k / 2);
            prop_assume!(k <= n + 2 * p);
            let picture = Tensor::zeros([1, 1, n, n], (Kind::Float, Device::Cpu));
            let expected = output_size(n, k, p, 1, s);
            let average = picture.avg_pool2d([k, k], [s, s], [p, p], false, true, None).size();
            let maximum = picture.max_pool2d([k, k], [s, s], [p, p], [1, 1], false).size();
            prop_assert_eq!(average[2], expected);
            prop_assert_eq!(maximum[2], expected);
        }
    }
}
