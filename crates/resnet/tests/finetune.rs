//! Starting from given weights: a classifier of one's own, parts that do not learn.

use std::path::Path;

use repro::config::Experiment;
use repro::data::{Cursor, Pass, Source};
use repro::setup::Setup;
use repro::trainer::{Recipe, Step};
use repro::weights::{self, Named};
use resnet::config::Config;
use resnet::model::{Network, Variant, initialise};
use resnet::train::Train;
use tch::{Device, nn};

/// The smoke run with other keys, of one process on the CPU.
fn smoke(overrides: &[&str]) -> (Config, Setup) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/resnet/smoke.yaml");
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    let Experiment { settings, paper, .. } = repro::config::load(&file, &overrides).unwrap();
    (paper, Setup::new(settings, Device::Cpu).unwrap())
}

/// A state as `--init` hands it over.
fn given(name: &str, classes: i64, wrapper: &str) -> Named {
    let store = nn::VarStore::new(Device::Cpu);
    let variant = Variant::named(name).unwrap();
    let _net = Network::new(&store.root(), variant, classes);
    initialise(&store.variables().into_iter().collect(), variant, false).unwrap();
    store.variables().into_iter().map(|(name, tensor)| (format!("model.{wrapper}{name}"), tensor)).collect()
}

fn build(overrides: &[&str], init: Option<&Named>) -> repro::Result<Named> {
    let (config, setup) = smoke(overrides);
    Ok(weights::below(&Train::build(&config, &setup, init)?.state(), "model."))
}

#[test]
fn weights_of_a_thousand_classes_start_a_network_of_three() {
    for (name, head, wrapper) in [("resnet18", "fc", ""), ("cifar_resnet20", "linear", "module.")] {
        let init = given(name, 1000, wrapper);
        let three = [format!("model.name={name}"), "model.num_classes=3".into()];
        let three: Vec<&str> = three.iter().map(String::as_str).collect();
        let model = build(&three, Some(&init)).unwrap();
        let (fresh, taken): (Named, Named) = model.into_iter().partition(|(name, _)| weights::below_prefix(name, head));
        assert_eq!(fresh[&format!("{head}.weight")].size()[0], 3);
        assert!(fresh.values().all(|t| t.abs().max().double_value(&[]) > 0.0));
        let theirs: Named = weights::below(&init, &format!("model.{wrapper}"))
            .into_iter()
            .filter(|(name, _)| !weights::below_prefix(name, head))
            .collect();
        assert_eq!(weights::hash(&taken).unwrap(), weights::hash(&theirs).unwrap());

        let strict = build(&[&three[..], &["init={head: strict}"]].concat(), Some(&init)).unwrap_err().to_string();
        let expected = format!("misshapen: {head}.bias is [1000] and should be [3]");
        assert!(strict.contains(&expected) && strict.contains("init.head=fresh"), "{strict}");
    }
    // Another network is no other number of classes.
    let error = build(&["model.name=resnet18", "model.num_classes=3"], Some(&given("resnet50", 1000, ""))).unwrap_err();
    assert!(error.to_string().contains("misshapen: fc.weight is [1000, 2048] and should be [3, 512]"), "{error}");
}

/// Weights, biases and statistics of the frozen part keep every bit over a few steps; the rest moves.
#[test]
fn a_frozen_part_stays_as_it_is() {
    let frozen = ["conv1", "bn1", "layer1", "layer2.0.bn1"].map(String::from);
    let (config, setup) = smoke(&["freeze=[conv1, bn1, layer1., layer2.0.bn1]", "batch_size=16"]);
    let data = Train::data(&config, &setup).unwrap();
    let mut recipe = Train::build(&config, &setup, Some(&given("cifar_resnet20", 10, ""))).unwrap();
    let model = |recipe: &Train| weights::below(&recipe.state(), "model.");
    let before: Named = model(&recipe).into_iter().map(|(name, t)| (name, t.copy())).collect();
    let cursor = Cursor { seed: 1, step: 0, rank: 0, world: 1, batch: 16, pass: Pass::DropRest, repeats: 1 };
    for (index, batch) in (0..3).zip(data.batches(cursor)) {
        let at = Step { index, total: 3, steps_per_epoch: 3, setup: &setup };
        recipe.step(batch.unwrap(), &data, &at).unwrap();
    }
    let after = model(&recipe);
    let hash = |model: &Named| weights::frozen_hash(model, &frozen).unwrap();
    assert_eq!(hash(&before), hash(&after));
    for (name, tensor) in &after {
        let still = *tensor == before[name];
        assert_eq!(still, frozen.iter().any(|prefix| weights::below_prefix(name, prefix)), "{name}");
    }
    assert!(recipe.state().keys().any(|name| name.starts_with("optim.") && name.contains("layer2.0.conv1")));
    assert!(!recipe.state().keys().any(|name| name.starts_with("optim.") && name.contains("layer1.")));
}

#[test]
fn a_part_that_is_not_there_cannot_be_frozen() {
    let refused = |freeze: &str| build(&[freeze], None).unwrap_err().to_string();
    assert!(
        refused("freeze=[layer]").contains("freeze: no tensor of this model lies below \"layer\"; did you mean layer")
    );
    assert!(refused("freeze=[fc]").contains("there are: bn1, conv1, layer1, layer2, layer3, linear"));
    assert!(refused("freeze=[conv1, bn1, layer1, layer2, layer3, linear]").contains("leave nothing to train"));
}
