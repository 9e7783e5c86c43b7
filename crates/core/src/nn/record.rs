//! What each layer did in a forward pass: shapes, counts and, if asked, tensors.
//!
//! Layers report themselves by [`seen`], groups of them by [`block`]. Both look at one flag of the thread and do nothing more unless
//! [`record`] runs on it.
//!
//! A name that reports again in one pass gets a number: `head`, `head#2`, `head#3`; its parameters are counted once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::AddAssign;

use tch::{Tensor, nn};

use crate::{Result, user};

/// The end of the name by which an attention reports its weights `[N, heads, L, L]` (by [`seen`], where [`keeps`] says that they are wanted).
pub const ATTENTION: &str = ".attn.weights";

/// What a layer has and does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Numbers that training changes.
    pub parameters: u64,
    /// Multiply-adds of the call: convolutions, products of matrices and of attention; norms and softmax not.
    pub multiply_adds: u64,
    /// Connections as LeNet's paper counts them: the inputs of each unit, its bias among them.
    pub connections: Option<u64>,
}

impl Counts {
    /// Of a product or a convolution: each number of `y` is a sum over the numbers of one `weight[i]`.
    pub fn product(y: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Self {
        let each = weight.size().iter().skip(1).product::<i64>() as u64;
        let parameters = trainable([weight].into_iter().chain(bias));
        Counts { parameters, multiply_adds: y.numel() as u64 * each, connections: None }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.parameters += other.parameters;
        self.multiply_adds += other.multiply_adds;
        self.connections = match (self.connections, other.connections) {
            (None, None) => None,
            (ours, theirs) => Some(ours.unwrap_or(0) + theirs.unwrap_or(0)),
        };
    }
}

/// How many numbers of these tensors training changes.
pub fn trainable<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> u64 {
    tensors.into_iter().filter(|tensor| tensor.requires_grad()).map(|tensor| tensor.numel() as u64).sum()
}

/// One call of a layer or a block.
#[derive(Debug)]
pub struct Seen {
    /// As in the state dict, from the second call on with its number: `layer1.0.conv1`, `head#2`.
    pub name: String,
    /// Shape of what left it.
    pub output: Vec<i64>,
    /// Its own; of a block, those of all that it holds.
    pub counts: Counts,
    /// Whether it is a block of others.
    pub block: bool,
    /// Blocks around it.
    pub depth: usize,
    /// A copy of what left it, without its history, if it was to be kept. Of a layer before any activation that follows.
    pub value: Option<Tensor>,
}

struct Recorder {
    keep: Box<dyn Fn(&str) -> bool>,
    calls: BTreeMap<String, u64>,
    seen: Vec<Seen>,
    depth: usize,
    /// Trainable numbers that no pass uses: see [`fixed`].
    fixed: u64,
}

impl Recorder {
    /// The name of the next call.
    fn next(&self, name: &str) -> String {
        match self.calls.get(name) {
            None => name.to_owned(),
            Some(calls) => format!("{name}#{}", calls + 1),
        }
    }

    /// The same, and counts it.
    fn call(&mut self, name: &str) -> String {
        let numbered = self.next(name);
        *self.calls.entry(name.to_owned()).or_default() += 1;
        numbered
    }

    fn push(&mut self, name: String, block: bool, output: &Tensor, counts: Counts) {
        // A copy: what follows may change the tensor in place.
        let value = (self.keep)(&name).then(|| output.detach().copy());
        self.seen.push(Seen { name, output: output.size(), counts, block, depth: self.depth, value });
    }
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// The recorder of this thread, if one is on.
fn with<T>(act: impl FnOnce(&mut Recorder) -> T) -> Option<T> {
    RECORDER.with(|recorder| recorder.borrow_mut().as_mut().map(act))
}

/// Puts back what was there before, also when a pass panics.
struct Restore(Option<Recorder>);

impl Restore {
    /// Takes the place of the thread's recorder.
    fn replace(recorder: Recorder) -> Self {
        ON.set(true);
        Restore(RECORDER.replace(Some(recorder)))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        ON.set(self.0.is_some());
        RECORDER.set(self.0.take());
    }
}

fn run<T>(keep: impl Fn(&str) -> bool + 'static, run: impl FnOnce() -> T) -> (T, Recorder) {
    let empty = || Recorder { keep: Box::new(|_| false), calls: BTreeMap::new(), seen: Vec::new(), depth: 0, fixed: 0 };
    let restore = Restore::replace(Recorder { keep: Box::new(keep), ..empty() });
    let result = run();
    let recorder = RECORDER.take().unwrap_or_else(empty);
    drop(restore);
    (result, recorder)
}

/// Runs with a recorder on: the layers and blocks that reported themselves, in the order in which they were done, and copies of those whose
/// (numbered) name `keep` asks for. One inside another records for itself alone.
pub fn record<T>(keep: impl Fn(&str) -> bool + 'static, pass: impl FnOnce() -> T) -> (T, Vec<Seen>) {
    let (result, recorder) = run(keep, pass);
    (result, recorder.seen)
}

/// Runs, and takes copies of what left the layers and blocks that `patterns` name; `*` stands for any part of a name.
///
/// # Errors
/// Those of `pass`; a pattern that no name matches, with the names that are nearest to it.
pub fn tap<T>(patterns: &[String], pass: impl FnOnce() -> Result<T>) -> Result<(T, BTreeMap<String, Tensor>)> {
    let wanted = patterns.to_vec();
    let (result, seen) = record(move |name| wanted.iter().any(|pattern| matches(pattern, name)), pass);
    let result = result?;
    for pattern in patterns {
        if !seen.iter().any(|seen| matches(pattern, &seen.name)) {
            let mut names: Vec<&str> = seen.iter().map(|seen| seen.name.as_str()).collect();
            names.sort_by(|a, b| strsim::jaro_winkler(pattern, b).total_cmp(&strsim::jaro_winkler(pattern, a)));
            let near = names.into_iter().take(3).collect::<Vec<_>>().join(", ");
            return Err(user!("no layer or block is called {pattern:?}; the nearest names are {near}"));
        }
    }
    Ok((result, seen.into_iter().filter_map(|seen| Some((seen.name, seen.value?))).collect()))
}

/// Whether `*`s in the pattern can stand for parts of the name so that both are equal.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| matches(after, &rest[at..]))
        }),
    }
}

/// Numbers that training changes in the model that `build` makes into the store: of its tensors alone, without a pass.
///
/// # Errors
/// Those of `build`.
pub fn parameters<T>(build: impl FnOnce(&nn::Path) -> Result<T>) -> Result<u64> {
    let store = nn::VarStore::new(tch::Device::Cpu);
    let (built, recorder) = run(|_| false, || build(&store.root()));
    built?;
    Ok(trainable(store.variables().values()) - recorder.fixed)
}

/// Reports, while a layer is built, how many numbers of its trainable tensors never change, such as the connections that a table leaves out.
pub fn fixed(numbers: u64) {
    with(|recorder| recorder.fixed += numbers);
}

/// Reports a layer's output.
pub fn seen(name: &str, output: &Tensor, counts: impl FnOnce() -> Counts) {
    if !ON.get() {
        return;
    }
    let mut counts = counts();
    with(|recorder| {
        let first = !recorder.calls.contains_key(name);
        let name = recorder.call(name);
        counts.parameters *= u64::from(first);
        recorder.push(name, false, output, counts);
    });
}

/// Whether the next output under this name is kept. A layer that is fused with what follows then takes them one by one.
pub fn keeps(name: &str) -> bool {
    ON.get() && with(|recorder| (recorder.keep)(&recorder.next(name))).unwrap_or(false)
}

/// Runs a block of layers and reports its output under `name`, with the counts of all that it holds.
pub fn block(name: &str, run: impl FnOnce() -> Tensor) -> Tensor {
    if !ON.get() {
        return run();
    }
    let begun = with(|recorder| {
        recorder.depth += 1;
        (recorder.call(name), recorder.seen.len())
    });
    let output = run();
    if let Some((name, start)) = begun {
        with(|recorder| {
            let mut counts = Counts::default();
            recorder.seen[start..]
                .iter()
                .filter(|seen| seen.depth == recorder.depth)
                .for_each(|seen| counts += seen.counts);
            recorder.depth -= 1;
            recorder.push(name, true, &output, counts);
        });
    }
    output
}

/// The state-dict name of what is built under `path`.
pub fn name(path: &nn::Path) -> String {
    path.components().collect::<Vec<_>>().join(".")
}
