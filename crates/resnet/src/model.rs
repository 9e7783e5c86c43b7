//! "Deep Residual Learning for Image Recognition" (arXiv:1512.03385).
//!
//! | section | here |
//! |---|---|
//! | §3.2, §3.3, Fig. 5: blocks and shortcuts | [`crate::blocks`] |
//! | Table 1: networks for photos | [`PHOTO`], [`Trunk`] |
//! | §4.2: networks for CIFAR-10, residual and plain | [`CIFAR_DEPTHS`], [`Trunk`] |
//!
//! References: pytorch/vision 0.26.0 (`torchvision/models/resnet.py`, BSD-3-Clause) for the networks for photos,
//! akamaster/pytorch_resnet_cifar10 (BSD-2-Clause) for those for CIFAR-10. State-dict names are theirs.
//!
//! *Changes against the references*: none in the arithmetic. `…_cifar` (a 3×3 convolution without pooling in front of Table 1's stages)
//! and `…_v1` (the paper's place of the stride) are named variants.

use repro::nn::{BatchNorm2d, BatchNormConfig, Conv2d, Linear, Mode, channels_last, record};
use repro::weights::Named;
use repro::{Result, user};
use tch::{Kind as Numbers, Tensor, nn};

use crate::blocks::{BasicBlock, Bottleneck, Kind, Step, Stride, conv};

/// Table 1: name, blocks of each of the four stages, whether they are bottlenecks.
pub const PHOTO: [(&str, [usize; 4], bool); 5] = [
    ("resnet18", [2, 2, 2, 2], false),
    ("resnet34", [3, 4, 6, 3], false),
    ("resnet50", [3, 4, 6, 3], true),
    ("resnet101", [3, 4, 23, 3], true),
    ("resnet152", [3, 8, 36, 3], true),
];

/// §4.2: depths 6n + 2 for which there is a row or a figure.
pub const CIFAR_DEPTHS: [usize; 6] = [20, 32, 44, 56, 110, 1202];

/// What comes before the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// A 7×7 convolution of stride 2 and a 3×3 pooling of stride 2 (Table 1): a quarter of the edge is left.
    Photo,
    /// A 3×3 convolution of stride 1: for pictures of 32 pixels; not in the paper.
    Small,
}

/// A network by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Four stages (Table 1).
    Photo {
        /// Blocks of each stage.
        blocks: [usize; 4],
        /// Where bottlenecks halve the picture; `None`: basic blocks.
        bottleneck: Option<Stride>,
        /// What comes first.
        stem: Stem,
        /// Whether the last stage keeps the size of its map, and its kernels have gaps of one pixel (dilation) to reach as far as on half of it:
        /// the trunk of DETR-DC5 (arXiv:2005.12872, §4). Of bottlenecks only.
        dilated: bool,
    },
    /// Three stages of n blocks (§4.2).
    Cifar {
        /// n
        blocks: usize,
        /// Whether there are shortcuts.
        residual: bool,
    },
}

impl Variant {
    /// `resnet50`, `resnet50_v1`, `resnet18_cifar`, `cifar_resnet20`, `cifar_plain20`, ….
    ///
    /// # Errors
    /// Lists the names.
    pub fn named(name: &str) -> Result<Self> {
        for (photo, blocks, deep) in PHOTO {
            let variant = |place, stem| {
                let bottleneck = deep.then_some(place);
                Variant::Photo { blocks, bottleneck, stem, dilated: false }
            };
            match name.strip_prefix(photo) {
                Some("") => return Ok(variant(Stride::Middle, Stem::Photo)),
                Some("_v1") if deep => return Ok(variant(Stride::First, Stem::Photo)),
                Some("_cifar") if photo.len() == 8 && photo <= "resnet50" => {
                    return Ok(variant(Stride::Middle, Stem::Small));
                }
                _ => {}
            }
        }
        for depth in CIFAR_DEPTHS {
            for (family, residual) in [("cifar_resnet", true), ("cifar_plain", false)] {
                if name.strip_prefix(family).is_some_and(|rest| rest == depth.to_string()) {
                    return Ok(Variant::Cifar { blocks: (depth - 2) / 6, residual });
                }
            }
        }
        Err(user!(
            "there is no network {name}; there are resnet18, 34, 50, 101 and 152, resnet50_v1, 101_v1 and 152_v1 (stride where the paper has \
             it), resnet18_cifar, 34_cifar and 50_cifar (for pictures of 32 pixels), cifar_resnet20, 32, 44, 56, 110 and 1202, and \
             cifar_plain20 to 1202"
        ))
    }

    /// Edge of the pictures that the network is made for, in pixels.
    pub fn edge(self) -> i64 {
        match self {
            Variant::Photo { stem: Stem::Photo, .. } => 224,
            _ => 32,
        }
    }

    /// The classifier's name in the state dict.
    pub fn head(self) -> &'static str {
        match self {
            Variant::Photo { .. } => "fc",
            Variant::Cifar { .. } => "linear",
        }
    }

    /// Refuses pictures to learn from whose last map leaves a batch norm one number a channel.
    ///
    /// # Errors
    /// One picture of at most [`Self::stride`] pixels.
    pub fn check_batch(self, pictures: i64, edge: i64) -> Result<()> {
        if pictures > 1 || edge > self.stride() {
            return Ok(());
        }
        Err(user!(
            "a batch norm cannot learn from one number a channel: the last map of a picture of {edge} pixels has one place, and it would see one \
             picture at a time; take more pictures or larger ones (batch_size, compute.micro_batch, model.image_size, a crop's size)"
        ))
    }

    /// Pixels of an edge that become one place of the last map.
    pub fn stride(self) -> i64 {
        match self {
            Variant::Photo { stem, dilated, .. } => {
                let whole = if stem == Stem::Photo { 32 } else { 8 };
                if dilated { whole / 2 } else { whole }
            }
            Variant::Cifar { .. } => 4,
        }
    }
}

/// What a forward pass leaves.
#[derive(Debug)]
pub struct Output {
    /// The last convolutional map, `[N, C, h, w]`.
    pub map: Tensor,
    /// `[N, K]`
    pub logits: Tensor,
}

/// Global average pooling: `[N, C, h, w]` → `[N, C]`.
pub fn pooled(map: &Tensor) -> Tensor {
    map.mean_dim([2_i64, 3].as_slice(), false, None::<Numbers>)
}

#[derive(Debug)]
enum Block {
    Basic(Box<BasicBlock>),
    Bottleneck(Box<Bottleneck>),
}

impl Block {
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        match self {
            Block::Basic(block) => block.forward(x, mode),
            Block::Bottleneck(block) => block.forward(x, mode),
        }
    }
}

/// Any of the networks without its classifier: a stem and its stages.
#[derive(Debug)]
pub struct Trunk {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    pool: bool,
    stem_name: String,
    stages: Vec<Block>,
    /// Channels of the last map.
    width: i64,
}

impl Trunk {
    /// As PyTorch's layers start, all norms alike; see [`initialise`].
    pub fn new(path: &nn::Path, variant: Variant, norm: &BatchNormConfig) -> Self {
        match variant {
            Variant::Photo { blocks, bottleneck, stem, dilated } => {
                Self::photo(path, blocks, (bottleneck, dilated), stem, norm)
            }
            Variant::Cifar { blocks, residual } => Self::cifar(path, blocks, residual, norm),
        }
    }

    /// A network of Table 1.
    fn photo(
        path: &nn::Path,
        blocks: [usize; 4],
        (bottleneck, dilated): (Option<Stride>, bool),
        stem: Stem,
        norm: &BatchNormConfig,
    ) -> Self {
        let conv1 = match stem {
            Stem::Photo => conv(&(path / "conv1"), 3, 64, 7, 2),
            Stem::Small => conv(&(path / "conv1"), 3, 64, 3, 1),
        };
        let bn1 = BatchNorm2d::with(&(path / "bn1"), 64, norm.clone());
        let mut stages = Vec::new();
        let mut input = 64;
        for (stage, count) in blocks.into_iter().enumerate() {
            let width = 64 << stage;
            for place in 0..count {
                let path = path / format!("layer{}", stage + 1) / place;
                let apart = dilated && stage == 3;
                let stride = if stage > 0 && place == 0 && !apart { 2 } else { 1 };
                // The first block of a dilated stage has no gaps yet (torchvision's `replace_stride_with_dilation`).
                let step = Step { stride, dilation: if apart && place > 0 { 2 } else { 1 } };
                stages.push(match bottleneck {
                    None => Block::Basic(Box::new(BasicBlock::new(&path, Kind::B, input, width, stride, norm))),
                    Some(at) => Block::Bottleneck(Box::new(Bottleneck::new(&path, at, input, width, step, norm))),
                });
                input = if bottleneck.is_some() { width * Bottleneck::EXPANSION } else { width };
            }
        }
        let stem_name = record::name(&(path / "stem"));
        Trunk { conv1, bn1, pool: stem == Stem::Photo, stem_name, stages, width: input }
    }

    /// A network of §4.2: three stages of n blocks with 16, 32 and 64 filters, residual (option A) or plain.
    fn cifar(path: &nn::Path, blocks: usize, residual: bool, norm: &BatchNormConfig) -> Self {
        let option = if residual { Kind::A } else { Kind::Plain };
        let conv1 = conv(&(path / "conv1"), 3, 16, 3, 1);
        let bn1 = BatchNorm2d::with(&(path / "bn1"), 16, norm.clone());
        let mut stages = Vec::new();
        let mut input = 16;
        for (stage, width) in [16, 32, 64].into_iter().enumerate() {
            for place in 0..blocks {
                let path = path / format!("layer{}", stage + 1) / place;
                let stride = if stage > 0 && place == 0 { 2 } else { 1 };
                stages.push(Block::Basic(Box::new(BasicBlock::new(&path, option, input, width, stride, norm))));
                input = width;
            }
        }
        let stem_name = record::name(&(path / "stem"));
        Trunk { conv1, bn1, pool: false, stem_name, stages, width: input }
    }

    /// `[N, 3, H, W]`, centred → the map `[N, C, H/32, W/32]`; with a small stem of H/8, of §4.2 of H/4; of a dilated
    /// network twice that.
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Tensor {
        let image = &channels_last(image);
        let mut x = record::block(&self.stem_name, || {
            let x = self.bn1.norm(self.conv1.forward(image), mode).relu();
            if self.pool { x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false) } else { x }
        });
        for block in &self.stages {
            x = block.forward(&x, mode);
        }
        x
    }

    /// Channels C of the last map.
    pub fn width(&self) -> i64 {
        self.width
    }
}

/// Any of the networks.
#[derive(Debug)]
pub struct Network {
    trunk: Trunk,
    classifier: Linear,
}

impl Network {
    /// A network of `classes` outputs, as PyTorch's layers start; see [`initialise`].
    pub fn new(path: &nn::Path, variant: Variant, classes: i64) -> Self {
        let trunk = Trunk::new(path, variant, &BatchNormConfig::default());
        let classifier = Linear::new(&(path / variant.head()), trunk.width(), classes);
        Network { trunk, classifier }
    }

    /// `[N, 3, H, W]`, centred → the last map and the logits.
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Output {
        let map = self.trunk.forward(image, mode);
        let logits = self.classifier.forward(&pooled(&map));
        Output { map, logits }
    }
}

/// Where training starts, drawn from libtorch's generator. Norms keep their 1 and 0.
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named, variant: Variant, zero_init: bool) -> Result<()> {
    let last_norm = match variant {
        Variant::Photo { bottleneck: Some(_), .. } => ".bn3.weight",
        _ => ".bn2.weight",
    };
    // By name, so that the order of drawing is fixed.
    for (name, weight) in model.iter().filter(|(_, tensor)| tensor.requires_grad()) {
        let (mut weight, shape) = (weight.shallow_clone(), weight.size());
        let area = shape.iter().skip(2).product::<i64>();
        let _guard = tch::no_grad_guard();
        match (variant, shape.as_slice()) {
            // torchvision: N(0, 2 / fan-out) for convolutions; the classifier keeps PyTorch's default.
            (Variant::Photo { .. }, [output, _, _, _]) => {
                let _ = weight.f_normal_(0.0, (2.0 / (output * area) as f64).sqrt())?;
            }
            // §4.2 takes the initialisation of arXiv:1502.01852: N(0, 2 / fan-in) for convolutions and classifier.
            (Variant::Cifar { .. }, [_, input, ..]) => {
                let _ = weight.f_normal_(0.0, (2.0 / (input * area) as f64).sqrt())?;
            }
            // arXiv:1706.02677, §5.1: each block starts as its shortcut.
            (_, [_]) if zero_init && name.ends_with(last_norm) => {
                let _ = weight.f_zero_()?;
            }
            _ => {}
        }
    }
    Ok(())
}
