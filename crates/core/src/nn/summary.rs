//! The layer table of a model, from one recorded pass.

use serde::Serialize;
use tch::nn::VarStore;

use super::record::{Seen, record};
use crate::Result;

/// A line of the table.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Row {
    /// The block or, outside of blocks, the layer.
    pub name: String,
    /// Output shape without the batch.
    pub output: Vec<i64>,
    /// Numbers that training changes.
    pub parameters: u64,
    /// Multiply-adds of one example: attention products counted, norms and softmax not.
    pub multiply_adds: u64,
    /// Connections as the paper counts them, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
}

/// A line for each outermost block and for each layer outside of blocks. `pass` sends one example through the model in `store`; gradients
/// are not needed.
///
/// Trainable tensors that no layer reported (position embeddings, class tokens) count for the block whose name they begin with, else they
/// have a line of their own, at the end: the sum is that of the store.
///
/// # Errors
/// Those of `pass`.
pub fn summary<T>(store: &VarStore, pass: impl FnOnce() -> Result<T>) -> Result<Vec<Row>> {
    let (passed, seen) = record(|_| false, || tch::no_grad(pass));
    passed?;
    let outermost = seen.iter().filter(|seen| seen.depth == 0);
    let mut rows: Vec<Row> = outermost.map(row).collect();
    let mut rest: Vec<_> = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    rest.sort_by(|a, b| a.0.cmp(&b.0));
    let within = |tensor: &str, name: &str| tensor.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    for (name, tensor) in rest {
        if seen.iter().any(|seen| !seen.block && within(&name, &seen.name)) {
            continue;
        }
        let parameters = tensor.numel() as u64;
        match rows.iter_mut().find(|row| within(&name, &row.name)) {
            Some(row) => row.parameters += parameters,
            None => rows.push(Row { name, output: tensor.size(), parameters, multiply_adds: 0, connections: None }),
        }
    }
    Ok(rows)
}

fn row(seen: &Seen) -> Row {
    Row {
        name: seen.name.clone(),
        output: seen.output.iter().skip(1).copied().collect(),
        parameters: seen.counts.parameters,
        multiply_adds: seen.counts.multiply_adds,
        connections: seen.counts.connections,
    }
}
