//! torchvision's RetinaNet, held against the pyramid, the heads, the anchors and the loss of this crate.

mod truths;

use std::path::Path;

use repro::detection::boxes::corners;
use repro::golden::{self, DOUBLE, Tolerance, assert_close};
use repro::nn::{BatchNormConfig, Mode, record};
use repro::weights::{self, Named};
use resnet::model::{Trunk, Variant};
use tch::{Device, Kind, Tensor, nn};
use yolo::retina::{Heads, Output, Pyramid, Retina, anchors, decoded, initialise, losses, matched};

use truths::truths;

fn fixture() -> Named {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/retina.safetensors");
    weights::read(&path).unwrap().0
}

/// The whole network over ResNet-50 in float64: published mean, deviation, first four and last number of both heads.
#[test]
fn over_resnet50_it_has_torchvisions_golden_values() {
    let mut store = nn::VarStore::new(Device::Cpu);
    let path = store.root();
    let body =
        Trunk::new(&(&path / "backbone" / "body"), Variant::named("resnet50").unwrap(), &BatchNormConfig::default());
    let pyramid = Pyramid::new(&(&path / "backbone" / "fpn"), &[512, 1024, 2048], 256, 2);
    let heads = Heads::new(&(&path / "head"), 256, 4, 91);
    store.double();
    golden::fill(&store);
    let image = golden::input("input", &[1, 3, 128, 128]);
    let names = ["layer2.3", "layer3.5", "layer4.2"].map(|name| format!("backbone.body.{name}"));
    let pass = || Ok(tch::no_grad(|| body.forward(&image, Mode::Eval)));
    let (_, mut taps) = record::tap(&names, pass).unwrap();
    let maps = names.map(|name| taps.remove(&name).unwrap());
    let output = tch::no_grad(|| heads.forward(&pyramid.forward(&maps)));
    assert_eq!(output.levels, [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]);
    for (rows, numbers, published) in [
        (
            &output.logits,
            91,
            [-0.02425456394, 0.4475092413, 0.3346103892, -0.0439270551, -0.0592701836, -0.2171925003, -0.000678955],
        ),
        (
            &output.deltas,
            4,
            [0.08214327422, 0.3934047393, -0.0427678059, 0.0159747571, -0.3051423487, 0.1466664081, -0.0270819394],
        ),
    ] {
        assert_eq!(rows.size(), [1, 3069, numbers]);
        let all = Vec::<f64>::try_from(rows.reshape([-1])).unwrap();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
        for (ours, theirs) in [mean, deviation].iter().chain(&all[..4]).chain(all.last()).zip(published) {
            assert!((ours - theirs).abs() <= 1e-6 * deviation, "{ours} and not {theirs}");
        }
    }
    // torchvision's 34,014,999 without the norms, which it freezes.
    let norms = |name: &String| name.contains(".bn") || name.contains("downsample.1");
    let trained = store.variables().into_iter().filter(|(name, tensor)| tensor.requires_grad() && !norms(name));
    assert_eq!(trained.map(|(_, tensor)| tensor.numel()).sum::<usize>(), 34_014_999);
    let all = anchors(&output.levels, (128, 128), &[32, 64, 128, 256, 512], &output.deltas);
    let row = |at: i64| Vec::<f64>::try_from(all.get(at)).unwrap();
    assert_eq!((row(0), row(1)), (vec![-23.0, -11.0, 23.0, 11.0], vec![-28.0, -14.0, 28.0, 14.0]));
    assert_eq!((row(2), row(3)), (vec![-35.0, -18.0, 35.0, 18.0], vec![-16.0, -16.0, 16.0, 16.0]));
    assert_eq!(row(3068), [-287.0, -574.0, 287.0, 574.0]);
}

#[test]
fn anchors_matches_boxes_and_losses_are_torchvisions() {
    let twins = fixture();
    let edges = (32, 64);
    let logits = (golden::input("logits", &[3, 378, 3]) * 3.0).set_requires_grad(true);
    let deltas = golden::input("deltas", &[3, 378, 4]).set_requires_grad(true);
    let output = Output { logits, deltas, levels: vec![(4, 8), (2, 4), (1, 2)] };
    let all = Retina::anchors(&output, edges);
    assert_close("anchors", &all, &twins["anchors"].to_kind(Kind::Double), DOUBLE);

    let targets = truths();
    let pixels = Tensor::from_slice(&[64.0, 32.0, 64.0, 32.0]);
    for at in [0, 2] {
        let boxes = targets.each().nth(at).unwrap().0;
        let has_area = boxes.select(1, 2).gt(0.0).nonzero().view([-1]);
        let found = matched(&corners(&(boxes.index_select(0, &has_area) * &pixels)), &all);
        assert!(found.equal(&twins[&format!("matched.{at}")]), "picture {at}");
    }
    let boxes = decoded(&(&output.deltas * 3.0), &all);
    let twin = &twins["decoded"];
    assert_close("boxes", &boxes, twin, DOUBLE.of_scale(twin));

    let found = losses(&output, &targets, &all, edges, (Some(0.25), 2.0)).unwrap();
    let [(_, of_box), (_, class)] = &found.parts[..] else { panic!("{found:?}") };
    assert_close("loss", &Tensor::stack(&[class, of_box], 0), &twins["loss"], DOUBLE);
    found.loss.backward();
    assert_close("gradient", &output.logits.grad(), &twins["grad.logits"], DOUBLE);
    assert_close("gradient", &output.deltas.grad(), &twins["grad.deltas"], DOUBLE);
}

/// §4.1: where training starts, each anchor has an object with a probability of 0.01, so that the loss of a picture without any is small.
#[test]
fn training_starts_from_the_prior() {
    let store = nn::VarStore::new(Device::Cpu);
    let net = Retina::new(&store.root(), 10).unwrap();
    initialise(&golden::variables(&store)).unwrap();
    let output = net.forward(&(golden::input("input", &[2, 3, 64, 96]) * 0.5 + 0.5).to_kind(Kind::Float), Mode::Train);
    assert_eq!((output.logits.size(), output.deltas.size()), (vec![2, (96 + 24 + 6) * 9, 10], vec![2, 126 * 9, 4]));
    let prior = Tensor::full(output.logits.size(), 0.01, (Kind::Double, Device::Cpu));
    let near = Tolerance { relative: 0.2, absolute: 0.0 };
    assert_close("probability", &output.logits.sigmoid(), &prior, near);
}
