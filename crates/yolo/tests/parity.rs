//! The twins of `scripts/fixtures/yolo.py` and the published values of the reference, held against the library.
//!
//! Both sides fill weights and inputs from names ([`golden`]); the fixtures hold what the twins made of them.

mod truths;

use std::path::{Path, PathBuf};

use repro::detection::Targets;
use repro::golden::{self, DOUBLE, ROUNDED, SINGLE, assert_close, assert_samples_close, gradients, variables};
use repro::nn::{Mode, summary};
use repro::optim::{LrScale, LrScaling, OptimConfig, SgdConfig};
use repro::weights::{self, Named};
use tch::{Device, Kind, Tensor, nn};
use yolo::loss::{self, Losses, assignment};
use yolo::model::Network;
use yolo::nms::{Corners, nms, nms_by_class};
use yolo::sections::{Plan, Section, Variant};

use truths::truths;

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
/// Height and width of the small pictures.
const EDGES: (i64, i64) = (24, 32);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture() -> Named {
    weights::read(&folder().join("yolo.safetensors")).unwrap().0
}

fn conv(filters: i64, size: i64, stride: i64) -> Section {
    Section::Conv { filters, size, stride, norm: true }
}

/// The small network of the fixture.
fn small() -> Plan {
    let out = Section::Conv { filters: 16, size: 1, stride: 1, norm: false };
    let pool = |stride| Section::MaxPool { size: 2, stride };
    let sections = vec![
        conv(4, 3, 1),
        conv(6, 3, 2),
        conv(3, 1, 1),
        conv(6, 3, 1),
        Section::Shortcut { from: -3 },
        pool(2),
        conv(8, 3, 1),
        pool(1),
        conv(8, 1, 1),
        out.clone(),
        Section::Yolo { mask: vec![2, 3] },
        Section::Route { layers: vec![-3] },
        conv(5, 1, 1),
        Section::Upsample,
        Section::Route { layers: vec![-1, 4] },
        conv(8, 3, 1),
        out,
        Section::Yolo { mask: vec![0, 1] },
    ];
    Plan { sections, anchors: vec![[4.0, 5.0], [9.0, 6.0], [8.0, 14.0], [20.0, 18.0]], classes: 3 }
}

/// A network with the twin's weights, in float32 or float64.
fn network(plan: Plan, double: bool) -> (nn::VarStore, Network) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), plan).unwrap();
    if double {
        store.double();
    }
    golden::fill(&store);
    (store, net)
}

fn parts(of: &Losses) -> Tensor {
    let names: Vec<_> = of.parts.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["loss_box", "loss_objectness", "loss_class"]);
    Tensor::stack(&[&[&of.loss][..], &of.parts.iter().map(|(_, part)| part).collect::<Vec<_>>()].concat(), 0)
}

/// Names, shapes, kinds of every tensor, and the published numbers of parameters.
#[test]
fn state_dicts_are_those_of_the_reference() {
    let references = golden::state_dicts(&folder().join("state_dicts.tsv.gz")).unwrap();
    for (name, parameters) in [("yolov3", 61_949_149), ("yolov3_tiny", 8_852_366)] {
        let store = nn::VarStore::new(Device::Cpu);
        Network::new(&store.root(), Variant::named(name).unwrap().plan(80)).unwrap();
        assert_eq!(golden::state_dict(&store), references[name], "{name}");
        assert_eq!(store.trainable_variables().iter().map(Tensor::numel).sum::<usize>(), parameters, "{name}");
    }
    // Ours, counted by hand: i·o·k² + 2·o of each convolution with a norm.
    let store = nn::VarStore::new(Device::Cpu);
    let net = Network::new(&store.root(), Variant::Small.plan(3)).unwrap();
    let image = Tensor::zeros([1, 3, 128, 128], (Kind::Float, Device::Cpu));
    let rows = summary(&store, || Ok(net.forward(&image, Mode::Eval))).unwrap();
    assert_eq!(rows.iter().map(|row| row.parameters).sum::<u64>(), 1_479_520);
}

/// Mean, deviation, the first four and the last number of each scale in float64, as they are published of the reference.
#[test]
fn yolov3_has_its_golden_values() {
    let (_, net) = network(Variant::Yolov3.plan(80), true);
    let raw = tch::no_grad(|| net.forward(&golden::input("input", &[1, 3, 64, 64]), Mode::Eval));
    let published = [
        (2, [0.01403571878, 0.6781672373, -1.1690662475, -0.4019805806, -1.1004703021, 0.7256781684, -0.3129316845]),
        (4, [-0.02876054576, 1.058231248, -0.0232811003, 1.1143167412, 0.2245018001, -0.4351702022, 1.268419576]),
        (8, [-0.03184579499, 0.3744506347, 0.1418268344, 0.2369418309, -0.1593484822, 0.274220719, -0.2975099443]),
    ];
    for (raw, (cells, published)) in raw.iter().zip(published) {
        assert_eq!(raw.size(), [1, 3, cells, cells, 85]);
        let all = Vec::<f64>::try_from(raw.reshape([-1])).unwrap();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
        for (ours, theirs) in [mean, deviation].iter().chain(&all[..4]).chain(all.last()).zip(published) {
            assert!((ours - theirs).abs() <= 1e-6 * deviation, "{cells}: {ours} and not {theirs}");
        }
    }
}

/// The worked table: best anchors of three truths at 416 pixels, their cells, what they ask for, and how much they count.
#[test]
fn truths_go_to_their_anchors() {
    let plan = Variant::Yolov3.plan(80);
    let boxes: [[f64; 4]; 3] = [[0.52, 0.31, 0.20, 0.35], [0.10, 0.90, 0.04, 0.05], [0.50, 0.50, 0.90, 0.80]];
    let labels = Tensor::from_slice(&[0i64, 1, 2]);
    let targets = Targets { boxes: Tensor::from_slice2(&boxes), labels, counts: vec![3] };
    let sizes = [[1, 3, 13, 13], [1, 3, 26, 26], [1, 3, 52, 52]];
    let scales = assignment(&plan, &sizes, &targets, (416, 416)).unwrap();
    // Truth, scale, anchor's place in it, cell, targets, weight.
    for (truth, scale, place, [x, y], target, weight) in [
        (0, 1, 2, [13, 8], [0.52, 0.06, 0.343710, 0.201740], 1.930),
        (1, 2, 1, [5, 46], [0.20, 0.80, 0.039221, -0.366244], 1.998),
        (2, 0, 2, [6, 6], [0.50, 0.50, 0.003746, 0.020644], 1.280),
    ] {
        for (at, it) in scales.iter().enumerate() {
            assert_eq!(it.wins.int64_value(&[truth]) == 1, at == scale, "truth {truth}, scale {at}");
        }
        let (it, [_, _, h, w]) = (&scales[scale], sizes[scale]);
        assert_eq!(it.slot.int64_value(&[truth]), (place * h + y) * w + x, "truth {truth}");
        let found = Tensor::cat(&[it.xy.get(truth), it.wh.get(truth), it.scale.get(truth).view(1)], 0);
        let found = Vec::<f64>::try_from(found).unwrap();
        assert!(found.iter().zip(target.iter().chain([&weight])).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }
}

/// One truth may be learnt at two scales that share its anchor, as those of the tiny network share the fourth.
#[test]
fn scales_that_share_an_anchor_both_learn_it() {
    let targets = Targets {
        boxes: Tensor::from_slice2(&[[0.5, 0.5, 81.0 / 416.0, 82.0 / 416.0]]),
        labels: Tensor::from_slice(&[0i64]),
        counts: vec![1],
    };
    let sizes = [[1, 3, 13, 13], [1, 3, 26, 26]];
    let scales = assignment(&Variant::Yolov3Tiny.plan(80), &sizes, &targets, (416, 416)).unwrap();
    assert!(scales.iter().all(|it| it.wins.int64_value(&[0]) == 1));
}

/// Loops over pictures, cells and truths in PyTorch: values and gradients in float64, with shared slots, an empty picture, a truth on the edge
/// and one without area.
#[test]
fn losses_and_gradients_are_the_twins() {
    let (twins, targets) = (fixture(), truths());
    for ignore in [0.3, 0.5] {
        let raw = [("raw.0", [3, 2, 3, 4, 8]), ("raw.1", [3, 2, 6, 8, 8])];
        let raw = raw.map(|(name, size)| (golden::input(name, &size) * 2.0).set_requires_grad(true));
        let found = loss::yolov3(&small(), &raw, &targets, EDGES, ignore).unwrap();
        assert_close("loss", &parts(&found), &twins[&format!("v3.{ignore}.loss")], DOUBLE);
        found.loss.backward();
        for (i, raw) in raw.iter().enumerate() {
            assert_close("gradient", &raw.grad(), &twins[&format!("v3.{ignore}.grad.{i}")], DOUBLE);
        }
    }
    let raw = golden::input("raw", &[3, 1, 4, 4, 13]).set_requires_grad(true);
    let plan = Plan { sections: vec![Section::Grid { boxes: 2 }], anchors: vec![], classes: 3 };
    let found = loss::yolov1(&plan, &raw, &targets, 5.0, 0.5).unwrap();
    assert_close("loss", &parts(&found), &twins["v1.loss"], DOUBLE);
    found.loss.backward();
    assert_close("gradient", &raw.grad(), &twins["v1.grad"], DOUBLE);
}

/// No truths at all: objectness is to be 0 everywhere, and nothing else counts.
#[test]
fn a_batch_without_truths_has_a_loss() {
    let targets = Targets {
        boxes: Tensor::zeros([0, 4], F64),
        labels: Tensor::zeros([0], (Kind::Int64, Device::Cpu)),
        counts: vec![0, 0],
    };
    let raw = [[2, 2, 3, 4, 8], [2, 2, 6, 8, 8]].map(|size| Tensor::zeros(size, F64));
    let found = loss::yolov3(&small(), &raw, &targets, EDGES, 0.5).unwrap();
    let expected = Tensor::from_slice(&[1.0, 0.0, 1.0, 0.0]) * (2.0 * (12.0 + 48.0) * 2.0_f64.ln());
    assert_close("loss", &parts(&found), &expected, DOUBLE);
}

#[test]
fn a_network_of_every_section() {
    let (twins, image, targets) = (fixture(), golden::input("input", &[3, 3, 24, 32]), truths());
    let (_, net) = network(small(), true);
    for (i, raw) in tch::no_grad(|| net.forward(&image, Mode::Eval)).iter().enumerate() {
        let twin = &twins[&format!("net.eval.{i}")];
        assert_close("eval", raw, twin, DOUBLE.of_scale(twin));
    }
    let (store, net) = network(small(), true);
    let raw = net.forward(&image, Mode::Train);
    for (i, raw) in raw.iter().enumerate() {
        let twin = &twins[&format!("net.train.{i}")];
        assert_close("train", raw, twin, DOUBLE.of_scale(twin));
    }
    let found = loss::yolov3(net.plan(), &raw, &targets, EDGES, 0.5).unwrap();
    assert_close("loss", &parts(&found), &twins["net.loss"], DOUBLE);
    found.loss.backward();
    assert_samples_close("gradients", &gradients(&store), &twins["net.grad"], DOUBLE);
}

#[test]
fn ten_steps_of_sgd() {
    let (twins, targets) = (fixture(), truths());
    let ten = |double: bool| {
        let (store, net) = network(small(), double);
        let image = golden::input("input", &[3, 3, 24, 32]).to_kind(if double { Kind::Double } else { Kind::Float });
        let (momentum, weight_decay, lr_scaling) = (0.9, 5e-4, LrScaling::None);
        let sgd =
            SgdConfig { base_lr: 1e-4, momentum, nesterov: false, weight_decay, lr_scaling, lr_scale: LrScale::new() };
        let loss = || loss::yolov3(net.plan(), &net.forward(&image, Mode::Train), &targets, EDGES, 0.5).unwrap().loss;
        (golden::ten_losses(&store, &OptimConfig::Sgd(sgd), loss).unwrap(), store)
    };
    let (losses, store) = ten(true);
    assert_close("losses", &losses, &twins["net.losses"], DOUBLE);
    let running = variables(&store).into_iter().filter(|(name, _)| name.contains("running")).collect();
    assert_samples_close("running", &running, &twins["net.running"], ROUNDED);
    assert_close("losses in float32", &ten(false).0, &twins["net.losses"], SINGLE);
}

/// Which boxes stay, and in which order, with equal scores among them.
#[test]
fn suppression_is_torchvisions() {
    let twins = fixture();
    let boxes: Vec<Corners> = Vec::<Vec<f32>>::try_from(&twins["nms.boxes"])
        .unwrap()
        .into_iter()
        .map(|side| [side[0], side[1], side[2], side[3]])
        .collect();
    let scores = Vec::<f32>::try_from(&twins["nms.scores"]).unwrap();
    let whole = |name: &str| -> Vec<usize> {
        Vec::<i64>::try_from(&twins[name]).unwrap().into_iter().map(|place| place as usize).collect()
    };
    let classes = whole("nms.classes");
    for threshold in [0.3, 0.45, 0.7] {
        let (all, own) = (whole(&format!("nms.{threshold}")), whole(&format!("nms.by_class.{threshold}")));
        assert!(all.len() < own.len() && own.len() < boxes.len());
        assert_eq!(nms(&boxes, &scores, threshold), all, "{threshold}");
        assert_eq!(nms_by_class(&boxes, &scores, &classes, threshold), own, "{threshold}");
    }
}
