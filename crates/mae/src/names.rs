//! Weights as transformers has them (ViTMAEForPreTraining, version 5), by the reference's names.

use std::collections::BTreeMap;

use repro::weights::Named;
use repro::{Result, user};
use tch::Tensor;

/// Beginnings of names there, and here.
const PARTS: [(&str, &str); 13] = [
    ("vit.embeddings.cls_token", "cls_token"),
    ("vit.embeddings.position_embeddings", "pos_embed"),
    ("vit.embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("vit.encoder.layer.", "blocks."),
    ("vit.layers.", "blocks."),
    ("vit.layernorm.", "norm."),
    ("decoder.mask_token", "mask_token"),
    ("decoder.decoder_embed.", "decoder_embed."),
    ("decoder.decoder_pos_embed", "decoder_pos_embed"),
    ("decoder.decoder_layers.", "decoder_blocks."),
    // What save_pretrained of 5.24 makes of it.
    ("decoder.decoder_encoder.layer.", "decoder_blocks."),
    ("decoder.decoder_norm.", "decoder_norm."),
    ("decoder.decoder_pred.", "decoder_pred."),
];

/// Parts of a block there, in published files and in the library's present form, and here.
const OF_BLOCKS: [(&str, &str); 7] = [
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("attention.o_proj.", "attn.proj."),
    ("mlp.", "mlp."),
];

/// q, k and v likewise.
const OF_QKV: [[&str; 3]; 2] = [
    ["attention.attention.query.", "attention.attention.key.", "attention.attention.value."],
    ["attention.q_proj.", "attention.k_proj.", "attention.v_proj."],
];

/// Renames weights of transformers, whose q, k and v are three tensors; all others stay as they are.
///
/// # Errors
/// A tensor of such a file that has no place here; a block without q, k or v.
pub fn renamed(given: Named) -> Result<Named> {
    if !given.contains_key(PARTS[0].0) {
        return Ok(given);
    }
    let mut found = Named::new();
    let mut parts: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
    for (name, tensor) in given {
        let alien = || user!("the weights are in the form of transformers, but {name} has no place in this model");
        let (there, here) = PARTS.iter().find(|(there, _)| name.starts_with(there)).ok_or_else(alien)?;
        let rest = &name[there.len()..];
        let block = here.ends_with("blocks.").then(|| rest.split_once('.')).flatten();
        let Some((place, inner)) = block else {
            found.insert(format!("{here}{rest}"), tensor);
            continue;
        };
        let mut third = OF_QKV.iter().flat_map(|names| names.iter().enumerate());
        if let Some((slot, ending)) = third.find_map(|(slot, there)| Some((slot, inner.strip_prefix(there)?))) {
            parts.entry(format!("{here}{place}.attn.qkv.{ending}")).or_default()[slot] = Some(tensor);
            continue;
        }
        let (inner, ending) =
            OF_BLOCKS.iter().find_map(|(there, here)| Some((here, inner.strip_prefix(there)?))).ok_or_else(alien)?;
        found.insert(format!("{here}{place}.{inner}{ending}"), tensor);
    }
    for (name, [q, k, v]) in parts {
        let (Some(q), Some(k), Some(v)) = (q, k, v) else {
            return Err(user!("the weights are in the form of transformers, but lack q, k or v of {name}"));
        };
        found.insert(name, Tensor::f_cat(&[q, k, v], 0)?);
    }
    Ok(found)
}
