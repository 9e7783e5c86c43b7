//! Weights and inputs made from names by an integer hash, so that another implementation can build the very same model.

use tch::{Kind, Tensor, nn};

/// Sum of the key's bytes, each times its place counted from 1, modulo 1000.
fn hash(key: &str) -> u32 {
    (key.bytes().zip(1u32..).fold(0u64, |sum, (byte, place)| sum + u64::from(place) * u64::from(byte)) % 1000) as u32
}

/// `n` values in [−0.5, 0.5) that depend on the key alone.
fn uniform(key: &str, n: usize) -> Vec<f64> {
    let offset = hash(key).wrapping_mul(40503).wrapping_add(12345);
    let value = |i: usize| {
        let mut x = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(offset);
        x ^= x >> 16;
        x = x.wrapping_mul(2_246_822_519);
        x ^= x >> 13;
        f64::from(x) / 4_294_967_296.0 - 0.5
    };
    (0..n).map(value).collect()
}

/// An input in [−1, 1), float64.
pub fn input(key: &str, shape: &[i64]) -> Tensor {
    Tensor::from_slice(&uniform(key, shape.iter().product::<i64>() as usize)).view(shape) * 2.0
}

/// Fills every weight and buffer of a store; matrices and kernels get variance 1 / fan-in, counters 0.
pub fn fill(vs: &nn::VarStore) {
    for (name, mut tensor) in vs.variables() {
        let shape = tensor.size();
        let u = Tensor::from_slice(&uniform(&name, tensor.numel())).view(shape.as_slice()).to_kind(Kind::Double);
        let value = match shape.as_slice() {
            _ if name.ends_with("running_var") => u * 0.2 + 1.0,
            _ if name.ends_with("running_mean") => u * 0.2,
            [_] if name.ends_with("weight") => u * 0.2 + 1.0,
            [_] => u * 0.1,
            [_, rest @ ..] => u * (12.0 / rest.iter().product::<i64>() as f64).sqrt(),
            [] => u * 0.0,
        };
        tch::no_grad(|| tensor.copy_(&value));
    }
}

#[test]
fn the_rule_checks_itself() {
    assert_eq!((hash("input"), hash("conv1.weight")), (709, 796));
    assert_eq!(uniform("input", 3), [-0.2532654576934874, 0.054243952967226505, 0.015414888970553875]);
    assert_eq!(uniform("conv1.weight", 2), [0.26217662706039846, 0.0607677164953202]);
}
