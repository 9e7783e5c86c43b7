//! The building blocks of the networks of 1998: squashing function, initialisation, convolutions with and without a connection table,
//! trained sub-sampling, full connections (§II.B, Appendix A).

use repro::nn::record::{self, Counts};
use serde::Deserialize;
use tch::{Kind, Tensor, nn};

/// Amplitude A of the squashing function (Appendix A): f(±1) = ±1, where its curvature is greatest.
pub(crate) const AMPLITUDE: f64 = 1.7159;
/// Slope S of the squashing function at the origin, over A.
pub(crate) const SLOPE: f64 = 2.0 / 3.0;

/// f(a) = A tanh(S a) (Eq. 6).
pub fn squash(a: &Tensor) -> Tensor {
    (a * SLOPE).tanh() * AMPLITUDE
}

/// What a layer is called.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Its weighted sums, as in the state dict: `c1`.
    pub(crate) sums: String,
    /// With its squashing function, as in the paper: `C1`.
    pub(crate) state: String,
}

impl Names {
    /// `first.c1` and `first.C1`.
    fn new(path: &nn::Path) -> Self {
        let sums = record::name(path);
        let state = match sums.rsplit_once('.') {
            Some((above, own)) => format!("{above}.{}", own.to_uppercase()),
            None => sums.to_uppercase(),
        };
        Names { sums, state }
    }
}

/// The counts of a layer whose units are sums over the numbers of one `weight[i]`, and a bias.
pub(crate) fn counts(y: &Tensor, weight: &Tensor, bias: &Tensor) -> Counts {
    let counts = Counts::product(y, weight, Some(bias));
    Counts { connections: Some(counts.multiply_adds + y.numel() as u64), ..counts }
}

/// How wide weights and biases start: uniform in ± the bound for a unit of F inputs.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// 2.4 / F, as Appendix A prints it.
    #[default]
    Printed,
    /// √(3 / F), a deviation of 1 / √F ("Efficient BackProp", LeCun, Bottou, Orr and Müller, 1998): one deviation of the weighted
    /// sums in all layers, which Appendix A gives as its reason. The step sizes that the paper reports for the first pass (7·10⁻⁵ to
    /// 0.016) need it too: with 2.4 / F curvatures start a hundred times smaller, and Levenberg-Marquardt diverges at the paper's η and μ.
    Lecun,
}

impl Init {
    fn bound(self, fan_in: i64) -> f64 {
        match self {
            Init::Printed => 2.4 / fan_in as f64,
            Init::Lecun => (3.0 / fan_in as f64).sqrt(),
        }
    }

    /// A new variable drawn so.
    fn draw(self, path: &nn::Path, name: &str, shape: &[i64], fan_in: i64) -> Tensor {
        let bound = self.bound(fan_in);
        path.var(name, shape, nn::Init::Uniform { lo: -bound, up: bound })
    }
}

/// `x` `[N, I, H, W]`, `weight` `[O, I, 5, 5]`, `bias` `[O]` → weighted sums `[N, O, H − 4, W − 4]`.
fn convolve(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let (shape, maps) = (x.size(), weight.size()[0]);
    let (height, width) = (shape[2] - 4, shape[3] - 4);
    if height == 1 && width == 1 {
        // C5: a single place is a full connection.
        return x.flatten(1, -1).linear(&weight.view([maps, -1]), Some(bias)).view([-1, maps, 1, 1]);
    }
    if shape[0] == 1 {
        // The paper learns from one picture at a time; there, this product takes half the time of the general convolution.
        let fields = x.im2col([5, 5], [1, 1], [0, 0], [1, 1]).squeeze_dim(0);
        return bias.view([-1, 1]).addmm(&weight.view([maps, -1]), &fields).view([1, maps, height, width]);
    }
    x.conv2d(weight, Some(bias), 1, 0, 1, 1)
}

/// 5×5 convolution that sees all maps below (C1, C5).
#[derive(Debug)]
pub struct Convolution {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    names: Names,
}

impl Convolution {
    pub(crate) fn new(path: &nn::Path, init: Init, inputs: i64, outputs: i64) -> Self {
        let weight = init.draw(path, "weight", &[outputs, inputs, 5, 5], inputs * 25);
        let bias = init.draw(path, "bias", &[outputs], inputs * 25);
        Convolution { weight, bias, names: Names::new(path) }
    }

    /// `[N, inputs, H, W]` → weighted sums `[N, outputs, H − 4, W − 4]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let y = convolve(x, &self.weight, &self.bias);
        record::seen(&self.names.sums, &y, || counts(&y, &self.weight, &self.bias));
        y
    }

    /// Its squashed sums.
    pub(crate) fn state(&self, x: &Tensor) -> Tensor {
        record::block(&self.names.state, || squash(&self.forward(x)))
    }
}

/// Which maps below each map of a layer sees.
pub type Table = [&'static [i64]];

/// 5×5 convolution whose maps see only the maps below that a table lists (C3).
#[derive(Debug)]
pub struct TableConvolution {
    /// `[O, I, 5, 5]`; what the table leaves out is 0, and stays so: [`Self::masked`] gives it no gradient.
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// 1 where the table has a connection: `[O, I, 1, 1]`.
    pub(crate) table: Tensor,
    names: Names,
}

impl TableConvolution {
    /// One map for each row of `rows`, which name some of the `inputs` maps below.
    pub(crate) fn new(path: &nn::Path, init: Init, inputs: i64, rows: &Table) -> Self {
        let maps = rows.len() as i64;
        let table = Tensor::zeros([maps, inputs, 1, 1], (Kind::Float, path.device()));
        let weight = path.zeros("weight", &[maps, inputs, 5, 5]);
        let bias = path.zeros("bias", &[maps]);
        tch::no_grad(|| {
            for (map, inputs) in rows.iter().enumerate() {
                let bound = init.bound(25 * inputs.len() as i64);
                let _ = bias.get(map as i64).uniform_(-bound, bound);
                for &input in *inputs {
                    let _ = weight.get(map as i64).get(input).uniform_(-bound, bound);
                    let _ = table.get(map as i64).get(input).fill_(1.0);
                }
            }
        });
        record::fixed(weight.numel() as u64 - 25 * rows.iter().map(|inputs| inputs.len() as u64).sum::<u64>());
        TableConvolution { weight, bias, table, names: Names::new(path) }
    }

    /// The weights with the table applied.
    pub(crate) fn masked(&self) -> Tensor {
        &self.weight * &self.table
    }

    /// `[N, I, H, W]` → weighted sums `[N, O, H − 4, W − 4]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let y = convolve(x, &self.masked(), &self.bias);
        record::seen(&self.names.sums, &y, || {
            let (maps, kernels) = (self.bias.numel() as u64, 25 * self.table.sum(Kind::Int64).int64_value(&[]) as u64);
            let places = y.numel() as u64 / maps;
            Counts {
                parameters: kernels + maps,
                multiply_adds: kernels * places,
                connections: Some((kernels + maps) * places),
            }
        });
        y
    }

    /// Its squashed sums.
    pub(crate) fn state(&self, x: &Tensor) -> Tensor {
        record::block(&self.names.state, || squash(&self.forward(x)))
    }
}

/// 2×2 sub-sampling with one coefficient and one bias per map (S2, S4).
#[derive(Debug)]
pub struct Subsampling {
    /// The coefficients, `[maps, 1, 1]` in use and `[maps]` in the store.
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    names: Names,
}

impl Subsampling {
    /// A unit has four inputs, so F = 4, although they share one coefficient.
    pub(crate) fn new(path: &nn::Path, init: Init, maps: i64) -> Self {
        Subsampling {
            weight: init.draw(path, "weight", &[maps], 4),
            bias: init.draw(path, "bias", &[maps], 4),
            names: Names::new(path),
        }
    }

    /// `[N, maps, H, W]` → coefficient × the sum of four + bias, `[N, maps, H/2, W/2]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.bias.view([-1, 1, 1]).addcmul(&sum_of_four(x), &self.weight.view([-1, 1, 1]));
        // Four inputs and a bias for each unit, but one multiplication only: that of their sum.
        record::seen(&self.names.sums, &y, || Counts {
            parameters: record::trainable([&self.weight, &self.bias]),
            multiply_adds: y.numel() as u64,
            connections: Some(5 * y.numel() as u64),
        });
        y
    }

    /// Its squashed sums.
    pub(crate) fn state(&self, x: &Tensor) -> Tensor {
        record::block(&self.names.state, || squash(&self.forward(x)))
    }
}

/// Sums over 2×2 blocks: `[N, maps, H, W]` → `[N, maps, H/2, W/2]`.
pub(crate) fn sum_of_four(x: &Tensor) -> Tensor {
    x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, 1)
}

/// Fully connected layer (F6).
#[derive(Debug)]
pub struct Full {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    names: Names,
}

impl Full {
    pub(crate) fn new(path: &nn::Path, init: Init, inputs: i64, outputs: i64) -> Self {
        Full {
            weight: init.draw(path, "weight", &[outputs, inputs], inputs),
            bias: init.draw(path, "bias", &[outputs], inputs),
            names: Names::new(path),
        }
    }

    /// `[N, inputs]` → weighted sums `[N, outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight, Some(&self.bias));
        record::seen(&self.names.sums, &y, || counts(&y, &self.weight, &self.bias));
        y
    }

    /// Its squashed sums.
    pub(crate) fn state(&self, x: &Tensor) -> Tensor {
        record::block(&self.names.state, || squash(&self.forward(x)))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn the_squash_is_the_papers() {
        let f = |a: f64| squash(&Tensor::from_slice(&[a])).double_value(&[0]);
        assert!((f(1.0) - 1.0).abs() < 1e-5 && (f(-1.0) + 1.0).abs() < 1e-5);
        assert!((f(0.3) - 1.7159 * (0.2f64).tanh()).abs() < 1e-12);
    }

    #[test]
    fn sub_sampling_weighs_the_sum() {
        let (weight, bias) = (Tensor::from_slice(&[0.5, -1.0]), Tensor::from_slice(&[0.25, 2.0]));
        let layer = Subsampling { weight, bias, names: Names::default() };
        let x = Tensor::arange(16, (Kind::Double, Device::Cpu)).view([1, 2, 2, 4]);
        // Blocks of map 0: 0+1+4+5 = 10 and 2+3+6+7 = 18; of map 1: 42 and 50.
        assert_eq!(layer.forward(&x), Tensor::from_slice(&[5.25, 9.25, -40.0, -48.0]).view([1, 2, 1, 2]));
    }
}
