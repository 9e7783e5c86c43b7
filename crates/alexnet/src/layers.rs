//! A network as a table of layers, in the order that the tensor travels.

use repro::nn::record::{self, Counts};
use repro::nn::{Conv2d, Conv2dConfig, Linear, Mode};
use tch::{Tensor, nn};

use crate::lrn::{self, local_response_norm};

/// The probability of being dropped (§4.2).
const DROPOUT: f64 = 0.5;
/// z and s of §3.4: pools of 3×3, 2 apart, which overlap.
const POOL: (i64, i64) = (3, 2);

/// One line of a network's table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Layer {
    /// A convolution with bias.
    Conv {
        /// Its name in the state dict.
        name: &'static str,
        /// Kernels.
        output: i64,
        /// Their edge.
        kernel: i64,
        /// Pixels between their places.
        stride: i64,
        /// Zeros on each side.
        padding: i64,
        /// 2 where "the kernels are connected only to those kernel maps which reside on the same GPU" (§3.5).
        groups: i64,
    },
    /// A convolution whose kernels differ from place to place, stride 1, with a bias for each place.
    Local {
        /// Its name in the state dict.
        name: &'static str,
        /// Kernels for each place.
        output: i64,
        /// Their edge; odd, and padded so that the map keeps its size.
        kernel: i64,
    },
    /// A fully connected layer.
    Full {
        /// Its name in the state dict.
        name: &'static str,
        /// Units; 0 stands for the number of classes.
        output: i64,
    },
    /// max(0, x) (§3.1).
    Relu,
    /// tanh x: "the standard way to model a neuron's output" (§3.1).
    Tanh,
    /// Local response normalisation (§3.3).
    Norm(lrn::Lrn),
    /// The largest of each 3×3 pixels, 2 apart (§3.4).
    MaxPool {
        /// Whether the last windows may hang over the edge, so that every pixel is seen.
        ceil: bool,
    },
    /// The mean of each 3×3 pixels, 2 apart; what hangs over the edge does not count.
    AvgPool,
    /// The mean of so many windows in each direction, whatever the size of the map.
    Adaptive(i64),
    /// Zeros with probability 0.5 in training (§4.2).
    Dropout,
}

/// A locally connected layer: [`Layer::Local`].
#[derive(Debug)]
pub(crate) struct Local2d {
    /// `[H·W, in·kernel², out]`
    weight: Tensor,
    /// `[out, H·W]`
    bias: Tensor,
    kernel: i64,
    name: String,
}

impl Local2d {
    /// `weight` and `bias` under `path`, as PyTorch's convolution starts.
    fn new(path: &nn::Path, input: i64, output: i64, kernel: i64, edge: i64) -> Self {
        let (fan_in, places) = (input * kernel * kernel, edge * edge);
        let bound = 1.0 / (fan_in as f64).sqrt();
        let init = nn::Init::Uniform { lo: -bound, up: bound };
        let weight = path.var("weight", &[places, fan_in, output], init);
        Local2d { weight, bias: path.var("bias", &[output, places], init), kernel, name: record::name(path) }
    }

    /// `[N, in, H, W]` → `[N, out, H, W]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (n, _, h, w) = x.size4().unwrap_or_else(|e| panic!("{e}"));
        let pad = self.kernel / 2;
        // [N, in·kernel², H·W] → a product of matrices for each place.
        let patches = x.im2col([self.kernel; 2], [1; 2], [pad; 2], [1; 2]).permute([2, 0, 1]);
        let y = patches.bmm(&self.weight).permute([1, 2, 0]) + &self.bias;
        let y = y.reshape([n, -1, h, w]);
        record::seen(&self.name, &y, || Counts {
            parameters: record::trainable([&self.weight, &self.bias]),
            multiply_adds: (n * self.weight.numel() as i64) as u64,
            connections: None,
        });
        y
    }
}

/// What a layer does to `[N, C, H, W]` or `[N, D]`, with what it has learned.
type Act = Box<dyn Fn(Tensor, Mode) -> Tensor>;

/// A network built from its table.
pub(crate) struct Layers(Vec<(Layer, Act)>);

/// What a forward pass leaves.
#[derive(Debug)]
pub struct Output {
    /// What the last convolutional units say, `[N, C, h, w]`.
    pub map: Tensor,
    /// `[N, K]`
    pub logits: Tensor,
}

/// Channels and edge of a map, `None` for a vector: what the next layer sees.
type Shape = (i64, Option<i64>);

/// The size of one input to a layer, and of its output.
fn shapes(table: &[Layer], classes: i64, edge: i64) -> Vec<(Shape, Shape)> {
    let mut at: Shape = (3, Some(edge));
    let mut found = Vec::new();
    for layer in table {
        let before = at;
        let edge = |of: &dyn Fn(i64) -> i64| before.1.map(of);
        at = match *layer {
            Layer::Conv { output, kernel, stride, padding, .. } => {
                (output, edge(&|e| (e + 2 * padding - kernel) / stride + 1))
            }
            Layer::Local { output, .. } => (output, before.1),
            Layer::Full { output, .. } => (if output == 0 { classes } else { output }, None),
            Layer::MaxPool { ceil: false } => (before.0, edge(&|e| (e - POOL.0) / POOL.1 + 1)),
            Layer::MaxPool { ceil: true } | Layer::AvgPool => (before.0, edge(&pooled)),
            Layer::Adaptive(size) => (before.0, Some(size)),
            Layer::Relu | Layer::Tanh | Layer::Norm(_) | Layer::Dropout => before,
        };
        found.push((before, at));
    }
    found
}

/// The numbers that one unit of a fully connected layer sees.
fn inputs((channels, edge): Shape) -> i64 {
    channels * edge.map_or(1, |edge| edge * edge)
}

/// The edge after a pool whose last window may hang over: no window starts outside.
fn pooled(edge: i64) -> i64 {
    (edge - POOL.0 + POOL.1 - 1) / POOL.1 + 1
}

/// The smallest picture of which something is left after every layer.
pub(crate) fn least_edge(table: &[Layer]) -> i64 {
    let holds = |edge: &i64| {
        let fits = |(layer, (before, after)): (&Layer, &(Shape, Shape))| match layer {
            Layer::MaxPool { .. } | Layer::AvgPool => before.1.is_none_or(|e| e >= POOL.0),
            _ => after.1.is_none_or(|e| e >= 1),
        };
        table.iter().zip(&shapes(table, 2, *edge)).all(fits)
    };
    (1..4096).find(holds).unwrap_or(4096)
}

impl Layers {
    /// As PyTorch's layers start.
    pub(crate) fn new(path: &nn::Path, table: &[Layer], classes: i64, edge: i64) -> Self {
        // `features.0` is the tensor 0 of the group `features`.
        let at = |name: &str| name.split('.').fold(path.clone(), |path, part| path / part);
        let act = |layer: Layer, before: Shape, after: Shape| -> Act {
            match layer {
                Layer::Conv { name, output, kernel, stride, padding, groups } => {
                    let config = Conv2dConfig { stride, padding, groups, ..Conv2dConfig::default() };
                    let conv = Conv2d::new(&at(name), before.0, output, kernel, config);
                    Box::new(move |x, _| conv.forward(&x))
                }
                Layer::Local { name, output, kernel } => {
                    let local = Local2d::new(&at(name), before.0, output, kernel, before.1.unwrap_or(1));
                    Box::new(move |x, _| local.forward(&x))
                }
                Layer::Full { name, .. } => {
                    let full = Linear::new(&at(name), inputs(before), after.0);
                    Box::new(move |x, _| full.forward(&if x.dim() == 4 { x.flatten(1, 3) } else { x }))
                }
                Layer::Relu => Box::new(|mut x, _| x.relu_()),
                Layer::Tanh => Box::new(|mut x, _| x.tanh_()),
                Layer::Norm(lrn) => Box::new(move |x, _| local_response_norm(&x, lrn)),
                Layer::MaxPool { ceil } => {
                    Box::new(move |x, _| x.max_pool2d([POOL.0; 2], [POOL.1; 2], [0; 2], [1; 2], ceil))
                }
                Layer::AvgPool => {
                    Box::new(|x, _| x.avg_pool2d([POOL.0; 2], [POOL.1; 2], [0; 2], true, false, None::<i64>))
                }
                Layer::Adaptive(size) => Box::new(move |x, _| x.adaptive_avg_pool2d([size; 2])),
                Layer::Dropout => Box::new(|x, mode| x.dropout(DROPOUT, mode.trains())),
            }
        };
        let shapes = shapes(table, classes, edge);
        Layers(table.iter().zip(shapes).map(|(layer, (before, after))| (*layer, act(*layer, before, after))).collect())
    }

    /// `[N, 3, H, W]` → what the last convolutional units say, and the logits `[N, K]`.
    pub(crate) fn forward(&self, image: &Tensor, mode: Mode) -> Output {
        let mut x = image.shallow_clone();
        let mut map = image.shallow_clone();
        for (layer, act) in &self.0 {
            x = act(x, mode);
            if x.dim() == 4 && matches!(layer, Layer::Relu | Layer::Tanh) {
                map = x.shallow_clone();
            }
        }
        Output { map, logits: x }
    }
}
