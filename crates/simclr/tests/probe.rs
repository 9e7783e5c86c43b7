//! What a probe is: a trunk that stays as it is, or an error; and neighbours by their definition.

use std::path::Path;

use repro::config::{Experiment, Length};
use repro::data::Cursor;
use repro::data::Source;
use repro::golden;
use repro::loss::cross_entropy;
use repro::nn::Mode;
use repro::optim::Group;
use repro::probe::{self, Batch, Features, Knn, Memory};
use repro::setup::Setup;
use repro::trainer::{Recipe, Step};
use repro::weights::{self, Named};
use simclr::config::Config;
use simclr::model::{Encoder, online_head};
use tch::{Device, Kind, Tensor, nn};

type LinearProbe = probe::LinearProbe<Encoder>;

fn probe(words: &[&str]) -> (Config, Setup) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/simclr/smoke.yaml");
    let words = [&["data.limit_train=40", "data.limit_test=10", "probe.batch_size=8"], words].concat();
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let Experiment { settings, paper, .. } = repro::config::load(&file, &words).unwrap();
    let setup = Setup::new(settings, Device::Cpu).unwrap();
    (paper, setup.for_stage("probe", true, Some(Length::Steps(3)), 8))
}

fn step(recipe: &mut LinearProbe, config: &Config, setup: &Setup) -> repro::Result<()> {
    let data = LinearProbe::data(config, setup)?;
    for (index, batch) in (0..3).zip(data.batches(Cursor::of(setup, 0))) {
        recipe.step(batch?, &data, &Step { index, total: 3, steps_per_epoch: 5, setup })?;
    }
    Ok(())
}

/// Augmented or not, only the classifier moves; and a trunk that could learn ends the run.
#[test]
fn an_unfrozen_trunk_fails() {
    for augment in ["probe.augment=[]", "probe.augment=[{kind: flip}]"] {
        let (config, setup) = probe(&[augment]);
        let mut recipe = LinearProbe::build(&config, &setup, None).unwrap();
        let model = |recipe: &LinearProbe| weights::below(&recipe.state(), "model.");
        let hash =
            |recipe: &LinearProbe, part: &str| weights::frozen_hash(&model(recipe), &[part.to_string()]).unwrap();
        let (trunk, classifier) = (hash(&recipe, "backbone"), hash(&recipe, "classifier"));
        step(&mut recipe, &config, &setup).unwrap();
        assert_eq!(hash(&recipe, "backbone"), trunk);
        assert_ne!(hash(&recipe, "classifier"), classifier);

        let _ = model(&recipe)["backbone.layer3.2.conv2.weight"].shallow_clone().set_requires_grad(true);
        let error = step(&mut recipe, &config, &setup).unwrap_err().to_string();
        assert!(error.contains("backbone.layer3.2.conv2.weight takes a gradient"), "{error}");
    }
}

/// Where nothing is drawn each step has the very pictures that it would have otherwise, over processes and from anywhere.
#[test]
fn places_are_those_of_the_pictures() {
    let (config, setup) = probe(&["probe.augment=[]"]);
    let data = LinearProbe::data(&config, &setup).unwrap();
    for (rank, world) in [(0, 1), (0, 2), (1, 2)] {
        for start in [0, 3, 7] {
            let cursor = Cursor { rank, world, ..Cursor::of(&setup, start) };
            for (batch, images) in data.batches(cursor).zip(data.pictures.batches(cursor)).take(6) {
                let Batch::Places(places) = batch.unwrap() else { panic!("nothing is drawn") };
                let shown =
                    data.pictures.show(repro::data::Split::Train, &Vec::<i64>::try_from(places).unwrap()).unwrap();
                assert_eq!(shown, images.unwrap().image);
            }
        }
    }
}

/// Votes of weight exp(cosine / temperature), of the k nearest, against plain Rust.
#[test]
fn neighbours_vote_as_they_are_defined() {
    let (memory, asked) = (golden::input("memory", &[30, 5]), golden::input("asked", &[7, 5]));
    let label = golden::labels(30, 4);
    let rows = |tensor: &Tensor| Vec::<Vec<f64>>::try_from(tensor).unwrap();
    let labels = Vec::<i64>::try_from(&label).unwrap();
    let known = Memory::new(Features { h: memory.shallow_clone(), label }, 4).unwrap();
    for (k, temperature) in [(1, 0.1), (5, 0.07), (30, 1.0)] {
        let votes = rows(&known.votes(&asked, &Knn { k, temperature }).unwrap().to_kind(Kind::Double));
        for (one, votes) in rows(&asked).iter().zip(votes) {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            let cosine = |other: &Vec<f64>| dot(one, other) / (dot(one, one) * dot(other, other)).sqrt();
            let mut near: Vec<(f64, i64)> = rows(&memory).iter().map(cosine).zip(labels.iter().copied()).collect();
            near.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut expected = [0.0; 4];
            near[..k as usize]
                .iter()
                .for_each(|(cosine, label)| expected[*label as usize] += (cosine / temperature).exp());
            // Votes are compared with one another only.
            let (found, sum): (f64, f64) = (votes.iter().sum(), expected.iter().sum());
            for (vote, expected) in votes.iter().zip(expected) {
                assert!((vote / found - expected / sum).abs() < 1e-12, "{k}: {votes:?}");
            }
        }
    }
}

fn fixture() -> Named {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/simclr.safetensors");
    weights::read(&file).unwrap().0
}

/// The optimum of the probe's loss and weight decay on given features is what scikit-learn's logistic regression finds there.
#[test]
fn the_linear_classifier_ends_where_scikit_learn_does() {
    let (config, _) = probe(&["model.num_classes=5", "probe.optim.weight_decay=0.01"]);
    let section = config.probe.clone().unwrap();
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = online_head(&store.root(), 12, &config);
    store.double();
    let params = section.optim.params(&store, |_, _| Some(Group::of(section.optim.weight_decay()))).unwrap();
    let mut optimizer = section.optim.build(&params).unwrap();
    let (h, label) = (golden::input("probe.h", &[80, 12]), golden::labels(80, 5));
    for _ in 0..2000 {
        params.zero_grad();
        cross_entropy(&net.forward(&h, Mode::Train), &label, 0.0).backward();
        optimizer.step(1.0).unwrap();
    }
    let expected = fixture();
    for (name, found) in store.variables() {
        let wanted = &expected[&name.replace("classifier", "probe")];
        let gap = (found - wanted).abs().max().double_value(&[]);
        assert!(gap < 1e-8, "{name}: {gap}");
    }
    let answers = tch::no_grad(|| net.forward(&golden::input("probe.asked", &[40, 12]), Mode::Eval)).argmax(1, false);
    assert_eq!(answers, expected["probe.answers"].to_kind(Kind::Int64));
}

/// The shares of the votes are those of scikit-learn's k nearest neighbours with the same weights.
#[test]
fn neighbours_vote_as_scikit_learns_do() {
    let (h, label) = (golden::input("probe.h", &[80, 12]), golden::labels(80, 5));
    let known = Memory::new(Features { h, label }, 5).unwrap();
    for k in [10, 20, 80] {
        let votes = known.votes(&golden::input("probe.asked", &[40, 12]), &Knn { k, temperature: 0.1 }).unwrap();
        let shares = &votes / votes.sum_dim_intlist([1_i64].as_slice(), true, Kind::Double);
        let gap = (shares - &fixture()[&format!("neighbours.{k}")]).abs().max().double_value(&[]);
        assert!(gap < 1e-12, "{k}: {gap}");
    }
}
