//! What a run begins with: weights of other classes, or of the trunk alone.

use repro::setup::Setup;
use repro::weights::{Named, below_prefix};

/// The part `model.` of the state to begin with, made whole by the model's own fresh tensors, and what is fresh is noted:
///
/// * outputs for another number of classes, by their prefixes `heads`;
/// * all sections behind the last of a file that is a network's beginning, such as darknet53.conv.74.
///
/// What fits in neither way stays as it is, to be refused where it is copied.
pub fn completed(init: &Named, model: &Named, heads: &[String], setup: &Setup) -> Named {
    let mut state: Named = init.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    let last = init.keys().filter_map(|name| section(name.strip_prefix("model.")?)).max();
    let most = model.keys().filter_map(|name| section(name)).max();
    if let (Some(last), Some(most)) = (last, most)
        && last < most
    {
        let behind = model.iter().filter(|(name, _)| section(name).is_some_and(|at| at > last));
        state.extend(behind.map(|(name, tensor)| (format!("model.{name}"), tensor.detach().copy())));
        setup.note(format!("the weights to begin with end at section {last}: the sections behind it start fresh"));
    }
    for head in heads {
        let own = || model.iter().filter(|(name, _)| below_prefix(name, head));
        let differ = |(name, tensor): (&String, &tch::Tensor)| {
            let given = state.get(&format!("model.{name}")).map(tch::Tensor::size);
            // Another width of what comes in is another network.
            given
                .is_some_and(|given| given.first() != tensor.size().first() && given.get(1..) == tensor.size().get(1..))
        };
        if own().next().is_some() && own().all(differ) {
            state.extend(own().map(|(name, tensor)| (format!("model.{name}"), tensor.detach().copy())));
            setup.note(format!("{head} starts fresh: the weights to begin with are of another number of classes"));
        }
    }
    state
}

/// The number of the section that a tensor belongs to.
fn section(name: &str) -> Option<usize> {
    name.strip_prefix("module_list.")?.split('.').next()?.parse().ok()
}
