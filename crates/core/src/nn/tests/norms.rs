use super::*;
use crate::nn::sync_norm;

/// Two halves of unlike size that tell each other their sums are the whole batch: outputs, gradients and running statistics.
#[test]
fn batch_norm_over_processes_is_that_of_the_global_batch() {
    for size in [&[5, 3, 4, 2][..], &[7, 3]] {
        let x = (Tensor::randn(size, F64) * 3.0 + 40.0).set_requires_grad(true);
        let (shortcut, weights) = (Tensor::randn(size, F64), Tensor::randn(size, F64));
        let halves = |tensor: &Tensor| [tensor.narrow(0, 0, 2), tensor.narrow(0, 2, size[0] - 2)];
        let fresh = |over: Option<Gather>| {
            let mut store = VarStore::new(Device::Cpu);
            let config = BatchNormConfig { over, eps: 1e-3, momentum: 0.3, ..BatchNormConfig::default() };
            let norm = BatchNorm2d::with(&store.root(), 3, config);
            store.double();
            tch::no_grad(|| {
                norm.weight.as_ref().unwrap().shallow_clone().copy_(&Tensor::from_slice(&[1.5, -0.5, 2.0]))
            });
            norm
        };
        let whole = fresh(None);
        let y = (whole.norm(x.shallow_clone(), Mode::Train) + shortcut.shallow_clone()).relu();
        (&y * &weights).sum(Kind::Double).backward();
        let expected = x.grad().copy();
        let _ = x.grad().zero_();

        // Each half's process, with what the other one says to its exchange.
        let [first, second] = halves(&x);
        let others = [second.shallow_clone(), first.shallow_clone()];
        let mut outputs = Vec::new();
        let mut norms = Vec::new();
        for (rank, (half, other)) in [first, second].into_iter().zip(others).enumerate() {
            let norm = fresh(Some(Gather::new(move |own| {
                let theirs = sync_norm::parts(&other);
                let own = own.shallow_clone();
                Tensor::stack(&if rank == 0 { [own, theirs] } else { [theirs, own] }, 0)
            })));
            outputs
                .push((norm.norm(half.shallow_clone(), Mode::Train) + halves(&shortcut)[rank].shallow_clone()).relu());
            norms.push(norm);
        }
        let together = Tensor::cat(&outputs, 0);
        close(&together, &numbers(&y));
        (together * &weights).sum(Kind::Double).backward();
        close(&x.grad(), &numbers(&expected));
        let of_weight = |norm: &BatchNorm2d| norm.weight.as_ref().unwrap().grad();
        close(&(of_weight(&norms[0]) + of_weight(&norms[1])), &numbers(&of_weight(&whole)));
        for norm in &norms {
            close(&norm.running_mean, &numbers(&whole.running_mean));
            close(&norm.running_var, &numbers(&whole.running_var));
            assert_eq!(counted(norm), 1);
        }
    }
}

/// DETR's: running statistics in training too, nothing learns, nothing counts.
#[test]
fn a_frozen_batch_norm_stays() {
    let mut store = VarStore::new(Device::Cpu);
    let norm = BatchNorm2d::with(&store.root(), 2, BatchNormConfig { frozen: true, ..BatchNormConfig::default() });
    store.double();
    assert_eq!(names(&store), ["bias", "running_mean", "running_var", "weight"]);
    assert!(store.trainable_variables().is_empty());
    let fill = |tensor: &Tensor, values: [f64; 2]| tensor.shallow_clone().copy_(&Tensor::from_slice(&values));
    fill(norm.weight.as_ref().unwrap(), [2.0, 3.0]);
    fill(norm.bias.as_ref().unwrap(), [0.5, -1.0]);
    fill(&norm.running_mean, [1.0, -2.0]);
    fill(&norm.running_var, [4.0, 0.25]);
    let x = Tensor::randn([3, 2, 2, 2], F64).set_requires_grad(true);
    let y = norm.forward(&x, Mode::Train);
    let scale = [2.0 / 4.00001f64.sqrt(), 3.0 / 0.25001f64.sqrt()];
    let (mean, bias) = ([1.0, -2.0], [0.5, -1.0]);
    let channel = |place: usize| place / 4 % 2;
    let expected =
        numbers(&x).into_iter().enumerate().map(|(k, v)| (v - mean[channel(k)]) * scale[channel(k)] + bias[channel(k)]);
    close(&y, &expected.collect::<Vec<_>>());
    y.sum(Kind::Double).backward();
    close(&x.grad(), &(0..24).map(|k| scale[channel(k)]).collect::<Vec<_>>());
    close(&norm.running_mean, &mean);
}

/// Without a scale or a shift it is as with 1 and 0, also for vectors (SimCLR's heads).
#[test]
fn scale_and_shift_can_be_left_out() {
    let x = Tensor::randn([6, 3], F64);
    let whole = |store: &VarStore| BatchNorm2d::new(&store.root(), 3);
    let mut reference = VarStore::new(Device::Cpu);
    let norm = whole(&reference);
    reference.double();
    let expected = numbers(&norm.forward(&x, Mode::Train));
    for (weight, bias, kept) in [(true, false, &["weight"][..]), (false, false, &[])] {
        let mut store = VarStore::new(Device::Cpu);
        let norm = BatchNorm2d::with(&store.root(), 3, BatchNormConfig { weight, bias, ..BatchNormConfig::default() });
        store.double();
        let known = names(&store);
        assert_eq!(known.iter().filter(|n| ["weight", "bias"].contains(&n.as_str())).collect::<Vec<_>>(), kept);
        close(&norm.forward(&x, Mode::Train), &expected);
    }
}

/// Each group of an example by its own mean and deviation; SiLU behind it, or by itself where the norm's own output is to be kept.
#[test]
fn group_norm_is_its_formula() {
    let mut store = VarStore::new(Device::Cpu);
    let norm = GroupNorm::new(&(&store.root() / "norm"), 2, 4, 0.5);
    store.double();
    assert_eq!(names(&store), ["norm.bias", "norm.weight"]);
    tch::no_grad(|| norm.weight.shallow_clone().copy_(&Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0])));
    tch::no_grad(|| norm.bias.shallow_clone().copy_(&Tensor::from_slice(&[0.0, 0.1, 0.2, 0.3])));
    let x = Tensor::randn([3, 4, 2, 3], F64) * 2.0 + 1.0;
    let mut expected = Vec::new();
    for group in numbers(&x).chunks(12) {
        let mean = group.iter().sum::<f64>() / 12.0;
        let var = group.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 12.0;
        for v in group {
            let channel = (expected.len() / 6 % 4) as f64;
            expected.push((v - mean) / (var + 0.5).sqrt() * (channel + 1.0) + 0.1 * channel);
        }
    }
    let silu: Vec<f64> = expected.iter().map(|z| z / (1.0 + (-z).exp())).collect();
    for x in [x.shallow_clone(), channels_last(&x)] {
        close(&norm.forward(&x), &expected);
        close(&norm.silu(&x), &silu);
        for keep in [false, true] {
            let (y, seen) = record::record(move |_| keep, || norm.silu(&x));
            close(&y, &silu);
            assert_eq!((seen[0].name.as_str(), seen[0].counts.parameters, seen[0].value.is_some()), ("norm", 8, keep));
            if let Some(kept) = &seen[0].value {
                close(kept, &expected);
            }
        }
    }
}
