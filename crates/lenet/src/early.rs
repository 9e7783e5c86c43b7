//! LeNet-1 and LeNet-4, LeNet-5's smaller forerunners (§III.C.7 and 8), from the same building blocks.
//!
//! *Chosen here, since the paper leaves it open*: the connection tables of both (LeNet-1's has the 20 kernels that its published 2,578
//! parameters and 98,442 connections imply); LeNet-4's layer of 120 units sees all 16 maps, so it has more than the published 17,000
//! parameters, which no full layer allows; ten squashing outputs with targets ±1 in both.

use repro::nn::record;
use tch::{Tensor, nn};

use crate::layers::{Convolution, Full, Init, Subsampling, Table, TableConvolution, squash};

/// Which maps of S2 each of LeNet-1's 12 maps of C3 sees: one half of C3 looks at two maps, the other half at the other two.
pub const LENET1_C3_INPUTS: &Table =
    &[&[0], &[0, 1], &[0, 1], &[0, 1], &[0, 1], &[1], &[2], &[2, 3], &[2, 3], &[2, 3], &[2, 3], &[3]];

/// Which maps of S2 each of LeNet-4's 16 maps of C3 sees: every choice of some of the four, and all of them twice.
pub const LENET4_C3_INPUTS: &Table = &[
    &[0],
    &[1],
    &[2],
    &[3],
    &[0, 1],
    &[0, 2],
    &[0, 3],
    &[1, 2],
    &[1, 3],
    &[2, 3],
    &[0, 1, 2],
    &[0, 1, 3],
    &[0, 2, 3],
    &[1, 2, 3],
    &[0, 1, 2, 3],
    &[0, 1, 2, 3],
];

/// What LeNet-1 and LeNet-4 share: C1 of four maps, S2, C3 by a table, S4.
#[derive(Debug)]
struct Trunk {
    c1: Convolution,
    s2: Subsampling,
    c3: TableConvolution,
    s4: Subsampling,
}

impl Trunk {
    fn new(path: &nn::Path, init: Init, table: &Table) -> Self {
        Trunk {
            c1: Convolution::new(&(path / "c1"), init, 1, 4),
            s2: Subsampling::new(&(path / "s2"), init, 4),
            c3: TableConvolution::new(&(path / "c3"), init, 4, table),
            s4: Subsampling::new(&(path / "s4"), init, table.len() as i64),
        }
    }

    fn trace(&self, pixels: &Tensor) -> Vec<(&'static str, Tensor)> {
        let c1 = self.c1.state(pixels);
        let s2 = self.s2.state(&c1);
        let c3 = self.c3.state(&s2);
        let s4 = self.s4.state(&c3);
        vec![("C1", c1), ("S2", s2), ("C3", c3), ("S4", s4)]
    }
}

/// LeNet-1: 2,578 parameters and 98,442 connections with ten classes.
#[derive(Debug)]
pub struct Lenet1 {
    trunk: Trunk,
    output: Full,
}

impl Lenet1 {
    /// A network of `classes` outputs; weights are drawn from libtorch's generator.
    pub fn new(path: &nn::Path, init: Init, classes: i64) -> Self {
        Lenet1 {
            trunk: Trunk::new(path, init, LENET1_C3_INPUTS),
            output: Full::new(&(path / "output"), init, 12 * 4 * 4, classes),
        }
    }

    /// Pictures `[N, 1, 28, 28]` of 0 (background) to 1 (ink) as [`Self::trace`] takes them: \[16x16\], the 20×20 box of the digit scaled to 16×16
    /// in the middle of `[N, 1, 28, 28]`, −0.1 to 1.175.
    pub fn pixels(images: &Tensor) -> Tensor {
        // 28 · 16/20 = 22.4; an even number of pixels keeps the middle in the middle.
        let small = images.internal_upsample_bilinear2d_aa([22, 22], false, None, None);
        small.constant_pad_nd([3, 3, 3, 3]) * 1.275 - 0.1
    }

    /// `[N, 1, 28, 28]` → the state of every layer by name, the outputs `[N, K]` last.
    pub fn trace(&self, pixels: &Tensor) -> Vec<(&'static str, Tensor)> {
        let mut states = self.trunk.trace(pixels);
        let output = squash(&self.output.forward(&states[3].1.flatten(1, -1)));
        states.push(("output", output));
        states
    }
}

/// LeNet-4: 50,390 parameters and 228,386 connections with ten classes.
#[derive(Debug)]
pub struct Lenet4 {
    trunk: Trunk,
    f5: Full,
    output: Full,
    /// Empty if it is the whole model.
    pub(crate) name: String,
}

impl Lenet4 {
    /// A network of `classes` outputs; weights are drawn from libtorch's generator.
    pub fn new(path: &nn::Path, init: Init, classes: i64) -> Self {
        Lenet4 {
            trunk: Trunk::new(path, init, LENET4_C3_INPUTS),
            f5: Full::new(&(path / "f5"), init, 16 * 5 * 5, 120),
            output: Full::new(&(path / "output"), init, 120, classes),
            name: record::name(path),
        }
    }

    /// `[N, 1, 32, 32]` in the range of [`crate::model::pixels`] → the state of every layer by name, the outputs `[N, K]` last.
    pub fn trace(&self, pixels: &Tensor) -> Vec<(&'static str, Tensor)> {
        let mut states = self.trunk.trace(pixels);
        let f5 = self.f5.state(&states[3].1.flatten(1, -1));
        let output = squash(&self.output.forward(&f5));
        states.extend([("F5", f5), ("output", output)]);
        states
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn the_digit_of_lenet_1_is_16_pixels_high() {
        let image = Tensor::zeros([1, 1, 28, 28], (Kind::Float, Device::Cpu));
        let _ = image.narrow(2, 4, 20).narrow(3, 4, 20).fill_(1.0);
        let small = Lenet1::pixels(&image);
        assert_eq!(small.size(), [1, 1, 28, 28]);
        let row = small.get(0).get(0).get(14);
        let ink: Vec<i64> = (0..28).filter(|&x| row.double_value(&[x]) > 0.5).collect();
        assert_eq!((ink[0], ink[ink.len() - 1]), (6, 21));
        assert!((row.double_value(&[0]) + 0.1).abs() < 1e-6 && (row.double_value(&[14]) - 1.175).abs() < 1e-5);
    }

    #[test]
    fn every_map_of_a_table_is_seen() {
        for (table, maps, kernels) in [(LENET1_C3_INPUTS, 12, 20), (LENET4_C3_INPUTS, 16, 36)] {
            assert_eq!(table.len(), maps);
            assert_eq!(table.iter().map(|inputs| inputs.len()).sum::<usize>(), kernels);
            assert!((0..4).all(|map| table.iter().any(|inputs| inputs.contains(&map))));
        }
    }
}
