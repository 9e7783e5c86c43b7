//! Inception v3 (arXiv:1512.00567) as FID has it: the TensorFlow network of 2015-12-05 behind arXiv:1706.08500, in the form and by the names of
//! pytorch-fid 0.3.0, whose public file `pt_inception-2015-12-05-6726825d.pth` holds its weights.
//!
//! It differs from torchvision's network of these names: the mean of a pooling leaves padded zeros out, the last block pools by the maximum,
//! there are 1,008 classes, and no auxiliary classifier. FID and IS of the literature are numbers of this network alone.
//!
//! `N` pictures. It is used as it stands and never trained.

use repro::nn::{BatchNorm2d, BatchNormConfig, Linear, Mode};
use tch::{Kind, Tensor, nn};

/// Edge of the pictures that the network takes, in pixels.
const EDGE: i64 = 299;
/// Width of the features.
const FEATURES: i64 = 2048;
/// Outputs: ImageNet's 1,000 classes and 8 that were never used.
const CLASSES: i64 = 1008;

/// What one convolution is to be.
struct Layer {
    name: &'static str,
    filters: i64,
    /// Height and width.
    kernel: [i64; 2],
    stride: i64,
    padding: [i64; 2],
}

/// Keeps the size of the map.
const fn conv(name: &'static str, filters: i64, kernel: [i64; 2]) -> Layer {
    Layer { name, filters, kernel, stride: 1, padding: [kernel[0] / 2, kernel[1] / 2] }
}

/// 3×3 of stride 2 without padding.
const fn halving(name: &'static str, filters: i64) -> Layer {
    Layer { name, filters, kernel: [3, 3], stride: 2, padding: [0, 0] }
}

/// A convolution without bias, its norm and ReLU.
#[derive(Debug)]
struct Unit {
    weight: Tensor,
    norm: BatchNorm2d,
    stride: i64,
    padding: [i64; 2],
}

impl Unit {
    fn new(path: &nn::Path, input: i64, layer: &Layer) -> Self {
        let Layer { name, filters, kernel: [height, width], stride, padding } = *layer;
        let path = path / name;
        // Weights are loaded, never drawn.
        let weight = (&path / "conv").zeros("weight", &[filters, input, height, width]);
        let norm = BatchNormConfig { eps: 1e-3, ..BatchNormConfig::default() };
        Unit { weight, norm: BatchNorm2d::with(&(path / "bn"), filters, norm), stride, padding }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.conv2d(&self.weight, None::<Tensor>, [self.stride; 2], self.padding, [1, 1], 1);
        self.norm.norm(y, Mode::Eval).relu()
    }
}

/// Units one behind the other, and the filters of the last.
fn chain(path: &nn::Path, input: i64, layers: &[Layer]) -> (Vec<Unit>, i64) {
    let mut width = input;
    let unit = |layer: &Layer| Unit::new(path, std::mem::replace(&mut width, layer.filters), layer);
    (layers.iter().map(unit).collect(), width)
}

/// 3×3 pooling at the head of a branch.
#[derive(Debug, Clone, Copy)]
enum Pool {
    /// The mean of the places that are in the map.
    Mean,
    /// The maximum.
    Max,
    /// The maximum, stride 2, no padding.
    Halving,
}

impl Pool {
    fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Pool::Mean => x.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None),
            Pool::Max => x.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false),
            Pool::Halving => x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false),
        }
    }
}

/// What a block does to its input beside its other branches.
#[derive(Debug)]
struct Branch {
    pool: Option<Pool>,
    chain: Vec<Unit>,
    /// Units side by side behind the chain, if there are any.
    fork: Vec<Unit>,
}

impl Branch {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.pool.map_or_else(|| x.shallow_clone(), |pool| pool.forward(x));
        let x = self.chain.iter().fold(x, |x, unit| unit.forward(&x));
        match self.fork[..] {
            [] => x,
            _ => Tensor::cat(&self.fork.iter().map(|unit| unit.forward(&x)).collect::<Vec<_>>(), 1),
        }
    }
}

/// Branches whose outputs stand behind one another.
#[derive(Debug)]
struct Block(Vec<Branch>);

impl Block {
    fn forward(&self, x: &Tensor) -> Tensor {
        Tensor::cat(&self.0.iter().map(|branch| branch.forward(x)).collect::<Vec<_>>(), 1)
    }
}

/// Builds the branches of a block.
struct Builder<'a> {
    path: nn::Path<'a>,
    input: i64,
}

impl Builder<'_> {
    fn line(&self, layers: &[Layer]) -> Branch {
        self.forked(layers, &[])
    }

    fn forked(&self, layers: &[Layer], fork: &[Layer]) -> Branch {
        let (chain, width) = chain(&self.path, self.input, layers);
        Branch { pool: None, chain, fork: fork.iter().map(|layer| Unit::new(&self.path, width, layer)).collect() }
    }

    fn pooled(&self, pool: Pool, filters: i64) -> Branch {
        Branch { pool: Some(pool), ..self.line(&[conv("branch_pool", filters, [1, 1])]) }
    }

    fn halved(&self) -> Branch {
        Branch { pool: Some(Pool::Halving), ..self.line(&[]) }
    }

    /// The blocks at 35×35.
    fn a(&self, pooled: i64) -> Block {
        Block(vec![
            self.line(&[conv("branch1x1", 64, [1, 1])]),
            self.line(&[conv("branch5x5_1", 48, [1, 1]), conv("branch5x5_2", 64, [5, 5])]),
            self.line(&[
                conv("branch3x3dbl_1", 64, [1, 1]),
                conv("branch3x3dbl_2", 96, [3, 3]),
                conv("branch3x3dbl_3", 96, [3, 3]),
            ]),
            self.pooled(Pool::Mean, pooled),
        ])
    }

    /// From 35×35 to 17×17.
    fn b(&self) -> Block {
        Block(vec![
            self.line(&[halving("branch3x3", 384)]),
            self.line(&[
                conv("branch3x3dbl_1", 64, [1, 1]),
                conv("branch3x3dbl_2", 96, [3, 3]),
                halving("branch3x3dbl_3", 96),
            ]),
            self.halved(),
        ])
    }

    /// The blocks at 17×17: 7×7 in two strips.
    fn c(&self, width: i64) -> Block {
        Block(vec![
            self.line(&[conv("branch1x1", 192, [1, 1])]),
            self.line(&[
                conv("branch7x7_1", width, [1, 1]),
                conv("branch7x7_2", width, [1, 7]),
                conv("branch7x7_3", 192, [7, 1]),
            ]),
            self.line(&[
                conv("branch7x7dbl_1", width, [1, 1]),
                conv("branch7x7dbl_2", width, [7, 1]),
                conv("branch7x7dbl_3", width, [1, 7]),
                conv("branch7x7dbl_4", width, [7, 1]),
                conv("branch7x7dbl_5", 192, [1, 7]),
            ]),
            self.pooled(Pool::Mean, 192),
        ])
    }

    /// From 17×17 to 8×8.
    fn d(&self) -> Block {
        Block(vec![
            self.line(&[conv("branch3x3_1", 192, [1, 1]), halving("branch3x3_2", 320)]),
            self.line(&[
                conv("branch7x7x3_1", 192, [1, 1]),
                conv("branch7x7x3_2", 192, [1, 7]),
                conv("branch7x7x3_3", 192, [7, 1]),
                halving("branch7x7x3_4", 192),
            ]),
            self.halved(),
        ])
    }

    /// The blocks at 8×8.
    fn e(&self, pool: Pool) -> Block {
        Block(vec![
            self.line(&[conv("branch1x1", 320, [1, 1])]),
            self.forked(
                &[conv("branch3x3_1", 384, [1, 1])],
                &[conv("branch3x3_2a", 384, [1, 3]), conv("branch3x3_2b", 384, [3, 1])],
            ),
            self.forked(
                &[conv("branch3x3dbl_1", 448, [1, 1]), conv("branch3x3dbl_2", 384, [3, 3])],
                &[conv("branch3x3dbl_3a", 384, [1, 3]), conv("branch3x3dbl_3b", 384, [3, 1])],
            ),
            self.pooled(pool, 192),
        ])
    }
}

/// The network.
#[derive(Debug)]
pub struct Inception {
    /// In two parts, a pooling behind each.
    stem: [Vec<Unit>; 2],
    blocks: Vec<Block>,
    /// The last layer.
    pub fc: Linear,
}

impl Inception {
    /// Without weights: they are to be loaded.
    pub fn new(path: &nn::Path) -> Self {
        let unpadded =
            |name, filters, edge, stride| Layer { name, filters, kernel: [edge; 2], stride, padding: [0, 0] };
        let (first, width) = chain(
            path,
            3,
            &[
                unpadded("Conv2d_1a_3x3", 32, 3, 2),
                unpadded("Conv2d_2a_3x3", 32, 3, 1),
                conv("Conv2d_2b_3x3", 64, [3, 3]),
            ],
        );
        let second = [unpadded("Conv2d_3b_1x1", 80, 1, 1), unpadded("Conv2d_4a_3x3", 192, 3, 1)];
        let (second, _) = chain(path, width, &second);
        let at = |name: &str, input| Builder { path: path / name, input };
        let blocks = vec![
            at("Mixed_5b", 192).a(32),
            at("Mixed_5c", 256).a(64),
            at("Mixed_5d", 288).a(64),
            at("Mixed_6a", 288).b(),
            at("Mixed_6b", 768).c(128),
            at("Mixed_6c", 768).c(160),
            at("Mixed_6d", 768).c(160),
            at("Mixed_6e", 768).c(192),
            at("Mixed_7a", 768).d(),
            at("Mixed_7b", 1280).e(Pool::Mean),
            at("Mixed_7c", 2048).e(Pool::Max),
        ];
        Inception { stem: [first, second], blocks, fc: Linear::new(&(path / "fc"), FEATURES, CLASSES) }
    }

    /// Pictures `[N, 3, H, W]` in [0, 1] → pool3 `[N, 2048]`. They are resized to 299 pixels, bilinearly and, as the reference has it, without
    /// averaging where they shrink.
    ///
    /// # Panics
    /// As tch's own operations: on tensors of another shape or kind.
    pub fn features(&self, pictures: &Tensor) -> Tensor {
        let x = pictures.upsample_bilinear2d([EDGE, EDGE], false, None, None) * 2.0 - 1.0;
        let stem = |x, units: &Vec<Unit>| Pool::Halving.forward(&units.iter().fold(x, |x, unit| unit.forward(&x)));
        let x = self.stem.iter().fold(x, stem);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
        x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>)
    }

    /// Features `[N, 2048]` → probabilities `[N, 1008]` float64, as the inception score of the literature takes them: its code multiplies pool3 by
    /// the last layer's weights and leaves the bias out.
    ///
    /// # Panics
    /// As tch's own operations: on tensors of another shape or kind.
    pub fn probabilities(&self, features: &Tensor) -> Tensor {
        features.linear(&self.fc.weight, None::<Tensor>).softmax(1, Kind::Double)
    }
}
