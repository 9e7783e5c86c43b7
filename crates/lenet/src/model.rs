//! LeNet-5 of 1998, to the letter: "Gradient-Based Learning Applied to Document Recognition", Y. LeCun, L. Bottou, Y. Bengio,
//! P. Haffner, Proceedings of the IEEE 86(11), §II.B and Fig. 2.
//!
//! | paper | here |
//! |---|---|
//! | §II.B, input 32×32, background −0.1, ink 1.175 | [`pixels`] |
//! | §II.B, C1, C5 | [`Convolution`] |
//! | §II.B, S2, S4 | [`Subsampling`] |
//! | §II.B, C3 and Table I | [`TableConvolution`], [`C3_INPUTS`] |
//! | §II.B, F6 and Eq. 5, 6; Appendix A | [`Full`], [`squash`](crate::layers::squash) |
//! | §II.B, Eq. 7 and Fig. 3 | [`Rbf`], [`crate::bitmaps`] |
//! | Appendix A, initialisation | [`Init`] |
//!
//! There is no reference code. *Changes against the paper*: the glyphs of Fig. 3 are drawn anew; [`Init::Lecun`] where an experiment asks for it.
//! Letters: `N` pictures, `K` classes.

use repro::nn::record::{self, Counts};
use tch::{Tensor, nn};

use crate::bitmaps;
use crate::layers::{Convolution, Full, Init, Names, Subsampling, Table, TableConvolution};

/// Which maps of S2 each of the 16 maps of C3 sees (Table I).
pub const C3_INPUTS: &Table = &[
    &[0, 1, 2],
    &[1, 2, 3],
    &[2, 3, 4],
    &[3, 4, 5],
    &[0, 4, 5],
    &[0, 1, 5],
    &[0, 1, 2, 3],
    &[1, 2, 3, 4],
    &[2, 3, 4, 5],
    &[0, 3, 4, 5],
    &[0, 1, 4, 5],
    &[0, 1, 2, 5],
    &[0, 1, 3, 4],
    &[1, 2, 4, 5],
    &[0, 2, 3, 5],
    &[0, 1, 2, 3, 4, 5],
];

/// Pictures `[N, 1, 28, 28]` of 0 (background) to 1 (ink) as the network takes them: `[N, 1, 32, 32]` of −0.1 to 1.175.
pub fn pixels(images: &Tensor) -> Tensor {
    images.constant_pad_nd([2, 2, 2, 2]) * 1.275 - 0.1
}

/// Euclidean radial basis function units: how far is F6 from the glyph of each class? (Eq. 7)
#[derive(Debug)]
pub struct Rbf {
    /// w_ij = ±1, `[K, 84]`: fixed by hand, not trained.
    pub(crate) centers: Tensor,
    names: Names,
}

impl Rbf {
    fn new(path: &nn::Path, classes: i64) -> Self {
        let mut centers = path.zeros_no_train("centers", &[classes, 84]);
        tch::no_grad(|| centers.copy_(&bitmaps::codes().narrow(0, 0, classes)));
        let (sums, state) = (record::name(path), String::from("output"));
        Rbf { centers, names: Names { sums, state } }
    }

    /// `[N, 84]` → y_i = Σ_j (x_j − w_ij)², `[N, K]`, in the precision of the codes.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(self.centers.kind());
        record::block(&self.names.state, || {
            let y = (x.unsqueeze(1) - &self.centers).square().sum_dim_intlist(2i64, false, None);
            record::seen(&self.names.sums, &y, || {
                let links = x.size()[0] as u64 * self.centers.numel() as u64;
                Counts { parameters: 0, multiply_adds: links, connections: Some(links) }
            });
            y
        })
    }
}

/// The state of every layer: what the paper's Fig. 2 draws as planes.
#[derive(Debug)]
pub struct Activations {
    /// `[N, 6, 28, 28]`.
    pub c1: Tensor,
    /// `[N, 6, 14, 14]`.
    pub s2: Tensor,
    /// `[N, 16, 10, 10]`.
    pub c3: Tensor,
    /// `[N, 16, 5, 5]`.
    pub s4: Tensor,
    /// `[N, 120, 1, 1]`.
    pub c5: Tensor,
    /// `[N, 84]`: read as 7×12 pixels it tends to the glyph of the class.
    pub f6: Tensor,
    /// y_i ≥ 0, `[N, K]`: the smallest one wins.
    pub distances: Tensor,
}

/// LeNet-5 of 1998: 60,000 trainable parameters, 340,908 connections.
#[derive(Debug)]
pub struct Lenet5 {
    pub(crate) c1: Convolution,
    pub(crate) s2: Subsampling,
    pub(crate) c3: TableConvolution,
    pub(crate) s4: Subsampling,
    pub(crate) c5: Convolution,
    pub(crate) f6: Full,
    pub(crate) rbf: Rbf,
}

impl Lenet5 {
    /// A network of `classes` ≤ 10 outputs; weights are drawn from libtorch's generator.
    pub fn new(path: &nn::Path, classes: i64, init: Init) -> Self {
        Lenet5 {
            c1: Convolution::new(&(path / "c1"), init, 1, 6),
            s2: Subsampling::new(&(path / "s2"), init, 6),
            c3: TableConvolution::new(&(path / "c3"), init, 6, C3_INPUTS),
            s4: Subsampling::new(&(path / "s4"), init, 16),
            c5: Convolution::new(&(path / "c5"), init, 16, 120),
            f6: Full::new(&(path / "f6"), init, 120, 84),
            rbf: Rbf::new(&(path / "rbf"), classes),
        }
    }

    /// `[N, 1, 32, 32]` in the range of [`pixels`] → the state of every layer.
    pub fn trace(&self, pixels: &Tensor) -> Activations {
        let c1 = self.c1.state(pixels);
        let s2 = self.s2.state(&c1);
        let c3 = self.c3.state(&s2);
        let s4 = self.s4.state(&c3);
        let c5 = self.c5.state(&s4);
        let f6 = self.f6.state(&c5.flatten(1, -1));
        let distances = self.rbf.forward(&f6);
        Activations { c1, s2, c3, s4, c5, f6, distances }
    }

    /// `[N, 1, 32, 32]` in the range of [`pixels`] → logits −y_i, `[N, K]`.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        -self.trace(pixels).distances
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn network() -> (nn::VarStore, Lenet5) {
        let vs = nn::VarStore::new(Device::Cpu);
        tch::manual_seed(1);
        let net = Lenet5::new(&vs.root(), 10, Init::Printed);
        (vs, net)
    }

    #[test]
    fn names_and_shapes_of_the_state_dict() {
        let (vs, _) = network();
        let mut names: Vec<_> = vs.variables().iter().map(|(n, t)| format!("{n} {:?}", t.size())).collect();
        names.sort();
        let expected = [
            "c1.bias [6]",
            "c1.weight [6, 1, 5, 5]",
            "c3.bias [16]",
            "c3.weight [16, 6, 5, 5]",
            "c5.bias [120]",
            "c5.weight [120, 16, 5, 5]",
            "f6.bias [84]",
            "f6.weight [84, 120]",
            "rbf.centers [10, 84]",
            "s2.bias [6]",
            "s2.weight [6]",
            "s4.bias [16]",
            "s4.weight [16]",
        ];
        assert_eq!(names, expected);
        // The codes are a buffer: 12 trainable tensors, none of them the centers.
        assert_eq!(vs.trainable_variables().len(), 12);
        assert!(!vs.variables()["rbf.centers"].requires_grad());
    }

    #[test]
    fn weights_start_within_the_bound_of_their_fan_in() {
        let (_, net) = network();
        let widest = |t: &Tensor| t.abs().max().double_value(&[]);
        for (tensor, fan_in) in
            [(&net.c1.weight, 25), (&net.s2.weight, 4), (&net.s4.bias, 4), (&net.c5.weight, 400), (&net.f6.weight, 120)]
        {
            let bound = 2.4 / fan_in as f64;
            assert!(widest(tensor) <= bound && widest(tensor) > 0.5 * bound, "fan-in {fan_in}: {}", widest(tensor));
        }
        for (map, inputs) in C3_INPUTS.iter().enumerate() {
            let bound = 2.4 / (25 * inputs.len()) as f64;
            for input in 0..6 {
                let kernel = widest(&net.c3.weight.get(map as i64).get(input));
                let connected = inputs.contains(&input);
                assert!(
                    if connected { kernel <= bound && kernel > 0.7 * bound } else { kernel == 0.0 },
                    "map {map}, input {input}"
                );
            }
        }
    }

    #[test]
    fn a_missing_connection_neither_acts_nor_learns() {
        let (vs, net) = network();
        let x = Tensor::randn([2, 1, 32, 32], (Kind::Float, Device::Cpu));
        let before = net.forward(&x);
        tch::no_grad(|| {
            let off: Tensor = 1.0 - &net.c3.table;
            let mut weight = vs.variables()["c3.weight"].shallow_clone();
            let _ = weight.g_add_(&(off * 7.0));
        });
        assert_eq!(net.forward(&x), before);
        net.forward(&x).sum(Kind::Float).backward();
        let leak: Tensor = net.c3.weight.grad() * (1.0 - &net.c3.table);
        assert_eq!(leak.abs().max().double_value(&[]), 0.0);
        assert!(net.c3.weight.grad().abs().max().double_value(&[]) > 0.0);
    }

    #[test]
    fn one_picture_alone_is_as_in_a_batch() {
        let (mut vs, net) = network();
        vs.double();
        let x = Tensor::randn([3, 1, 32, 32], (Kind::Double, Device::Cpu));
        let together = net.forward(&x);
        for n in 0..3 {
            let gap = (net.forward(&x.narrow(0, n, 1)) - together.narrow(0, n, 1)).abs().max().double_value(&[]);
            assert!(gap < 1e-9, "picture {n} differs by {gap}");
        }
        let c5 = net.trace(&x);
        let general = crate::layers::squash(&c5.s4.conv2d(&net.c5.weight, Some(&net.c5.bias), 1, 0, 1, 1));
        assert!((general - &c5.c5).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn distances_are_squared_and_zero_on_the_glyph() {
        let (_, net) = network();
        let codes = bitmaps::codes();
        let y = net.rbf.forward(&codes);
        assert_eq!(y.diag(0).abs().max().double_value(&[]), 0.0);
        let differing = codes.get(3).ne_tensor(&codes.get(8)).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(y.double_value(&[3, 8]), 4.0 * differing as f64);
    }

    #[test]
    fn the_input_is_padded_and_rescaled() {
        let x = pixels(&Tensor::ones([1, 1, 28, 28], (Kind::Double, Device::Cpu)));
        assert_eq!(x.size(), [1, 1, 32, 32]);
        for (y, x_, value) in [(1, 16, -0.1), (30, 30, -0.1), (2, 2, 1.175), (29, 29, 1.175)] {
            assert!((x.double_value(&[0, 0, y, x_]) - value).abs() < 1e-12);
        }
    }
}
