//! The network whose features pictures are compared by.
//!
//! With Inception v3 by its public weights FID and IS are those of the literature. With a classifier that was trained here, of `lenet` or
//! `resnet`, they are measures of the same form, comparable among rows with the same network and with nothing else; whoever prints one names
//! the network and its hash beside it.

use std::path::Path;

use lenet::config::{ModelConfig, Name};
use lenet::network::{Form, Network as Lenet};
use repro::cli::own_config;
use repro::data::{Card, Normaliser};
use repro::nn::{Mode, channels_last, kernels_channels_last};
use repro::weights::{self, Load, Named};
use repro::{Result, config, user};
use resnet::model::{Network as Resnet, pooled};
use tch::{Device, Kind, Tensor, nn};

use crate::inception::Inception;

/// Pictures per forward pass: of Inception, which looks at 299×299 pixels, and of the others.
const BATCH: (i64, i64) = (32, 256);

/// A network with its weights.
#[derive(Debug)]
pub struct FeatureNet {
    /// Which one, such as `inception_v3` or `lenet5_modern`.
    pub name: String,
    /// Of the weights as their file has them ([`weights::hash`]).
    pub sha256: String,
    /// In what the file differed from the network, such as half precision.
    pub notes: Vec<String>,
    net: Net,
    device: Device,
}

#[derive(Debug)]
enum Net {
    Inception(Inception),
    Lenet(Lenet),
    Resnet { net: Resnet, normaliser: Normaliser, edge: i64 },
}

/// What a network makes of pictures, on the CPU.
#[derive(Debug)]
pub struct Features {
    /// What its last layer is given, `[N, D]`.
    pub features: Tensor,
    /// p(class | picture), `[N, K]` float64.
    pub probabilities: Tensor,
}

impl FeatureNet {
    /// Reads a weights file or the folder of a run. Inception v3 is known by its names, by which pytorch-fid has it; LeNet-5, of 1998 or modern,
    /// and a ResNet are built as the run that they are of has them. LeNet-5 needs no run, a ResNet does.
    ///
    /// # Errors
    /// Weights that cannot be read, or of none of these networks.
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        let (given, card) = weights::load(path)?;
        let store = nn::VarStore::new(device);
        let (name, net) = built(&store.root(), path, &given, card.as_deref())?;
        let model: Named = store.variables().into_iter().collect();
        let notes = Load::of(&path.display().to_string()).copy(&model, &given)?;
        // LeNet-5 multiplies its kernels as rows of a matrix.
        if !matches!(net, Net::Lenet(_)) {
            kernels_channels_last(&store)?;
        }
        Ok(FeatureNet { name, sha256: weights::hash(&given)?, notes, net, device })
    }

    /// Of pictures `[N, C, H, W]` in [0, 1], C being 1 or 3; grey ones are given to a network of colours three times. Each network centres them as
    /// it learned to; Inception takes any size and the others their own.
    ///
    /// # Errors
    /// Another shape, no pictures.
    pub fn features(&self, pictures: &Tensor) -> Result<Features> {
        let (count, batch) = (self.check(pictures)?, if self.is_inception() { BATCH.0 } else { BATCH.1 });
        let (mut features, mut probabilities) = (Vec::new(), Vec::new());
        for at in (0..count).step_by(batch as usize) {
            let part = pictures.f_narrow(0, at, batch.min(count - at))?.f_to_kind(Kind::Float)?;
            let found = tch::no_grad(|| self.batch(&part))?;
            features.push(found.features.f_to_device(Device::Cpu)?);
            probabilities.push(found.probabilities.f_to_device(Device::Cpu)?);
        }
        Ok(Features { features: Tensor::f_cat(&features, 0)?, probabilities: Tensor::f_cat(&probabilities, 0)? })
    }

    /// Whether FID by this network is that of the literature.
    pub fn is_inception(&self) -> bool {
        matches!(self.net, Net::Inception(_))
    }

    /// How many pictures there are.
    fn check(&self, pictures: &Tensor) -> Result<i64> {
        let (channels, edge): (&[i64], _) = match &self.net {
            Net::Inception(_) => (&[1, 3], None),
            Net::Lenet(_) => (&[1], Some(28)),
            Net::Resnet { edge, .. } => (&[1, 3], Some(*edge)),
        };
        let fits = |h: i64, w: i64| h.min(w) > 0 && edge.is_none_or(|edge| [h, w] == [edge; 2]);
        match pictures.size()[..] {
            [n, c, h, w] if n > 0 && channels.contains(&c) && fits(h, w) && pictures.is_floating_point() => Ok(n),
            _ => {
                let (kind, size) = (pictures.kind(), pictures.size());
                let sides = edge.map_or("H, W".to_string(), |edge| format!("{edge}, {edge}"));
                Err(user!(
                    "pictures are {kind:?} of {size:?}; the feature network {} takes floating point of [N, C, {sides}], C being of {channels:?}",
                    self.name
                ))
            }
        }
    }

    fn batch(&self, pictures: &Tensor) -> Result<Features> {
        let coloured = || pictures.f_expand([-1, 3, -1, -1], false);
        let softmax = |logits: &Tensor| logits.f_softmax(1, Kind::Double);
        Ok(match &self.net {
            Net::Inception(net) => {
                let features = net.features(&channels_last(&coloured()?.f_to_device(self.device)?));
                Features { probabilities: net.probabilities(&features), features }
            }
            Net::Lenet(net) => {
                let input = net.input(&pictures.f_to_device(self.device)?);
                let (features, outputs) = match &net.form {
                    Form::Lenet5(net) => {
                        let trace = net.trace(&input);
                        (trace.f6, -trace.distances)
                    }
                    Form::Lenet5Modern(net) => {
                        let trace = net.trace(&input);
                        (trace.fc2, trace.logits)
                    }
                    _ => return Err(no_features()),
                };
                Features { probabilities: softmax(&outputs)?, features }
            }
            Net::Resnet { net, normaliser, .. } => {
                let output = net.forward(&normaliser.apply(&coloured()?)?.f_to_device(self.device)?, Mode::Eval);
                Features { features: pooled(&output.map), probabilities: softmax(&output.logits)? }
            }
        })
    }
}

fn no_features() -> repro::Error {
    user!("the feature network must be Inception v3, LeNet-5 of 1998 (lenet5) or modern (lenet5_modern), or a ResNet")
}

/// The network whose weights these are, not yet filled.
fn built(path: &nn::Path, place: &Path, given: &Named, card: Option<&str>) -> Result<(String, Net)> {
    let has = |name: &str| given.contains_key(name);
    let classes = |names: &[&str]| names.iter().find_map(|name| given.get(*name)?.size().first().copied());
    if has("Mixed_7c.branch_pool.conv.weight") {
        return Ok(("inception_v3".into(), Net::Inception(Inception::new(path))));
    }
    let run = own_config(place);
    if let Some(classes) = classes(&["rbf.centers", "fc3.weight"]) {
        let (name, word) = match has("rbf.centers") {
            true => (Name::Lenet5, "lenet5"),
            false => (Name::Lenet5Modern, "lenet5_modern"),
        };
        let model = match run {
            Some(file) => config::kept::<lenet::config::Config>(&file)?.paper.model,
            None => ModelConfig::new(name, classes),
        };
        return Ok((word.into(), Net::Lenet(Lenet::new(path, &model))));
    }
    let (Some(classes), true) = (classes(&["fc.weight", "linear.weight"]), has("layer1.0.conv1.weight")) else {
        return Err(user!("{}: {}", place.display(), no_features()));
    };
    let file = run.ok_or_else(|| {
        user!(
            "{}: these weights of a ResNet do not tell which; give the folder of their run, with config.yaml and result.json",
            place.display()
        )
    })?;
    let config = config::kept::<resnet::config::Config>(&file)?.paper;
    let variant = config.variant()?;
    let normaliser = match card {
        Some(card) => Card::read(card)?.normaliser()?,
        None => config.normalise.of(None, 3, Device::Cpu)?,
    };
    let net = Net::Resnet { net: Resnet::new(path, variant, classes), normaliser, edge: config.edge(variant) };
    Ok((config.model.name, net))
}
