use super::*;
use tch::nn::{self, VarStore};

/// A store of two tensors in float64; `b` is not to decay and moves at half the rate.
fn store() -> (VarStore, Params) {
    tch::manual_seed(3);
    let mut store = VarStore::new(Device::Cpu);
    let root = store.root();
    let _ = root.var("w", &[3, 2], nn::Init::Randn { mean: 0.0, stdev: 1.0 });
    let _ = (&root / "head").var("b", &[4], nn::Init::Randn { mean: 0.0, stdev: 1.0 });
    let _ = root.zeros_no_train("buffer", &[2]);
    store.double();
    let params = Params::new(&store, |name, _| match name {
        "head.b" => Some(Group { lr_scale: 0.5, ..Group::of(0.0) }),
        _ => Some(Group::of(0.1)),
    });
    (store, params.unwrap())
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().view(-1)).unwrap()
}

fn values(params: &Params) -> Vec<Vec<f64>> {
    params.tensors().map(numbers).collect()
}

/// One step down the loss Σ sin(p), whose gradient is cos(p).
fn descend(params: &Params, optim: &mut Optimizer, lr: f64) {
    params.zero_grad();
    let loss: Tensor = params.tensors().map(|p| p.sin().sum(Kind::Double)).sum();
    loss.backward();
    optim.step(lr).unwrap();
}

fn sgd(momentum: f64, nesterov: bool) -> OptimConfig {
    OptimConfig::Sgd(SgdConfig {
        base_lr: 0.1,
        momentum,
        nesterov,
        weight_decay: 0.1,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    })
}

fn adamw() -> OptimConfig {
    let (beta1, beta2, eps) = (0.9, 0.95, 1e-8);
    OptimConfig::Adamw(AdamwConfig {
        base_lr: 0.1,
        beta1,
        beta2,
        eps,
        weight_decay: 0.1,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    })
}

fn close(found: &[Vec<f64>], expected: &[Vec<f64>]) {
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-12, "{found} != {expected}");
    }
}

/// The rate at a step: not constant, so that a rate taken once and kept would show.
fn lr(step: i32) -> f64 {
    0.1 / (step + 1) as f64
}

#[test]
fn parameters_are_sorted_and_trainable_only() {
    let (_store, params) = store();
    let names: Vec<_> = params.iter().map(|p| (p.name.as_str(), p.group.lr_scale, p.group.weight_decay)).collect();
    assert_eq!(names, [("head.b", 0.5, 0.0), ("w", 1.0, 0.1)]);
}

#[test]
fn ten_sgd_steps_are_the_formula() {
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let (_store, params) = store();
        let mut plain = values(&params);
        let mut memory: Vec<Vec<f64>> = plain.iter().map(|p| vec![0.0; p.len()]).collect();
        let mut optim = sgd(momentum, nesterov).build(&params).unwrap();
        for step in 0..10 {
            descend(&params, &mut optim, lr(step));
            for (k, (scale, decay)) in [(0.5, 0.0), (1.0, 0.1)].into_iter().enumerate() {
                for (p, b) in plain[k].iter_mut().zip(&mut memory[k]) {
                    let g = p.cos() + decay * *p;
                    *b = momentum * *b + g;
                    *p -= scale * lr(step) * if nesterov { g + momentum * *b } else { *b };
                }
            }
        }
        close(&values(&params), &plain);
        if momentum > 0.0 {
            close(&[numbers(&optim.state()["momentum.w"])], &memory[1..]);
        } else {
            assert!(optim.state().is_empty());
        }
    }
}

#[test]
fn ten_adamw_steps_are_the_formula() {
    let (_store, params) = store();
    let mut plain = values(&params);
    let mut moments: Vec<Vec<(f64, f64)>> = plain.iter().map(|p| vec![(0.0, 0.0); p.len()]).collect();
    let mut optim = adamw().build(&params).unwrap();
    for step in 0..10 {
        descend(&params, &mut optim, lr(step));
        for (k, (scale, decay)) in [(0.5, 0.0), (1.0, 0.1)].into_iter().enumerate() {
            let lr = scale * lr(step);
            for (p, (m, v)) in plain[k].iter_mut().zip(&mut moments[k]) {
                let g = p.cos();
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.95 * *v + 0.05 * g * g;
                let (m_hat, v_hat) = (*m / (1.0 - 0.9f64.powi(step + 1)), *v / (1.0 - 0.95f64.powi(step + 1)));
                *p = *p * (1.0 - lr * decay) - lr * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
    }
    close(&values(&params), &plain);
    assert_eq!(optim.state()["step.w"].double_value(&[]), 10.0);
}

#[test]
fn a_restored_state_continues_to_the_bit() {
    for config in [sgd(0.9, true), adamw()] {
        let (_store, params) = store();
        let mut optim = config.build(&params).unwrap();
        (0..3).for_each(|step| descend(&params, &mut optim, lr(step)));
        let saved_weights: Vec<Tensor> = params.tensors().map(|p| p.detach().copy()).collect();
        let saved: BTreeMap<String, Tensor> = optim.state().iter().map(|(name, t)| (name.clone(), t.copy())).collect();
        (3..6).for_each(|step| descend(&params, &mut optim, lr(step)));

        let (_store, again) = store();
        let mut resumed = config.build(&again).unwrap();
        tch::no_grad(|| again.tensors().zip(&saved_weights).for_each(|(p, saved)| p.shallow_clone().copy_(saved)));
        let state = resumed.state();
        assert!(state.keys().eq(saved.keys()));
        state.iter().for_each(|(name, tensor)| tensor.shallow_clone().copy_(&saved[name]));
        (3..6).for_each(|step| descend(&again, &mut resumed, lr(step)));
        assert_eq!(values(&again), values(&params));
        for (name, tensor) in optim.state() {
            assert_eq!(numbers(&tensor), numbers(&resumed.state()[&name]), "{name}");
        }
    }
}

#[test]
fn state_is_complete_from_construction() {
    let (_store, params) = store();
    let names = |config: OptimConfig| config.build(&params).unwrap().state().into_keys().collect::<Vec<_>>();
    assert_eq!(names(sgd(0.9, false)), ["momentum.head.b", "momentum.w"]);
    let adamw = names(adamw());
    assert_eq!(adamw, ["exp_avg.head.b", "exp_avg.w", "exp_avg_sq.head.b", "exp_avg_sq.w", "step.head.b", "step.w"]);
}

#[test]
fn rates_scale_with_the_batch() {
    let lr = |lr_scaling, batch| {
        let config = SgdConfig {
            base_lr: 0.1,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
            lr_scaling,
            lr_scale: LrScale::new(),
        };
        OptimConfig::Sgd(config).lr(batch)
    };
    assert_eq!(lr(LrScaling::None, 1024), 0.1);
    assert_eq!(lr(LrScaling::Linear, 1024), 0.4);
    assert_eq!(lr(LrScaling::Sqrt, 1024), 0.2);
    assert_eq!(lr(LrScaling::Linear, 64), 0.025);
}

#[test]
fn numbers_out_of_range_are_the_users_mistake() {
    let (_store, params) = store();
    let refused = |json: &str| {
        let config: OptimConfig = serde_json::from_str(json).unwrap();
        matches!(config.build(&params), Err(crate::Error::User(_)))
    };
    assert!(!refused(r#"{"sgd": {"base_lr": 0.1, "momentum": 0.9, "weight_decay": 0}}"#));
    assert!(refused(r#"{"sgd": {"base_lr": -0.1, "momentum": 0.9, "weight_decay": 0}}"#));
    assert!(refused(r#"{"sgd": {"base_lr": 0.1, "momentum": 1, "weight_decay": 0}}"#));
    assert!(refused(r#"{"sgd": {"base_lr": 0.1, "momentum": 0, "weight_decay": 0, "nesterov": true}}"#));
    assert!(refused(r#"{"adamw": {"base_lr": 0.1, "beta1": 0.9, "beta2": 1.5, "eps": 1e-8, "weight_decay": 0}}"#));
    assert!(serde_json::from_str::<OptimConfig>(r#"{"sgd": {"base_lr": 0.1, "weight_decay": 0}}"#).is_err());
}

/// The longest prefix counts, in whole segments, and what the rule leaves out belongs to another optimizer.
#[test]
fn parts_have_rates_of_their_own_and_optimizers_share_a_store() {
    let store = nn::VarStore::new(Device::Cpu);
    for name in ["layer1/0/w", "layer1/1/w", "layer10/w", "fc/w"] {
        let path = name.split('/').fold(store.root(), |path, part| path / part);
        let _ = path.zeros("v", &[1]);
    }
    let scaled = |scale: &[(&str, f64)]| {
        let lr_scale = scale.iter().map(|(name, factor)| (name.to_string(), *factor)).collect();
        let OptimConfig::Sgd(config) = sgd(0.0, false) else { panic!() };
        OptimConfig::Sgd(SgdConfig { lr_scale, ..config })
    };
    let config = scaled(&[("layer1", 0.1), ("layer1.1", 0.01)]);
    let trunk = config.params(&store, |name, _| (!name.starts_with("fc")).then(|| Group::of(0.0))).unwrap();
    let rates: Vec<_> = trunk.iter().map(|p| (p.name.as_str(), p.group.lr_scale)).collect();
    assert_eq!(rates, [("layer1.0.w.v", 0.1), ("layer1.1.w.v", 0.01), ("layer10.w.v", 1.0)]);
    let head = Params::new(&store, |name, _| name.starts_with("fc").then(|| Group::of(0.0))).unwrap();
    assert_eq!(head.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["fc.w.v"]);
    let error = scaled(&[("layr1", 0.1)]).params(&store, |_, _| Some(Group::of(0.0))).unwrap_err().to_string();
    assert!(error.contains("optim.lr_scale") && error.contains("did you mean layer1?"), "{error}");
    assert!(scaled(&[("fc", -1.0)]).params(&store, |_, _| Some(Group::of(0.0))).is_err());
}
