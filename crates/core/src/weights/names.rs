//! Parts of a model by the beginnings of their names, as `freeze` and `optim.lr_scale` take them.

use std::collections::BTreeSet;

use crate::config::nearest;
use crate::{Error, Result};

/// Names that a message lists of one kind, at most.
pub(super) const LISTED: usize = 10;

/// Whether `name` is `prefix` or lies below it. Whole segments count: `layer1` means `layer1.0.conv1.weight` and not
/// `layer10.0.conv1.weight`. A dot at the end of `prefix` changes nothing.
pub fn below_prefix(name: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Refuses prefixes below which none of `names` lies, each with what was probably meant. `key` is where they are written, such as
/// `freeze`.
///
/// # Errors
/// [`Error::User`] that lists them all.
pub fn check_prefixes<'a>(
    key: &str,
    prefixes: impl IntoIterator<Item = &'a str>,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let names: Vec<&str> = names.into_iter().collect();
    let wrong: Vec<String> = prefixes
        .into_iter()
        .filter(|prefix| !names.iter().any(|name| below_prefix(name, prefix)))
        .map(|prefix| format!("{key}: no tensor of this model lies below {prefix:?}{}", near(prefix, &names)))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::User(wrong.join("\n"))) }
}

/// `; did you mean layer1?`, or else the first segments that there are.
fn near(prefix: &str, names: &[&str]) -> String {
    let dots = |name: &str| name.match_indices('.').map(|(dot, _)| dot).collect::<Vec<_>>();
    let known: BTreeSet<&str> =
        names.iter().flat_map(|name| dots(name).into_iter().map(|dot| &name[..dot]).chain([*name])).collect();
    match nearest(prefix, &known.iter().copied().collect::<Vec<_>>()) {
        Some(name) => format!("; did you mean {name}?"),
        None => {
            let first: Vec<&str> = known.iter().copied().filter(|name| !name.contains('.')).collect();
            format!("; there are: {}", some(&first))
        }
    }
}

/// The first ten of a list, and how many there are beyond.
pub(crate) fn some(names: &[&str]) -> String {
    let listed = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_segments_count() {
        for (name, prefix, below) in [
            ("layer1.0.conv1.weight", "layer1", true),
            ("layer1.0.conv1.weight", "layer1.", true),
            ("layer1.0.conv1.weight", "layer1.0.conv1.weight", true),
            ("layer10.0.conv1.weight", "layer1", false),
            ("layer1", "layer1.0", false),
            ("layer1.0", "", false),
            ("layer1.0", "ayer1", false),
        ] {
            assert_eq!(below_prefix(name, prefix), below, "{name} {prefix}");
        }
    }

    #[test]
    fn prefixes_that_match_nothing_are_refused_with_their_neighbours() {
        let names = ["layer1.0.conv1.weight", "layer1.0.conv1.bias", "fc.weight", "fc.bias"];
        check_prefixes("freeze", ["layer1", "fc.weight"], names).unwrap();
        let text = check_prefixes("freeze", ["layr1", "fc", "head"], names).unwrap_err().to_string();
        let expected = "freeze: no tensor of this model lies below \"layr1\"; did you mean layer1?\n\
                        freeze: no tensor of this model lies below \"head\"; there are: fc, layer1";
        assert_eq!(text, expected);
    }

    proptest! {
        /// The definition by segments.
        #[test]
        fn a_prefix_is_the_first_segments(name in "[ab](\\.[ab1]{1,2}){0,3}", prefix in "[ab](\\.[ab1]{1,2}){0,3}") {
            let (name_parts, parts): (Vec<_>, Vec<_>) = (name.split('.').collect(), prefix.split('.').collect());
            prop_assert_eq!(below_prefix(&name, &prefix), name_parts.starts_with(&parts));
        }
    }
}
