//! timm's networks and the twins of `scripts/fixtures/vit.py`, held against the library; closed forms in float64.

use std::path::{Path, PathBuf};

use repro::golden::{self, Program, Tolerance, assert_close, assert_samples_close, gradients, variables};
use repro::nn::{Mode, summary};
use repro::optim::{AdamwConfig, LrScale, LrScaling, OptimConfig};
use repro::weights::Named;
use repro::{loss, weights};
use tch::{Device, Kind, Tensor, nn};
use vit::layers::{drop_path, drop_path_rate, fused_attention, plain_attention};
use vit::model::Network;
use vit::variant::{NAMES, Pool, SMALL, Variant};
use vit::{positions, rollout, train};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
/// Float64 on both sides.
const EXACT: Tolerance = Tolerance { relative: 1e-9, absolute: 1e-11 };
/// One of each structure: see `scripts/fixtures/vit.py`.
const TWINS: [&str; 6] = ["class", "no_bias", "mean", "distilled", "deit3", "registers"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture() -> Named {
    weights::read(&folder().join("vit.safetensors")).unwrap().0
}

/// Networks as they are published, up to the large one, in float32: what differs is the order of sums over as many as 4,096 products, 24 times over.
#[test]
fn whole_networks_are_timms_up_to_the_large_one() {
    let theirs = fixture();
    let single = Tolerance { relative: 1e-4, absolute: 1e-6 };
    for name in ["vit_tiny_patch16_224", "vit_small_patch32_224", "vit_base_patch16_224", "vit_large_patch16_224"] {
        let store = nn::VarStore::new(Device::Cpu);
        let net = Network::new(&store.root(), Variant::named(name).unwrap(), 1000, 0.0);
        golden::fill(&store);
        let image = golden::input("input", &[1, 3, 224, 224]).to_kind(Kind::Float);
        let (output, attention) = tch::no_grad(|| net.attention(&image)).unwrap();
        let last = golden::sample(attention.last().unwrap());
        for (what, found) in [("logits", &output.logits), ("features", &output.features), ("attention", &last)] {
            let wanted = &theirs[&format!("whole.{name}.{what}")];
            assert_close(&format!("{name}: {what}"), found, wanted, single.of_scale(wanted));
        }
    }
}

/// The structure of the twin of this name, at its size.
fn variant(name: &str) -> Variant {
    let of = |name| Variant::named(name).unwrap();
    let structure = match name {
        "distilled" => of("deit_tiny_distilled_patch16_224"),
        "deit3" => of("deit3_small_patch16_224"),
        "registers" => of("vit_medium_patch16_reg4_gap_256"),
        "no_bias" => of("vit_2m7_patch4_32"),
        "mean" => Variant { pool: Pool::Mean, ..of("vit_tiny_patch16_224") },
        _ => of("vit_tiny_patch16_224"),
    };
    Variant { width: 24, depth: 3, heads: 3, mlp: 48, patch: 4, edge: 16, ..structure }
}

fn twin(name: &str) -> (nn::VarStore, Network) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), variant(name), 10, 0.0);
    store.double();
    golden::fill(&store);
    (store, net)
}

fn pictures() -> (Tensor, Tensor) {
    (golden::input("input", &[4, 3, 16, 16]), golden::labels(4, 10))
}

#[test]
fn logits_features_and_attention_are_timms() {
    let twins = fixture();
    for name in TWINS {
        let of = |what: &str| &twins[&format!("{name}.{what}")];
        let (_, net) = twin(name);
        let image = pictures().0;
        let output = net.forward(&image, Mode::Eval);
        assert_close(name, &output.logits, of("logits"), EXACT);
        assert_close(name, &output.features, of("features"), EXACT);
        let (again, attention) = net.attention(&image).unwrap();
        assert_close(name, &again.logits, of("logits"), EXACT);
        let first: Vec<Tensor> = attention.iter().map(|weights| weights.get(0)).collect();
        assert_close(name, &Tensor::stack(&first, 0).unsqueeze(0), of("attention"), EXACT);
        if let Some([class, dist]) = output.heads {
            assert_close("both heads", &Tensor::stack(&[class, dist], 0), of("train"), EXACT);
        }
    }
}

#[test]
fn loss_all_gradients_and_ten_steps_are_timms() {
    let twins = fixture();
    let adamw = OptimConfig::Adamw(AdamwConfig {
        base_lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.05,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    });
    for name in TWINS {
        let of = |what: &str| &twins[&format!("{name}.{what}")];
        let (image, label) = pictures();
        let (store, net) = twin(name);
        let loss = || loss::cross_entropy(&net.forward(&image, Mode::Train).logits, &label, 0.0);
        let first = loss();
        first.backward();
        assert_close(name, &first, of("loss"), EXACT);
        assert_samples_close(name, &gradients(&store), of("grad"), EXACT);
        assert_close(name, &golden::ten_losses(&store, &adamw, loss).unwrap(), of("losses"), EXACT);
    }
}

#[test]
fn decay_and_rates_of_parameters_are_timms() {
    let twins = fixture();
    for name in TWINS {
        let all = variables(&twin(name).0);
        let groups: Vec<_> = all.iter().map(|(name, t)| train::group(name, t.dim(), 0.05, 0.75, 3)).collect();
        let scales: Vec<f64> = groups.iter().map(|group| group.lr_scale).collect();
        let decays: Vec<f64> = groups.iter().map(|group| group.weight_decay).collect();
        assert_close(name, &Tensor::from_slice(&scales), &twins[&format!("{name}.scales")], EXACT);
        assert_close(name, &Tensor::from_slice(&decays), &twins[&format!("{name}.decays")], EXACT);
    }
}

#[test]
fn positions_are_resized_as_timm_does() {
    let twins = fixture();
    let single = Tolerance { relative: 1e-5, absolute: 1e-6 };
    for (name, old, new, prefix) in [("up", 4, 6, 1), ("down", 7, 4, 2), ("none", 5, 3, 0)] {
        let given = golden::input("positions", &[1, prefix + old * old, 8]).to_kind(Kind::Float);
        let resized = positions::resize(&given, prefix, new).unwrap();
        assert_close(name, &resized, &twins[&format!("resize.{name}")], single);
        assert_eq!(positions::resize(&given, prefix, old).unwrap(), given, "to the same size they stay to the bit");
        assert!(positions::resize(&given, prefix + 1, new).is_err());
    }
}

/// Positions of a constant stay that constant, whatever the size.
#[test]
fn resizing_keeps_constants() {
    let resized = positions::resize(&Tensor::full([1, 1 + 49, 4], 0.3, F64), 1, 12).unwrap();
    assert_close("constant", &resized, &Tensor::full([1, 1 + 144, 4], 0.3, F64), EXACT);
}

#[test]
fn weights_of_another_size_are_refused_or_resized() {
    let of = |edge: i64| Variant::named("vit_d96_patch4_32").unwrap().with_edge(edge);
    let store = nn::VarStore::new(Device::Cpu);
    let _net = Network::new(&store.root(), of(32), 10, 0.0);
    let given: Named = variables(&store).into_iter().map(|(name, t)| (format!("model.{name}"), t)).collect();
    let text = positions::fit(&given, &of(48), false).unwrap_err().to_string();
    assert!(text.contains("8 × 8") && text.contains("12 × 12") && text.contains("resize_positions=true"), "{text}");
    assert_eq!(positions::fit(&given, &of(48), true).unwrap()["model.pos_embed"].size(), [1, 145, 96]);
    assert_eq!(positions::fit(&given, &of(32), false).unwrap()["model.pos_embed"].size(), [1, 65, 96]);
}

/// timm's networks, 1,000 classes. Their counts follow from their shapes; those that are published stand in the next test.
#[test]
fn state_dicts_are_timms() {
    let references = golden::state_dicts(&folder().join("state_dicts.tsv.gz")).unwrap();
    assert_eq!(references.len(), 34);
    for (name, reference) in &references {
        assert!(NAMES.contains(&name.as_str()), "{name}");
        let store = nn::VarStore::new(Device::Cpu);
        Network::new(&store.root(), Variant::named(name).unwrap(), 1000, 0.0);
        let ours = golden::state_dict(&store);
        let differs = ours.iter().chain(reference).find(|(key, _)| ours.get(*key) != reference.get(*key));
        assert_eq!(differs, None, "{name}");
    }
    // What timm does not have is ours.
    assert!(NAMES.iter().all(|name| references.contains_key(*name) || name.ends_with("_32")));
}

#[test]
fn parameters_are_as_published() {
    let count = |name: &str, classes: i64| -> usize {
        let store = nn::VarStore::new(Device::Cpu);
        Network::new(&store.root(), Variant::named(name).unwrap(), classes, 0.0);
        store.trainable_variables().iter().map(Tensor::numel).sum()
    };
    for (name, classes, expected) in [
        ("vit_tiny_patch16_224", 1000, 5_717_416),
        ("deit_small_patch16_224", 1000, 22_050_664),
        ("vit_small_patch32_224", 1000, 22_878_952),
        ("vit_base_patch16_224", 1000, 86_567_656),
        ("vit_base_patch32_224", 1000, 88_224_232),
        ("vit_base_patch16_384", 1000, 86_859_496),
        ("vit_large_patch16_224", 1000, 304_326_632),
        // timm counts it without its classifier.
        ("vit_huge_patch14_224", 1000, 630_764_800 + 1281 * 1000),
        ("deit_tiny_distilled_patch16_224", 1000, 5_910_800),
        ("vit_tiny_patch4_32", 10, 5_362_762),
        ("vit_small_patch4_32", 10, 21_342_346),
        ("vit_2m7_patch4_32", 10, 2_692_426),
        ("vit_d96_patch4_32", 10, 460_906),
    ] {
        assert_eq!(count(name, classes), expected, "{name}, {classes} classes");
    }
    for name in NAMES.iter().chain(&SMALL) {
        let variant = Variant::named(name).unwrap();
        assert_eq!((variant.width % variant.heads, variant.edge % variant.patch), (0, 0), "{name}");
    }
    assert!(Variant::named("vit_giant_patch14_224").unwrap_err().to_string().contains("vit_huge_patch14_224"));
}

/// Of ViT-Ti/16 and S/16: 1.26 and 4.61 · 10⁹ (arXiv:2012.12877's program prints 1.3 and 4.6); by hand 12·(12 L D² + 2 L² D) and the ends.
#[test]
fn summaries_count_multiply_adds() {
    for (name, d) in [("vit_tiny_patch16_224", 192), ("vit_small_patch16_224", 384)] {
        let store = nn::VarStore::new(Device::Cpu);
        let net = Network::new(&store.root(), Variant::named(name).unwrap(), 1000, 0.0);
        let image = Tensor::zeros([1, 3, 224, 224], (Kind::Float, Device::Cpu));
        let rows = summary(&store, || Ok(net.forward(&image, Mode::Eval))).unwrap();
        let l = 197;
        let expected = 12 * (12 * l * d * d + 2 * l * l * d) + 196 * 768 * d + 1000 * d;
        assert_eq!(rows.iter().map(|row| row.multiply_adds).sum::<u64>(), expected, "{name}");
        let parameters: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(rows.iter().map(|row| row.parameters).sum::<u64>(), parameters as u64, "{name}");
    }
}

#[test]
fn plain_attention_is_the_fused_one() {
    tch::manual_seed(1);
    let [q, k, v] = [(); 3].map(|()| Tensor::randn([2, 3, 9, 5], F64));
    let (mixed, weights) = plain_attention(&q, &k, &v);
    let close = Tolerance { relative: 0.0, absolute: 1e-12 };
    assert_close("mixed", &mixed, &fused_attention(&q, &k, &v), close);
    let rows = weights.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double);
    assert_close("rows", &rows, &Tensor::ones([2, 3, 9], F64), close);
    // Equal keys: everything is attended to alike, and what comes out is the mean.
    let (mixed, _) = plain_attention(&q, &Tensor::ones([2, 3, 9, 5], F64), &v);
    assert_close("mean", &mixed, &v.mean_dim([2_i64].as_slice(), true, Kind::Double).expand_as(&v), close);
}

#[test]
fn drop_path_drops_samples_and_keeps_the_mean() {
    tch::manual_seed(1);
    let branch = Tensor::ones([40_000, 2, 3], F64);
    let dropped = drop_path(&branch, 0.2, Mode::Train);
    let samples = dropped.view([40_000, 6]);
    let same = samples.eq_tensor(&samples.narrow(1, 0, 1)).all().int64_value(&[]);
    assert_eq!(same, 1, "a sample is dropped as a whole");
    let values = samples.select(1, 0);
    let kept = values.eq(1.25).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert_eq!(values.ne(0.0).sum(Kind::Int64), values.eq(1.25).sum(Kind::Int64));
    // Five deviations of a mean of 40,000.
    assert!((kept - 0.8).abs() < 5.0 * (0.16f64 / 40_000.0).sqrt(), "{kept}");
    assert_eq!(drop_path(&branch, 0.2, Mode::Eval), branch);
    let rates: Vec<f64> = (0..12).map(|place| drop_path_rate(0.1, place, 12)).collect();
    assert!(rates[0] == 0.0 && (rates[11] - 0.1).abs() < 1e-15 && (rates[1] - 0.1 / 11.0).abs() < 1e-15, "{rates:?}");
}

/// Even weights leave even maps; weights on one patch alone show it.
#[test]
fn rollout_shows_where_attention_goes() {
    let variant = variant("class");
    let even = Tensor::full([1, 3, 17, 17], 1.0 / 17.0, F64);
    let map = rollout::rollout(&[even.shallow_clone(), even.shallow_clone()], &variant).unwrap();
    assert_close("even", &map, &Tensor::ones([4, 4], F64), EXACT);
    let one = Tensor::zeros([1, 3, 17, 17], F64);
    let _ = one.select(3, 6).fill_(1.0);
    let map = rollout::rollout(&[one.shallow_clone(), one], &variant).unwrap();
    assert_eq!((map.sum(Kind::Double).double_value(&[]), map.double_value(&[1, 1])), (1.0, 1.0));
    assert!(rollout::rollout(&[], &variant).is_err());
}

/// timm's `vit_tiny_patch16_224` in float64: mean, the first four logits and the last, relative to their deviation, which is 1.
#[test]
fn vit_tiny_has_its_golden_values() {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), Variant::named("vit_tiny_patch16_224").unwrap(), 1000, 0.0);
    store.double();
    golden::fill(&store);
    let image = golden::input("input", &[2, 3, 224, 224]);
    let logits = tch::no_grad(|| net.forward(&image, Mode::Eval).logits);
    let values = Vec::<f64>::try_from(logits.view(-1)).unwrap();
    let mean = values.iter().sum::<f64>() / 2000.0;
    let expected = [-0.00344196193, 2.2775041413, -0.07294386, 0.8055029061, 0.3119159201, -2.3095423988];
    for (ours, twin) in [mean, values[0], values[1], values[2], values[3], values[1999]].iter().zip(expected) {
        assert!((ours - twin).abs() <= 1e-6, "{ours} and not {twin}");
    }
}

/// `vit forward` gives what the library does, and the weights of each attention by its block.
#[test]
fn the_program_answers_as_the_library() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/vit/smoke.yaml");
    let program = Program { binary: env!("CARGO_BIN_EXE_vit"), config: &config };
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), Variant::named("vit_d96_patch4_32").unwrap(), 10, 0.0);
    store.double();
    golden::fill(&store);
    let (image, label) = (golden::input("input", &[2, 3, 32, 32]), golden::labels(2, 10));
    let input = Named::from([("image".into(), image.shallow_clone()), ("label".into(), label.shallow_clone())]);
    let given = program.answer(&variables(&store), &input, &["--attention"]).unwrap();
    let (output, attention) = net.attention(&image).unwrap();
    assert_close("logits", &given["logits"], &output.logits, EXACT);
    assert_close("features", &given["features"], &output.features, EXACT);
    assert_close("loss", &given["loss"], &loss::cross_entropy(&output.logits, &label, 0.0), EXACT);
    assert_eq!(attention.len(), 6);
    for (block, weights) in attention.iter().enumerate() {
        assert_close("attention", &given[&format!("attention.{block}")], weights, EXACT);
    }
    assert_eq!(given.len(), 3 + 6);
}
