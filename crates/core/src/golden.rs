//! What holds a model against another implementation: weights and inputs made from names by an integer hash, so that both build the very
//! same model, and comparisons for the tests of parity, which panic as assertions do.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output};

use tch::{Kind, Tensor, nn};

use crate::optim::{Group, OptimConfig};
use crate::weights::Named;
use crate::{Error, Result, user, weights};

/// Sum of the key's bytes, each times its place counted from 1, modulo 1000.
fn hash(key: &str) -> u32 {
    (key.bytes().zip(1u32..).fold(0u64, |sum, (byte, place)| sum + u64::from(place) * u64::from(byte)) % 1000) as u32
}

/// `n` values in [−0.5, 0.5) that depend on the key alone.
fn uniform(key: &str, n: usize) -> Vec<f64> {
    let offset = hash(key).wrapping_mul(40503).wrapping_add(12345);
    let value = |i: usize| {
        let mut x = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(offset);
        x ^= x >> 16;
        x = x.wrapping_mul(2_246_822_519);
        x ^= x >> 13;
        f64::from(x) / 4_294_967_296.0 - 0.5
    };
    (0..n).map(value).collect()
}

/// An input in [−1, 1), float64.
pub fn input(key: &str, shape: &[i64]) -> Tensor {
    Tensor::from_slice(&uniform(key, shape.iter().product::<i64>() as usize)).view(shape) * 2.0
}

/// Fills every weight and buffer of a store; matrices and kernels get variance 1 / fan-in, counters 0.
pub fn fill(vs: &nn::VarStore) {
    for (name, mut tensor) in vs.variables() {
        let shape = tensor.size();
        let u = Tensor::from_slice(&uniform(&name, tensor.numel())).view(shape.as_slice()).to_kind(Kind::Double);
        let value = match shape.as_slice() {
            _ if name.ends_with("running_var") => u * 0.2 + 1.0,
            _ if name.ends_with("running_mean") => u * 0.2,
            [_] if name.ends_with("weight") => u * 0.2 + 1.0,
            [_] => u * 0.1,
            [_, rest @ ..] => u * (12.0 / rest.iter().product::<i64>() as f64).sqrt(),
            [] => u * 0.0,
        };
        tch::no_grad(|| tensor.copy_(&value));
    }
}

/// The labels of `count` examples.
pub fn labels(count: i64, classes: i64) -> Tensor {
    (Tensor::arange(count, (Kind::Int64, tch::Device::Cpu)) * 7 + 3).remainder(classes)
}

/// Elements that [`sample`] keeps.
const KEPT: i64 = 32;

/// A tensor in 33 numbers: its norm, and 32 elements at even distances (zeros behind shorter ones).
pub fn sample(tensor: &Tensor) -> Tensor {
    let flat = tensor.detach().flatten(0, -1);
    let count = flat.size()[0].min(KEPT);
    let index =
        (Tensor::arange(count, (Kind::Int64, flat.device())) * flat.size()[0]).divide_scalar_mode(count, "floor");
    let picked = flat.index_select(0, &index.to_kind(Kind::Int64)).constant_pad_nd([0, KEPT - count]);
    Tensor::cat(&[flat.to_kind(Kind::Double).norm().to_kind(flat.kind()).view(1), picked], 0)
}

/// A row of [`sample`] for each tensor, in the order of the names.
pub fn samples(tensors: &Named) -> Tensor {
    Tensor::stack(&tensors.values().map(sample).collect::<Vec<_>>(), 0)
}

/// How far ours may be from the twin's: |ours − twin| ≤ relative · |twin| + absolute.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Of the twin's value.
    pub relative: f64,
    /// Beside it.
    pub absolute: f64,
}

/// Float32 on both sides. Sums of some thousand terms near 1 leave 1e-7 where they cancel.
pub const SINGLE: Tolerance = Tolerance { relative: 1e-4, absolute: 1e-7 };
/// Float64 on both sides.
pub const DOUBLE: Tolerance = Tolerance { relative: 1e-6, absolute: 1e-12 };
/// Float64 against numbers that are kept in float32.
pub const ROUNDED: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-12 };

impl Tolerance {
    /// The same, and as much of the values' root mean square: for what has values near 0 that are differences of large ones.
    pub fn of_scale(self, values: &Tensor) -> Self {
        let scale = values.to_kind(Kind::Double).square().mean(Kind::Double).double_value(&[]).sqrt();
        Tolerance { absolute: self.absolute + self.relative * scale, ..self }
    }
}

/// Holds ours against the twin's, element by element.
///
/// # Panics
/// Names the tensor and the largest difference.
pub fn assert_close(name: &str, ours: &Tensor, twin: &Tensor, tolerance: Tolerance) {
    assert_eq!(ours.size(), twin.size(), "{name}");
    let (ours, twin) = (ours.detach().to_kind(Kind::Double), twin.to_kind(Kind::Double));
    let gap = (&ours - &twin).abs();
    let excess = (&gap - twin.abs() * tolerance.relative - tolerance.absolute).max().double_value(&[]);
    // NaN is not at most 0.
    assert!(excess <= 0.0, "{name} differs by up to {}, {excess} too much", gap.max().double_value(&[]));
}

/// Holds tensors against the [`samples`] of the twin's: each as a whole by its norm, and its elements by their root mean square.
///
/// # Panics
/// Names the tensor and the largest difference.
pub fn assert_samples_close(what: &str, ours: &Named, twin: &Tensor, tolerance: Tolerance) {
    assert_eq!(ours.len() as i64, twin.size()[0], "{what}: {:?}", ours.keys());
    for (row, (name, tensor)) in ours.iter().enumerate() {
        let (ours, twin) = (sample(tensor), twin.get(row as i64));
        let name = format!("{what}: {name}");
        let kept = KEPT.min(tensor.numel() as i64);
        assert_close(&name, &ours.narrow(0, 0, 1), &twin.narrow(0, 0, 1), tolerance);
        let (ours, twin) = (ours.narrow(0, 1, kept), twin.narrow(0, 1, kept));
        assert_close(&name, &ours, &twin, tolerance.of_scale(&twin));
    }
}

/// All tensors of a store, by name.
pub fn variables(store: &nn::VarStore) -> Named {
    store.variables().into_iter().collect()
}

/// `grad.<name>` of every trainable tensor.
pub fn gradients(store: &nn::VarStore) -> Named {
    let trained = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
    trained.map(|(name, tensor)| (format!("grad.{name}"), tensor.grad())).collect()
}

/// Shape, kind and dtype of every tensor, as PyTorch's state dict has them: `64x3x7x7\tparam\tfloat32`.
pub fn state_dict(store: &nn::VarStore) -> BTreeMap<String, String> {
    let describe = |tensor: &Tensor| {
        let shape: Vec<_> = tensor.size().iter().map(i64::to_string).collect();
        let shape = if shape.is_empty() { "scalar".into() } else { shape.join("x") };
        let dtype = if tensor.kind() == Kind::Int64 { "int64" } else { "float32" };
        format!("{shape}\t{}\t{dtype}", if tensor.requires_grad() { "param" } else { "buffer" })
    };
    store.variables().iter().map(|(name, tensor)| (name.clone(), describe(tensor))).collect()
}

/// The state dicts of a gzipped table, by model: a heading, then lines of model, name, shape, kind and dtype.
///
/// # Errors
/// A file that is missing or damaged.
pub fn state_dicts(file: &Path) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| flate2::read::GzDecoder::new(file).read_to_string(&mut text))
        .map_err(|e| user!("{}: cannot be read: {e}", file.display()))?;
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        if let [model, name, rest] = line.splitn(3, '\t').collect::<Vec<_>>()[..] {
            found.entry(model.into()).or_default().insert(name.into(), rest.into());
        }
    }
    Ok(found)
}

/// The loss on one batch after each of ten steps on it; every parameter decays.
///
/// # Errors
/// Those of the optimizer.
pub fn ten_losses(store: &nn::VarStore, config: &OptimConfig, loss: impl Fn() -> Tensor) -> Result<Tensor> {
    let group = Group::of(config.weight_decay());
    let params = config.params(store, |_, _| Some(group))?;
    let mut optimizer = config.build(&params)?;
    let mut losses = Vec::new();
    for _ in 0..10 {
        params.zero_grad();
        loss().f_backward()?;
        optimizer.step(config.lr(256))?;
        losses.push(tch::no_grad(&loss));
    }
    Ok(Tensor::f_stack(&losses, 0)?)
}

/// A paper's program, to be run in a folder of its own with one thread.
#[derive(Debug)]
pub struct Program<'a> {
    /// Where it lies.
    pub binary: &'a str,
    /// The experiment that it reads.
    pub config: &'a Path,
}

impl Program<'_> {
    /// `forward` with these weights, inputs and further words, in `folder`, where it leaves `O.safetensors`.
    ///
    /// # Errors
    /// Files that cannot be written; a program that does not start.
    pub fn forward(&self, folder: &Path, weights: &Named, input: &Named, words: &[&str]) -> Result<Output> {
        weights::write(&folder.join("W.safetensors"), weights, None)?;
        weights::write(&folder.join("I.safetensors"), input, None)?;
        let mut command = Command::new(self.binary);
        command.current_dir(folder).args(["forward", "--device", "cpu", "--config"]).arg(self.config);
        command.args(["--weights", "W.safetensors", "--input", "I.safetensors", "--output", "O.safetensors"]);
        let output = command.args(words).env("OMP_NUM_THREADS", "1").output();
        output.map_err(|e| Error::Failed(format!("cannot start {}: {e}", self.binary)))
    }

    /// What `forward` wrote.
    ///
    /// # Panics
    /// With what it said, if it refused.
    ///
    /// # Errors
    /// Those of [`Self::forward`].
    pub fn answer(&self, weights: &Named, input: &Named, words: &[&str]) -> Result<Named> {
        let folder = tempfile::tempdir().map_err(|e| Error::Failed(format!("no folder for temporary files: {e}")))?;
        let output = self.forward(folder.path(), weights, input, words)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(weights::read(&folder.path().join("O.safetensors"))?.0)
    }
}

#[test]
fn the_rule_checks_itself() {
    assert_eq!((hash("input"), hash("conv1.weight")), (709, 796));
    assert_eq!(uniform("input", 3), [-0.2532654576934874, 0.054243952967226505, 0.015414888970553875]);
    assert_eq!(uniform("conv1.weight", 2), [0.26217662706039846, 0.0607677164953202]);
}

#[test]
fn a_sample_is_the_norm_and_32_elements() {
    let short = Tensor::from_slice(&[3.0, -4.0]);
    let kept = Vec::<f64>::try_from(sample(&short)).unwrap();
    assert_eq!((kept.len(), &kept[..4]), (33, &[5.0, 3.0, -4.0, 0.0][..]));
    let long = Tensor::arange(100, (Kind::Double, tch::Device::Cpu)).view([4, 25]);
    let kept = Vec::<f64>::try_from(sample(&long)).unwrap();
    assert_eq!(kept[1..6], [0.0, 3.0, 6.0, 9.0, 12.0]);
    assert_eq!(kept[32], 96.0);
}

#[test]
fn what_is_not_close_is_told() {
    let far = |twin: f64| {
        let compared = || assert_close("x", &Tensor::from(1.0), &Tensor::from(twin), SINGLE);
        std::panic::catch_unwind(compared).is_err()
    };
    assert!(!far(1.00009) && far(1.0002) && far(f64::NAN));
}
