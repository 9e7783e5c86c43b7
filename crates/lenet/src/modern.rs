//! What most code calls LeNet-5 today: no connection table, average pooling, tanh, a linear output layer, cross-entropy.
//!
//! *Changes against the paper*: C3 sees all maps, pooling has no coefficient, bias or squash, tanh is unscaled, the output units
//! are linear instead of radial. State-dict names are those of the usual PyTorch port.

use repro::nn::avg_pool_2x2;
use repro::nn::record::{self, Counts};
use tch::{Device, Tensor, nn};

use crate::layers::counts;

/// `in` → `out` maps by a square kernel; PyTorch's initialisation: weights and biases from U(±1/√fan-in).
#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    name: String,
}

impl Layer {
    fn new(path: &nn::Path, shape: &[i64]) -> Self {
        let bound = 1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt();
        let init = nn::Init::Uniform { lo: -bound, up: bound };
        let (weight, bias) = (path.var("weight", shape, init), path.var("bias", &shape[..1], init));
        Layer { weight, bias, name: record::name(path) }
    }

    /// Reports what it gives.
    fn seen(&self, y: Tensor) -> Tensor {
        record::seen(&self.name, &y, || counts(&y, &self.weight, &self.bias));
        y
    }

    fn convolve(&self, x: &Tensor, padding: i64) -> Tensor {
        self.seen(x.conv2d(&self.weight, Some(&self.bias), 1, padding, 1, 1))
    }

    /// The same for 5×5 fields of one map, padded by 2: on the CPU as a product of matrices. libtorch's convolution takes twice as long there,
    /// most of it in the gradient of its few weights.
    fn convolve_one_map(&self, x: &Tensor) -> Tensor {
        if x.device() != Device::Cpu {
            return self.convolve(x, 2);
        }
        let (n, _, height, width) = x.size4().unwrap_or_default();
        let padded = x.constant_pad_nd([2, 2, 2, 2]);
        let (row, picture) = (width + 4, (height + 4) * (width + 4));
        // One row for each of the 25 places in a field, one column for each field.
        let fields = padded.as_strided([n, 5, 5, height, width], [picture, row, 1, row, 1], 0).reshape([n, 25, -1]);
        let maps = self.weight.size()[0];
        let weight = self.weight.view([1, maps, 25]).expand([n, maps, 25], true);
        self.seen(self.bias.view([1, -1, 1]).baddbmm(&weight, &fields, 1, 1).view([n, maps, height, width]))
    }

    fn multiply(&self, x: &Tensor) -> Tensor {
        self.seen(x.linear(&self.weight, Some(&self.bias)))
    }
}

/// The mean of each 2×2 pixels.
fn pool(name: &str, x: &Tensor) -> Tensor {
    let y = avg_pool_2x2(x);
    record::seen(name, &y, || Counts { connections: Some(4 * y.numel() as u64), ..Counts::default() });
    y
}

/// The state of every layer after its tanh, and the logits.
#[derive(Debug)]
pub struct ModernActivations {
    /// `[N, 6, 28, 28]`.
    pub conv1: Tensor,
    /// `[N, 6, 14, 14]`.
    pub pool1: Tensor,
    /// `[N, 16, 10, 10]`.
    pub conv2: Tensor,
    /// `[N, 16, 5, 5]`.
    pub pool2: Tensor,
    /// `[N, 120]`.
    pub fc1: Tensor,
    /// `[N, 84]`.
    pub fc2: Tensor,
    /// `[N, K]`.
    pub logits: Tensor,
}

/// The modern LeNet-5: 61,706 parameters with ten classes.
#[derive(Debug)]
pub struct Lenet5Modern {
    conv1: Layer,
    conv2: Layer,
    fc1: Layer,
    fc2: Layer,
    fc3: Layer,
}

/// Pictures `[N, 1, 28, 28]` of 0 (background) to 1 (ink) as the network takes them: minus MNIST's mean, over its deviation.
pub fn normalise(images: &Tensor) -> Tensor {
    (images - 0.1307).g_div_scalar_(0.3081)
}

impl Lenet5Modern {
    /// A network of `classes` outputs; weights are drawn from libtorch's generator.
    pub fn new(path: &nn::Path, classes: i64) -> Self {
        Lenet5Modern {
            conv1: Layer::new(&(path / "conv1"), &[6, 1, 5, 5]),
            conv2: Layer::new(&(path / "conv2"), &[16, 6, 5, 5]),
            fc1: Layer::new(&(path / "fc1"), &[120, 400]),
            fc2: Layer::new(&(path / "fc2"), &[84, 120]),
            fc3: Layer::new(&(path / "fc3"), &[classes, 84]),
        }
    }

    /// `[N, 1, 28, 28]`, normalised → the state of every layer.
    pub fn trace(&self, image: &Tensor) -> ModernActivations {
        let conv1 = self.conv1.convolve_one_map(image).tanh_();
        let pool1 = pool("pool1", &conv1);
        let conv2 = self.conv2.convolve(&pool1, 0).tanh_();
        let pool2 = pool("pool2", &conv2);
        let fc1 = self.fc1.multiply(&pool2.flatten(1, -1)).tanh_();
        let fc2 = self.fc2.multiply(&fc1).tanh_();
        let logits = self.fc3.multiply(&fc2);
        ModernActivations { conv1, pool1, conv2, pool2, fc1, fc2, logits }
    }

    /// `[N, 1, 28, 28]`, normalised → logits `[N, K]`.
    pub fn forward(&self, image: &Tensor) -> Tensor {
        self.trace(image).logits
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use repro::golden;

    #[test]
    fn names_shapes_and_parameters() {
        let vs = nn::VarStore::new(Device::Cpu);
        Lenet5Modern::new(&vs.root(), 10);
        let mut names: Vec<_> = vs.variables().iter().map(|(n, t)| format!("{n} {:?}", t.size())).collect();
        names.sort();
        let expected = [
            "conv1.bias [6]",
            "conv1.weight [6, 1, 5, 5]",
            "conv2.bias [16]",
            "conv2.weight [16, 6, 5, 5]",
            "fc1.bias [120]",
            "fc1.weight [120, 400]",
            "fc2.bias [84]",
            "fc2.weight [84, 120]",
            "fc3.bias [10]",
            "fc3.weight [10, 84]",
        ];
        assert_eq!(names, expected);
        assert_eq!(vs.trainable_variables().iter().map(|t| t.numel()).sum::<usize>(), 61_706);
    }

    #[test]
    fn the_product_of_matrices_is_the_convolution() {
        let vs = nn::VarStore::new(Device::Cpu);
        let layer = Layer::new(&vs.root(), &[6, 1, 5, 5]);
        let x = Tensor::randn([3, 1, 9, 12], (Kind::Float, Device::Cpu));
        let results = [layer.convolve_one_map(&x), layer.convolve(&x, 2)].map(|maps| {
            for mut variable in vs.trainable_variables() {
                variable.zero_grad();
            }
            (&maps * maps.cos()).sum(Kind::Float).backward();
            (maps.detach(), layer.weight.grad().copy(), layer.bias.grad().copy())
        });
        let gap = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        let [ours, theirs] = &results;
        assert_eq!(ours.0.size(), [3, 6, 9, 12]);
        assert!(gap(&ours.0, &theirs.0) < 1e-5 && gap(&ours.1, &theirs.1) < 1e-3 && gap(&ours.2, &theirs.2) < 1e-3);
    }

    /// Values of a PyTorch twin in float64 whose weights and input were filled by the same rule (see [`golden`]).
    #[test]
    fn golden_logits() {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = Lenet5Modern::new(&vs.root(), 10);
        vs.double();
        golden::fill(&vs);
        let logits = tch::no_grad(|| net.forward(&golden::input("input", &[2, 1, 28, 28])));
        assert_eq!(logits.size(), [2, 10]);
        let flat: Vec<f64> = Vec::try_from(logits.flatten(0, -1)).unwrap();
        let std = logits.std(false).double_value(&[]);
        let near = |ours: f64, reference: f64| {
            assert!((ours - reference).abs() < 1e-6 * 0.121442219, "{ours} against {reference}")
        };
        near(logits.mean(Kind::Double).double_value(&[]), -0.004127050846);
        near(std, 0.121442219);
        for (ours, reference) in flat.iter().zip([0.0636480426, 0.0302617007, -0.0135395495, 0.1253655859]) {
            near(*ours, reference);
        }
        near(flat[19], 0.1566602455);
    }
}
