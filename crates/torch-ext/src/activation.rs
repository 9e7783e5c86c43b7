//! Activations.

use tch::Tensor;

use crate::{Result, ffi};

/// x where it is above 0, `slope`·x elsewhere; of any shape. tch's own has no slope.
/// # Errors
/// Tensors that are not of floating point.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    // SAFETY: `as_ptr` is a live `at::Tensor*`.
    ffi::tensor(unsafe { ffi::ext_leaky_relu(x.as_ptr(), slope) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_below_0_in_values_and_gradients() {
        let x = Tensor::from_slice(&[-3.0, -0.5, 0.5, 3.0]).set_requires_grad(true);
        let y = leaky_relu(&x, 0.1).unwrap();
        y.sum(y.kind()).backward();
        let rows = |tensor: &Tensor| Vec::<f64>::try_from(tensor).unwrap();
        assert_eq!(
            (rows(&y.detach()), rows(&x.grad())),
            (vec![-3.0 * 0.1, -0.5 * 0.1, 0.5, 3.0], vec![0.1, 0.1, 1.0, 1.0])
        );
        assert!(leaky_relu(&Tensor::from_slice(&[true]), 0.1).is_err());
    }
}
