//! The building blocks of §3: two or three convolutions F(x), each with batch norm, and the shortcut beside them: y = F(x) + x (Eq. 1).

use repro::nn::{BatchNorm2d, BatchNormConfig, Conv2d, Conv2dConfig, Mode, Normed, record};
use tch::{Tensor, nn};

/// A convolution without bias: the norm behind it has one.
pub(crate) fn conv(path: &nn::Path, input: i64, output: i64, kernel: i64, stride: i64) -> Conv2d {
    conv_apart(path, input, output, kernel, Step { stride, dilation: 1 })
}

/// The same, its kernel's places possibly apart.
fn conv_apart(path: &nn::Path, input: i64, output: i64, kernel: i64, Step { stride, dilation }: Step) -> Conv2d {
    let padding = dilation * (kernel / 2);
    let config = Conv2dConfig { stride, padding, dilation, bias: false, ..Conv2dConfig::default() };
    Conv2d::new(path, input, output, kernel, config)
}

/// How the widest kernel of a block walks over the picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Of the block: its map has 1/stride of the edge.
    pub(crate) stride: i64,
    /// Pixels from one place of the kernel to the next.
    pub(crate) dilation: i64,
}

/// What a block adds to F(x) (§3.3, "Residual Network").
#[derive(Debug)]
pub(crate) enum Shortcut {
    /// Nothing: the plain networks of §3.3.
    Plain,
    /// x itself (Eq. 1).
    Identity,
    /// Option A: every second pixel of x, zeros for the channels that it lacks. No parameters.
    Pad {
        /// Channels that are added, half of them in front.
        channels: i64,
    },
    /// Option B: a 1×1 convolution W_s (Eq. 2) and its norm.
    Project(Box<(Conv2d, BatchNorm2d)>),
}

/// Which shortcuts a network takes where the shape changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No shortcuts at all.
    Plain,
    /// A: zeros for new channels.
    A,
    /// B: projections.
    B,
}

impl Shortcut {
    fn new(path: &nn::Path, option: Kind, input: i64, output: i64, stride: i64, norm: &BatchNormConfig) -> Self {
        match option {
            Kind::Plain => Shortcut::Plain,
            _ if stride == 1 && input == output => Shortcut::Identity,
            Kind::A => Shortcut::Pad { channels: output - input },
            Kind::B => {
                let path = path / "downsample";
                Shortcut::Project(Box::new((
                    conv(&(&path / "0"), input, output, 1, stride),
                    BatchNorm2d::with(&(&path / "1"), output, norm.clone()),
                )))
            }
        }
    }

    /// `[N, in, H, W]` → `[N, out, H/stride, W/stride]`, or nothing.
    fn forward(&self, x: &Tensor, mode: Mode) -> Option<Tensor> {
        match self {
            Shortcut::Plain => None,
            Shortcut::Identity => Some(x.shallow_clone()),
            Shortcut::Pad { channels } => {
                let half = x.slice(2, None, None, 2).slice(3, None, None, 2);
                Some(half.constant_pad_nd([0, 0, 0, 0, channels / 2, channels - channels / 2]))
            }
            Shortcut::Project(project) => {
                let (conv, norm) = project.as_ref();
                Some(norm.forward(&conv.forward(x), mode))
            }
        }
    }
}

/// y = F(x) + x (Eq. 1), then "the second nonlinearity after the addition" (§3.2); of a plain network F(x) alone.
fn residual(f: Normed, x: Option<Tensor>) -> Tensor {
    match x {
        Some(x) => (f + x).relu(),
        None => f.relu(),
    }
}

/// Two 3×3 convolutions (Fig. 5, left).
#[derive(Debug)]
pub(crate) struct BasicBlock {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    shortcut: Shortcut,
    name: String,
}

impl BasicBlock {
    pub(crate) fn new(
        path: &nn::Path,
        option: Kind,
        input: i64,
        width: i64,
        stride: i64,
        norm: &BatchNormConfig,
    ) -> Self {
        BasicBlock {
            conv1: conv(&(path / "conv1"), input, width, 3, stride),
            bn1: BatchNorm2d::with(&(path / "bn1"), width, norm.clone()),
            conv2: conv(&(path / "conv2"), width, width, 3, 1),
            bn2: BatchNorm2d::with(&(path / "bn2"), width, norm.clone()),
            shortcut: Shortcut::new(path, option, input, width, stride, norm),
            name: record::name(path),
        }
    }

    /// `[N, in, H, W]` → `[N, width, H/stride, W/stride]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        record::block(&self.name, || {
            let shortcut = self.shortcut.forward(x, mode);
            let f = self.bn1.norm(self.conv1.forward(x), mode).relu();
            residual(self.bn2.norm(self.conv2.forward(&f), mode), shortcut)
        })
    }
}

/// 1×1, 3×3, 1×1: narrow in the middle (Fig. 5, right).
#[derive(Debug)]
pub(crate) struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    conv3: Conv2d,
    bn3: BatchNorm2d,
    shortcut: Shortcut,
    name: String,
}

/// Where a bottleneck halves the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stride {
    /// In the first 1×1 convolution: the paper and its Caffe models ("v1").
    First,
    /// In the 3×3 convolution: torchvision ("v1.5").
    Middle,
}

impl Bottleneck {
    /// The width of the last convolution over that of the middle.
    pub(crate) const EXPANSION: i64 = 4;

    pub(crate) fn new(
        path: &nn::Path,
        place: Stride,
        input: i64,
        width: i64,
        Step { stride, dilation }: Step,
        norm: &BatchNormConfig,
    ) -> Self {
        let output = width * Self::EXPANSION;
        let (first, middle) = if place == Stride::First { (stride, 1) } else { (1, stride) };
        Bottleneck {
            conv1: conv(&(path / "conv1"), input, width, 1, first),
            bn1: BatchNorm2d::with(&(path / "bn1"), width, norm.clone()),
            conv2: conv_apart(&(path / "conv2"), width, width, 3, Step { stride: middle, dilation }),
            bn2: BatchNorm2d::with(&(path / "bn2"), width, norm.clone()),
            conv3: conv(&(path / "conv3"), width, output, 1, 1),
            bn3: BatchNorm2d::with(&(path / "bn3"), output, norm.clone()),
            shortcut: Shortcut::new(path, Kind::B, input, output, stride, norm),
            name: record::name(path),
        }
    }

    /// `[N, in, H, W]` → `[N, 4·width, H/stride, W/stride]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        record::block(&self.name, || {
            let shortcut = self.shortcut.forward(x, mode);
            let f = self.bn1.norm(self.conv1.forward(x), mode).relu();
            let f = self.bn2.norm(self.conv2.forward(&f), mode).relu();
            residual(self.bn3.norm(self.conv3.forward(&f), mode), shortcut)
        })
    }
}
