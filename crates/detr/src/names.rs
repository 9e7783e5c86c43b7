//! Weights as others write them, by the reference's names: transformers' DetrForObjectDetection (published files, whose trunk is timm's or the
//! library's own, and the form of version 5.24), and classifiers that a trunk starts from.

use std::collections::BTreeMap;

use repro::weights::Named;
use repro::{Result, user};
use tch::Tensor;

use crate::model::TRUNK;

/// A tensor that every file of transformers has.
const THEIRS: &str = "model.query_position_embeddings.weight";

/// Beginnings of names there, and here. Of several that fit the first counts.
const PARTS: [(&str, &str); 11] = [
    ("model.backbone.conv_encoder.model.", "backbone.0.body."),
    ("model.backbone.model.", "backbone.0.body."),
    ("model.backbone.position_embedding.row_embeddings.", "backbone.1.row_embed."),
    ("model.backbone.position_embedding.column_embeddings.", "backbone.1.col_embed."),
    ("model.position_embedding.row_embeddings.", "backbone.1.row_embed."),
    ("model.position_embedding.column_embeddings.", "backbone.1.col_embed."),
    ("model.query_position_embeddings.", "query_embed."),
    ("model.input_projection.", "input_proj."),
    ("model.decoder.layernorm.", "transformer.decoder.norm."),
    ("class_labels_classifier.", "class_embed."),
    ("bbox_predictor.", "bbox_embed."),
];

/// Parts of a layer there, and here.
const OF_LAYERS: [(&str, &str); 8] = [
    ("self_attn.", "self_attn."),
    ("encoder_attn.", "multihead_attn."),
    ("fc1.", "linear1."),
    ("fc2.", "linear2."),
    ("mlp.fc1.", "linear1."),
    ("mlp.fc2.", "linear2."),
    ("self_attn_layer_norm.", "norm1."),
    ("encoder_attn_layer_norm.", "norm2."),
];

/// Layers there and here, and what their last norm is here.
const HALVES: [(&str, &str, &str); 2] = [
    ("model.encoder.layers.", "transformer.encoder.layers.", "norm2."),
    ("model.decoder.layers.", "transformer.decoder.layers.", "norm3."),
];

/// Renames what is in one of these forms; all else stays as it is.
///
/// # Errors
/// A tensor of such a file that has no place here; an attention without one of its three products.
pub fn renamed(given: Named) -> Result<Named> {
    if given.contains_key("conv1.weight") && given.contains_key("layer1.0.conv1.weight") {
        return Ok(of_classifier(given));
    }
    if !given.contains_key(THEIRS) {
        return Ok(given);
    }
    let mut found = Named::new();
    let mut parts: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
    for (name, tensor) in given {
        // What the frozen norms of the reference leave away, too.
        if name.ends_with(".num_batches_tracked") {
            continue;
        }
        let Some(here) = place(&name) else {
            return Err(user!("the weights are in the form of transformers, but {name} has no place in this model"));
        };
        let third = ["q", "k", "v"].iter().enumerate().find_map(|(third, letter)| {
            let (attention, ending) = here.split_once(&format!(".{letter}_proj."))?;
            Some((third, format!("{attention}.in_proj_{ending}")))
        });
        match third {
            Some((third, packed)) => parts.entry(packed).or_default()[third] = Some(tensor),
            None => drop(found.insert(here, tensor)),
        }
    }
    for (name, [q, k, v]) in parts {
        let (Some(q), Some(k), Some(v)) = (q, k, v) else {
            return Err(user!("the weights are in the form of transformers, but lack q, k or v of {name}"));
        };
        found.insert(name, Tensor::f_cat(&[q, k, v], 0)?);
    }
    Ok(found)
}

/// The name here; of q, k and v with the ending that it has there.
fn place(name: &str) -> Option<String> {
    for (there, here, last) in HALVES {
        let Some((layer, inner)) = name.strip_prefix(there).and_then(|rest| rest.split_once('.')) else { continue };
        let known = OF_LAYERS.into_iter().chain([("final_layer_norm.", last)]);
        let (part, rest) = known.into_iter().find_map(|(there, here)| Some((here, inner.strip_prefix(there)?)))?;
        return Some(format!("{here}{layer}.{part}{}", rest.replace("o_proj.", "out_proj.")));
    }
    let (there, here) = PARTS.iter().find(|(there, _)| name.starts_with(there))?;
    let rest = &name[there.len()..];
    if !here.starts_with(TRUNK) {
        return Some(format!("{here}{rest}"));
    }
    Some(format!("{here}{}", of_trunk(rest)?))
}

/// The trunk's tensors as transformers' own ResNet calls them; timm's names are the reference's.
fn of_trunk(name: &str) -> Option<String> {
    let leaf = |name: &str, conv: &str, norm: &str| match name.split_once('.')? {
        ("convolution", rest) => Some(format!("{conv}.{rest}")),
        ("normalization", rest) => Some(format!("{norm}.{rest}")),
        _ => None,
    };
    if let Some(rest) = name.strip_prefix("embedder.embedder.") {
        return leaf(rest, "conv1", "bn1");
    }
    let Some(rest) = name.strip_prefix("encoder.stages.") else { return Some(name.to_string()) };
    let (stage, rest) = rest.split_once(".layers.")?;
    let (block, rest) = rest.split_once('.')?;
    let inner = match (rest.strip_prefix("shortcut."), rest.strip_prefix("layer.")) {
        (Some(rest), _) => leaf(rest, "downsample.0", "downsample.1")?,
        (_, Some(rest)) => {
            let (place, rest) = rest.split_once('.')?;
            let place = place.parse::<usize>().ok()? + 1;
            leaf(rest, &format!("conv{place}"), &format!("bn{place}"))?
        }
        _ => return None,
    };
    Some(format!("layer{}.{block}.{inner}", stage.parse::<usize>().ok()? + 1))
}

/// A ResNet that classifies (torchvision's, timm's, ours), without its classifier.
fn of_classifier(given: Named) -> Named {
    let kept = given.into_iter().filter(|(name, _)| !name.starts_with("fc."));
    kept.map(|(name, tensor)| (format!("{TRUNK}.{name}"), tensor)).collect()
}
