//! Weights of DDPM's network by other names, to those of diffusers.

use repro::weights::Named;

/// Attention as diffusers called it until 2023, and what follows of it here.
const OLDER: [(&str, &str); 4] =
    [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];

/// Parts of blocks in the conversion of the authors' weights that ermongroup/ddim and pesser/pytorch_diffusion use, and here.
const OF_BLOCKS: [(&str, &str); 2] = [("temb_proj", "time_emb_proj"), ("nin_shortcut", "conv_shortcut")];
/// Parts of attention likewise.
const OF_ATTENTION: [(&str, &str); 5] =
    [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];

fn word<'a>(table: &[(&str, &'a str)], word: &'a str) -> &'a str {
    table.iter().find(|(there, _)| *there == word).map_or(word, |(_, here)| here)
}

/// A name of that conversion, for a network of so many levels; `None`: it is none of its.
fn converted(name: &str, levels: usize) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    Some(match parts[..] {
        ["temb", "dense", "0", end] => format!("time_embedding.linear_1.{end}"),
        ["temb", "dense", "1", end] => format!("time_embedding.linear_2.{end}"),
        ["norm_out", end] => format!("conv_norm_out.{end}"),
        ["mid", "attn_1", part, end] => format!("mid_block.attentions.0.{}.{end}", word(&OF_ATTENTION, part)),
        ["mid", "block_1", part, end] => format!("mid_block.resnets.0.{}.{end}", word(&OF_BLOCKS, part)),
        ["mid", "block_2", part, end] => format!("mid_block.resnets.1.{}.{end}", word(&OF_BLOCKS, part)),
        [way @ ("down" | "up"), level, ref rest @ ..] => {
            let level: usize = level.parse().ok()?;
            // There the way up counts levels from the largest pictures, here from the smallest.
            let level = if way == "up" { levels.checked_sub(1 + level)? } else { level };
            let rest = match rest {
                ["block", place, part, end] => format!("resnets.{place}.{}.{end}", word(&OF_BLOCKS, part)),
                ["attn", place, part, end] => format!("attentions.{place}.{}.{end}", word(&OF_ATTENTION, part)),
                [step @ ("downsample" | "upsample"), "conv", end] => format!("{step}rs.0.conv.{end}"),
                _ => return None,
            };
            format!("{way}_blocks.{level}.{rest}")
        }
        _ => return None,
    })
}

/// Renames weights of DDPM's network in two other forms: diffusers' files with attention's older names, and the conversion of the authors' weights
/// by pesser/pytorch_diffusion that ermongroup/ddim uses, whose attention is convolutions of 1 × 1, `[C, C, 1, 1]`. All others stay as they are.
pub fn renamed(given: Named) -> Named {
    let level = |name: &String| name.strip_prefix("down.")?.split('.').next()?.parse::<usize>().ok();
    let levels = given.keys().filter_map(level).max().map_or(0, |last| last + 1);
    let rename = |name: String| {
        let older = OLDER.iter().find(|(there, _)| name.contains(".attentions.") && name.contains(there));
        match older {
            Some((there, here)) => name.replace(there, here),
            None => converted(&name, levels).unwrap_or(name),
        }
    };
    let renamed = given.into_iter().map(|(name, tensor)| {
        let name = rename(name);
        let matrix = name.contains(".attentions.") && tensor.dim() == 4;
        (name, if matrix { tensor.flatten(1, 3) } else { tensor })
    });
    renamed.collect()
}
