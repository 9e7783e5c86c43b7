//! `simclr features`, `simclr predict --neighbours` and `simclr predict`: what the trunk makes of pictures of one's own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use repro::answer::Answer;
use repro::cli::Asked;
use repro::data::{Card, Normaliser, Split, Stills, photos_in};
use repro::nn::Mode;
use repro::probe::{Features, Memory, Neighbours, Trunk, section, unit};
use repro::setup::Setup;
use repro::trainer::Recipe;
use repro::weights::{Load, Named};
use repro::{Error, Result, figures, user, weights};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};

use crate::config::Config;
use crate::model::{BACKBONE, Encoder, trunk_of};

/// Pictures that go through the trunk at a time.
const AT_ONCE: usize = 64;
/// Neighbours that are drawn.
const SHOWN: i64 = 8;

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
        let encoder = Encoder::new(&store.root(), config)?;
        Load::of("the weights file").copy(&trunk_of(&store), &weights::below(given, &format!("{BACKBONE}.")))?;
        let normaliser = match card {
            Some(card) => card.normaliser()?,
            None => config.normalise.of(None, 3, Device::Cpu)?,
        };
        Ok(Self { encoder, normaliser, stills: Stills::new(config.view.as_ref(), config.edge()?)?, device })
    }

    /// h of each picture that can be read.
    fn see(&mut self, files: &[PathBuf]) -> Result<Seen> {
        let (mut rows, mut read, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for files in files.chunks(AT_ONCE) {
            let (mut bytes, mut edge, before) = (Vec::new(), 0, read.len());
            for file in files {
                match self.stills.read(file) {
                    Ok(square) => {
                        edge = i64::from(square.width());
                        bytes.extend(square.into_raw());
                        read.push(file.clone());
                    }
                    Err(Error::User(why)) => bad.push(Answer::none(file.clone(), why)),
                    Err(error) => return Err(error),
                }
            }
            let n = (read.len() - before) as i64;
            if n == 0 {
                continue;
            }
            let pixels = Tensor::f_from_data_size(&bytes, &[n, edge, edge, 3], Kind::Uint8)?;
            let image = pixels.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
            let image = self.normaliser.apply(&image)?.f_to_device(self.device)?;
            rows.push(tch::no_grad(|| self.encoder.forward(&image, Mode::Eval)).f_to_device(Device::Cpu)?);
        }
        let first = bad.first().and_then(|answer: &Answer| answer.error.clone()).unwrap_or_default();
        match rows.is_empty() {
            true => Err(user!("none of the pictures can be read; the first: {first}")),
            false => Ok(Seen { h: Tensor::f_cat(&rows, 0)?, files: read, bad }),
        }
    }
}

/// What the trunk makes of pictures.
struct Seen {
    /// `[N, D]`, on the CPU.
    h: Tensor,
    /// The N pictures.
    files: Vec<PathBuf>,
    /// Of the others, why they cannot be read.
    bad: Vec<Answer>,
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
    let (config, setup) = surroundings(asked)?;
    let (files, _) = photos_in(folder)?;
    if files.is_empty() {
        return Err(user!("{} holds no pictures", folder.display()));
    }
    let (given, card) = weights::load(path)?;
    let card = card.as_deref().map(Card::read).transpose()?;
    let Seen { h, files, bad } = Eye::new(&config, &given, card, setup.device)?.see(&files)?;
    let names: Vec<_> =
        files.iter().map(|file| file.strip_prefix(folder).unwrap_or(file).display().to_string()).collect();
    write(out, ending, &h, &names)?;
    let lines = vec![format!("{} pictures, {} features each, in {}", files.len(), h.size()[1], out.display())];
    let json = json!({ "features": out, "files": names.len(), "width": h.size()[1] });
    let written = Answer { input: folder.clone(), lines, json, pictures: Vec::new(), error: None };
    Ok([vec![written], bad].concat())
}

/// The configuration and the surroundings of the neighbours' stage: those of `--config`, else those of the run whose weights are given.
fn surroundings(asked: &Asked<Config>) -> Result<(Config, Setup)> {
    match (asked.config, asked.setup) {
        (Some(config), Some(setup)) => {
            Ok((config.clone(), setup.for_stage("knn", true, None, setup.settings.batch_size)))
        }
        _ => Err(user!("--config FILE is missing, and --weights names no run folder that has one")),
    }
}

/// `predict --neighbours PICTURE… --weights W --out DIR`: the training pictures that are nearest by h, drawn, and what they vote for.
///
/// # Errors
/// No pictures, no weights, data that are missing.
pub fn neighbours(asked: &Asked<Config>) -> Result<Vec<Answer>> {
    let path =
        asked.weights.as_deref().ok_or_else(|| user!("--weights W is missing: a run folder or a .safetensors file"))?;
    let out = asked.out.as_deref().unwrap_or(Path::new("predictions"));
    if asked.words.is_empty() {
        return Err(user!("name one or more pictures (PNG or JPEG)"));
    }
    let (config, setup) = surroundings(asked)?;
    let (given, card) = weights::load(path)?;
    let mut eye = Eye::new(&config, &given, card.as_deref().map(Card::read).transpose()?, setup.device)?;
    let Seen { h, files, bad } = eye.see(&asked.words)?;
    let seen = h.f_to_device(eye.device)?;
    // Centred, and their classes counted, as the weights have them.
    let data = Neighbours::<Encoder>::data(&config, &setup.with_given(card))?;
    let memory = Memory::new(Features::of_training(&eye.encoder, &data)?, data.classes().len() as i64)?;
    let votes = memory.votes(&seen, section("knn", config.knn.as_ref())?)?;
    let shares =
        Vec::<Vec<f64>>::try_from(votes.f_div(&votes.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Double)?)?)?;
    let (cosines, places) = memory.nearest(&seen, SHOWN)?;
    repro::files::create_folder(out)?;
    let answer = |(row, (picture, shares)): (usize, (&PathBuf, Vec<f64>))| {
        let places = Vec::<i64>::try_from(places.f_get(row as i64)?)?;
        let drawn = out.join(format!("neighbours-{row}.png"));
        let pictures = data.show(Split::Train, &places)?.f_to_device(Device::Cpu)?;
        let cosines =
            Vec::<f64>::try_from(cosines.f_get(row as i64)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?;
        let near = memory.labels(&places)?.into_iter().zip(cosines);
        let captions: Vec<_> =
            near.map(|(class, cosine)| format!("{} · {cosine:.2}", data.classes()[class as usize])).collect();
        let name = picture.file_name().unwrap_or_default().to_string_lossy();
        let title = format!("Training pictures nearest to {name} by h, with their class and the cosine");
        figures::save(&figures::framed(&pictures, SHOWN as u32, 3, &captions, &[], &title)?, &drawn)?;
        let mut classes: Vec<_> = data.classes().iter().cloned().zip(shares).collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(Answer::classes(picture.clone(), &classes, vec![drawn]))
    };
    let answers: Result<Vec<Answer>> = files.iter().zip(shares).enumerate().map(answer).collect();
    Ok([answers?, bad].concat())
}

fn write(out: &Path, ending: &str, h: &Tensor, files: &[String]) -> Result<()> {
    if ending == "npy" {
        // Such a file has no room for names.
        let (part, names) = (out.with_extension("npy.partial"), out.with_extension("txt"));
        h.write_npy(&part).map_err(|e| user!("cannot write {}: {e}", out.display()))?;
        repro::files::write_atomic(&names, &[files.join("\n").as_bytes(), b"\n"])?;
        return std::fs::rename(&part, out).map_err(Error::io("write", out));
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
/// Fewer than two pictures; none that can be read.
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
    let Seen { h, files: images, bad } = Eye::new(config, given, Card::given(setup)?, Device::Cpu)?.see(images)?;
    let unit = unit(&h)?;
    let cosines = unit.f_matmul(&unit.f_tr()?)?;
    let drawn = folder.join("similarity.png");
    let names: Vec<_> =
        images.iter().map(|image| image.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect();
    figures::save(&figures::matrix(&crate::pretrain::cosines(&h, "Cosines of h".into(), &names)?)?, &drawn)?;
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
    Ok(rows.into_iter().enumerate().map(answer).chain(bad).collect())
}
