//! Encoder and decoder (§3.2, Appendix A.3, Figure 10): norms behind the sums, places added to queries and keys of every attention.

use repro::nn::record::{self, Counts};
use repro::nn::{LayerNorm, Linear, Mode};
use tch::nn::{self, Init};
use tch::{Kind, Tensor};

use crate::model::Variant;
use crate::position::Positions;

/// Added to the variance by every layer norm here: PyTorch's default.
const EPS: f64 = 1e-5;

/// Multi-head attention, as `torch.nn.MultiheadAttention` packs it: rows of `in_proj_weight` are for queries, keys, values.
///
/// The weights are taken only where they are asked for, by the name `<name>.attn.weights` ([`record::ATTENTION`], `forward --attention`).
#[derive(Debug)]
struct Attention {
    in_proj_weight: Tensor,
    in_proj_bias: Tensor,
    out_proj: Linear,
    heads: i64,
    dropout: f64,
    name: String,
    weights: String,
}

impl Attention {
    /// Under `path`; its weights are told as those of `told`.
    fn new(path: &nn::Path, variant: &Variant, told: &str) -> Self {
        let Variant { width, heads, dropout, .. } = *variant;
        let zero = Init::Const(0.0);
        Attention {
            in_proj_weight: path.var("in_proj_weight", &[3 * width, width], zero),
            in_proj_bias: path.var("in_proj_bias", &[3 * width], zero),
            out_proj: Linear::new(&(path / "out_proj"), width, width),
            heads,
            dropout,
            name: record::name(path),
            weights: format!("{told}{}", record::ATTENTION),
        }
    }

    /// `count` of the three products from `first` on, `[N, L, D]` → `[N, heads, L, D/heads]` each.
    fn project(&self, x: &Tensor, first: i64, count: i64) -> Vec<Tensor> {
        let (n, length, width) = (x.size()[0], x.size()[1], x.size()[2]);
        let rows = |packed: &Tensor| packed.narrow(0, first * width, count * width);
        let y = x.linear(&rows(&self.in_proj_weight), Some(rows(&self.in_proj_bias)));
        // Its parameters are those of the block around it: no layer has their names.
        record::seen(&format!("{}.in_proj", self.name), &y, || Counts {
            multiply_adds: y.numel() as u64 * width as u64,
            ..Counts::default()
        });
        let parts = y.view([n, length, count, self.heads, width / self.heads]).permute([2, 0, 3, 1, 4]);
        (0..count).map(|part| parts.get(part)).collect()
    }

    /// softmax(q kᵀ / √d) v over the keys that `seen` `[N, 1, 1, keys]` leaves, heads side by side, `[N, L, D]`.
    fn mix(&self, q: &Tensor, k: &Tensor, v: &Tensor, seen: Option<&Tensor>, mode: Mode) -> Tensor {
        let dropout = if mode.trains() { self.dropout } else { 0.0 };
        let mixed = if record::keeps(&self.weights) {
            let scale = (*q.size().last().unwrap_or(&1) as f64).powf(-0.5);
            let scores = (q * scale).matmul(&k.transpose(-2, -1));
            let scores = match seen {
                Some(seen) => scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY),
                None => scores,
            };
            let weights = scores.softmax(-1, None::<Kind>);
            record::seen(&self.weights, &weights, Counts::default);
            weights.dropout(dropout, mode.trains()).matmul(v)
        } else {
            Tensor::scaled_dot_product_attention(q, k, v, seen, dropout, false, None, false)
        };
        let mixed = mixed.transpose(1, 2).flatten(2, 3);
        // q kᵀ and the weights' product with v.
        record::seen(&format!("{}.product", self.name), &mixed, || Counts {
            multiply_adds: 2 * mixed.numel() as u64 * k.size()[2] as u64,
            ..Counts::default()
        });
        self.out_proj.forward(&mixed)
    }

    /// Of `x` to itself, places added to queries and keys: one product of both.
    fn to_itself(&self, x: &Tensor, places: Option<&Tensor>, seen: Option<&Tensor>, mode: Mode) -> Tensor {
        let Some(places) = places else {
            let parts = self.project(x, 0, 3);
            return self.mix(&parts[0], &parts[1], &parts[2], seen, mode);
        };
        let (asked, values) = (self.project(&(x + places), 0, 2), self.project(x, 2, 1));
        self.mix(&asked[0], &asked[1], &values[0], seen, mode)
    }

    /// Of `x` to what the encoder made of the picture.
    fn to_picture(&self, x: &Tensor, queries: Option<&Tensor>, picture: &Picture, mode: Mode) -> Tensor {
        let Picture { tokens, places, seen } = picture;
        let q = self.project(&plus(x, queries), 0, 1);
        let (k, v) = match places {
            Some(places) => (self.project(&(*tokens + *places), 1, 1).remove(0), self.project(tokens, 2, 1).remove(0)),
            None => {
                let mut both = self.project(tokens, 1, 2);
                let v = both.remove(1);
                (both.remove(0), v)
            }
        };
        self.mix(&q[0], &k, &v, *seen, mode)
    }
}

/// What the decoder attends to.
struct Picture<'a> {
    tokens: &'a Tensor,
    places: Option<&'a Tensor>,
    seen: Option<&'a Tensor>,
}

fn plus(x: &Tensor, places: Option<&Tensor>) -> Tensor {
    places.map_or_else(|| x.shallow_clone(), |places| x + places)
}

/// linear, ReLU, linear: `linear1` and `linear2` under a layer's path.
#[derive(Debug)]
struct Mlp {
    linear1: Linear,
    linear2: Linear,
    dropout: f64,
}

impl Mlp {
    fn new(path: &nn::Path, variant: &Variant) -> Self {
        let Variant { width, hidden, dropout, .. } = *variant;
        Mlp {
            linear1: Linear::new(&(path / "linear1"), width, hidden),
            linear2: Linear::new(&(path / "linear2"), hidden, width),
            dropout,
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.linear2.forward(&self.linear1.forward(x).relu().dropout(self.dropout, mode.trains()))
    }
}

/// A layer of the encoder: attention among all places of the map.
#[derive(Debug)]
struct EncoderLayer {
    self_attn: Attention,
    norm1: LayerNorm,
    mlp: Mlp,
    norm2: LayerNorm,
    dropout: f64,
    name: String,
}

impl EncoderLayer {
    fn new(path: &nn::Path, variant: &Variant, place: usize) -> Self {
        EncoderLayer {
            self_attn: Attention::new(&(path / "self_attn"), variant, &format!("encoder.{place}")),
            norm1: LayerNorm::new(&(path / "norm1"), variant.width, EPS),
            mlp: Mlp::new(path, variant),
            norm2: LayerNorm::new(&(path / "norm2"), variant.width, EPS),
            dropout: variant.dropout,
            name: record::name(path),
        }
    }

    fn forward(&self, x: &Tensor, places: Option<&Tensor>, seen: Option<&Tensor>, mode: Mode) -> Tensor {
        let drop = |branch: Tensor| branch.dropout(self.dropout, mode.trains());
        record::block(&self.name, || {
            let x = self.norm1.forward(&(x + drop(self.self_attn.to_itself(x, places, seen, mode))));
            self.norm2.forward(&(&x + drop(self.mlp.forward(&x, mode))))
        })
    }
}

/// A layer of the decoder: attention among the queries, then to the picture.
#[derive(Debug)]
struct DecoderLayer {
    self_attn: Attention,
    norm1: LayerNorm,
    multihead_attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
    norm3: LayerNorm,
    dropout: f64,
    name: String,
}

impl DecoderLayer {
    fn new(path: &nn::Path, variant: &Variant, place: usize) -> Self {
        let norm = |name: &str| LayerNorm::new(&(path / name), variant.width, EPS);
        DecoderLayer {
            self_attn: Attention::new(&(path / "self_attn"), variant, &format!("decoder.{place}.self")),
            norm1: norm("norm1"),
            multihead_attn: Attention::new(&(path / "multihead_attn"), variant, &cross(place)),
            norm2: norm("norm2"),
            mlp: Mlp::new(path, variant),
            norm3: norm("norm3"),
            dropout: variant.dropout,
            name: record::name(path),
        }
    }

    fn forward(&self, x: &Tensor, queries: Option<&Tensor>, picture: &Picture, mode: Mode) -> Tensor {
        let drop = |branch: Tensor| branch.dropout(self.dropout, mode.trains());
        record::block(&self.name, || {
            let x = self.norm1.forward(&(x + drop(self.self_attn.to_itself(x, queries, None, mode))));
            let seen = self.multihead_attn.to_picture(&x, queries, picture, mode);
            let x = self.norm2.forward(&(&x + drop(seen)));
            self.norm3.forward(&(&x + drop(self.mlp.forward(&x, mode))))
        })
    }
}

/// The name that a decoder layer's attention to the picture is told by, before [`record::ATTENTION`].
pub(crate) fn cross(layer: usize) -> String {
    format!("decoder.{layer}.cross")
}

/// Encoder and decoder.
#[derive(Debug)]
pub struct Transformer {
    encoder: Vec<EncoderLayer>,
    decoder: Vec<DecoderLayer>,
    norm: LayerNorm,
    positions: Positions,
}

impl Transformer {
    /// `encoder.layers.<i>`, `decoder.layers.<i>` and `decoder.norm` under `path`; see [`crate::model::initialise`] for where they start.
    pub fn new(path: &nn::Path, variant: &Variant) -> Self {
        let (encoder, decoder) = (path / "encoder" / "layers", path / "decoder" / "layers");
        Transformer {
            encoder: (0..variant.encoder).map(|i| EncoderLayer::new(&(&encoder / i), variant, i)).collect(),
            decoder: (0..variant.decoder).map(|i| DecoderLayer::new(&(&decoder / i), variant, i)).collect(),
            norm: LayerNorm::new(&(path / "decoder" / "norm"), variant.width, EPS),
            positions: variant.positions,
        }
    }

    /// A map's places `[N, S, D]`, their positions `[1 or N, S, D]` if the variant has them, object queries `[Q, D]`, and which of the places
    /// are the picture's (`[N, S]`; none: all) → what each decoder layer makes of each query, `[layers, N, Q, D]`, normed.
    pub fn forward(
        &self,
        tokens: Tensor,
        positions: Option<&Tensor>,
        queries: &Tensor,
        seen: Option<&Tensor>,
        mode: Mode,
    ) -> Tensor {
        let (input, at_encoder, at_decoder) = match self.positions {
            Positions::None => (None, None, None),
            Positions::SineAtInput => (positions, None, None),
            Positions::SineInDecoder => (None, None, positions),
            Positions::LearnedAtAttention | Positions::SineAtAttention => (None, positions, positions),
        };
        let seen = seen.map(|seen| seen.unsqueeze(1).unsqueeze(1));
        let encoded = self
            .encoder
            .iter()
            .fold(plus(&tokens, input), |x, layer| layer.forward(&x, at_encoder, seen.as_ref(), mode));
        let picture = Picture { tokens: &encoded, places: at_decoder, seen: seen.as_ref() };
        let queries = queries.unsqueeze(0).expand([tokens.size()[0], -1, -1], false);
        let (mut x, queries) = match self.positions.queries_at_input() {
            true => (queries, None),
            false => (queries.zeros_like(), Some(&queries)),
        };
        let mut states = Vec::new();
        for layer in &self.decoder {
            x = layer.forward(&x, queries, &picture, mode);
            states.push(x.shallow_clone());
        }
        self.norm.forward(&Tensor::stack(&states, 0))
    }
}
