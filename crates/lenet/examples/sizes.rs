//! How large is the output of a convolution or a pooling? The formula against libtorch, for random hyper-parameters.
//!
//! `cargo run --release -p lenet --example sizes`

use lenet::sizes::output_size;
use tch::{Device, Kind, Tensor};

fn main() {
    tch::manual_seed(1);
    let draw = |low: i64, high: i64| Tensor::randint_low(low, high, [1], (Kind::Int64, Device::Cpu)).int64_value(&[0]);
    println!("out = floor((n + 2p − d(k − 1) − 1) / s) + 1\n");
    println!(
        "{:10} {:>4} {:>7} {:>4} {:>4} {:>4} {:>9} {:>9}",
        "", "n", "kernel", "pad", "dil", "str", "formula", "libtorch"
    );
    for row in 0..20 {
        let (n, kernel, stride) = (draw(8, 40), draw(1, 6), draw(1, 4));
        let picture = Tensor::zeros([1, 1, n, n], (Kind::Float, Device::Cpu));
        let (name, padding, dilation, output) = if row % 2 == 0 {
            let (padding, dilation) = (draw(0, 4), draw(1, 2));
            let weight = Tensor::zeros([1, 1, kernel, kernel], (Kind::Float, Device::Cpu));
            ("conv2d", padding, dilation, picture.conv2d::<Tensor>(&weight, None, stride, padding, dilation, 1))
        } else {
            // Pooling takes padding of half its kernel at most.
            let padding = draw(0, kernel / 2 + 1);
            let side = [kernel, kernel];
            ("max_pool2d", padding, 1, picture.max_pool2d(side, [stride; 2], [padding; 2], [1, 1], false))
        };
        let formula = output_size(n, kernel, padding, dilation, stride);
        let libtorch = output.size()[2];
        println!("{name:10} {n:>4} {kernel:>7} {padding:>4} {dilation:>4} {stride:>4} {formula:>9} {libtorch:>9}");
        assert_eq!(formula, libtorch);
    }
}
