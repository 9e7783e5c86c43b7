//! What this paper hands to the command line that all papers share.

use repro::answer::Look;
use repro::classifier;
use repro::cli::{App, Extra, Forward, Paper};
use repro::data::{Cursor, Source};
use repro::nn::Mode;
use repro::probe::{self, KNN, LinearProbe, Neighbours, PROBE, Trunk};
use repro::setup::Setup;
use repro::trainer::Stage;
use repro::weights::Named;
use repro::{Error, Result, user};
use tch::{Device, Kind, Tensor, nn};

use crate::config::{Config, validate};
use crate::features::{features, neighbours, predict};
use crate::finetune::{self, Finetuned};
use crate::model::{Classifier, Encoder, Output, Simclr, online_head};
use crate::pretrain::{self, Pretrain};

/// The first stage.
const PRETRAIN: &str = "pretrain";
/// Pictures that `data` shows.
const LOOK: u64 = 10;

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "simclr",
            title: "A Simple Framework for Contrastive Learning of Visual Representations",
            authors: "Chen, Kornblith, Norouzi and Hinton, 2020",
        },
        validate,
        counts_classes: |_| false,
        renamed: |_, given| Ok(given),
        stages,
        model,
        predict,
        example,
        look,
        extras: vec![
            Extra {
                name: "features",
                of_predict: false,
                about: "Write what the trunk makes of each picture below a folder: features FOLDER --weights W --out F.safetensors (or .npy)",
                flags: |command| command,
                run: features,
            },
            Extra {
                name: "neighbours",
                of_predict: true,
                about: "Draw the training pictures that are nearest to each by h, and tell what classes they vote for",
                flags: |command| command,
                run: neighbours,
            },
        ],
    }
}

/// Pre-training, and each of the others whose block is written; all of them begin with the pre-trained trunk.
fn stages(config: &Config) -> Vec<Stage<Config>> {
    let mut stages = vec![Stage::of::<Pretrain>(PRETRAIN, pretrain::plan)];
    stages.extend(probe::stages::<Encoder>(config, PRETRAIN));
    if config.finetune.is_some() {
        stages.push(Stage::of::<Finetuned>("finetune", finetune::plan).after(PRETRAIN));
    }
    stages
}

/// Pre-training: `view1`, `view2` → `h1`, `h2`, `z1`, `z2`, `loss`. k-NN: `image` → `h`. The others: `image` [, `label`] → `logits` [, `loss`].
fn model(config: &Config, stage: &str, path: &nn::Path) -> Result<Forward> {
    match stage {
        PRETRAIN => of_views(config, path),
        KNN => {
            let encoder = Encoder::new(path, config)?;
            let name = "image";
            Ok(Box::new(move |input, train| {
                known(input, &[name])?;
                let image = pictures(input, name)?;
                if train {
                    return Err(user!("stage {KNN} trains nothing; leave --train away"));
                }
                let h = encoder.features(image);
                Ok(Named::from([("h".into(), h)]))
            }))
        }
        _ => {
            let normed = stage == PROBE && config.probe.as_ref().is_some_and(|probe| probe.norm == Some(true));
            let net = Classifier::new(path, config, normed, None)?;
            let variant = config.variant()?;
            let logits = move |image: &Tensor, mode: Mode| {
                let (n, _, h, w) = image.size4()?;
                if mode.trains() {
                    variant.check_batch(n, h.max(w))?;
                }
                Ok(net.forward(image, mode))
            };
            Ok(classifier::forward(3, 8..=i64::MAX, config.model.num_classes, logits))
        }
    }
}

fn of_views(config: &Config, path: &nn::Path) -> Result<Forward> {
    let (net, loss) = (Simclr::new(path, config, None)?, config.loss.clone());
    // An online probe is part of the weights, and takes no part here.
    config.online().map(|_| online_head(path, net.encoder.width(), config));
    Ok(Box::new(move |input, train| {
        let names = ["view1", "view2"];
        known(input, &names)?;
        let [one, two] = [pictures(input, names[0])?, pictures(input, names[1])?];
        if one.size() != two.size() {
            return Err(user!("view1 is {:?} and view2 {:?}; both must have one shape", one.size(), two.size()));
        }
        let Output { h, z } = net.forward(&Tensor::f_cat(&[one, two], 0)?, mode(train));
        let loss = loss.of(&z, 0, |rows| Ok(rows.shallow_clone()))?;
        let n = one.size()[0];
        let half = |tensor: &Tensor, place: i64| tensor.narrow(0, place * n, n);
        let named =
            [("h1", half(&h, 0)), ("h2", half(&h, 1)), ("z1", half(&z, 0)), ("z2", half(&z, 1)), ("loss", loss)];
        Ok(named.map(|(name, tensor)| (name.to_string(), tensor)).into())
    }))
}

fn mode(train: bool) -> Mode {
    if train { Mode::Train } else { Mode::Eval }
}

/// Refuses inputs of other names.
fn known(input: &Named, names: &[&str]) -> Result<()> {
    match input.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(user!("input tensor {name} is not known; give {}", names.join(" and "))),
    }
}

/// The input of this name, `[N, 3, H, W]`.
fn pictures<'a>(input: &'a Named, name: &str) -> Result<&'a Tensor> {
    let image = input.get(name).ok_or_else(|| user!("the input has no tensor named {name}"))?;
    let size = image.size();
    if !matches!(size[..], [n, 3, h, w] if n > 0 && h >= 8 && w >= 8) || !image.is_floating_point() {
        return Err(user!(
            "{name} is {:?} of {size:?}; this model takes floating point of [N, 3, H, W] with H and W at least 8",
            image.kind()
        ));
    }
    Ok(image)
}

fn example(config: &Config, stage: &str) -> Result<Named> {
    let edge = config.edge()?;
    let picture = || Tensor::zeros([1, 3, edge, edge], (Kind::Float, Device::Cpu));
    let names: &[&str] = if stage == PRETRAIN { &["view1", "view2"] } else { &["image"] };
    Ok(names.iter().map(|name| ((*name).to_string(), picture())).collect())
}

/// The first training pictures of pre-training in both views, or of another stage as it sees them.
fn look(config: &Config, setup: &Setup) -> Result<Look> {
    use repro::trainer::Recipe;
    match setup.stage.as_str() {
        PRETRAIN => pairs(config, setup),
        KNN => classifier::look(&Neighbours::<Encoder>::data(config, setup)?, setup),
        PROBE => classifier::look(&LinearProbe::<Encoder>::data(config, setup)?.pictures, setup),
        _ => classifier::look(&Finetuned::data(config, setup)?, setup),
    }
}

fn pairs(config: &Config, setup: &Setup) -> Result<Look> {
    let data = pretrain::views(config, setup)?;
    let batch = LOOK.min(data.len());
    let cursor = Cursor { rank: 0, world: 1, batch, ..Cursor::of(setup, 0) };
    let views = data.batches(cursor).next().ok_or_else(|| Error::Failed("no training pictures".into()))??;
    let both: Vec<_> = views.iter().map(|view| &view.image).collect();
    let pictures = &data.pictures;
    let labels = Vec::<i64>::try_from(views[0].label.to_device(Device::Cpu))?;
    let names = pictures.classes();
    let caption = |view: usize, label: i64| format!("{}\nview {view}", names[label as usize]);
    let captions = (1..=views.len()).flat_map(|view| labels.iter().map(move |&label| caption(view, label))).collect();
    let counts: Vec<_> =
        names.iter().zip(pictures.class_counts()?).map(|(name, (train, test))| (name.clone(), train, test)).collect();
    let shown = pictures.normaliser().undo(&Tensor::f_cat(&both, 0)?)?.f_to_device(Device::Cpu)?;
    Ok(Look::labelled(shown, captions, &counts, &pictures.mean_std()?))
}
