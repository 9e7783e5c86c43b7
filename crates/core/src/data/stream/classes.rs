//! Classes by the names of their folders.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::classes::IMAGENETTE;
use crate::weights::some;
use crate::{Error, user};

/// Sets that are image folders, by name, with the names of the classes that their folders stand for.
pub(super) const FOLDERS: [(&str, &[(&str, &str)]); 1] = [("imagenette", &IMAGENETTE)];

/// The classes that pictures are sorted into.
#[derive(Debug)]
pub(super) struct Classes {
    /// `data.name`.
    set: String,
    /// By label.
    pub(super) names: Vec<String>,
    /// By name, in one Unicode form.
    labels: HashMap<String, u32>,
    /// Whether they are those of given weights.
    of_weights: bool,
}

impl Classes {
    /// The set's own: its folders in this order.
    pub(super) fn own(set: &str, folders: &[String]) -> Self {
        Self::new(set, folders.iter().map(|folder| called(set, folder)).collect(), false)
    }

    /// Those that given weights know, by label.
    pub(super) fn of_weights(set: &str, names: &[String]) -> Self {
        Self::new(set, names.to_vec(), true)
    }

    fn new(set: &str, names: Vec<String>, of_weights: bool) -> Self {
        let labels = names.iter().zip(0..).map(|(name, label)| (one_form(name), label)).collect();
        Self { set: set.to_string(), names, labels, of_weights }
    }

    /// The label of what lies in `folder`.
    pub(super) fn label(&self, folder: &str) -> Option<u32> {
        self.labels.get(&one_form(&called(&self.set, folder))).copied()
    }

    /// Why pictures of the class `unknown`, one of `here` at `place`, cannot be used.
    pub(super) fn refuse(&self, place: &str, unknown: &str, here: &[String]) -> Error {
        let list = |names: &[String]| some(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let (known, here) = (list(&self.names), list(here));
        if self.of_weights {
            user!(
                "{place}: {unknown} is no class of these weights. They know {known}; here are {here}. Give the class the name that the weights \
                 have for it, or remove it"
            )
        } else {
            user!(
                "{place}: {unknown} is a class that `train` lacks; a network cannot be tested on what it never learns. `train` has {known}; here \
                 are {here}. Remove it, or add the class there"
            )
        }
    }
}

/// What the class of a folder is called: by the folder, or as [`FOLDERS`] has it.
fn called(set: &str, folder: &str) -> String {
    let known = FOLDERS.iter().find(|(name, _)| *name == set).into_iter().flat_map(|(_, known)| known.iter());
    let word = known.clone().find(|(name, _)| *name == folder).map(|(_, word)| *word);
    word.unwrap_or(folder).to_string()
}

/// A text in the one of its Unicode forms that is composed: folders that look alike may be written in two.
fn one_form(text: &str) -> String {
    text.nfc().collect()
}
