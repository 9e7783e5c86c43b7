//! The networks against diffusers and golden values, and where they start.

use std::collections::BTreeMap;
use std::path::Path;

use ddpm::names::renamed;
use ddpm::net::{Form, Net, UnetConfig, initialise, variant};
use ddpm::unet::{Waves, time_waves};
use repro::golden::{self, Tolerance, assert_close, assert_samples_close, gradients, state_dict, variables};
use repro::nn::{Mode, kernels_channels_last};
use repro::optim::{AdamwConfig, LrScale, LrScaling, OptimConfig};
use repro::weights::{self, Named, copy_into};
use tch::{Device, Kind, Reduction, Tensor, nn};

/// Float64 on both sides.
const EXACT: Tolerance = Tolerance { relative: 1e-9, absolute: 1e-11 };

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tensors(name: &str) -> Named {
    weights::read(&fixture(name)).unwrap().0
}

/// A network in float64 with weights by golden's rule.
fn filled(config: &UnetConfig) -> (nn::VarStore, Net) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Net::new(&store.root(), config);
    store.double();
    golden::fill(&store);
    (store, net)
}

/// The fixture's twins: sizes, and the classes that they are called with.
fn twins() -> [(&'static str, UnetConfig, Option<Tensor>); 3] {
    let published = |name| UnetConfig { dropout: 0.0, ..variant(name).unwrap() };
    let ddpm = UnetConfig {
        base: 4,
        multipliers: vec![1, 3, 4],
        blocks: 1,
        attention: vec![false, true, false],
        groups: 2,
        ..published("ddpm_cifar10")
    };
    let with_classes = UnetConfig {
        channels: 1,
        base: 8,
        multipliers: vec![1, 2],
        blocks: 2,
        attention: vec![true, false],
        heads: 2,
        groups: 2,
        classes: Some(5),
        learned_variance: true,
        ..published("ddpm_cifar10")
    };
    let improved = UnetConfig {
        base: 8,
        multipliers: vec![1, 2, 2],
        blocks: 2,
        attention: vec![false, true, true],
        groups: 4,
        ..published("improved_ddpm_cifar10")
    };
    [
        ("ddpm", ddpm, None),
        ("class", with_classes, Some(Tensor::from_slice(&[4_i64, 0, 5]))),
        ("improved", improved, None),
    ]
}

/// `x` and `t` of the fixture.
fn input(config: &UnetConfig) -> (Tensor, Tensor) {
    (golden::input("input", &[3, config.channels, 16, 16]), Tensor::from_slice(&[0_i64, 417, 999]))
}

#[test]
fn answers_are_those_of_diffusers() {
    let theirs = tensors("unet.safetensors");
    for (name, config, class) in twins() {
        let (store, net) = filled(&config);
        let (x, t) = input(&config);
        let wide = golden::input("wide", &[1, config.channels, 8, 16]);
        let check = |what: &str| {
            let out = net.forward(&x, &t, class.as_ref(), Mode::Eval);
            assert_close(&format!("{name} {what}"), &out, &theirs[&format!("{name}.out")], EXACT);
            let first = class.as_ref().map(|class| class.narrow(0, 0, 1));
            let out = net.forward(&wide, &t.narrow(0, 1, 1), first.as_ref(), Mode::Eval);
            assert_close(&format!("{name} wide {what}"), &out, &theirs[&format!("{name}.wide")], EXACT);
        };
        check("by kernels in the usual order");
        kernels_channels_last(&store).unwrap();
        check("by kernels with channels last");
    }
}

#[test]
fn gradients_and_ten_steps_of_adam_are_those_of_diffusers() {
    let theirs = tensors("unet.safetensors");
    let adam = OptimConfig::Adamw(AdamwConfig {
        base_lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    });
    for (name, config, class) in twins() {
        let (store, net) = filled(&config);
        let (x, t) = input(&config);
        let noise = golden::input("noise", &[3, config.outputs(), 16, 16]);
        let loss = || net.forward(&x, &t, class.as_ref(), Mode::Train).mse_loss(&noise, Reduction::Mean);
        loss().backward();
        assert_samples_close(name, &gradients(&store), &theirs[&format!("{name}.grad")], EXACT);
        let losses = golden::ten_losses(&store, &adam, loss).unwrap();
        assert_close(name, &losses, &theirs[&format!("{name}.losses")], EXACT);
    }
}

/// Theirs are of float32.
#[test]
fn waves_are_those_of_diffusers() {
    let theirs = tensors("unet.safetensors");
    let t = Tensor::from_slice(&[0_i64, 1, 10, 500, 999]);
    let near = Tolerance { relative: 0.0, absolute: 1e-4 };
    for (name, waves) in [("sine", Waves::SineFirst), ("cosine", Waves::CosineFirst)] {
        assert_close(name, &time_waves(&t, 128, waves), &theirs[&format!("waves.{name}")], near);
    }
    // Between two steps, as Improved DDPM calls its network.
    let halfway = time_waves(&Tensor::from_slice(&[2.5]), 4, Waves::SineFirst);
    let expected = Tensor::from_slice(&[2.5_f64.sin(), 2.5e-4_f64.sin(), 2.5_f64.cos(), 2.5e-4_f64.cos()]).view([1, 4]);
    assert_close("2.5", &halfway, &expected, EXACT);
}

/// Names, shapes and counts of every tensor, both ways.
#[test]
fn published_networks_have_their_tensors() {
    let theirs = golden::state_dicts(&fixture("state_dicts.tsv.gz")).unwrap();
    for (name, count) in [("ddpm_cifar10", 35_746_307), ("improved_ddpm_cifar10", 52_546_438)] {
        let store = nn::VarStore::new(Device::Cpu);
        Net::new(&store.root(), &variant(name).unwrap());
        assert_eq!(store.variables().values().map(Tensor::numel).sum::<usize>(), count, "{name}");
        assert_eq!(state_dict(&store), theirs[name], "{name}");
    }
    for name in ["unet_mnist", "unet_32", "unet_tiny"] {
        let config = variant(name).unwrap();
        let net = Net::new(&nn::VarStore::new(Device::Cpu).root(), &config);
        let edge = if name == "unet_mnist" { 28 } else { 32 };
        assert_eq!(edge % config.multiple(), 0, "{name}");
        let x = Tensor::zeros([1, config.channels, edge, edge], (Kind::Float, Device::Cpu));
        let out = tch::no_grad(|| net.forward(&x, &Tensor::from_slice(&[3_i64]), None, Mode::Eval));
        assert_eq!(out.size(), x.size(), "{name}");
    }
    assert!(variant("unet_28").unwrap_err().to_string().contains("unet_mnist"));
}

/// The published networks in float64: shape, mean, deviation, first and last numbers. (Theirs have the waves of time, and improved-diffusion its
/// softmax, in float32.)
#[test]
fn published_networks_have_the_golden_values() {
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-4, "{found} and not {wanted}");
    for (name, mean, deviation, first, last) in [
        (
            "ddpm_cifar10",
            0.01646008963,
            0.6666297807,
            [0.1374589333, 0.4341575545, -0.169778695, -0.2996532428],
            0.2073208144,
        ),
        (
            "improved_ddpm_cifar10",
            0.01209131295,
            0.5804130659,
            [0.20331557, 0.3118636188, 0.2454341459, 0.2704128284],
            -0.49796467,
        ),
    ] {
        let config = variant(name).unwrap();
        let (_, net) = filled(&config);
        let x = golden::input("input", &[2, 3, 32, 32]);
        let out = tch::no_grad(|| net.forward(&x, &Tensor::from_slice(&[10_i64, 500]), None, Mode::Eval));
        assert_eq!(out.size(), [2, config.outputs(), 32, 32]);
        near(out.mean(Kind::Double).double_value(&[]), mean);
        near(out.std(false).double_value(&[]), deviation);
        let flat = out.flatten(0, -1);
        for (place, wanted) in first.into_iter().enumerate() {
            near(flat.double_value(&[place as i64]), wanted);
        }
        near(flat.double_value(&[-1]), last);
    }
}

fn shapes(named: &Named) -> BTreeMap<String, Vec<i64>> {
    named.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect()
}

/// Weights by pesser's names, and by diffusers' older ones, give the same answer; whatever else stays as it is.
#[test]
fn weights_by_other_names_give_the_same_answer() {
    let theirs = tensors("unet.safetensors");
    let (name, config, _) = &twins()[0];
    let (store, net) = filled(config);
    let (x, t) = input(config);
    let model = variables(&store);
    let older = |name: &String| {
        let words = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        words.iter().fold(name.clone(), |name, (here, there)| name.replace(here, there))
    };
    let by_older = model.iter().map(|(name, tensor)| (older(name), tensor.detach().copy())).collect();
    for given in [tensors("pesser.safetensors"), by_older] {
        assert!(!given.keys().eq(model.keys()));
        let given = renamed(given.into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Double))).collect());
        tch::no_grad(|| model.values().for_each(|tensor| drop(tensor.shallow_clone().zero_())));
        copy_into(&model, &given, "theirs").unwrap();
        // The file's numbers are rounded to float32.
        let rounded = Tolerance { relative: 0.0, absolute: 1e-6 };
        let out = net.forward(&x, &t, None, Mode::Eval);
        assert_close(name, &out, &theirs[&format!("{name}.out")], rounded);
    }
    for (_, config, _) in twins() {
        let (store, _) = filled(&config);
        assert_eq!(shapes(&renamed(variables(&store))), shapes(&variables(&store)));
    }
}

/// All names and shapes of the published network by pesser's names.
#[test]
fn the_published_network_is_renamed() {
    let theirs = golden::state_dicts(&fixture("state_dicts.tsv.gz")).unwrap();
    let empty = |(name, line): (&String, &String)| {
        let shape: Vec<i64> = line.split('\t').next().unwrap().split('x').map(|d| d.parse().unwrap()).collect();
        (name.clone(), Tensor::empty(shape, (Kind::Uint8, Device::Cpu)))
    };
    let [pesser, ours] = ["pesser", "ddpm_cifar10"].map(|model| theirs[model].iter().map(empty).collect::<Named>());
    assert_eq!(shapes(&renamed(pesser)), shapes(&ours));
}

/// Uniform numbers of the stated bound; what ends a branch and the network practically or exactly 0, so that each block begins as its shortcut
/// and the network answers 0.
#[test]
fn networks_start_as_their_codes_do() {
    tch::manual_seed(0);
    for (name, ends) in [
        ("ddpm_cifar10", &["conv2.weight", "to_out.0.weight", "conv_out.weight"][..]),
        ("improved_ddpm_cifar10", &["out_layers.3.weight", "proj_out.weight", "out.2.weight"][..]),
    ] {
        let config = UnetConfig { classes: Some(10), base: 32, groups: 8, ..variant(name).unwrap() };
        let store = nn::VarStore::new(Device::Cpu);
        let net = Net::new(&store.root(), &config);
        let model = variables(&store);
        initialise(&model, config.form).unwrap();
        let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
        for (name, tensor) in &model {
            let is_end = ends.iter().any(|end| name.ends_with(end));
            if is_end {
                let bound = if config.form == Form::Ddpm { 1e-5 } else { 0.0 };
                assert!(largest(tensor) <= bound, "{name}");
            } else if name.contains("class_embedding") || name.contains("label_emb") {
                let deviation = tensor.std(true).double_value(&[]);
                assert!((deviation - 1.0).abs() < 0.1 && tensor.size() == [11, 128], "{name}: {deviation}");
            } else if config.form == Form::Ddpm && tensor.dim() > 1 {
                let size = tensor.size();
                let bound = (6.0 / ((size[0] + size[1]) * size[2..].iter().product::<i64>()) as f64).sqrt();
                let found = largest(tensor);
                assert!(found <= bound && found > 0.95 * bound, "{name}: {found}, {bound}");
            } else if config.form == Form::Ddpm && name.ends_with("bias") {
                assert_eq!(largest(tensor), 0.0, "{name}");
            }
        }
        let x = Tensor::randn([2, 3, 32, 32], (Kind::Float, Device::Cpu));
        let t = Tensor::from_slice(&[0_i64, 999]);
        let out = tch::no_grad(|| net.forward(&x, &t, None, Mode::Train));
        assert!(largest(&out) < 1e-4, "{name}: {}", largest(&out));
    }
}

/// Without a class it is the last row's; each example has its own.
#[test]
fn no_class_is_the_last_one() {
    let (_, config, _) = &twins()[1];
    let (_, net) = filled(config);
    let (x, t) = input(config);
    let class = |classes: &[i64]| Some(Tensor::from_slice(classes));
    let out = |class: Option<Tensor>| net.forward(&x, &t, class.as_ref(), Mode::Eval);
    assert_close("none", &out(None), &out(class(&[5, 5, 5])), EXACT);
    let (one, other) = (out(class(&[1, 2, 3])), out(class(&[1, 4, 3])));
    let apart = (one - other).abs().amax([1, 2, 3].as_slice(), false);
    assert!(apart.double_value(&[0]) < 1e-12 && apart.double_value(&[1]) > 1e-3 && apart.double_value(&[2]) < 1e-12);
}

/// Dropout acts in training alone.
#[test]
fn dropout_acts_in_training_alone() {
    let config = UnetConfig { dropout: 0.5, ..twins()[0].1.clone() };
    let (_, net) = filled(&config);
    let (x, t) = input(&config);
    let out = |mode| net.forward(&x, &t, None, mode);
    assert!(out(Mode::Eval).equal(&out(Mode::Eval)));
    assert!(!out(Mode::Train).equal(&out(Mode::Train)));
}
