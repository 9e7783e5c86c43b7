//! "End-to-End Object Detection with Transformers" (arXiv:2005.12872).
//!
//! | section | here |
//! |---|---|
//! | §3.2, Figure 2: trunk, encoder and decoder, heads | [`Detr`] |
//! | Appendix A.3, Figure 10: the transformer | [`crate::transformer`] |
//! | Appendix A.4, Table 3: positions | [`crate::position`] |
//! | §3.1, Appendix A.2: matching, losses | [`crate::matcher`], [`crate::loss`] |
//!
//! Reference: facebookresearch/detr (Apache-2.0), whose state-dict names these are; held against transformers 5.24.0.
//!
//! *Changes against the reference*: none in the arithmetic. `detr_small` is ours.

use repro::nn::{BatchNormConfig, Conv2d, Conv2dConfig, Linear, Mode, record};
use repro::weights::{Named, below};
use repro::{Error, Result, user};
use resnet::blocks::Stride;
use resnet::model::{Stem, Trunk, Variant as TrunkVariant};
use tch::nn::{self, Init};
use tch::{Kind, Tensor};

use crate::position::{Learned, Positions, sine, whole};
use crate::transformer::{Transformer, cross};

/// The trunk's place in the state dict.
pub const TRUNK: &str = "backbone.0.body";
/// What depends on the classes.
pub const HEAD: [&str; 1] = ["class_embed"];
/// All that a classifier's weights say nothing of, which a run that starts from them begins afresh.
pub const BEHIND_TRUNK: [&str; 6] =
    ["backbone.1", "input_proj", "query_embed", "transformer", "class_embed", "bbox_embed"];

/// A network by its sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// The trunk.
    pub trunk: TrunkVariant,
    /// Whether the trunk's norms keep what they are given, as those of a network that ImageNet taught; else they learn, as from scratch they must.
    pub frozen_norm: bool,
    /// D of the transformer.
    pub width: i64,
    /// Of attention; divide D.
    pub heads: i64,
    /// Of the transformer's two-layer networks.
    pub hidden: i64,
    /// Layers of the encoder.
    pub encoder: usize,
    /// Layers of the decoder.
    pub decoder: usize,
    /// Object queries Q: so many objects can be found in a picture.
    pub queries: i64,
    /// What the transformer knows of places.
    pub positions: Positions,
    /// Rate at which the transformer's branches, attention weights and hidden units are dropped in training, in [0, 1).
    pub dropout: f64,
}

/// Networks by name: `detr_resnet50`, `detr_resnet50_dc5`, `detr_resnet101`, `detr_resnet101_dc5` (§4) and `detr_small`.
///
/// `detr_small` is for canvases of 128 pixels and learns from nothing on a CPU: ResNet-18 with norms that learn, three layers each of encoder and
/// decoder, 20 queries. Heads of 32 numbers and hidden layers of 8·D are the paper's proportions.
///
/// # Errors
/// Lists the names.
pub fn variant(name: &str) -> Result<Variant> {
    let photo = |blocks, bottleneck: bool, dilated| TrunkVariant::Photo {
        blocks,
        bottleneck: bottleneck.then_some(Stride::Middle),
        stem: Stem::Photo,
        dilated,
    };
    let paper = |blocks, dilated| Variant {
        trunk: photo(blocks, true, dilated),
        frozen_norm: true,
        width: 256,
        heads: 8,
        hidden: 2048,
        encoder: 6,
        decoder: 6,
        queries: 100,
        positions: Positions::SineAtAttention,
        dropout: 0.1,
    };
    Ok(match name {
        "detr_resnet50" => paper([3, 4, 6, 3], false),
        "detr_resnet50_dc5" => paper([3, 4, 6, 3], true),
        "detr_resnet101" => paper([3, 4, 23, 3], false),
        "detr_resnet101_dc5" => paper([3, 4, 23, 3], true),
        "detr_small" => Variant {
            trunk: photo([2, 2, 2, 2], false, false),
            frozen_norm: false,
            width: 128,
            heads: 4,
            hidden: 1024,
            encoder: 3,
            decoder: 3,
            queries: 20,
            ..paper([0; 4], false)
        },
        _ => {
            return Err(user!(
                "there is no network {name}; there are detr_resnet50, detr_resnet50_dc5, detr_resnet101, detr_resnet101_dc5 and detr_small"
            ));
        }
    })
}

/// What a forward pass leaves: the answers of each decoder layer, the last being the network's.
#[derive(Debug)]
pub struct Output {
    /// `[layers, N, Q, K + 1]`; the last class is "no object".
    pub logits: Tensor,
    /// `[layers, N, Q, 4]`: (cx, cy, w, h) in [0, 1] as fractions of the picture without its padding.
    pub boxes: Tensor,
}

impl Output {
    /// The network's own answer: `[N, Q, K + 1]` and `[N, Q, 4]`.
    pub fn last(&self) -> (Tensor, Tensor) {
        (self.logits.select(0, -1), self.boxes.select(0, -1))
    }
}

/// The network.
#[derive(Debug)]
pub struct Detr {
    trunk: Trunk,
    input_proj: Conv2d,
    learned: Option<Learned>,
    query_embed: Tensor,
    transformer: Transformer,
    class_embed: Linear,
    bbox_embed: [Linear; 3],
    variant: Variant,
}

impl Detr {
    /// A network for `classes` K, in the reference's names; [`initialise`] says where it starts.
    pub fn new(root: &nn::Path, variant: Variant, classes: i64) -> Self {
        let norm = BatchNormConfig { frozen: variant.frozen_norm, ..BatchNormConfig::default() };
        let trunk = Trunk::new(&(root / "backbone" / "0" / "body"), variant.trunk, &norm);
        let learned = variant.positions == Positions::LearnedAtAttention;
        let (d, bbox) = (variant.width, root / "bbox_embed" / "layers");
        Detr {
            input_proj: Conv2d::new(&(root / "input_proj"), trunk.width(), d, 1, Conv2dConfig::default()),
            trunk,
            learned: learned.then(|| Learned::new(&(root / "backbone" / "1"), d)),
            query_embed: (root / "query_embed").var(
                "weight",
                &[variant.queries, d],
                Init::Randn { mean: 0.0, stdev: 1.0 },
            ),
            transformer: Transformer::new(&(root / "transformer"), &variant),
            class_embed: Linear::new(&(root / "class_embed"), d, classes + 1),
            bbox_embed: [(0, d), (1, d), (2, 4)].map(|(i, output)| Linear::new(&(&bbox / i), d, output)),
            variant,
        }
    }

    /// Centred pictures `[N, 3, H, W]`, and where they are padded (`[N, H, W]`, true on padding, to the right and below; none: nowhere).
    ///
    /// What a picture is told depends a little on its padding, as in the reference: see [`Self::alone`].
    ///
    /// # Errors
    /// A map that is too large for learned positions; in training, a single number for each channel of a batch norm.
    pub fn forward(&self, image: &Tensor, padding: Option<&Tensor>, mode: Mode) -> Result<Output> {
        let (n, _, h, w) = image.size4()?;
        if mode.trains() && !self.variant.frozen_norm {
            self.variant.trunk.check_batch(n, h.max(w))?;
        }
        let map = self.input_proj.forward(&self.trunk.forward(image, mode));
        let (_, _, h, w) = map.size4()?;
        let padding = padding.map(|padding| shrunk(padding, h, w));
        let positions = match &self.learned {
            Some(learned) => Some(learned.forward(h, w)?),
            None if self.variant.positions == Positions::None => None,
            None => {
                let nowhere = whole(h, w, image.device());
                Some(sine(padding.as_ref().unwrap_or(&nowhere), self.variant.width, self.query_embed.kind()))
            }
        };
        let seen = padding.map(|padding| padding.logical_not().flatten(1, 2));
        let tokens = map.flatten(2, 3).transpose(1, 2);
        let states = self.transformer.forward(tokens, positions.as_ref(), &self.query_embed, seen.as_ref(), mode);
        let [first, second, third] = &self.bbox_embed;
        let hidden = second.forward(&first.forward(&states).relu()).relu();
        Ok(Output { logits: self.class_embed.forward(&states), boxes: third.forward(&hidden).sigmoid() })
    }

    /// The answers to one picture `[1, 3, H, W]`, and what each query looks at.
    ///
    /// # Errors
    /// Those of [`Self::forward`].
    pub fn look(&self, image: &Tensor) -> Result<Looked> {
        let name = format!("{}{}", cross(self.variant.decoder - 1), record::ATTENTION);
        let (output, mut told) = record::tap(std::slice::from_ref(&name), || self.forward(image, None, Mode::Eval))?;
        let weights = told.remove(&name).ok_or_else(|| Error::Failed(format!("{name} was not told")))?;
        let (_, _, height, width) = image.size4()?;
        let [h, w] = [height, width].map(|side| (side as u64).div_ceil(self.variant.trunk.stride() as u64) as i64);
        let mean = weights.f_mean_dim([1_i64].as_slice(), false, None::<Kind>)?.f_select(0, 0)?;
        let attention = mean.f_view([-1, h, w])?;
        let (logits, boxes) = output.last();
        Ok(Looked { logits, boxes, attention })
    }

    /// The network's own answer to each picture without its padding, `[N, Q, K + 1]` and `[N, Q, 4]`: what it says of a picture does then not
    /// depend on the pictures beside it, but for rounding. `sizes` are the pictures' heights and widths within `image` `[N, 3, H, W]`.
    ///
    /// Padding is zeros for the first convolution only. Behind it a norm's shift and the picture's edge fill the padding, the next convolution reads
    /// that at the edge, and a picture by itself has zeros there. So the reference's AP falls as pictures of several sizes are evaluated at a time,
    /// most with a dilated last stage, whose kernels reach far (facebookresearch/detr#217). Here pictures of one size are taken at a time.
    ///
    /// # Errors
    /// Those of [`Self::forward`].
    pub fn alone(&self, image: &Tensor, sizes: &[(i64, i64)]) -> Result<(Tensor, Tensor)> {
        let mut places: Vec<i64> = (0..sizes.len() as i64).collect();
        places.sort_by_key(|&place| sizes[place as usize]);
        let (mut logits, mut boxes) = (Vec::new(), Vec::new());
        for alike in places.chunk_by(|&a, &b| sizes[a as usize] == sizes[b as usize]) {
            let (h, w) = sizes[alike[0] as usize];
            let index = Tensor::f_from_slice(alike)?.f_to_device(image.device())?;
            let pictures = image.f_narrow(2, 0, h)?.f_narrow(3, 0, w)?.f_index_select(0, &index)?;
            let (l, b) = self.forward(&pictures, None, Mode::Eval)?.last();
            logits.push(l);
            boxes.push(b);
        }
        let back = Tensor::f_from_slice(&places)?.f_argsort(0, false)?.f_to_device(image.device())?;
        Ok((Tensor::f_cat(&logits, 0)?.f_index_select(0, &back)?, Tensor::f_cat(&boxes, 0)?.f_index_select(0, &back)?))
    }
}

/// A picture's answers and what they look at.
#[derive(Debug)]
pub struct Looked {
    /// `[1, Q, K + 1]`
    pub logits: Tensor,
    /// `[1, Q, 4]`
    pub boxes: Tensor,
    /// Of each query the weights of the map's places in the last layer of the decoder, the mean over the heads: `[Q, h, w]`, each map sums to 1.
    pub attention: Tensor,
}

/// Padding `[N, H, W]` at the places of a map, `[N, h, w]`: each takes the pixel at its upper left corner.
fn shrunk(padding: &Tensor, h: i64, w: i64) -> Tensor {
    let small = padding.unsqueeze(1).to_kind(Kind::Float).upsample_nearest2d([h, w], None, None);
    small.squeeze_dim(1).to_kind(Kind::Bool)
}

/// Where training starts, drawn from libtorch's generator; what is not named here starts as PyTorch's layers do, queries as N(0, 1).
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named, variant: &Variant) -> Result<()> {
    resnet::model::initialise(&below(model, &format!("{TRUNK}.")), variant.trunk, false)?;
    // By name, so that the order of drawing is fixed.
    for (name, weight) in model.iter().filter(|(name, _)| name.starts_with("transformer.")) {
        let (mut weight, _guard) = (weight.shallow_clone(), tch::no_grad_guard());
        match weight.size()[..] {
            // Appendix A.4: Xavier; the three products of an attention are one matrix for it, as in the reference.
            [output, input] => {
                let bound = (6.0 / (output + input) as f64).sqrt();
                let _ = weight.f_uniform_(-bound, bound)?;
            }
            // PyTorch's attention.
            _ if name.ends_with("in_proj_bias") || name.ends_with("out_proj.bias") => {
                let _ = weight.f_zero_()?;
            }
            _ => {}
        }
    }
    Ok(())
}
