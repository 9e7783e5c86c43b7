//! What a run starts from: initial weights, a classifier of its own, parts that do not learn.

use super::names::{below_prefix, check_prefixes};
use super::{Load, Named, below, hash};
use crate::config::Head;
use crate::setup::Setup;
use crate::{Result, user};

/// Copies the part `model.` of the state that a run or stage starts from, if there is one, into the model, and freezes what `freeze`
/// names: those parameters get no gradients, so that a norm among them keeps its statistics, too. To be called before the optimizer is
/// built, which takes the parameters that have gradients. `head` names the classifier, such as `fc`; whether it starts fresh is
/// `init.head`'s. What is not as in the file is noted.
///
/// # Errors
/// Tensors that do not fit ([`Load::copy`]); a prefix in `freeze` that matches nothing; nothing left to train.
pub fn begin(model: &Named, init: Option<&Named>, head: &[&str], setup: &Setup) -> Result<()> {
    if let Some(init) = init {
        let classifier = match setup.fresh_head.get() {
            true => Some(Head::Fresh),
            false => setup.settings.init.as_ref().and_then(|init| init.head),
        };
        let given = below(init, "model.");
        // Known before the classes are compared; those that differ in number start fresh by themselves.
        let of_head = |name: &String| head.iter().any(|prefix| below_prefix(name, prefix));
        setup.takes_head.set(model.keys().any(of_head) && !setup.fresh_head.get());
        let load = Load { head, classifier, ..Load::of("the file of initial weights") };
        load.copy(model, &given)?.into_iter().for_each(|note| setup.note(note));
    }
    let freeze = setup.settings.freeze.as_deref().unwrap_or_default();
    // What has no gradient, such as the running mean of a norm, cannot be frozen by itself: its norm is.
    let learn = model.iter().filter(|(_, tensor)| tensor.requires_grad()).map(|(name, _)| name.as_str());
    check_prefixes("freeze", freeze.iter().map(String::as_str), learn)?;
    for (_, tensor) in frozen(model, freeze).filter(|(_, tensor)| tensor.requires_grad()) {
        // The handle shares its flag with the model's own.
        let _ = tensor.shallow_clone().f_set_requires_grad(false)?;
    }
    if !freeze.is_empty() && !model.values().any(|tensor| tensor.requires_grad()) {
        return Err(user!("freeze: {} leave nothing to train", freeze.join(", ")));
    }
    Ok(())
}

/// [`hash`] of the parameters and buffers that `freeze` names: the same before and after a training that leaves them alone.
///
/// # Errors
/// Those of [`hash`].
pub fn frozen_hash(model: &Named, freeze: &[String]) -> Result<String> {
    hash(&frozen(model, freeze).map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect())
}

fn frozen<'a>(model: &'a Named, freeze: &'a [String]) -> impl Iterator<Item = (&'a String, &'a tch::Tensor)> {
    model.iter().filter(|(name, _)| freeze.iter().any(|prefix| below_prefix(name, prefix)))
}
