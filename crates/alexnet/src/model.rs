//! "ImageNet Classification with Deep Convolutional Neural Networks" (NIPS 2012).
//!
//! | section | here |
//! |---|---|
//! | §3.5, Fig. 2: the network | [`ALEXNET_2012`] |
//! | §3.3: response normalisation | [`crate::lrn`] |
//! | §3.3, §3.1, Fig. 1: networks for CIFAR-10 | [`LOCAL`], [`CNN`] and the others that are made from these |
//! | §5: initialisation | [`initialise`] |
//!
//! References: pytorch/vision 0.26.0 (`torchvision/models/alexnet.py`, BSD-3-Clause), whose `alexnet` is the one of arXiv:1404.5997;
//! for CIFAR-10 the files that a footnote of §3.3 points to, `layers-conv-local-{13,11}pct.cfg` and `layers-18pct.cfg` of cuda-convnet
//! (dnouri/cuda-convnet@e4ac0c1; New BSD). State-dict names are theirs; the network of 2012 has those of torchvision.
//!
//! *Changes against the references*: none in the arithmetic of `alexnet`. cuda-convnet's 18 % network normalises over places, where
//! `cifar_cnn_lrn` has §3.3's normalisation over maps and `cifar_cnn` none.

use std::collections::BTreeMap;

use repro::nn::Mode;
use repro::{Result, user};
use tch::nn;

use crate::layers::{self, Layer, Layers};
use crate::lrn::{Lrn, PAPER};

pub use crate::layers::Output;

const fn conv(name: &'static str, output: i64, kernel: i64, stride: i64, padding: i64) -> Layer {
    grouped(name, output, kernel, stride, padding, 1)
}

const fn grouped(name: &'static str, output: i64, kernel: i64, stride: i64, padding: i64, groups: i64) -> Layer {
    Layer::Conv { name, output, kernel, stride, padding, groups }
}

const fn local(name: &'static str, output: i64) -> Layer {
    Layer::Local { name, output, kernel: 3 }
}

const fn full(name: &'static str, output: i64) -> Layer {
    Layer::Full { name, output }
}

/// Every window is whole.
const POOL: Layer = Layer::MaxPool { ceil: false };
/// cuda-convnet's `outputsX=0`: the windows cover the picture.
const COVER: Layer = Layer::MaxPool { ceil: true };

/// torchvision's network, of one column: 61,100,840 parameters.
pub const ALEXNET: [Layer; 21] = [
    conv("features.0", 64, 11, 4, 2),
    Layer::Relu,
    POOL,
    conv("features.3", 192, 5, 1, 2),
    Layer::Relu,
    POOL,
    conv("features.6", 384, 3, 1, 1),
    Layer::Relu,
    conv("features.8", 256, 3, 1, 1),
    Layer::Relu,
    conv("features.10", 256, 3, 1, 1),
    Layer::Relu,
    POOL,
    Layer::Adaptive(6),
    Layer::Dropout,
    full("classifier.1", 4096),
    Layer::Relu,
    Layer::Dropout,
    full("classifier.4", 4096),
    Layer::Relu,
    full("classifier.6", 0),
];

/// The network of Fig. 2: 60,965,224 parameters. Padding makes its 224×224 pixels the 227 that 55 places of the first layer need.
pub const ALEXNET_2012: [Layer; 22] = [
    conv("features.0", 96, 11, 4, 2),
    Layer::Relu,
    Layer::Norm(PAPER),
    POOL,
    grouped("features.3", 256, 5, 1, 2, 2),
    Layer::Relu,
    Layer::Norm(PAPER),
    POOL,
    conv("features.6", 384, 3, 1, 1),
    Layer::Relu,
    grouped("features.8", 384, 3, 1, 1, 2),
    Layer::Relu,
    grouped("features.10", 256, 3, 1, 1, 2),
    Layer::Relu,
    POOL,
    full("classifier.1", 4096),
    Layer::Relu,
    Layer::Dropout,
    full("classifier.4", 4096),
    Layer::Relu,
    Layer::Dropout,
    full("classifier.6", 0),
];

/// cuda-convnet's network of three convolutions without its normalisation: four layers that learn, as Fig. 1 has them.
pub const CNN: [Layer; 10] = [
    conv("conv1", 32, 5, 1, 2),
    COVER,
    Layer::Relu,
    conv("conv2", 32, 5, 1, 2),
    Layer::Relu,
    Layer::AvgPool,
    conv("conv3", 64, 5, 1, 2),
    Layer::Relu,
    Layer::AvgPool,
    full("fc10", 0),
];

/// cuda-convnet's network of 13 % error on CIFAR-10, whose files a footnote of §3.3 points to.
pub const LOCAL: [Layer; 11] = [
    conv("conv1", 64, 5, 1, 2),
    Layer::Relu,
    COVER,
    conv("conv2", 64, 5, 1, 2),
    Layer::Relu,
    COVER,
    local("local3", 32),
    Layer::Relu,
    local("local4", 32),
    Layer::Relu,
    full("fc10", 0),
];

/// What cuda-convnet's network of 11 % error normalises by. Its α stands there as 0.001, and is divided by n when it is read.
const NORM: Layer = Layer::Norm(Lrn { k: 1.0, n: 9, alpha: 0.001 / 9.0, beta: 0.75 });

/// cuda-convnet's network of 11 %: besides the normalisation it has twice the kernels in its third layer.
pub const LOCAL_LRN: [Layer; 13] = [
    conv("conv1", 64, 5, 1, 2),
    Layer::Relu,
    COVER,
    NORM,
    conv("conv2", 64, 5, 1, 2),
    Layer::Relu,
    NORM,
    COVER,
    local("local3", 64),
    Layer::Relu,
    local("local4", 32),
    Layer::Relu,
    full("fc10", 0),
];

/// A network by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// torchvision's `alexnet`.
    Torchvision,
    /// The network of Fig. 2, `alexnet_2012`.
    Paper,
    /// Three convolutions for CIFAR-10: `cifar_cnn`, `cifar_cnn_tanh`, `cifar_cnn_lrn`.
    Cnn {
        /// tanh in place of max(0, x).
        tanh: bool,
        /// §3.3 after the first two pools.
        lrn: bool,
    },
    /// Two convolutions and two locally connected layers for CIFAR-10: `cifar_local`, `cifar_local_lrn`.
    Local {
        /// The network of 11 % error, with normalisation, and not that of 13 %.
        lrn: bool,
    },
}

/// All networks.
pub const NAMES: [(&str, Variant); 7] = [
    ("alexnet", Variant::Torchvision),
    ("alexnet_2012", Variant::Paper),
    ("cifar_cnn", Variant::Cnn { tanh: false, lrn: false }),
    ("cifar_cnn_tanh", Variant::Cnn { tanh: true, lrn: false }),
    ("cifar_cnn_lrn", Variant::Cnn { tanh: false, lrn: true }),
    ("cifar_local", Variant::Local { lrn: false }),
    ("cifar_local_lrn", Variant::Local { lrn: true }),
];

impl Variant {
    /// `alexnet`, `cifar_cnn_tanh`, ….
    ///
    /// # Errors
    /// Lists the names.
    pub fn named(name: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, variant)| *variant)
            .ok_or_else(|| user!("there is no network {name}; there are {}", NAMES.map(|(name, _)| name).join(", ")))
    }

    /// Edge of what the network is made for, in pixels.
    pub fn edge(self) -> i64 {
        match self {
            Variant::Torchvision | Variant::Paper => 224,
            Variant::Cnn { .. } => 32,
            Variant::Local { .. } => 24,
        }
    }

    /// The classifier's name in the state dict.
    pub fn head(self) -> &'static str {
        match self {
            Variant::Torchvision | Variant::Paper => "classifier.6",
            Variant::Cnn { .. } | Variant::Local { .. } => "fc10",
        }
    }

    /// Edge of the pictures that such squares are cut from in training, in pixels: 32 for cuda-convnet's networks, whose border is 4.
    pub fn picture(self, edge: i64) -> i64 {
        match self {
            Variant::Local { .. } => edge + 2 * 4,
            _ => edge,
        }
    }

    /// The network's layers, in the order that the tensor travels.
    pub fn table(self) -> Vec<Layer> {
        match self {
            Variant::Torchvision => ALEXNET.to_vec(),
            Variant::Paper => ALEXNET_2012.to_vec(),
            Variant::Cnn { tanh, lrn } => {
                let mut table = CNN.to_vec();
                if lrn {
                    // After the pools of the first two stages, where the reference has its own normalisation.
                    table.insert(6, Layer::Norm(PAPER));
                    table.insert(3, Layer::Norm(PAPER));
                }
                for layer in table.iter_mut().filter(|layer| tanh && **layer == Layer::Relu) {
                    *layer = Layer::Tanh;
                }
                table
            }
            Variant::Local { lrn: false } => LOCAL.to_vec(),
            Variant::Local { lrn: true } => LOCAL_LRN.to_vec(),
        }
    }

    /// Edges of pictures that the network takes when it is built for `edge`: any from the least on where it pools to a fixed size.
    pub fn edges(self, edge: i64) -> std::ops::RangeInclusive<i64> {
        match self {
            Variant::Torchvision => self.least_edge()..=i64::MAX,
            _ => edge..=edge,
        }
    }

    /// The smallest picture of which something is left after every layer.
    pub fn least_edge(self) -> i64 {
        layers::least_edge(&self.table())
    }
}

/// Any of the networks.
pub struct Network(Layers);

impl Network {
    /// A network of `classes` outputs for pictures of `edge` pixels, as PyTorch's layers start; see [`initialise`].
    pub fn new(path: &nn::Path, variant: Variant, classes: i64, edge: i64) -> Self {
        Network(Layers::new(path, &variant.table(), classes, edge))
    }

    /// `[N, 3, H, W]`, centred → the last map and the logits.
    pub fn forward(&self, image: &tch::Tensor, mode: Mode) -> Output {
        self.0.forward(image, mode)
    }
}

/// Deviation of a layer's weights and value of its biases at the start; `None`: PyTorch's default, U(±1/√fan-in) for both.
fn start(variant: Variant, layer: &str) -> Option<(f64, f64)> {
    match (variant, layer) {
        (Variant::Torchvision, _) => None,
        // §5: N(0, 0.01²); "the neuron biases in the second, fourth, and fifth convolutional layers, as well as in the fully-connected
        // hidden layers, with the constant 1", so that "the ReLUs [have] positive inputs"; 0 elsewhere.
        (Variant::Paper, "features.3" | "features.8" | "features.10" | "classifier.1" | "classifier.4") => {
            Some((0.01, 1.0))
        }
        (Variant::Paper, _) => Some((0.01, 0.0)),
        // cuda-convnet's `initW`, made for pixels from 0 to 255; its biases start at 0.
        (Variant::Cnn { .. } | Variant::Local { .. }, "conv1") => Some((1e-4, 0.0)),
        (Variant::Local { .. }, "local3" | "local4") => Some((0.04, 0.0)),
        (Variant::Cnn { .. } | Variant::Local { .. }, _) => Some((0.01, 0.0)),
    }
}

/// Where training starts, drawn from libtorch's generator.
///
/// # Errors
/// libtorch's.
pub fn initialise(store: &nn::VarStore, variant: Variant) -> Result<()> {
    // By name, so that the order of drawing is fixed.
    let weights: BTreeMap<_, _> = store.variables().into_iter().collect();
    for (name, mut tensor) in weights {
        let (layer, kind) = name.rsplit_once('.').unwrap_or((&name, ""));
        let Some((deviation, bias)) = start(variant, layer) else { continue };
        let _guard = tch::no_grad_guard();
        let _ = if kind == "bias" { tensor.f_fill_(bias)? } else { tensor.f_normal_(0.0, deviation)? };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use repro::nn::{Row, summary};
    use tch::{Device, Kind, Tensor};

    fn rows(store: &nn::VarStore, net: &Network, edge: i64) -> Vec<Row> {
        let image = Tensor::zeros([1, 3, edge, edge], (Kind::Float, Device::Cpu));
        summary(store, || Ok(net.forward(&image, Mode::Eval))).unwrap()
    }

    fn store(name: &str, classes: i64) -> (nn::VarStore, Network) {
        let (store, variant) = (nn::VarStore::new(Device::Cpu), Variant::named(name).unwrap());
        let net = Network::new(&store.root(), variant, classes, variant.edge());
        initialise(&store, variant).unwrap();
        (store, net)
    }

    /// The published counts; those of the CIFAR networks by hand from cuda-convnet's files.
    #[test]
    fn parameters_are_those_of_the_references() {
        let cnn = (75 + 1) * 32 + (800 + 1) * 32 + (800 + 1) * 64 + (1024 + 1) * 10;
        let local = |third: usize| {
            (75 + 1 + 1600 + 1) * 64 + 36 * third * (576 + 1) + 36 * 32 * (9 * third + 1) + (1152 + 1) * 10
        };
        for (name, classes, expected) in [
            ("alexnet", 1000, 61_100_840),
            ("alexnet_2012", 1000, 60_965_224),
            ("cifar_cnn", 10, cnn),
            ("cifar_cnn_tanh", 10, cnn),
            ("cifar_cnn_lrn", 10, cnn),
            ("cifar_local", 10, local(32)),
            ("cifar_local_lrn", 10, local(64)),
        ] {
            let (store, net) = store(name, classes);
            assert_eq!(store.variables().values().map(Tensor::numel).sum::<usize>(), expected, "{name}");
            let rows = rows(&store, &net, Variant::named(name).unwrap().edge());
            assert_eq!(rows.iter().map(|row| row.parameters).sum::<u64>(), expected as u64, "{name}");
        }
        assert!(Variant::named("alexnet2012").is_err());
    }

    /// Fig. 2, and torchvision's 0.714 GMACs.
    #[test]
    fn sizes_and_multiply_adds_are_those_of_the_paper() {
        let of = |name| {
            let (store, net) = store(name, 1000);
            rows(&store, &net, 224)
        };
        let paper: Vec<_> = of("alexnet_2012").into_iter().map(|row| row.output).collect();
        let map = |c, e| vec![c, e, e];
        let expected = [map(96, 55), map(256, 27), map(384, 13), map(384, 13), map(256, 13)];
        assert_eq!(paper[..5], expected);
        assert_eq!(paper[5..], [vec![4096], vec![4096], vec![1000]]);
        assert_eq!(of("alexnet").iter().map(|row| row.multiply_adds).sum::<u64>(), 714_188_480);
        assert_eq!((Variant::Torchvision.least_edge(), Variant::Paper.least_edge()), (63, 63));
    }

    /// The places where the tensor's size is what the table reckons, and where it is not.
    #[test]
    fn the_tensors_have_the_sizes_of_the_table() {
        for (name, variant) in NAMES {
            let edge = if variant.edge() == 224 { 67 } else { variant.edge() };
            let store = nn::VarStore::new(Device::Cpu);
            let net = Network::new(&store.root(), variant, 7, edge);
            let image = Tensor::zeros([2, 3, edge, edge], (Kind::Float, Device::Cpu));
            let Output { map, logits } = net.forward(&image, Mode::Eval);
            assert_eq!(logits.size(), [2, 7], "{name}");
            let last = rows(&store, &net, edge).into_iter().rfind(|row| row.output.len() == 3).unwrap();
            assert_eq!(map.size()[1..], last.output, "{name}");
        }
    }

    /// §5, in numbers: six standard errors of slack.
    #[test]
    fn the_network_of_2012_starts_as_printed() {
        let variables: BTreeMap<_, _> = store("alexnet_2012", 10).0.variables().into_iter().collect();
        for (layer, bias) in [
            ("features.0", 0.0),
            ("features.3", 1.0),
            ("features.6", 0.0),
            ("features.8", 1.0),
            ("features.10", 1.0),
            ("classifier.1", 1.0),
            ("classifier.4", 1.0),
            ("classifier.6", 0.0),
        ] {
            let biases = Vec::<f32>::try_from(&variables[&format!("{layer}.bias")]).unwrap();
            assert!(biases.iter().all(|b| f64::from(*b) == bias), "{layer}");
            let weight = variables[&format!("{layer}.weight")].to_kind(Kind::Double);
            let n = weight.numel() as f64;
            let deviation = weight.square().mean(Kind::Double).double_value(&[]).sqrt();
            assert!((deviation / 0.01 - 1.0).abs() < 6.0 / (2.0 * n).sqrt(), "{layer}: {deviation}");
            assert!(weight.mean(Kind::Double).double_value(&[]).abs() < 6.0 * 0.01 / n.sqrt(), "{layer}");
        }
    }
}
