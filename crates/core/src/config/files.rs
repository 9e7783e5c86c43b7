//! The files that a configuration is made of: the one asked for, and the group files it chooses.

use std::fs;
use std::path::{Path, PathBuf};

use figment::value::Value;

use super::layer::{Layer, at, find, leaves};
use super::nearest::suggestion;
use super::yaml;
use crate::{Error, Result, user};

pub(super) fn read_file(path: &Path) -> Result<Layer> {
    let name = path.display().to_string();
    if path.is_dir() {
        return Err(user!("{name} is a folder; --config needs a YAML file"));
    }
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| user!("{name} is not a text file (no UTF-8); a configuration is YAML"))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new(""));
            let wanted = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let there = yaml_files(folder).into_iter().map(|stem| format!("{stem}.yaml")).collect::<Vec<_>>();
            return Err(user!("there is no file {name}{}", suggestion(&wanted, there.iter().map(String::as_str))));
        }
        Err(error) => return Err(user!("cannot read {name}: {error}")),
    };
    let (dict, lines) = yaml::parse(&text).map_err(|error| match error.line {
        Some(line) => user!("{name}:{line}: {}", error.message),
        None => user!("{name}: {}", error.message),
    })?;
    Ok(Layer { name, key: None, dict, lines })
}

/// Takes the list `defaults: [group/option, …]` out of the file.
pub(super) fn defaults(main: &mut Layer) -> Result<Vec<(String, String)>> {
    let place = at(main, "defaults");
    let form = "write `defaults: [data/mnist, compute/auto]`";
    let list = match main.dict.remove("defaults") {
        None | Some(Value::Empty(..)) => return Ok(vec![]),
        Some(Value::Array(_, list)) => list,
        Some(other) => {
            return Err(user!("{place}: defaults must be a list, found {}; {form}", yaml::flow(&other)));
        }
    };
    let mut chosen: Vec<(String, String)> = Vec::new();
    for item in &list {
        let (group, option) = item
            .as_str()
            .and_then(|text| text.split_once('/'))
            .ok_or_else(|| user!("{place}: defaults has {}, which is not group/option; {form}", yaml::flow(item)))?;
        if chosen.iter().any(|(other, _)| other == group) {
            return Err(user!("{place}: defaults chooses {group} twice; keep one"));
        }
        chosen.push((group.to_string(), option.to_string()));
    }
    Ok(chosen)
}

/// The folder `groups` beside the file or beside one of its parents.
pub(super) fn find_groups(file: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(file).unwrap_or_default();
    let beside = |path: &Path| path.parent().map(|parent| parent.join("groups"));
    file.ancestors().chain(absolute.ancestors()).filter_map(beside).find(|groups| groups.is_dir())
}

pub(super) fn no_groups(by: &str, file: &Path) -> Error {
    user!(
        "{by}: no folder `groups` stands beside {} or beside one of its parents; make one, or take the group out",
        file.display()
    )
}

pub(super) fn is_group(groups: &Path, key: &str) -> bool {
    folders(groups).iter().any(|folder| folder == key)
}

pub(super) fn read_group(groups: &Path, group: &str, option: &str, by: &str) -> Result<Layer> {
    if !is_group(groups, group) {
        let known = folders(groups);
        let near = suggestion(group, known.iter().map(String::as_str));
        return Err(user!("{by}: there is no group {group} in {}{near}", groups.display()));
    }
    let folder = groups.join(group);
    let known = yaml_files(&folder);
    if !known.iter().any(|stem| stem == option) {
        let near = suggestion(option, known.iter().map(String::as_str));
        return Err(user!("{by}: there is no file {option}.yaml in {}{near}", folder.display()));
    }
    let layer = read_file(&folder.join(format!("{option}.yaml")))?;
    if layer.dict.contains_key("defaults") {
        return Err(user!(
            "{}: a group file may not include other groups; take `defaults` out",
            at(&layer, "defaults")
        ));
    }
    if let Some(other) = layer.dict.keys().find(|key| *key != group) {
        return Err(user!(
            "{}: {other}: a file of the group {group} may set nothing outside `{group}:`",
            at(&layer, other)
        ));
    }
    Ok(layer)
}

/// A choice on the command line that the file hides completely would be silently ignored: refused.
pub(super) fn refuse_shadowed(group: &Layer, main: &Layer, name: &str) -> Result<()> {
    let (mut hidden, mut seen) = (None, false);
    for key in leaves(&group.dict) {
        match find(&main.dict, &key) {
            None => seen = true,
            here if here == find(&group.dict, &key) => {}
            Some(_) => hidden = hidden.or(Some(key)),
        }
    }
    match hidden {
        Some(key) if !seen => {
            Err(user!("{name}: changes nothing, since {} sets {key} itself; give {key}=… instead", at(main, &key)))
        }
        _ => Ok(()),
    }
}

pub(super) fn folders(path: &Path) -> Vec<String> {
    names(path, |entry| entry.is_dir().then(|| entry.file_name()).flatten())
}

pub(super) fn yaml_files(path: &Path) -> Vec<String> {
    names(path, |entry| entry.file_stem().filter(|_| entry.extension().is_some_and(|e| e == "yaml")))
}

pub(super) fn names(folder: &Path, name: impl Fn(&Path) -> Option<&std::ffi::OsStr>) -> Vec<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.filter_map(|entry| Some(name(&entry.path())?.to_str()?.to_string())).collect();
    found.sort();
    found
}
