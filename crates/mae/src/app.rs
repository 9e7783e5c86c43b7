//! What this paper hands to the command line that all papers share.

use std::path::{Path, PathBuf};

use repro::answer::{self, Answer, Look};
use repro::classifier::{self, Card};
use repro::cli::{App, Forward, Paper};
use repro::data::Stills;
use repro::nn::Mode;
use repro::probe::{self, Head, KNN, LinearProbe, Neighbours, PROBE, Trunk};
use repro::setup::Setup;
use repro::trainer::{Recipe, Stage};
use repro::weights::{Load, Named};
use repro::{Result, figures, user};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};

use crate::config::{Config, validate};
use crate::finetune::{self, Finetuned};
use crate::masking::Masking;
use crate::names::renamed;
use crate::pretrain::{self, Masked, Net, Pretrain, Told, triples};
use crate::trunk::Encoder;

/// The first stage.
const PRETRAIN: &str = "pretrain";

/// The program.
pub fn app() -> App<Config> {
    App {
        paper: Paper {
            name: "mae",
            title: "Masked Autoencoders Are Scalable Vision Learners",
            authors: "He et al., 2022",
        },
        validate,
        counts_classes: |_| false,
        renamed: |_, given| renamed(given),
        stages,
        model,
        predict,
        example,
        look,
        extras: vec![],
    }
}

/// Pre-training, and each of the others whose block is written; all of them begin with the pre-trained encoder.
fn stages(config: &Config) -> Vec<Stage<Config>> {
    let mut stages = vec![Stage::of::<Pretrain>(PRETRAIN, pretrain::plan)];
    stages.extend(probe::stages::<Encoder>(config, PRETRAIN));
    if config.finetune.is_some() {
        stages.push(Stage::of::<Finetuned>("finetune", finetune::plan).after(PRETRAIN));
    }
    stages
}

/// Pre-training: `image`, `noise` → `pred`, `mask`, `ids_restore`, `loss` (of dense layers: `image`, and `noise` where something is drawn →
/// `code`, `reconstruction`, `loss`). k-NN: `image` → `h`. The others: `image` [, `label`] → `logits` [, `loss`].
fn model(config: &Config, stage: &str, path: &nn::Path) -> Result<Forward> {
    let ([channels, edge, _], classes) = (config.shape()?, config.model.num_classes);
    match stage {
        PRETRAIN => {
            let net = Net::new(path, config)?;
            Ok(Box::new(move |input, train| {
                let known = |name: &String| ["image", "noise"].contains(&name.as_str());
                if let Some(name) = input.keys().find(|name| !known(name)) {
                    return Err(user!("input tensor {name} is not known; give image and noise"));
                }
                told(
                    &net,
                    taken(input, [channels, edge])?,
                    input.get("noise"),
                    if train { Mode::Train } else { Mode::Eval },
                )
            }))
        }
        KNN => {
            let encoder = Encoder::new(path, config)?;
            Ok(Box::new(move |input, train| match train {
                true => Err(user!("stage {KNN} trains nothing; leave --train away")),
                false => Ok(Named::from([("h".into(), encoder.features(taken(input, [channels, edge])?))])),
            }))
        }
        PROBE => {
            let normed = config.probe.as_ref().is_some_and(|probe| probe.norm == Some(true));
            let encoder = Encoder::new(path, config)?;
            let head = Head::new(&(path / Encoder::HEAD), encoder.width(), classes, normed);
            let logits = move |image: &Tensor, mode: Mode| Ok(head.forward(&encoder.features(image), mode));
            Ok(classifier::forward(channels, edge..=edge, classes, logits))
        }
        _ => {
            let tuning = config.tuning()?;
            let net = vit::model::Network::new(path, tuning.variant()?, classes, tuning.drop_path());
            Ok(classifier::forward(channels, edge..=edge, classes, move |image, mode| {
                Ok(net.forward(image, mode).logits)
            }))
        }
    }
}

/// The input `image`, `[N, C, edge, edge]`.
fn taken(input: &Named, [channels, edge]: [i64; 2]) -> Result<&Tensor> {
    let image = input.get("image").ok_or_else(|| user!("the input has no tensor named image"))?;
    let size = image.size();
    if !matches!(size[..], [n, c, h, w] if n > 0 && c == channels && h == edge && w == edge)
        || !image.is_floating_point()
    {
        return Err(user!(
            "image is {:?} of {size:?}; this model takes floating point of [N, {channels}, {edge}, {edge}]",
            image.kind()
        ));
    }
    Ok(image)
}

/// What pre-training's model makes of pictures and given noise.
fn told(net: &Net, image: &Tensor, noise: Option<&Tensor>, mode: Mode) -> Result<Named> {
    let n = image.size()[0];
    let count = net.draws(0, 0, 0, 1, Device::Cpu)?.size()[1];
    let noise = match noise {
        Some(noise) if noise.size() == [n, count] && noise.is_floating_point() => noise.shallow_clone(),
        None if count == 0 => Tensor::f_zeros([n, 0], (image.kind(), image.device()))?,
        None => return Err(user!("the input has no tensor named noise, of [{n}, {count}]")),
        Some(noise) => {
            return Err(user!(
                "noise is {:?} of {:?}; it must be floating point of [{n}, {count}]",
                noise.kind(),
                noise.size()
            ));
        }
    };
    let named = match net {
        Net::Masked(net) => {
            let Masked { mae, ratio, norm_pix, .. } = net.as_ref();
            let masking = Masking::of(&noise, *ratio)?;
            let pred = mae.forward(image, &masking, mode);
            let loss = mae.loss(image, &pred, &masking, *norm_pix);
            vec![("pred", pred), ("loss", loss), ("mask", masking.mask), ("ids_restore", masking.restore)]
        }
        Net::Dense { net, .. } => {
            let told = net.forward(image, &noise);
            vec![("reconstruction", told.picture), ("code", told.code), ("loss", told.loss)]
        }
    };
    Ok(named.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect())
}

fn example(config: &Config, stage: &str) -> Result<Named> {
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let mut inputs = Named::from([("image".into(), zeros(&[&[1][..], &config.shape()?].concat()))]);
    if stage == PRETRAIN {
        let net = Net::new(&nn::VarStore::new(Device::Cpu).root(), config)?;
        inputs.insert("noise".into(), net.draws(0, 0, 0, 1, Device::Cpu)?);
    }
    Ok(inputs)
}

fn look(config: &Config, setup: &Setup) -> Result<Look> {
    let data = match setup.stage.as_str() {
        PRETRAIN => Pretrain::data(config, setup)?,
        PROBE => LinearProbe::<Encoder>::data(config, setup)?.pictures,
        KNN => Neighbours::<Encoder>::data(config, setup)?,
        _ => Finetuned::data(config, setup)?,
    };
    classifier::look(&data, setup)
}

/// Each photo, what is left of it, and what the decoder makes of that.
fn predict(config: &Config, setup: &Setup, given: &Named, images: &[PathBuf], folder: &Path) -> Result<Vec<Answer>> {
    let (store, [channels, edge, _]) = (nn::VarStore::new(Device::Cpu), config.shape()?);
    let net = Net::new(&store.root(), config)?;
    Load::of("the weights file").copy(&store.variables().into_iter().collect(), given)?;
    let normaliser = match Card::given(setup)? {
        Some(card) => card.normaliser()?,
        None => config.normalise.of(None, channels, Device::Cpu)?,
    };
    let mut stills = Stills::new(config.view.as_ref(), edge)?;
    answer::each(images, |path, stem| {
        let square = stills.read(path)?;
        let shape = [1, i64::from(square.height()), i64::from(square.width()), 3];
        let pixels = Tensor::f_from_data_size(square.as_raw(), &shape, Kind::Uint8)?.f_permute([0, 3, 1, 2])?;
        let pixels = pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        let pixels = if channels == 1 { pixels.f_mean_dim([1_i64].as_slice(), true, Kind::Float)? } else { pixels };
        let (down, right) = ((shape[1] - edge) / 2, (shape[2] - edge) / 2);
        let image = normaliser.apply(&pixels.f_narrow(2, down, edge)?.f_narrow(3, right, edge)?)?;
        // Another mask for each photo, and the same again, whatever photos are beside it.
        let place = square.as_raw().iter().fold(0_i64, |sum, byte| sum.wrapping_mul(31).wrapping_add(i64::from(*byte)));
        let draws = net.draws(setup.settings.seed, u64::MAX, place & i64::MAX, 1, Device::Cpu)?;
        let (Told { seen, told, share }, drawn) =
            (tch::no_grad(|| net.tell(&image, &draws))?, folder.join(format!("{stem}-told.png")));
        let shown = |image: &Tensor| normaliser.undo(image);
        figures::save(&triples(&shown(&image)?, &shown(&seen)?, &shown(&told)?)?, &drawn)?;
        let off = (shown(&image)? - shown(&told)?).square().mean(Kind::Double).f_double_value(&[])?;
        // Of what was told, and not of what was there to be seen.
        let off = (off / share).sqrt();
        let lines = vec![format!("root of the mean squared error of what is told, a pixel being in [0, 1]: {off:.3}")];
        Ok(Answer { input: path.to_owned(), lines, json: json!({ "rmse": off }), pictures: vec![drawn], error: None })
    })
}
