//! What the papers that find objects share, beside network and loss: evaluation, `predict`, `data`.

use std::path::{Path, PathBuf};

use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::answer::{self, Answer, Look};
use crate::data::{Card, Cursor, Normalise, SceneBatch, SceneForm, SceneStills, Scenes, Shown, Source, Split};
use crate::detection::{Detection, Scene, results, together};
use crate::figures::{self, Boxed};
use crate::optim::Schedule;
use crate::setup::Setup;
use crate::trainer::{Eval, Step};
use crate::{Result, user};

/// Pictures that `data` shows.
const LOOK: usize = 20;
/// Scores from which detections stand in pictures and in the answers of `predict`, unless the caller has another bar.
pub const SURE: f64 = 0.5;

/// Something that a network found in a picture of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Class, from 0.
    pub class: usize,
    /// Confidence; higher is surer.
    pub score: f64,
    /// Centre, width, height as fractions of the picture without its padding.
    pub place: [f64; 4],
}

impl Found {
    /// The rows of `classes` `[n]`, `scores` `[n]` and `places` `[n, 4]`, of any kind, on any device.
    ///
    /// # Errors
    /// libtorch's; shapes that do not fit each other.
    pub fn rows(classes: &Tensor, scores: &Tensor, places: &Tensor) -> Result<Vec<Self>> {
        let n = classes.size1()?;
        let numbers = |tensor: &Tensor, size: &[i64]| -> Result<Vec<f64>> {
            Ok(Vec::try_from(
                tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_reshape(size)?.f_view(-1)?,
            )?)
        };
        let (classes, scores, places) = (numbers(classes, &[n])?, numbers(scores, &[n])?, numbers(places, &[n, 4])?);
        let all = classes.into_iter().zip(scores).zip(places.as_chunks::<4>().0);
        Ok(all.map(|((class, score), place)| Self { class: class as usize, score, place: *place }).collect())
    }
}

/// The configured photos, and a schedule that fits a run over them.
///
/// # Errors
/// Those of [`Scenes::open`] and [`Schedule::check`]; a network of another number of `classes`.
pub fn open(form: &SceneForm, classes: i64, schedule: &Schedule, setup: &Setup) -> Result<Scenes> {
    let data = Scenes::open(form, setup)?;
    let found = data.classes().len() as i64;
    if found != classes {
        return Err(user!(
            "model.num_classes is {classes}, but {} has {found} classes; set model.num_classes={found}",
            setup.settings.data.name
        ));
    }
    let steps_per_epoch = data.len() / setup.settings.batch_size;
    if steps_per_epoch > 0 {
        schedule.check(setup.settings.length.steps(steps_per_epoch), steps_per_epoch)?;
    }
    Ok(data)
}

/// What `find` finds in a split, `batch` pictures at a time, held against what there is: COCO's numbers and VOC's, with pictures. Each process
/// takes a part of the photos. `eval --detections` has its file written here.
///
/// # Errors
/// Those of the data, of `find` and of the disk; detections that are no numbers.
pub fn measure(
    data: &Scenes,
    split: Split,
    at: &Step,
    batch: i64,
    find: impl Fn(&SceneBatch) -> Result<Vec<Vec<Found>>>,
    out: &mut Eval,
) -> Result<()> {
    let Some(part) = data.part(split, at.setup) else { return Ok(()) };
    let mut scenes = Vec::new();
    for seen in data.in_order(split, part.range, batch) {
        let seen = seen?;
        let found = no_grad(|| find(&seen))?;
        for (placed, found) in seen.photos.iter().zip(found) {
            let detection =
                |found: Found| Detection { class: found.class, score: found.score, rect: placed.to_photo(found.place) };
            let truths = data.truths(split, placed.index).to_vec();
            scenes.push((placed.index, Scene { truths, detections: found.into_iter().map(detection).collect() }));
        }
    }
    if part.shared {
        scenes = together(at.setup, &scenes)?;
    }
    // What the others would draw nobody sees.
    if at.setup.rank > 0 {
        return Ok(());
    }
    let (places, scenes): (Vec<u64>, Vec<Scene>) = scenes.into_iter().unzip();
    if let Some(file) = at.setup.take_detections() {
        let ids = places.iter().map(|place| data.photo_id(split, *place));
        let found = ids.zip(scenes.iter().map(|scene| &scene.detections[..]));
        let categories: Vec<i64> = (0..data.classes().len()).map(|class| data.category_id(class)).collect();
        results::write(&file, found, &categories)?;
    }
    out.detection(&scenes, data.classes(), SURE, |photo| {
        let place = places[photo];
        Ok((data.show(split, place)?, data.file(split, place)))
    })
}

/// The first training pictures of the run with what is to be found in them, as the network is shown them.
///
/// # Errors
/// Those of the data.
pub fn look(data: &Scenes, setup: &Setup) -> Result<Look> {
    let batch = (LOOK as u64).min(data.len());
    let cursor = Cursor { rank: 0, world: 1, batch, ..Cursor::of(setup, 0) };
    let shown = data.shown(cursor, batch as usize)?;
    let names = data.classes();
    let drawn: Vec<_> = shown
        .iter()
        .map(|Shown { image, truths }| {
            figures::boxes(image, &truths.iter().map(|truth| Boxed::truth(truth, names)).collect::<Vec<_>>())
        })
        .collect();
    let captions = shown.iter().map(|one| format!("{} boxes", one.truths.len())).collect();
    let counts: Vec<_> = names.iter().zip(data.class_counts()).map(|(name, (a, b))| (name.clone(), a, b)).collect();
    Look::boxed(&drawn, captions, &counts, &data.mean_std()?)
}

/// How `predict` asks a network.
pub struct Ask<'a> {
    /// What the weights' file says of them.
    pub card: &'a Card,
    /// How photos come to their size and are centred, and what sides must be multiples of.
    pub form: &'a SceneForm<'a>,
    /// Least score of an answer.
    pub least: f64,
}

/// What a network makes of one photo.
pub struct Seen {
    /// The surest first.
    pub found: Vec<Found>,
    /// Where the network looked for some of them, by their place in `found`: `[h, w]` in [0, 1] over the whole picture.
    pub looks: Vec<(usize, Tensor)>,
}

/// Answers for photos: what is found in them by class, score and place, drawn on them; and where the network looked, if it says so. Photos are
/// read as the evaluation reads them; one that cannot be read is answered by why.
///
/// # Errors
/// Those of drawing, libtorch's.
pub fn predict(
    ask: &Ask,
    images: &[PathBuf],
    folder: &Path,
    see: impl Fn(&SceneBatch) -> Result<Seen>,
) -> Result<Vec<Answer>> {
    let names = &ask.card.classes;
    let mut stills = SceneStills::new(&ask.form.view.test, ask.form.stride, ask.card.normaliser()?);
    answer::each(images, |path, stem| {
        let (photo, batch) = stills.read(path)?;
        let Seen { found, looks } = no_grad(|| see(&batch))?;
        let placed = &batch.photos[0];
        let found: Vec<Detection> = found
            .iter()
            .filter(|found| found.score >= ask.least)
            .map(|found| Detection { class: found.class, score: found.score, rect: placed.to_photo(found.place) })
            .collect();
        let drawn = folder.join(format!("{stem}-boxes.png"));
        let marked: Vec<_> = found.iter().map(|found| Boxed::detection(found, names)).collect();
        figures::save(&figures::boxes(&photo, &marked), &drawn)?;
        let mut pictures = vec![drawn];
        let looks: Vec<_> = looks.into_iter().filter(|(place, _)| *place < found.len()).collect();
        if !looks.is_empty() {
            let named = looks.into_iter().map(|(place, map)| (marked[place].label.clone(), map)).collect::<Vec<_>>();
            pictures.push(folder.join(format!("{stem}-attention.png")));
            figures::save(&figures::heats(&photo, &named, "What is looked at for each box")?, &pictures[1])?;
        }
        Ok(Answer {
            input: path.to_owned(),
            lines: lines(&found, names),
            json: json!({ "boxes": found.iter().map(|one| json!({
                "label": names[one.class], "score": one.score, "box": one.rect,
            })).collect::<Vec<_>>() }),
            pictures,
            error: None,
        })
    })
}

/// One for each detection: class, score, and left, top, width, height in pixels.
fn lines(found: &[Detection], names: &[String]) -> Vec<String> {
    let line = |one: &Detection| {
        let [x, y, w, h] = one.rect.map(f64::round);
        format!("{} {:.1} % at {x}, {y}, {w} × {h}", names[one.class], 100.0 * one.score)
    };
    match found {
        [] => vec!["nothing found".into()],
        found => found.iter().map(line).collect(),
    }
}

/// The card of the weights that are asked; of public weights without one the given `names`, and the configuration's `normalise`.
///
/// # Errors
/// A damaged card, or one of other classes than the network has.
pub fn card(setup: &Setup, names: &[String], normalise: &Normalise) -> Result<Card> {
    let Some(card) = Card::given(setup)? else { return Card::named(names, normalise) };
    if card.classes.len() != names.len() {
        let (theirs, ours) = (card.classes.len(), names.len());
        return Err(user!("these weights know {theirs} classes, and the network has {ours}; set model.num_classes"));
    }
    Ok(card)
}
