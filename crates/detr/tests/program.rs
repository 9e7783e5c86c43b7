//! The program's `forward`, held against the library; the experiments, held against the paper's values.

use std::path::{Path, PathBuf};

use detr::config::{Config, validate};
use detr::loss::{LossConfig, Norms, judge};
use detr::model::{Detr, variant};
use detr::position::Positions;
use repro::config::{Experiment, Length};
use repro::data::{Filter, Flip, Normalise, ResizeCrop, SceneAugment, SceneFit};
use repro::detection::Targets;
use repro::golden::{self, Program, Tolerance, assert_close, variables};
use repro::nn::Mode;
use repro::optim::{AdamwConfig, LrScaling, OptimConfig};
use repro::weights::Named;
use tch::{Device, Kind, Tensor, nn};

/// Float64 on both sides.
const EXACT: Tolerance = Tolerance { relative: 1e-9, absolute: 1e-11 };

fn experiment(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../experiments/detr/{name}.yaml"))
}

fn load(name: &str, overrides: &[&str]) -> repro::Result<Experiment<Config>> {
    let overrides: Vec<String> = overrides.iter().map(|&word| word.to_string()).collect();
    repro::config::load(&experiment(name), &overrides)
}

fn net() -> (nn::VarStore, Detr) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Detr::new(&store.root(), variant("detr_small").unwrap(), 10);
    store.double();
    golden::fill(&store);
    (store, net)
}

fn inputs() -> Named {
    let padding = Tensor::zeros([2, 64, 64], (Kind::Uint8, Device::Cpu));
    let _ = padding.get(1).narrow(1, 40, 24).fill_(1);
    let boxes = [[0.5, 0.5, 0.4, 0.3], [0.2, 0.3, 0.1, 0.2], [0.6, 0.4, 0.5, 0.6]].concat();
    [
        ("image", golden::input("input", &[2, 3, 64, 64])),
        ("padding", padding),
        ("boxes", Tensor::from_slice(&boxes).view([3, 4])),
        ("labels", Tensor::from_slice(&[3_i64, 7, 0])),
        ("counts", Tensor::from_slice(&[2_i64, 1])),
    ]
    .map(|(name, tensor)| (name.to_string(), tensor))
    .into()
}

/// Each parameter counts once, though attention's three products are done in two.
#[test]
fn the_layers_add_up_to_the_network() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_detr"));
    let output = command.args(["summary", "--json", "--config"]).arg(experiment("smoke")).output().unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sum: u64 = rows.as_array().unwrap().iter().map(|row| row["parameters"].as_u64().unwrap()).sum();
    let trained: usize = net().0.trainable_variables().iter().map(Tensor::numel).sum();
    assert_eq!(sum, trained as u64);
}

#[test]
fn the_program_answers_as_the_library() {
    let (config, input, (store, net)) = (experiment("smoke"), inputs(), net());
    let program = Program { binary: env!("CARGO_BIN_EXE_detr"), config: &config };
    let given = program.answer(&variables(&store), &input, &["--attention", "--grad"]).unwrap();

    let output = net.forward(&input["image"], Some(&input["padding"].to_kind(Kind::Bool)), Mode::Eval).unwrap();
    let targets = Targets::given(&input, 2, 10).unwrap().unwrap();
    let weights = LossConfig { ce: 1.0, bbox: 5.0, giou: 2.0, eos: 0.1 };
    let losses = judge(&output, &targets, &weights, Norms::of(&targets.counts, 20, 0.1)).unwrap();
    let (logits, boxes) = output.last();
    assert_close("pred_logits", &given["pred_logits"], &logits, EXACT);
    assert_close("pred_boxes", &given["pred_boxes"], &boxes, EXACT);
    assert_close("loss", &given["loss"], &losses.total(&weights), EXACT);
    for (name, terms) in [("loss_ce", &losses.ce), ("loss_bbox", &losses.bbox), ("loss_giou", &losses.giou)] {
        for (ending, layer) in [(".0", 0), (".1", 1), ("", 2)] {
            assert_close(name, &given[&format!("{name}{ending}")], &terms.get(layer), EXACT);
        }
    }
    let pairs = &losses.pairs[2];
    assert_eq!(Vec::<i64>::try_from(&given["match.query"]).unwrap(), pairs.query);
    assert_eq!(Vec::<i64>::try_from(&given["match.target"]).unwrap(), pairs.within(&targets.counts));
    losses.total(&weights).backward();
    let gradients = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
    let gradients: Named = gradients.map(|(name, tensor)| (format!("grad.{name}"), tensor.grad())).collect();
    for (name, gradient) in &gradients {
        assert_close(name, &given[name], gradient, EXACT.of_scale(gradient));
    }
    assert_eq!(given["attention.decoder.2.cross"].size(), [2, 4, 20, 4]);
    // Answers, 1 + 3·3 losses, pairs, the attentions of 3 + 2·3, gradients.
    assert_eq!(given.len(), 2 + 10 + 2 + 9 + gradients.len());

    let alone = Named::from([("image".to_string(), input["image"].shallow_clone())]);
    let given = program.answer(&variables(&store), &alone, &[]).unwrap();
    assert_eq!(given.keys().collect::<Vec<_>>(), ["pred_boxes", "pred_logits"]);
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let store = nn::VarStore::new(Device::Cpu);
    let forward = (detr::app::app().model)(&load("smoke", &[]).unwrap().paper, "train", &store.root()).unwrap();
    let told = |name: &str, tensor: Option<Tensor>| {
        let mut input = inputs();
        input.remove(name);
        input.extend(tensor.map(|tensor| (name.to_string(), tensor)));
        forward(&input, false).unwrap_err().to_string()
    };
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Uint8, Device::Cpu));
    for (name, tensor, word) in [
        ("image", None, "no tensor named image"),
        ("image", Some(golden::input("input", &[2, 1, 64, 64])), "[N, 3, H, W]"),
        ("padding", Some(ones(&[2, 64, 32])), "bool or uint8 of [2, 64, 64]"),
        ("padding", Some(ones(&[2, 64, 64])), "upper left corner"),
        ("padding", Some(ones(&[2, 64, 64]) * 2), "0 on the picture and 1 beside it"),
        ("labels", Some(Tensor::from_slice(&[3_i64, 10, 0])), "labels must be from 0 to 9"),
        ("counts", None, "boxes, labels and counts"),
        ("mask", Some(ones(&[1])), "input tensor mask is not known"),
    ] {
        let said = told(name, tensor);
        assert!(said.contains(word), "{said}");
    }
}

/// §4 and Appendix A.4.
#[test]
fn the_rows_of_coco_have_the_paper_s_values() {
    let rows = [
        ("coco_resnet50", "detr_resnet50", 500.0, 400, 0.420),
        ("coco_resnet50_dc5", "detr_resnet50_dc5", 500.0, 400, 0.433),
        ("coco_resnet101", "detr_resnet101", 500.0, 400, 0.435),
        ("coco_resnet101_dc5", "detr_resnet101_dc5", 500.0, 400, 0.449),
        ("coco_resnet50_e300", "detr_resnet50", 300.0, 200, 0.406),
    ];
    for (name, model, epochs, drop, value) in rows {
        let Experiment { settings, paper, .. } = load(name, &[]).unwrap();
        assert_eq!(validate(&paper, &settings).list(), [], "{name}");
        assert_eq!((settings.length, settings.batch_size), (Length::Epochs(epochs), 64));
        assert_eq!(settings.freeze.unwrap(), ["backbone.0.body.conv1", "backbone.0.body.layer1"]);
        let claim = settings.paper.unwrap();
        assert_eq!((claim.metric.as_str(), claim.value), ("test/AP", Some(value)));
        assert_eq!((paper.model.name.as_str(), paper.model.num_classes, paper.model.dropout), (model, 91, 0.1));
        assert_eq!(paper.loss, LossConfig { ce: 1.0, bbox: 5.0, giou: 2.0, eos: 0.1 });
        assert_eq!(paper.clip, 0.1);
        let adamw = AdamwConfig {
            base_lr: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-4,
            lr_scaling: LrScaling::None,
            lr_scale: [("backbone.0.body".to_string(), 0.1)].into(),
        };
        assert_eq!(paper.optim, OptimConfig::Adamw(adamw));
        let factor = |epoch: u64| paper.schedule.factor(epoch * 100, epochs as u64 * 100, 100);
        assert_eq!((factor(0), factor(drop - 1), factor(drop)), (1.0, 1.0, 0.1));
        let crop =
            ResizeCrop { p: 0.5, short: vec![400, 500, 600], smallest: 384, largest: 600, filter: Filter::Bilinear };
        assert_eq!(paper.augment, [SceneAugment::Flip(Flip { p: 0.5 }), SceneAugment::ResizeCrop(crop)]);
        let fit = |short| SceneFit::ShortSide { short, longest: Some(1333), filter: Filter::Bilinear };
        assert_eq!(paper.view.train, fit((480..=800).step_by(32).collect()));
        assert_eq!(paper.view.test, fit(vec![800]));
        let Normalise::Channels { mean, std } = &paper.normalise else { panic!("{:?}", paper.normalise) };
        assert_eq!((&mean[..], &std[..]), (&[0.485, 0.456, 0.406][..], &[0.229, 0.224, 0.225][..]));
    }
}

#[test]
fn settings_that_cannot_act_are_refused_by_their_keys() {
    for (word, key) in [
        ("model.name=detr_resnet18", "model.name"),
        ("model.num_classes=0", "model.num_classes"),
        ("model.dropout=1", "model.dropout"),
        ("model.encoder_layers=65", "model.encoder_layers"),
        ("model.decoder_layers=0", "model.decoder_layers"),
        ("model.queries=0", "model.queries"),
        ("loss.ce=0", "loss.ce"),
        ("loss.eos=0", "loss.eos"),
        ("loss.giou=-1", "loss.giou"),
        ("clip=0", "clip"),
    ] {
        let Experiment { settings, paper, .. } = load("smoke", &[word]).unwrap();
        let found = validate(&paper, &settings);
        assert_eq!(found.list().iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), [key], "{word}");
    }
    let Experiment { settings, paper, .. } = load("smoke", &["loss.giou=0", "loss.bbox=0"]).unwrap();
    assert!(validate(&paper, &settings).list()[0].1.contains("no box would be learned"));
    // Tables 2 and 3.
    let Experiment { paper, .. } =
        load("coco_resnet50_e300", &["model.encoder_layers=12", "model.positions=none"]).unwrap();
    let changed = paper.variant().unwrap();
    assert_eq!((changed.encoder, changed.decoder, changed.positions), (12, 6, Positions::None));
}
