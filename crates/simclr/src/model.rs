//! "A Simple Framework for Contrastive Learning of Visual Representations" (arXiv:2002.05709).
//!
//! | section | here |
//! |---|---|
//! | §2.1, f: h = f(x̃) | [`Encoder`], a [`residual::Trunk`] |
//! | §2.1 and §4.2, g: z = g(h) | [`Projector`] |
//! | §2.1, both | [`Simclr`] |
//! | B.5, a linear classifier on h | [`Classifier`] |
//!
//! Reference: google-research/simclr (Apache-2.0), read for facts. Its weights are TensorFlow's, so the names here are our own: those of
//! torchvision behind `backbone.`, and PyTorch's of a sequence behind `projector.`.
//!
//! *Changes against the reference*: its first block of every group has a projection beside it, also where the shape stays (one more 1×1
//! convolution in a ResNet-18); here torchvision's blocks stand. Convolutions and layers start as in `resnet` and in PyTorch.

use repro::data::{Augment, Pictures};
use repro::nn::{BatchNorm2d, BatchNormConfig, Gather, Linear, Mode};
use repro::optim::Schedule;
use repro::probe::{Head, Judged, Trunk};
use repro::setup::Setup;
use repro::weights::{Load, Named};
use repro::{Result, weights};
use resnet::model::{self as residual, Variant, initialise, pooled};
use tch::{Tensor, nn};

use crate::config::Config;

/// The trunk's name in the state dict.
pub const BACKBONE: &str = "backbone";
/// The classifier's.
pub const CLASSIFIER: &str = "classifier";

/// f of §2.1: a residual network up to its average pooling.
#[derive(Debug)]
pub struct Encoder {
    trunk: residual::Trunk,
}

impl Encoder {
    /// `over`: what norms are exchanged by.
    fn over(root: &nn::Path, variant: Variant, over: Option<Gather>) -> Self {
        let norm = BatchNormConfig { over, ..BatchNormConfig::default() };
        Self { trunk: residual::Trunk::new(&(root / BACKBONE), variant, &norm) }
    }

    /// `[N, 3, H, W]`, centred → h `[N, D]`.
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Tensor {
        pooled(&self.trunk.forward(image, mode))
    }
}

impl Trunk for Encoder {
    type Config = Config;
    const PARTS: &'static [&'static str] = &[BACKBONE];
    const HEAD: &'static str = CLASSIFIER;

    fn new(root: &nn::Path, config: &Config) -> Result<Self> {
        Ok(Encoder::over(root, config.variant()?, None))
    }

    fn start(store: &nn::VarStore, config: &Config, init: Option<&Named>, setup: &Setup) -> Result<()> {
        start(store, config, init, setup)
    }

    fn features(&self, image: &Tensor) -> Tensor {
        self.forward(image, Mode::Eval)
    }

    fn width(&self) -> i64 {
        self.trunk.width()
    }

    fn pictures(config: &Config, setup: &Setup, augment: &[Augment], schedule: &Schedule) -> Result<Pictures> {
        crate::data::open(config, setup, augment, schedule)
    }

    fn judged(config: &Config) -> Judged<'_> {
        let Config { probe, knn, .. } = config;
        Judged { probe: probe.as_ref(), knn: knn.as_ref(), classes: config.model.num_classes }
    }
}

#[derive(Debug)]
enum Layer {
    Linear(Linear),
    Norm(BatchNorm2d),
    Relu,
}

/// g of §2.1: none, one, two or three layers, as wide as h but for the last, with ReLUs between them.
#[derive(Debug)]
pub struct Projector {
    layers: Vec<Layer>,
}

impl Projector {
    fn new(path: &nn::Path, width: i64, config: &Config, over: Option<Gather>) -> Self {
        let (count, normed) = (config.model.head.layers, config.model.head_bn);
        let mut layers: Vec<Layer> = Vec::new();
        for place in 1..=count {
            let last = place == count;
            let output = if last { config.model.head_dim } else { width };
            let at = |layers: &Vec<Layer>| path / layers.len();
            let linear = if normed { Linear::without_bias } else { Linear::new };
            layers.push(Layer::Linear(linear(&at(&layers), width, output)));
            if normed {
                // The authors' last norm has a scale and no shift.
                let norm = BatchNormConfig { bias: !last, over: over.clone(), ..BatchNormConfig::default() };
                layers.push(Layer::Norm(BatchNorm2d::with(&at(&layers), output, norm)));
            }
            if !last {
                layers.push(Layer::Relu);
            }
        }
        Self { layers }
    }

    /// h `[N, D]` → z `[N, d]`, before it is normalised.
    pub fn forward(&self, h: &Tensor, mode: Mode) -> Tensor {
        self.layers.iter().fold(h.shallow_clone(), |x, layer| match layer {
            Layer::Linear(linear) => linear.forward(&x),
            Layer::Norm(norm) => norm.forward(&x, mode),
            Layer::Relu => x.relu(),
        })
    }
}

/// What a forward pass leaves.
#[derive(Debug)]
pub struct Output {
    /// What the later tasks read, `[N, D]`.
    pub h: Tensor,
    /// What the loss compares, `[N, d]`.
    pub z: Tensor,
}

/// f and g.
#[derive(Debug)]
pub struct Simclr {
    /// f
    pub encoder: Encoder,
    /// g
    pub projector: Projector,
}

impl Simclr {
    /// Under the names `backbone.…` and `projector.…`, as PyTorch's layers start; `over`: what norms are exchanged by.
    ///
    /// # Errors
    /// An unknown network.
    pub fn new(root: &nn::Path, config: &Config, over: Option<Gather>) -> Result<Self> {
        let encoder = Encoder::over(root, config.variant()?, over.clone());
        let projector = Projector::new(&(root / "projector"), encoder.width(), config, over);
        Ok(Self { encoder, projector })
    }

    /// `[N, 3, H, W]`, centred → h and z.
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Output {
        let h = self.encoder.forward(image, mode);
        let z = self.projector.forward(&h, mode);
        Output { h, z }
    }
}

/// A linear classifier on h, both of which learn.
#[derive(Debug)]
pub struct Classifier {
    /// f
    pub encoder: Encoder,
    head: Head,
}

impl Classifier {
    /// Under the names `backbone.…` and `classifier.…`; `normed` as [`Head::new`] has it.
    ///
    /// # Errors
    /// An unknown network.
    pub fn new(root: &nn::Path, config: &Config, normed: bool, over: Option<Gather>) -> Result<Self> {
        let encoder = Encoder::over(root, config.variant()?, over);
        let head = Head::new(&(root / CLASSIFIER), encoder.width(), config.model.num_classes, normed);
        Ok(Self { encoder, head })
    }

    /// `[N, 3, H, W]`, centred → logits `[N, K]`.
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Tensor {
        self.head.forward(&self.encoder.forward(image, mode), mode)
    }
}

/// The linear classifier that learns beside pre-training, called `classifier`.
pub fn online_head(root: &nn::Path, width: i64, config: &Config) -> Head {
    Head::new(&(root / CLASSIFIER), width, config.model.num_classes, false)
}

/// The tensors of the trunk, by their names within it.
pub fn trunk_of(store: &nn::VarStore) -> Named {
    weights::below(&store.variables().into_iter().collect(), &format!("{BACKBONE}."))
}

/// Where a trunk starts: as `resnet`'s networks do, or as the stage before has left it (`init`).
///
/// # Errors
/// Tensors that do not fit.
pub fn start(store: &nn::VarStore, config: &Config, init: Option<&Named>, setup: &Setup) -> Result<()> {
    let trunk = trunk_of(store);
    initialise(&trunk, config.variant()?, config.model.zero_init.unwrap_or(false))?;
    if let Some(init) = init {
        let given = weights::below(init, &format!("model.{BACKBONE}."));
        let notes = Load::of("the trunk of the stage before").copy(&trunk, &given)?;
        notes.into_iter().for_each(|note| setup.note(note));
    }
    Ok(())
}
