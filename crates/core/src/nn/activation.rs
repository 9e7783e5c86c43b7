//! Activations that tch lacks.

use tch::Tensor;

/// x where it is above 0, `slope`·x elsewhere, as `torch.nn.LeakyReLU(slope)`; of any shape.
///
/// # Panics
/// As tch's own operations: on tensors that are not of floating point.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Tensor {
    torch_ext::leaky_relu(x, slope).unwrap_or_else(|error| panic!("leaky_relu: {error}"))
}
