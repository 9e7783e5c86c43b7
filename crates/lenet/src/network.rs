//! The variants under one roof: what a configuration can name.

use tch::{Device, Tensor, nn};

use crate::config::{ModelConfig, Name};
use crate::model::{self, C3_INPUTS, Lenet5};
use crate::modern::{self, Lenet5Modern};

/// A network that a configuration names.
#[derive(Debug)]
pub enum Network {
    /// The network of 1998.
    Lenet5(Lenet5),
    /// The network that goes by its name today.
    Lenet5Modern(Lenet5Modern),
}

/// One layer as the paper counts it.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerCount {
    /// The layer's name in the paper, or in the state dict of the modern form.
    pub name: &'static str,
    /// Output shape without the batch.
    pub output: Vec<i64>,
    /// Numbers that training changes. What the connection table leaves out and the codes of the output do not count.
    pub parameters: u64,
    /// Connections: the inputs of each unit, its bias among them.
    pub connections: u64,
    /// Multiplications of weights with inputs for one picture.
    pub multiply_adds: u64,
}

impl Network {
    /// Builds the named network into a store; weights are drawn from libtorch's generator.
    pub fn new(path: &nn::Path, config: &ModelConfig) -> Self {
        match config.name {
            Name::Lenet5 => Network::Lenet5(Lenet5::new(path, config.num_classes, config.init.unwrap_or_default())),
            Name::Lenet5Modern => Network::Lenet5Modern(Lenet5Modern::new(path, config.num_classes)),
        }
    }

    /// Pictures `[N, 1, 28, 28]` of 0 to 1 as [`Self::forward`] takes them.
    pub fn input(&self, images: &Tensor) -> Tensor {
        match self {
            Network::Lenet5(_) => model::pixels(images),
            Network::Lenet5Modern(_) => modern::normalise(images),
        }
    }

    /// The shape of one picture as [`Self::forward`] takes it.
    pub fn input_shape(&self) -> [i64; 3] {
        match self {
            Network::Lenet5(_) => [1, 32, 32],
            Network::Lenet5Modern(_) => [1, 28, 28],
        }
    }

    /// `[N, 1, H, W]` of [`Self::input_shape`] → logits `[N, K]`.
    pub fn forward(&self, image: &Tensor) -> Tensor {
        match self {
            Network::Lenet5(net) => net.forward(image),
            Network::Lenet5Modern(net) => net.forward(image),
        }
    }

    /// The state of every layer for `[N, 1, H, W]`, from input to output, by the layer's name.
    pub fn states(&self, image: &Tensor) -> Vec<(&'static str, Tensor)> {
        match self {
            Network::Lenet5(net) => {
                let a = net.trace(image);
                vec![
                    ("C1", a.c1),
                    ("S2", a.s2),
                    ("C3", a.c3),
                    ("S4", a.s4),
                    ("C5", a.c5),
                    ("F6", a.f6),
                    ("output", a.distances),
                ]
            }
            Network::Lenet5Modern(net) => {
                let a = net.trace(image);
                vec![
                    ("conv1", a.conv1),
                    ("pool1", a.pool1),
                    ("conv2", a.conv2),
                    ("pool2", a.pool2),
                    ("fc1", a.fc1),
                    ("fc2", a.fc2),
                    ("fc3", a.logits),
                ]
            }
        }
    }

    /// The layers of the named network with their counts.
    pub fn layers(config: &ModelConfig) -> Vec<LayerCount> {
        let store = nn::VarStore::new(Device::Cpu);
        let net = Network::new(&store.root(), config);
        let [c, h, w] = net.input_shape();
        let states = tch::no_grad(|| net.states(&Tensor::zeros([1, c, h, w], (tch::Kind::Float, Device::Cpu))));
        let variables = store.variables();
        let count = |name: &str| variables.get(name).map_or(0, |t| t.numel() as u64);
        let layer = |(name, state): (&'static str, Tensor)| {
            let output = state.size()[1..].to_vec();
            let units: u64 = output.iter().product::<i64>() as u64;
            // A map's weights and bias are used again at each of its places.
            let places: u64 = output.iter().skip(1).product::<i64>() as u64;
            let key = name.to_lowercase();
            let (weight, bias) = (count(&format!("{key}.weight")), count(&format!("{key}.bias")));
            let (parameters, connections, multiply_adds) = match name {
                "C3" => {
                    let kernels = C3_INPUTS.iter().map(|inputs| inputs.len() as u64).sum::<u64>() * 25;
                    (kernels + bias, (kernels + bias) * places, kernels * places)
                }
                // Four inputs and a bias for each unit, but one multiplication only: that of their sum.
                "S2" | "S4" => (weight + bias, units * 5, units),
                "pool1" | "pool2" => (0, units * 4, 0),
                "output" => (0, count("rbf.centers"), count("rbf.centers")),
                _ => (weight + bias, (weight + bias) * places, weight * places),
            };
            LayerCount { name, output, parameters, connections, multiply_adds }
        };
        states.into_iter().map(layer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_the_paper() {
        let layers =
            Network::layers(&ModelConfig { name: Name::Lenet5, num_classes: 10, image_size: None, init: None });
        let table: Vec<_> = layers.iter().map(|l| (l.name, l.output.clone(), l.parameters, l.connections)).collect();
        let expected = [
            ("C1", vec![6, 28, 28], 156, 122_304),
            ("S2", vec![6, 14, 14], 12, 5_880),
            ("C3", vec![16, 10, 10], 1_516, 151_600),
            ("S4", vec![16, 5, 5], 32, 2_000),
            ("C5", vec![120, 1, 1], 48_120, 48_120),
            ("F6", vec![84], 10_164, 10_164),
            ("output", vec![10], 0, 840),
        ];
        assert_eq!(table, expected);
        assert_eq!(layers.iter().map(|l| l.parameters).sum::<u64>(), 60_000);
        assert_eq!(layers.iter().map(|l| l.connections).sum::<u64>(), 340_908);
    }

    #[test]
    fn the_counts_of_the_modern_form() {
        let layers =
            Network::layers(&ModelConfig { name: Name::Lenet5Modern, num_classes: 10, image_size: None, init: None });
        assert_eq!(layers.iter().map(|l| l.parameters).sum::<u64>(), 61_706);
        assert_eq!(layers[2].multiply_adds, 2_400 * 100);
    }
}
