use super::*;
use tch::{Device, Kind, Tensor};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

fn close(found: &Tensor, expected: &[f64]) {
    let found = numbers(found);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-10, "{found} != {expected}");
    }
}

fn names(store: &VarStore) -> Vec<String> {
    let mut names: Vec<String> = store.variables().into_keys().collect();
    names.sort();
    names
}

/// Uniform in ±1/√fan_in: within the bounds, near them, and of the deviation bound/√3 (six standard errors of slack: the generator is shared with other tests).
fn is_default_init(tensor: &Tensor, fan_in: i64) {
    let values = numbers(tensor);
    let bound = 1.0 / (fan_in as f64).sqrt();
    let largest = values.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    assert!(largest <= bound * (1.0 + 1e-6), "{largest} above {bound}");
    assert!(largest >= bound * 0.9, "{largest} far below {bound}");
    let n = values.len() as f64;
    let mean_square = values.iter().map(|v| v * v).sum::<f64>() / n;
    // The square of U(±b) has mean b²/3 and variance 4b⁴/45.
    let slack = 6.0 * (4.0 / 45.0 / n).sqrt() * bound * bound;
    assert!((mean_square - bound * bound / 3.0).abs() < slack, "mean square {mean_square}");
    assert!((values.iter().sum::<f64>() / n).abs() < 6.0 * bound / (3.0 * n).sqrt());
}

#[test]
fn inits_and_names_are_those_of_pytorch() {
    let store = VarStore::new(Device::Cpu);
    let root = store.root();
    let fc = Linear::new(&(&root / "fc"), 100, 400);
    let plain = Linear::without_bias(&(&root / "plain"), 50, 300);
    let conv = Conv2d::new(&(&root / "conv"), 8, 300, 5, Conv2dConfig { groups: 2, ..Conv2dConfig::default() });
    let thin = Conv2d::new(&(&root / "thin"), 3, 4, 1, Conv2dConfig { bias: false, ..Conv2dConfig::default() });
    is_default_init(&fc.weight, 100);
    is_default_init(fc.bias.as_ref().unwrap(), 100);
    is_default_init(&plain.weight, 50);
    assert_eq!(conv.weight.size(), [300, 4, 5, 5]);
    is_default_init(&conv.weight, 4 * 25);
    is_default_init(conv.bias.as_ref().unwrap(), 4 * 25);
    assert!(thin.bias.is_none());
    let expected = ["conv.bias", "conv.weight", "fc.bias", "fc.weight", "plain.weight", "thin.weight"];
    assert_eq!(names(&store), expected);
}

#[test]
fn linear_is_its_formula() {
    let mut store = VarStore::new(Device::Cpu);
    let fc = Linear::new(&store.root(), 3, 2);
    store.double();
    let x = Tensor::randn([4, 3], F64);
    let (w, b, v) = (numbers(&fc.weight), numbers(fc.bias.as_ref().unwrap()), numbers(&x));
    let mut expected = Vec::new();
    for n in 0..4 {
        for o in 0..2 {
            expected.push(b[o] + (0..3).map(|i| v[n * 3 + i] * w[o * 3 + i]).sum::<f64>());
        }
    }
    close(&fc.forward(&x), &expected);
}

#[test]
fn conv_is_its_formula_with_stride_padding_and_groups() {
    let mut store = VarStore::new(Device::Cpu);
    let config = Conv2dConfig { stride: 2, padding: 1, groups: 2, ..Conv2dConfig::default() };
    let conv = Conv2d::new(&store.root(), 4, 6, 3, config);
    store.double();
    let x = Tensor::randn([1, 4, 6, 7], F64);
    let y = conv.forward(&x);
    assert_eq!(y.size(), [1, 6, 3, 4]);
    let (w, b, v) = (numbers(&conv.weight), numbers(conv.bias.as_ref().unwrap()), numbers(&x));
    let pixel = |c: usize, i: i64, j: i64| match (0..6).contains(&i) && (0..7).contains(&j) {
        true => v[c * 42 + (i * 7 + j) as usize],
        false => 0.0,
    };
    let mut expected = Vec::new();
    for (o, i, j) in (0..6).flat_map(|o| (0..3).flat_map(move |i| (0..4).map(move |j| (o, i, j)))) {
        let mut sum = b[o];
        for (c, di, dj) in (0..2).flat_map(|c| (0..3).flat_map(move |di| (0..3).map(move |dj| (c, di, dj)))) {
            // Outputs 0..3 see inputs 0..2, outputs 3..6 see inputs 2..4.
            sum +=
                w[((o * 2 + c) * 3 + di) * 3 + dj] * pixel(o / 3 * 2 + c, i * 2 + di as i64 - 1, j * 2 + dj as i64 - 1);
        }
        expected.push(sum);
    }
    close(&y, &expected);
}

fn counted(norm: &BatchNorm2d) -> i64 {
    norm.num_batches_tracked.as_ref().unwrap().int64_value(&[])
}

#[test]
fn batch_norm_is_its_formula_and_counts_training_batches() {
    let mut store = VarStore::new(Device::Cpu);
    let norm = BatchNorm2d::new(&store.root(), 2);
    store.double();
    let expected = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"];
    assert_eq!(names(&store), expected);
    assert_eq!(norm.num_batches_tracked.as_ref().unwrap().kind(), Kind::Int64);
    tch::no_grad(|| {
        norm.weight.as_ref().unwrap().shallow_clone().copy_(&Tensor::from_slice(&[2.0, 3.0]));
        norm.bias.as_ref().unwrap().shallow_clone().copy_(&Tensor::from_slice(&[-1.0, 0.5]));
    });
    let (weight, bias) = ([2.0, 3.0], [-1.0, 0.5]);
    let x = Tensor::randn([3, 2, 2, 1], F64) * 4.0 + 1.0;
    let values = numbers(&x);
    let channel = |c: usize| (0..3).flat_map(move |n| (0..2).map(move |i| n * 4 + c * 2 + i));

    let mut by_batch = vec![0.0; 12];
    let mut by_running = vec![0.0; 12];
    let mut running = Vec::new();
    for c in 0..2 {
        let mean = channel(c).map(|k| values[k]).sum::<f64>() / 6.0;
        let squares = channel(c).map(|k| (values[k] - mean).powi(2)).sum::<f64>();
        let (run_mean, run_var) = (0.1 * mean, 0.9 + 0.1 * squares / 5.0);
        for k in channel(c) {
            by_batch[k] = weight[c] * (values[k] - mean) / (squares / 6.0 + 1e-5).sqrt() + bias[c];
            by_running[k] = weight[c] * (values[k] - run_mean) / (run_var + 1e-5).sqrt() + bias[c];
        }
        running.push((run_mean, run_var));
    }
    close(&norm.forward(&x, Mode::TrainAgain), &by_batch);
    assert_eq!(counted(&norm), 0);
    close(&norm.running_mean, &[0.0, 0.0]);
    close(&norm.forward(&x, Mode::Train), &by_batch);
    close(&norm.running_mean, &[running[0].0, running[1].0]);
    close(&norm.running_var, &[running[0].1, running[1].1]);
    close(&norm.forward(&x, Mode::Eval), &by_running);
    close(&norm.running_mean, &[running[0].0, running[1].0]);
    assert_eq!(counted(&norm), 1);
    let _ = norm.forward(&x, Mode::Train);
    assert_eq!(counted(&norm), 2);
}

#[test]
fn batch_norm_takes_sum_and_rectifier_along_and_leaves_statistics_in_the_second_pass() {
    let mut store = VarStore::new(Device::Cpu);
    let norm = BatchNorm2d::new(&store.root(), 3);
    store.double();
    let (x, shortcut) = (Tensor::randn([4, 3, 5, 2], F64) * 2.0 + 1.0, Tensor::randn([4, 3, 5, 2], F64));
    for mode in [Mode::TrainAgain, Mode::Eval] {
        let expected = (norm.forward(&x, mode) + &shortcut).relu();
        close(&(norm.norm(x.shallow_clone(), mode) + shortcut.shallow_clone()).relu(), &numbers(&expected));
    }
    assert_eq!(numbers(&norm.running_mean), [0.0; 3]);
    assert_eq!(numbers(&norm.running_var), [1.0; 3]);
    assert_eq!(counted(&norm), 0);
    let again = norm.norm(x.shallow_clone(), Mode::TrainAgain).relu();
    assert!(norm.norm(x.shallow_clone(), Mode::Train).relu().equal(&again));
    assert_ne!(numbers(&norm.running_mean), [0.0; 3]);
    assert_eq!(counted(&norm), 1);
}

#[test]
fn layer_norm_is_its_formula() {
    let mut store = VarStore::new(Device::Cpu);
    let norm = LayerNorm::new(&store.root(), 4, 0.5);
    store.double();
    tch::no_grad(|| norm.weight.shallow_clone().copy_(&Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0])));
    tch::no_grad(|| norm.bias.shallow_clone().copy_(&Tensor::from_slice(&[0.0, 0.1, 0.2, 0.3])));
    let x = Tensor::randn([3, 4], F64);
    let mut expected = Vec::new();
    for row in numbers(&x).chunks(4) {
        let mean = row.iter().sum::<f64>() / 4.0;
        let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4.0;
        expected.extend(
            row.iter().enumerate().map(|(i, v)| (v - mean) / (var + 0.5).sqrt() * (i as f64 + 1.0) + 0.1 * i as f64),
        );
    }
    close(&norm.forward(&x), &expected);
}

#[test]
fn kernels_are_laid_out_anew_and_stay_what_they_are() {
    let store = VarStore::new(Device::Cpu);
    let conv = Conv2d::new(&store.root(), 3, 4, 3, Conv2dConfig::default());
    let (before, x) = (conv.weight.detach().copy(), Tensor::randn([2, 3, 8, 8], (Kind::Float, Device::Cpu)));
    let plain = conv.forward(&x);
    kernels_channels_last(&store).unwrap();
    assert!(torch_ext::is_channels_last(&conv.weight).unwrap() && conv.weight.requires_grad());
    assert!(conv.weight.equal(&before));
    let moved = conv.forward(&channels_last(&x));
    assert!(torch_ext::is_channels_last(&moved).unwrap());
    assert!((moved - plain).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn a_name_used_twice_is_found() {
    let store = VarStore::new(Device::Cpu);
    let root = store.root();
    Linear::new(&(&root / "block__a"), 2, 2);
    BatchNorm2d::new(&(&root / "layer1"), 2);
    assert!(ensure_unique(&store).is_ok());
    Linear::new(&(&root / "layer1"), 2, 2);
    let message = ensure_unique(&store).unwrap_err().to_string();
    assert!(message.contains("layer1.weight__") && message.contains("layer1.bias__"), "{message}");
}

mod norms;
mod recorder;
