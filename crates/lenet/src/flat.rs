//! The networks of Figure 9 without shared weights: linear, pairwise, and one or two hidden layers (§III.C.1 to 6).
//!
//! *Chosen here, since the paper leaves it open*: pixels run from −0.1 to 1.175 as in LeNet-5, all units squash as LeNet-5's do, but
//! those of the linear classifier (of plain sums, each pair's far-off opinions of the other classes would add up: 15.2 % instead of 11.5 % after
//! four passes); 20×20 pictures are the middle of the 28×28 ones.

use tch::{Kind, Tensor, nn};

use crate::layers::{Full, Init, squash};

/// Full connections from the pixels on.
#[derive(Debug)]
pub struct Flat {
    hidden: Vec<Full>,
    output: Full,
    /// What the outputs pass through: the squashing function, or nothing.
    activation: fn(&Tensor) -> Tensor,
    edge: i64,
}

impl Flat {
    /// One layer from `edge`×`edge` pixels to `units` weighted sums; weights are drawn from libtorch's generator.
    pub fn linear(path: &nn::Path, init: Init, edge: i64, units: i64) -> Self {
        Flat { activation: Tensor::shallow_clone, ..Self::squashing(path, init, edge, &[], units) }
    }

    /// From `edge`×`edge` pixels over `hidden` layers to `units` outputs, all of which squash; weights are drawn from libtorch's generator.
    pub fn squashing(path: &nn::Path, init: Init, edge: i64, hidden: &[i64], units: i64) -> Self {
        let sizes: Vec<i64> = std::iter::once(edge * edge).chain(hidden.iter().copied()).collect();
        let layer = |(place, pair): (usize, &[i64])| Full::new(&(path / NAMES[place]), init, pair[0], pair[1]);
        let hidden = sizes.windows(2).enumerate().map(layer).collect();
        let output = Full::new(&(path / "output"), init, sizes[sizes.len() - 1], units);
        Flat { hidden, output, activation: squash, edge }
    }

    /// Edge of the pictures it takes.
    pub fn edge(&self) -> i64 {
        self.edge
    }

    /// Pictures `[N, 1, 28, 28]` of 0 (background) to 1 (ink) as [`Self::trace`] takes them: the middle `[N, 1, edge, edge]`, −0.1 to 1.175.
    pub fn pixels(&self, images: &Tensor) -> Tensor {
        let margin = (images.size()[2] - self.edge) / 2;
        images.narrow(2, margin, self.edge).narrow(3, margin, self.edge) * 1.275 - 0.1
    }

    /// `[N, 1, edge, edge]` → the state of every layer by name, the outputs last.
    pub fn trace(&self, pixels: &Tensor) -> Vec<(&'static str, Tensor)> {
        let mut states = Vec::new();
        let mut x = pixels.flatten(1, -1);
        for (name, layer) in NAMES.iter().zip(&self.hidden) {
            x = squash(&layer.forward(&x));
            states.push((*name, x.shallow_clone()));
        }
        states.push(("output", (self.activation)(&self.output.forward(&x))));
        states
    }
}

const NAMES: [&str; 2] = ["hidden1", "hidden2"];

/// What each output unit is to say of each class, `[K, K]`: +1 for its own, −1 for the others.
pub(crate) fn one_against_all(classes: i64) -> Tensor {
    Tensor::eye(classes, (Kind::Float, tch::Device::Cpu)) * 2.0 - 1.0
}

/// What the unit of each pair i < j is to say of each class, `[K, K (K − 1) / 2]`: +1 for i, −1 for j, 0 (nothing) for the others.
pub(crate) fn one_against_one(classes: i64) -> Tensor {
    let pairs: Vec<_> = (0..classes).flat_map(|i| (i + 1..classes).map(move |j| (i, j))).collect();
    let says = |class: i64| pairs.iter().map(move |&(i, j)| f32::from(class == i) - f32::from(class == j));
    let table: Vec<f32> = (0..classes).flat_map(says).collect();
    Tensor::from_slice(&table).view([classes, -1])
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn one_layer_is_a_weighted_sum_of_the_middle() {
        let store = nn::VarStore::new(Device::Cpu);
        let net = Flat::linear(&store.root(), Init::Lecun, 20, 10);
        let image = Tensor::rand([2, 1, 28, 28], (Kind::Float, Device::Cpu));
        let input = net.pixels(&image);
        assert_eq!(input.size(), [2, 1, 20, 20]);
        assert_eq!(input.get(1).get(0).get(0).get(19), image.get(1).get(0).get(4).get(23) * 1.275 - 0.1);
        let (weight, bias) = (&store.variables()["output.weight"], &store.variables()["output.bias"]);
        let expected = input.view([2, 400]).matmul(&weight.tr()) + bias;
        assert!((&net.trace(&input)[0].1 - expected).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn hidden_layers_squash_and_have_their_names() {
        let store = nn::VarStore::new(Device::Cpu);
        let net = Flat::squashing(&store.root(), Init::Lecun, 28, &[300, 100], 10);
        let states = net.trace(&(Tensor::rand([3, 1, 28, 28], (Kind::Float, Device::Cpu)) * 9.0));
        let shapes: Vec<_> = states.iter().map(|(name, t)| (*name, t.size()[1])).collect();
        assert_eq!(shapes, [("hidden1", 300), ("hidden2", 100), ("output", 10)]);
        assert!(states.iter().all(|(_, t)| t.abs().max().double_value(&[]) <= 1.7159 + 1e-6));
        assert_eq!(store.trainable_variables().iter().map(|t| t.numel()).sum::<usize>(), 266_610);
    }

    #[test]
    fn pairs_say_one_thing_of_each_of_their_two_classes() {
        let table = one_against_one(4);
        let expected: [f32; 24] = [
            1.0, 1.0, 1.0, 0.0, 0.0, 0.0, // class 0: pairs 01 02 03 12 13 23
            -1.0, 0.0, 0.0, 1.0, 1.0, 0.0, //
            0.0, -1.0, 0.0, -1.0, 0.0, 1.0, //
            0.0, 0.0, -1.0, 0.0, -1.0, -1.0,
        ];
        assert_eq!(table, Tensor::from_slice(&expected).view([4, 6]));
        assert_eq!(one_against_one(10).size(), [10, 45]);
        assert_eq!(one_against_all(3).get(1), Tensor::from_slice(&[-1f32, 1.0, -1.0]));
    }
}
