//! Pooling by the mean.

use tch::Tensor;

/// The mean of each 2×2 pixels: `[N, C, H, W]` → `[N, C, ⌊H/2⌋, ⌊W/2⌋]`, as `torch.nn.AvgPool2d(2)` and faster on the CPU.
///
/// # Panics
/// As tch's own operations: on tensors of another shape, or not of floating point.
pub fn avg_pool_2x2(image: &Tensor) -> Tensor {
    torch_ext::avg_pool_2x2(image).unwrap_or_else(|error| panic!("avg_pool_2x2: {error}"))
}
