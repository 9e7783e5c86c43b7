//! Parameters by name, in groups by rule.

use tch::Tensor;
use tch::nn::VarStore;
use torch_ext::TensorList;

use crate::Result;

/// What a rule says of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// The learning rate is multiplied by this.
    pub lr_scale: f64,
    /// Weight decay itself, usually [`super::OptimConfig::weight_decay`] or 0.
    pub weight_decay: f64,
    /// Whether LARS adapts the rate to the tensor's norm.
    pub adapt: bool,
}

impl Group {
    /// The rate as it is, adapted where the rule adapts, and this decay.
    pub fn of(weight_decay: f64) -> Self {
        Group { lr_scale: 1.0, weight_decay, adapt: true }
    }
}

/// One trainable tensor.
#[derive(Debug)]
pub struct Param {
    /// Its name in the store.
    pub name: String,
    /// The tensor itself, shared with the model.
    pub tensor: Tensor,
    /// How it learns.
    pub group: Group,
}

/// The trainable tensors of a model, sorted by name.
#[derive(Debug)]
pub struct Params {
    params: Vec<Param>,
    list: TensorList,
}

impl Params {
    /// The tensors of the store that require gradients now; `rule` sees name and tensor, and leaves those to which it gives nothing to another
    /// optimizer. Move and freeze the model before.
    /// # Errors
    /// No memory.
    pub fn new(store: &VarStore, rule: impl Fn(&str, &Tensor) -> Option<Group>) -> Result<Self> {
        let mut variables: Vec<_> =
            store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let param = |(name, tensor): (String, Tensor)| rule(&name, &tensor).map(|group| Param { name, tensor, group });
        let params: Vec<Param> = variables.into_iter().filter_map(param).collect();
        let list = TensorList::new(&params.iter().map(|param| &param.tensor).collect::<Vec<_>>())?;
        Ok(Self { params, list })
    }

    /// The parameters, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Param> {
        self.params.iter()
    }

    /// The tensors, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.params.iter().map(|param| &param.tensor)
    }

    /// All of them for libtorch's list operations.
    pub fn list(&self) -> &TensorList {
        &self.list
    }

    /// Makes every gradient undefined, so that a parameter which the loss does not reach is not moved by momentum or decay.
    pub fn zero_grad(&self) {
        self.list.clear_grads();
    }

    /// The parameters that learn alike, groups in the order of their first member.
    pub(super) fn groups(&self) -> Vec<(Group, Vec<&Param>)> {
        let mut groups: Vec<(Group, Vec<&Param>)> = Vec::new();
        for param in &self.params {
            match groups.iter_mut().find(|(known, _)| *known == param.group) {
                Some((_, members)) => members.push(param),
                None => groups.push((param.group, vec![param])),
            }
        }
        groups
    }
}

/// Names and tensors of one group and a fresh list of them.
pub(super) fn split(members: &[&Param]) -> Result<(Vec<String>, Vec<Tensor>, TensorList)> {
    let names = members.iter().map(|param| param.name.clone()).collect();
    let tensors: Vec<Tensor> = members.iter().map(|param| param.tensor.detach()).collect();
    let list = TensorList::new(&members.iter().map(|param| &param.tensor).collect::<Vec<_>>())?;
    Ok((names, tensors, list))
}
