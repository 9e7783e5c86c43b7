//! `simclr features` and `simclr predict`: what the trunk makes of pictures of one's own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use repro::answer::Answer;
use repro::cli::Asked;
use repro::data::{Card, Normaliser, Stills, photos_in};
use repro::nn::Mode;
use repro::setup::Setup;
use repro::weights::{Load, Named};
use repro::{Error, Result, config, figures, user, weights};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};

use crate::config::Config;
use crate::model::{BACKBONE, Encoder, encoder, trunk_of};

/// Pictures that go through the trunk at a time.
const AT_ONCE: usize = 64;

/// A trunk with its weights, and how it sees pictures.
struct Eye {
    encoder: Encoder,
    normaliser: Normaliser,
    /// Reads photos as the evaluation does.
    stills: Stills,
    device: Device,
}

impl Eye {
    /// Of weights that hold a trunk, whatever else they hold.
    fn new(config: &Config, given: &Named, card: Option<Card>, device: Device) -> Result<Self> {
        let store = nn::VarStore::new(device);
        let encoder = encoder(&store.root(), config)?;
        Load::of("the weights file").copy(&trunk_of(&store), &weights::below(given, &format!("{BACKBONE}.")))?;
        let normaliser = match card {
            Some(card) => card.normaliser()?,
            None => config.normalise.of(None, 3, Device::Cpu)?,
        };
        Ok(Self { encoder, normaliser, stills: Stills::new(config.view.as_ref(), config.edge()?)?, device })
    }

    /// h of each picture, `[N, D]`, on the CPU.
    fn see(&mut self, files: &[PathBuf]) -> Result<Tensor> {
        let mut rows = Vec::new();
        for files in files.chunks(AT_ONCE) {
            let (mut bytes, mut edge) = (Vec::new(), 0);
            for file in files {
                let square = self.stills.read(file)?;
                edge = i64::from(square.width());
                bytes.extend(square.into_raw());
            }
            let pixels = Tensor::f_from_data_size(&bytes, &[files.len() as i64, edge, edge, 3], Kind::Uint8)?;
            let image = pixels.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
            let image = self.normaliser.apply(&image)?.f_to_device(self.device)?;
            rows.push(tch::no_grad(|| self.encoder.forward(&image, Mode::Eval)).f_to_device(Device::Cpu)?);
        }
        Ok(Tensor::f_cat(&rows, 0)?)
    }
}

/// `features FOLDER --weights W --out F.safetensors` (or `.npy`).
///
/// # Errors
/// No pictures, no weights, a file that cannot be written.
pub fn features(asked: &Asked<Config>) -> Result<Vec<Answer>> {
    let [folder] = &asked.words[..] else {
        return Err(user!("name one folder of pictures: simclr features FOLDER --weights W --out F.safetensors"));
    };
    let path =
        asked.weights.as_deref().ok_or_else(|| user!("--weights W is missing: a run folder or a .safetensors file"))?;
    let out = asked.out.as_deref().ok_or_else(|| user!("--out F.safetensors (or F.npy) is missing"))?;
    let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if !["safetensors", "npy"].contains(&ending) {
        return Err(user!("--out {}: the ending must be .safetensors or .npy", out.display()));
    }
    let of_run;
    let config = match asked.config {
        Some(config) => config,
        None => {
            let file = path.join("config.yaml");
            if !file.is_file() {
                return Err(user!("--config FILE is missing, and {} is no run folder that has one", path.display()));
            }
            of_run = config::load::<Config>(&file, &[])?.paper;
            &of_run
        }
    };
    let (files, _) = photos_in(folder)?;
    if files.is_empty() {
        return Err(user!("{} holds no pictures", folder.display()));
    }
    let (given, card) = weights::load(path)?;
    let card = card.as_deref().map(Card::read).transpose()?;
    let h = Eye::new(config, &given, card, asked.setup.map_or(Device::Cpu, |setup| setup.device))?.see(&files)?;
    let names: Vec<_> =
        files.iter().map(|file| file.strip_prefix(folder).unwrap_or(file).display().to_string()).collect();
    write(out, ending, &h, &names)?;
    let lines = vec![format!("{} pictures, {} features each, in {}", files.len(), h.size()[1], out.display())];
    let json = json!({ "features": out, "files": names.len(), "width": h.size()[1] });
    Ok(vec![Answer { input: folder.clone(), lines, json, pictures: Vec::new(), error: None }])
}

fn write(out: &Path, ending: &str, h: &Tensor, files: &[String]) -> Result<()> {
    if ending == "npy" {
        return h.write_npy(out).map_err(|e| user!("cannot write {}: {e}", out.display()));
    }
    let numbers = Vec::<f32>::try_from(h.f_reshape([-1])?)?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let fail = |why: String| Error::Failed(format!("cannot write {}: {why}", out.display()));
    let shape = h.size().into_iter().map(|size| size as usize).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes)
        .map_err(|e| fail(e.to_string()))?;
    let list = serde_json::to_string(files).map_err(|e| fail(e.to_string()))?;
    let whole = safetensors::serialize([("features", view)], Some(HashMap::from([("files".to_string(), list)])));
    repro::files::write_atomic(out, &[&whole.map_err(|e| fail(e.to_string()))?])
}

/// How alike pictures are: each with the others by the cosine of h, the nearest first, and the matrix of all cosines as a picture.
///
/// # Errors
/// A file that is no picture; fewer than two.
pub fn predict(
    config: &Config,
    setup: &Setup,
    given: &Named,
    images: &[PathBuf],
    folder: &Path,
) -> Result<Vec<Answer>> {
    if images.len() < 2 {
        return Err(user!("pictures are compared with each other here; name at least two"));
    }
    let h = Eye::new(config, given, Card::given(setup)?, Device::Cpu)?.see(images)?;
    let unit = h.f_div(&h.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?.f_clamp_min(1e-12)?)?;
    let cosines = unit.f_matmul(&unit.f_tr()?)?;
    let drawn = folder.join("similarity.png");
    figures::save(&figures::feature_maps(&[("cosines of h".into(), cosines.f_unsqueeze(0)?)], &[])?, &drawn)?;
    let rows = Vec::<Vec<f32>>::try_from(&cosines)?;
    let answer = |(place, row): (usize, Vec<f32>)| {
        let mut others: Vec<_> =
            images.iter().zip(row).enumerate().filter(|(other, _)| *other != place).map(|(_, pair)| pair).collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1));
        let lines = others.iter().take(5).map(|(other, cosine)| format!("{cosine:6.3}  {}", other.display())).collect();
        Answer {
            input: images[place].clone(),
            lines,
            json: json!({ "nearest": others }),
            pictures: vec![drawn.clone()],
            error: None,
        }
    };
    Ok(rows.into_iter().enumerate().map(answer).collect())
}
