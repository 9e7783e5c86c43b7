//! Group files, the file, the environment, the command line: each layer over the one before.

use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Profile, Provider};

use super::files::{defaults, find_groups, is_group, no_groups, read_file, read_group, refuse_shadowed};
use super::layer::{Layer, at, find, remove};
use super::resolved::Resolved;
use super::yaml::{self, Lines, join};
use crate::{Error, Result};

/// The variables that set keys begin so: `REPRO__optim__base_lr=0.1`.
const PREFIX: &str = "REPRO__";

/// `key=value` from the environment or the command line.
struct Assignment {
    name: String,
    key: String,
    value: Value,
}

/// Puts the layers together: the group files that `defaults:` or the command line choose, the file, `REPRO__a__b`
/// variables, `a.b=c` overrides.
///
/// # Errors
/// [`Error::User`] for a file that is missing or no YAML, a wrong `defaults` list, a wrong override.
pub(super) fn compose(
    file: &Path,
    overrides: &[String],
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Resolved> {
    let mut main = read_file(file)?;
    let mut chosen = defaults(&mut main)?;
    let groups = find_groups(file);
    let mut assignments = assignments(overrides, variables)?;

    // `data=fashion_mnist` on a key that is a group picks another file of the group.
    let mut picked = Vec::new();
    assignments.retain(|given| {
        let option = given.value.as_str().filter(|_| groups.as_deref().is_some_and(|g| is_group(g, &given.key)));
        if let Some(option) = option {
            chosen.retain(|(group, _)| *group != given.key);
            chosen.push((given.key.clone(), option.to_string()));
            picked.retain(|(key, _): &(String, String)| *key != given.key);
            picked.push((given.key.clone(), given.name.clone()));
        }
        option.is_none()
    });

    let mut layers = Vec::new();
    for (group, option) in &chosen {
        let by = picked.iter().find(|(key, _)| key == group).map(|(_, name)| name.clone());
        let by = by.unwrap_or_else(|| at(&main, "defaults"));
        let folder = groups.as_deref().ok_or_else(|| no_groups(&by, file))?;
        let layer = read_group(folder, group, option, &by)?;
        if let Some((_, name)) = picked.iter().find(|(key, _)| key == group) {
            refuse_shadowed(&layer, &main, name)?;
        }
        push(&mut layers, layer);
    }
    main.lines.retain(|key, _| key != "defaults" && !key.starts_with("defaults["));
    push(&mut layers, main);
    let (mut wrong, mut rekinded) = (Vec::new(), Vec::new());
    for Assignment { name, key, value } in assignments {
        if let Err(why) = reachable(&layers, &key) {
            wrong.push(format!("{name}: {why}"));
            continue;
        }
        // A kind on its own keeps what the new kind has as well, such as the learning rate of another optimizer.
        let alone = key.strip_suffix(".kind").map(str::to_string);
        let nested = key.rsplit('.').fold(value, |value, part| Value::from(Map::from([(part.to_string(), value)])));
        let dict = nested.into_dict().unwrap_or_default();
        let layer = Layer { name, key: Some(key), dict, lines: Lines::new() };
        match alone {
            Some(block) => {
                rekinded.push(block);
                layers.push(layer);
            }
            None => push(&mut layers, layer),
        }
    }
    if !wrong.is_empty() {
        return Err(Error::User(wrong.join("\n")));
    }
    let figment = merge(&layers);
    Ok(Resolved::new(file.to_owned(), layers, figment, rekinded))
}

pub(super) fn merge(layers: &[Layer]) -> Figment {
    layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer.clone()))
}

/// Puts a layer on top; a block whose `kind` it changes loses what lower layers set in it.
fn push(layers: &mut Vec<Layer>, layer: Layer) {
    drop_replaced(layers, &layer.dict, "");
    layers.push(layer);
}

fn drop_replaced(lower: &mut [Layer], dict: &Dict, path: &str) {
    for (key, value) in dict {
        let Value::Dict(_, block) = value else {
            continue;
        };
        let path = join(path, key);
        let kind = join(&path, "kind");
        let before = lower.iter().rev().find_map(|layer| find(&layer.dict, &kind));
        if block.get("kind").is_some_and(|kind| before.is_some_and(|before| before != kind)) {
            for layer in lower.iter_mut() {
                remove(&mut layer.dict, &path);
                layer.lines.retain(|key, _| !key.strip_prefix(&path).is_some_and(|rest| rest.starts_with(['.', '['])));
            }
        }
        drop_replaced(lower, block, &path);
    }
}

/// Whether an override can set `key`: what lies above it must be blocks, or not be there yet.
fn reachable(layers: &[Layer], key: &str) -> Result<(), String> {
    let merged =
        merge(layers).data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default)).unwrap_or_default();
    for (dot, _) in key.match_indices('.') {
        let above = &key[..dot];
        match find(&merged, above) {
            Some(Value::Array(..)) => {
                return Err(format!(
                    "{above} is a list; its elements cannot be set one by one, give the whole list: {above}=[…]"
                ));
            }
            None | Some(Value::Dict(..) | Value::Empty(..)) => {}
            Some(single) => {
                return Err(format!(
                    "{above} is a single value ({}), not a block, so nothing can be set below it",
                    yaml::flow(single)
                ));
            }
        }
    }
    Ok(())
}

fn assignments(overrides: &[String], variables: impl IntoIterator<Item = (String, String)>) -> Result<Vec<Assignment>> {
    let mut variables: Vec<(String, String)> =
        variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    let variables = variables.into_iter().map(|(variable, value)| {
        let key = variable[PREFIX.len()..].replace("__", ".");
        (format!("variable {variable}"), format!("{key}={value}"))
    });
    let overrides = overrides.iter().map(|text| (format!("command line: {text}"), text.clone()));
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (name, text) in variables.chain(overrides) {
        match split_assignment(&text).and_then(|(key, value)| match yaml::parse_value(value) {
            Ok(value) => Ok((key.to_string(), value)),
            Err(error) => Err(format!(
                "cannot read the value: {}; put a text with special signs in quotes: {key}='\"…\"'",
                error.message
            )),
        }) {
            Ok((key, value)) => found.push(Assignment { name, key, value }),
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(Error::User(wrong.join("\n"))) }
}

/// Splits `a.b=c` into its dotted key and the value's text.
pub(super) fn split_assignment(text: &str) -> Result<(&str, &str), String> {
    let (key, value) =
        text.split_once('=').ok_or("has no `=`; write key=value, such as seed=1 or optim.base_lr=0.1")?;
    let key = key.trim();
    if key.is_empty() {
        return Err("the key is empty; write key=value".to_string());
    }
    if key == "defaults" || key.starts_with("defaults.") {
        return Err("defaults cannot be set here; choose a group file by its group: data=fashion_mnist".to_string());
    }
    if key.split('.').any(|part| part.trim() != part || part.is_empty()) || key.contains(['[', ']']) {
        return Err(format!("`{key}` is not a key; write names joined by single dots, such as optim.base_lr"));
    }
    Ok((key, value))
}
