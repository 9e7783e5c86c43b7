//! The variants under one roof: what a configuration can name.

use tch::{Tensor, nn};

use crate::boosting::BoostedLenet4;
use crate::config::{ModelConfig, Name};
use crate::early::{Lenet1, Lenet4};
use crate::flat::{Flat, one_against_one};
use crate::knn::Knn;
use crate::model::{self, Lenet5};
use crate::modern::{self, Lenet5Modern};
use crate::prepare::Prepare;

/// A network that a configuration names, and what is done to a picture before it.
#[derive(Debug)]
pub struct Network {
    prepare: Option<Prepare>,
    /// The network itself.
    pub form: Form,
}

/// The networks.
#[derive(Debug)]
pub enum Form {
    /// The network of 1998.
    Lenet5(Lenet5),
    /// The network that goes by its name today.
    Lenet5Modern(Lenet5Modern),
    /// Linear, or with hidden layers; an output for each class.
    Flat(Flat),
    /// One layer; a squashed output for each pair of classes, and what each says of each class.
    Pairwise(Flat, Tensor),
    /// LeNet-1.
    Lenet1(Lenet1),
    /// LeNet-4.
    Lenet4(Lenet4),
    /// Three LeNet-4.
    BoostedLenet4(Box<BoostedLenet4>),
    /// K-nearest neighbours.
    Knn(Knn),
}

impl Network {
    /// Builds the named network into a store; weights are drawn from libtorch's generator.
    pub fn new(path: &nn::Path, config: &ModelConfig) -> Self {
        let ModelConfig { name, num_classes: classes, .. } = *config;
        let init = config.init.unwrap_or_default();
        let edge = config.image_size.unwrap_or(28);
        let squashing = |units| Flat::squashing(path, init, edge, name.hidden().unwrap_or_default(), units);
        let form = match name {
            Name::Lenet5 => Form::Lenet5(Lenet5::new(path, classes, init)),
            Name::Lenet5Modern => Form::Lenet5Modern(Lenet5Modern::new(path, classes)),
            Name::Pairwise => {
                let says = one_against_one(classes).to_device(path.device());
                Form::Pairwise(squashing(says.size()[1]), says)
            }
            Name::Linear => Form::Flat(Flat::linear(path, init, edge, classes)),
            Name::Mlp300 | Name::Mlp1000 | Name::Mlp300_100 | Name::Mlp500_150 => Form::Flat(squashing(classes)),
            Name::Lenet1 => Form::Lenet1(Lenet1::new(path, init, classes)),
            Name::Lenet4 => Form::Lenet4(Lenet4::new(path, init, classes)),
            Name::BoostedLenet4 => Form::BoostedLenet4(Box::new(BoostedLenet4::new(path, init, classes))),
            Name::Knn => Form::Knn(Knn::new(path, config.memory.unwrap_or(1) as i64, config.k.unwrap_or(1), classes)),
        };
        Network { prepare: config.prepare, form }
    }

    /// Pictures `[N, 1, 28, 28]` of 0 to 1 as [`Self::outputs`] takes them.
    pub fn input(&self, images: &Tensor) -> Tensor {
        let prepared = self.prepare.map(|prepare| prepare.apply(images));
        let images = prepared.as_ref().unwrap_or(images);
        match &self.form {
            Form::Lenet5(_) | Form::Lenet4(_) | Form::BoostedLenet4(_) => model::pixels(images),
            Form::Lenet5Modern(_) => modern::normalise(images),
            Form::Flat(net) | Form::Pairwise(net, _) => net.pixels(images),
            Form::Lenet1(_) => Lenet1::pixels(images),
            Form::Knn(_) => images.shallow_clone(),
        }
    }

    /// What has a part for each class, by its names in the state dict.
    pub fn head(&self) -> &'static [&'static str] {
        match &self.form {
            Form::Lenet5(_) => &["rbf"],
            Form::Lenet5Modern(_) => &["fc3"],
            Form::Flat(_) | Form::Lenet1(_) | Form::Lenet4(_) => &["output"],
            Form::BoostedLenet4(_) => &["first.output", "second.output", "third.output"],
            // Outputs for pairs of classes; labels that are kept.
            Form::Pairwise(..) | Form::Knn(_) => &[],
        }
    }

    /// The shape of one picture as [`Self::outputs`] takes it.
    pub fn input_shape(&self) -> [i64; 3] {
        match &self.form {
            Form::Lenet5(_) | Form::Lenet4(_) | Form::BoostedLenet4(_) => [1, 32, 32],
            Form::Lenet5Modern(_) | Form::Lenet1(_) | Form::Knn(_) => [1, 28, 28],
            Form::Flat(net) | Form::Pairwise(net, _) => [1, net.edge(), net.edge()],
        }
    }

    /// `[N, 1, H, W]` of [`Self::input_shape`] → what the loss sees: an output for each class `[N, K]`, or for each pair of them.
    pub fn outputs(&self, image: &Tensor) -> Tensor {
        match &self.form {
            Form::Lenet5(net) => net.forward(image),
            Form::Lenet5Modern(net) => net.forward(image),
            _ => self.states(image).pop().map(|(_, output)| output).unwrap_or_default(),
        }
    }

    /// As [`Self::outputs`], of what learns now: of the boosted network, one of its members.
    pub fn learning(&self, image: &Tensor) -> Tensor {
        match &self.form {
            Form::BoostedLenet4(net) => net.member(net.learner, image),
            _ => self.outputs(image),
        }
    }

    /// Outputs → logits `[N, K]`: of pairs, the sum of what they say of each class.
    pub fn logits(&self, outputs: &Tensor) -> Tensor {
        match &self.form {
            Form::Pairwise(_, says) => outputs.matmul(&says.tr().to_kind(outputs.kind())),
            _ => outputs.shallow_clone(),
        }
    }

    /// `[N, 1, H, W]` of [`Self::input_shape`] → logits `[N, K]`.
    pub fn forward(&self, image: &Tensor) -> Tensor {
        self.logits(&self.outputs(image))
    }

    /// The state of every layer for `[N, 1, H, W]`, from input to output, by the layer's name.
    pub fn states(&self, image: &Tensor) -> Vec<(&'static str, Tensor)> {
        match &self.form {
            Form::Lenet5(net) => {
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
            Form::Lenet5Modern(net) => {
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
            Form::Flat(net) | Form::Pairwise(net, _) => net.trace(image),
            Form::Lenet1(net) => net.trace(image),
            Form::Lenet4(net) => net.trace(image),
            Form::BoostedLenet4(net) => net.trace(image),
            Form::Knn(net) => vec![("output", net.forward(image))],
        }
    }
}

#[cfg(test)]
mod tests {
    use repro::nn::{Row, record, summary};
    use tch::{Device, Kind};

    use super::*;

    fn layers(name: Name) -> Vec<Row> {
        let store = nn::VarStore::new(Device::Cpu);
        let config = ModelConfig::new(name, 10);
        let net = Network::new(&store.root(), &config);
        let [c, h, w] = net.input_shape();
        let image = Tensor::zeros([1, c, h, w], (Kind::Float, Device::Cpu));
        let rows = summary(&store, || Ok(net.forward(&image))).unwrap();
        let of_tensors = record::parameters(|path| Ok(Network::new(path, &config))).unwrap();
        assert_eq!(rows.iter().map(|row| row.parameters).sum::<u64>(), of_tensors, "{name:?}");
        rows
    }

    #[test]
    fn the_counts_of_the_paper() {
        let layers = layers(Name::Lenet5);
        let table: Vec<_> =
            layers.iter().map(|l| (l.name.as_str(), l.output.clone(), l.parameters, l.connections.unwrap())).collect();
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
        assert_eq!(layers.iter().map(|l| l.connections.unwrap()).sum::<u64>(), 340_908);
    }

    #[test]
    fn the_counts_of_the_modern_form() {
        let layers = layers(Name::Lenet5Modern);
        assert_eq!(layers.iter().map(|l| l.parameters).sum::<u64>(), 61_706);
        assert_eq!(layers[2].multiply_adds, 2_400 * 100);
    }

    #[test]
    fn the_counts_of_the_other_networks() {
        // LeNet-1: 2,578 and 98,442 as published; the others by hand.
        for (name, parameters, connections) in [
            (Name::Linear, 7_850, 7_850),
            (Name::Pairwise, 45 * 785, 45 * 785),
            (Name::Mlp300, 238_510, 238_510),
            (Name::Mlp500_150, 500 * 785 + 150 * 501 + 10 * 151, 500 * 785 + 150 * 501 + 10 * 151),
            (Name::Lenet1, 2_578, 98_442),
            (Name::Lenet4, 104 + 8 + 916 + 32 + 48_120 + 1_210, 104 * 784 + 3_920 + 91_600 + 2_000 + 48_120 + 1_210),
            (Name::BoostedLenet4, 3 * 50_390, 3 * 228_386 + 30),
        ] {
            let layers = layers(name);
            assert_eq!(layers.iter().map(|l| l.parameters).sum::<u64>(), parameters, "{name:?}");
            assert_eq!(layers.iter().map(|l| l.connections.unwrap()).sum::<u64>(), connections, "{name:?}");
        }
    }
}
