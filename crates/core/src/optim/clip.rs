//! Gradient clipping.

use tch::Tensor;

use super::Params;
use crate::Result;

/// Scales all gradients by min(1, max/(norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_`. Returns the norm before, on the device: the
/// host does not wait.
/// # Errors
/// What libtorch says.
pub fn clip_grad_norm(params: &Params, max: f64) -> Result<Tensor> {
    let norm = params.list().grad_norm()?;
    let factor = norm.f_add_scalar(1e-6)?.f_reciprocal()?.f_mul_scalar(max)?.f_clamp_max(1.0)?;
    params.list().scale_grads(&factor)?;
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Group;
    use tch::{Device, Kind, nn};

    fn norm_after(max: f64) -> (f64, f64) {
        let store = nn::VarStore::new(Device::Cpu);
        let a = store.root().zeros("a", &[2]);
        let b = store.root().zeros("b", &[1]);
        let params = Params::new(&store, |_, _| Some(Group::of(0.0))).unwrap();
        // The gradient is (3, 0, 4).
        (a * Tensor::from_slice(&[3f32, 0.0]) + b * Tensor::from_slice(&[2f32])).sum(Kind::Float).backward();
        let norm = clip_grad_norm(&params, max).unwrap();
        (norm.double_value(&[]), params.list().grad_norm().unwrap().double_value(&[]))
    }

    #[test]
    fn long_gradients_are_shortened_and_short_ones_left() {
        assert_eq!(norm_after(100.0), (5.0, 5.0));
        let (before, after) = norm_after(0.5);
        assert_eq!(before, 5.0);
        assert!((after - 5.0 * 0.5 / (5.0 + 1e-6)).abs() < 1e-7, "{after}");
    }
}
