//! What the papers that classify pictures share, beside the network: loss, evaluation, `forward`, `predict`, `data`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::answer::{self, Answer, Look};
use crate::cli::Forward;
use crate::config::Findings;
pub use crate::data::Card;
use crate::data::{Cursor, Form, Images, Mix, Pictures, Source, Split, Stills};
use crate::metrics::Predictions;
use crate::nn::Mode;
use crate::optim::Schedule;
use crate::setup::Setup;
use crate::trainer::{Eval, Step};
use crate::weights::Named;
use crate::{Error, Result, figures, loss, user};

/// Pictures per forward pass in evaluation, at most, and their pixels: 64 pictures of 224×224.
const EVALUATED: (i64, i64) = (256, 64 * 224 * 224);

/// Pictures that `data` shows.
const LOOK: u64 = 40;

/// The configured pictures, and a schedule that fits a run over them.
///
/// # Errors
/// Those of [`Pictures::open`] and [`Schedule::check`].
pub fn open(form: &Form, schedule: &Schedule, setup: &Setup) -> Result<Pictures> {
    let data = Pictures::open(form, setup)?;
    let steps_per_epoch = data.len() / setup.settings.batch_size;
    if steps_per_epoch > 0 {
        schedule.check(setup.settings.length.steps(steps_per_epoch), steps_per_epoch)?;
    }
    Ok(data)
}

/// `model.num_classes`. A configuration without it is completed before it is used.
///
/// # Errors
/// It was not.
pub fn classes(num_classes: Option<i64>) -> Result<i64> {
    num_classes.ok_or_else(|| user!("model.num_classes is missing: write how many classes there are"))
}

/// Refuses a `model.num_classes` that is none.
pub fn check_classes(num_classes: Option<i64>, found: &mut Findings) {
    let classes = num_classes.unwrap_or(2);
    let fits = (2..=100_000).contains(&classes);
    found.must(fits, "model.num_classes", format!("is {classes}; at least 2 classes are needed"));
}

/// Refuses a share that is not in [0, 1), such as that of label smoothing; `None` is 0.
pub fn check_share(key: &str, share: Option<f64>, found: &mut Findings) {
    let share = share.unwrap_or(0.0);
    found.must((0.0..1.0).contains(&share), key, format!("is {share}; it must be at least 0 and below 1, such as 0.1"));
}

/// Classifies a split: `logits` takes centred pictures `[N, 3, H, W]` and gives `[N, K]`. Adds error, loss, confusion, worst mistakes. Each
/// process takes a part of the pictures.
///
/// # Errors
/// Those of the data, libtorch's.
pub fn measure(
    data: &Pictures,
    split: Split,
    at: &Step,
    logits: impl Fn(&Tensor) -> Result<Tensor>,
    out: &mut Eval,
) -> Result<()> {
    let Some(part) = data.part(split, at.setup) else { return Ok(()) };
    let mut predictions = Predictions::default();
    for images in data.in_order(split, part.range, at_once(data)) {
        let images = images?;
        let logits = logits(&images.image)?.to_kind(Kind::Double);
        let losses =
            -logits.log_softmax(1, Kind::Double).f_gather(1, &images.label.unsqueeze(1), false)?.squeeze_dim(1);
        predictions.add(&logits, &images.label, Some(&losses))?;
    }
    if part.shared {
        predictions = predictions.together(at.setup)?;
    }
    // What the others would draw nobody sees.
    if at.setup.rank > 0 {
        return Ok(());
    }
    let mut found = predictions.finish()?;
    let places: Vec<i64> = found.mistakes.iter().map(|mistake| mistake.index as i64).collect();
    for (mistake, file) in found.mistakes.iter_mut().zip(data.files(split, &places).into_iter().flatten()) {
        mistake.file = Some(file);
    }
    out.classification(&found, data.classes(), |places| data.show(split, places))
}

/// Pictures per forward pass without gradients.
pub(crate) fn at_once(data: &Pictures) -> i64 {
    let (most, pixels) = EVALUATED;
    (pixels / data.test_edge().pow(2)).clamp(1, most)
}

/// [`loss::cross_entropy`] of pictures that mixup or cutmix may have blended of two: λ times that of their first labels plus 1 − λ times that of
/// the second (arXiv:1710.09412; arXiv:1905.04899, Eq. 1).
pub fn mixed_cross_entropy(logits: &Tensor, images: &Images, smoothing: f64) -> Tensor {
    let first = loss::cross_entropy(logits, &images.label, smoothing);
    match &images.mix {
        Some(Mix { label, share }) => first * *share + loss::cross_entropy(logits, label, smoothing) * (1.0 - share),
        None => first,
    }
}

/// The share of wrong answers, `[]`, left on the device.
pub fn error_rate(logits: &Tensor, label: &Tensor) -> Tensor {
    logits.detach().argmax(1, false).ne_tensor(label).to_kind(Kind::Float).mean(Kind::Float)
}

/// `image` `[N, C, H, W]` of so many `channels`, H and W among `edges` [, `label`] → `logits` [, `loss`], for [`crate::cli::App::model`].
pub fn forward(
    channels: i64,
    edges: RangeInclusive<i64>,
    classes: i64,
    net: impl Fn(&Tensor, Mode) -> Result<Tensor> + 'static,
) -> Forward {
    Box::new(move |input: &Named, train| {
        if let Some(name) = input.keys().find(|name| !["image", "label"].contains(&name.as_str())) {
            return Err(user!("input tensor {name} is not known; give image and, for the loss, label"));
        }
        let image = input.get("image").ok_or_else(|| user!("the input has no tensor named image"))?;
        let size = image.size();
        let fits =
            matches!(size[..], [n, c, h, w] if n > 0 && c == channels && edges.contains(&h) && edges.contains(&w));
        if !fits || !image.is_floating_point() {
            let takes = match (edges.start(), edges.end()) {
                (least, &i64::MAX) => format!("[N, {channels}, H, W] with H and W at least {least}"),
                (least, most) if least == most => format!("[N, {channels}, {least}, {least}]"),
                (least, most) => format!("[N, {channels}, H, W] with H and W from {least} to {most}"),
            };
            return Err(user!("image is {:?} of {size:?}; this model takes floating point of {takes}", image.kind()));
        }
        let logits = net(image, if train { Mode::Train } else { Mode::Eval })?;
        let mut output = Named::from([("logits".to_string(), logits.shallow_clone())]);
        if let Some(label) = input.get("label") {
            let fits = label.kind() == Kind::Int64 && label.size() == [size[0]];
            if !fits || label.min().int64_value(&[]) < 0 || label.max().int64_value(&[]) >= classes {
                return Err(user!("label must be int64 of [{}], each from 0 to {}", size[0], classes - 1));
            }
            output.insert("loss".into(), loss::cross_entropy(&logits, label, 0.0));
        }
        Ok(output)
    })
}

/// `image` `[1, 3, edge, edge]`, for [`crate::cli::App::example`].
pub fn example(edge: i64) -> Named {
    Named::from([("image".into(), Tensor::zeros([1, 3, edge, edge], (Kind::Float, Device::Cpu)))])
}

/// The first training pictures of the run, augmented, in the colours of the files.
///
/// # Errors
/// Those of the data.
pub fn look(data: &Pictures, setup: &Setup) -> Result<Look> {
    let batch = LOOK.min(data.len());
    // An even number, so that mixup has its pairs.
    let batch = batch - batch % 2;
    let cursor = Cursor { rank: 0, world: 1, batch, ..Cursor::of(setup, 0) };
    let shown = data.batches(cursor).next().ok_or_else(|| Error::Failed("no training pictures".into()))??;
    let labels: Vec<i64> = Vec::try_from(shown.label.to_device(Device::Cpu))?;
    let names = data.classes();
    let counts = names.iter().zip(data.class_counts()?);
    Ok(Look::labelled(
        Tensor::to_device(&data.normaliser().undo(&shown.image)?, Device::Cpu),
        labels.iter().map(|&label| names[label as usize].clone()).collect(),
        &counts.map(|(name, (train, test))| (name.clone(), train, test)).collect::<Vec<_>>(),
        &data.mean_std()?,
    ))
}

/// Where in a picture the evidence for a class lies: `[h, w]` in [0, 1], of the map's size (Grad-CAM, arXiv:1610.02391, Eq. 1 and 2).
///
/// `map` `[1, C, h, w]` is a convolutional map from which `logits` `[1, K]` were computed, with gradients on.
///
/// # Errors
/// libtorch's.
pub fn grad_cam(map: &Tensor, logits: &Tensor, class: i64) -> Result<Tensor> {
    let gradient = Tensor::f_run_backward(&[logits.get(0).get(class)], &[map], true, false)?.remove(0);
    let weight = gradient.mean_dim([2_i64, 3].as_slice(), true, Kind::Float);
    let heat = (weight * map.detach()).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float).relu().squeeze_dim(0);
    let most = heat.max().double_value(&[]);
    Ok(if most > 0.0 { heat / most } else { heat })
}

/// What a network makes of one picture, for [`predict`].
pub struct Seen {
    /// `[1, K]`: the answer, as the evaluation has it.
    pub logits: Tensor,
    /// Where in the middle of the picture the evidence for a class lies, `[h, w]` in [0, 1].
    pub heat: Box<dyn FnOnce(i64) -> Result<Tensor>>,
    /// Further maps `[h, w]` in [0, 1], drawn beside one another: what they show, and each with its name.
    pub maps: Option<(&'static str, Vec<(String, Tensor)>)>,
}

/// How the picture of the evidence is made: the ending of its file's name, and its title.
pub type Method = (&'static str, &'static str);

/// By [`grad_cam`].
pub const GRAD_CAM: Method = ("cam", "Grad-CAM");

/// Answers for photos: classes by probability, and a picture of where the evidence for the first of them lies. Photos are read as the
/// evaluation reads them; one that cannot be read is answered by why.
///
/// `see` takes a centred picture `[1, 3, H, W]`; the evidence that it gives is of the middle `edge` pixels.
///
/// # Errors
/// Those of drawing, libtorch's.
pub fn predict(
    card: &Card,
    images: &[PathBuf],
    folder: &Path,
    mut stills: Stills,
    edge: i64,
    (ending, method): Method,
    see: impl Fn(&Tensor) -> Result<Seen>,
) -> Result<Vec<Answer>> {
    let normaliser = card.normaliser()?;
    answer::each(images, |path, stem| {
        let square = stills.read(path)?;
        let (width, height) = (i64::from(square.width()), i64::from(square.height()));
        let pixels = Tensor::f_from_data_size(square.as_raw(), &[1, height, width, 3], Kind::Uint8)?;
        let image = pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        let Seen { logits, heat, maps } = see(&normaliser.apply(&image)?)?;
        let probability: Vec<f64> =
            Vec::try_from(logits.detach().to_kind(Kind::Double).softmax(1, Kind::Double).squeeze_dim(0))?;
        // Of equal ones the first, as in the evaluation.
        let best = (0..probability.len()).rev().max_by(|a, b| probability[*a].total_cmp(&probability[*b]));
        let heat = heat(best.unwrap_or_default() as i64)?;
        let mut classes: Vec<_> = card.classes.iter().cloned().zip(probability).collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let drawn = folder.join(format!("{stem}-{ending}.png"));
        let (edge, corner) = (edge as u32, |length: i64| ((length - edge) / 2).max(0) as u32);
        let middle = image::imageops::crop_imm(&square, corner(width), corner(height), edge, edge).to_image();
        let title = classes.first().map_or(String::new(), |(name, p)| format!("{method}: {name}, {:.1} %", 100.0 * p));
        figures::save(&figures::heat(&middle, &heat, &title)?, &drawn)?;
        let mut pictures = vec![drawn];
        if let Some((title, maps)) = maps {
            pictures.push(folder.join(format!("{stem}-{ending}-maps.png")));
            figures::save(&figures::heats(&middle, &maps, title)?, &pictures[1])?;
        }
        Ok(Answer::classes(path.to_owned(), &classes, pictures))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// λ of one label and 1 − λ of the other are the soft target that they come to, smoothing and all.
    #[test]
    fn mixed_labels_are_a_soft_target() {
        const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
        let logits = Tensor::randn([4, 3], F64);
        let labels = Tensor::from_slice(&[2i64, 0, 1, 1]);
        let images = |mix| Images { image: Tensor::zeros([4], F64), label: labels.shallow_clone(), mix };
        let plain = mixed_cross_entropy(&logits, &images(None), 0.1);
        assert_eq!(plain, loss::cross_entropy(&logits, &labels, 0.1));
        let others = Tensor::from_slice(&[0i64, 2, 1, 1]);
        let hot = |labels: &Tensor| labels.one_hot(3).to_kind(Kind::Double);
        let target = (hot(&labels) * 0.3 + hot(&others) * 0.7) * 0.9 + 0.1 / 3.0;
        let mixed = images(Some(Mix { label: others, share: 0.3 }));
        let expected = loss::soft_cross_entropy(&logits, &target);
        let gap = (mixed_cross_entropy(&logits, &mixed, 0.1) - expected).abs().double_value(&[]);
        assert!(gap < 1e-12, "{gap}");
    }
}
