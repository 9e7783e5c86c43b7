//! How fast photos with boxes become padded batches, with DETR's or Darknet's chance: prints one line of JSON. `scripts/bench/run.sh boxes` holds
//! it against torchvision's transforms v2. `--draw` writes the first pictures with their boxes.
//!
//! `scenes [ROOT] [--name coco] [--annotations FILE --photos FOLDER] [--recipe detr] [--batch 4] [--steps 40] [--workers 2] [--draw FILE]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use repro::config::Settings;
use repro::data::{
    AnnotatedFiles, Cursor, DataConfig, Filter, Flip, Hsv, Ids, JPEG_DECODER, Normalise, Pass, ResizeCrop,
    SceneAugment, SceneFit, SceneForm, SceneView, Scenes, Source, SplitFiles,
};
use repro::figures::{self, Boxed};
use repro::setup::Setup;
use repro::{Error, Result};
use tch::Device;

/// Batches before the clock starts.
const WARM_UP: usize = 2;

#[derive(Clone, Copy, ValueEnum)]
enum Recipe {
    /// Short sides of 480 to 800, crops, flips.
    Detr,
    /// Jitter on 416 × 416, colours, flips.
    Darknet,
}

#[derive(Parser)]
struct Args {
    /// The set's folder; none of what is drawn by code.
    root: Option<PathBuf>,
    #[arg(long, default_value = "coco")]
    name: String,
    /// Annotations to train and to test on, below the folder; the set's own, if not given.
    #[arg(long, requires = "photos")]
    annotations: Option<String>,
    /// The folder of their photos.
    #[arg(long)]
    photos: Option<String>,
    #[arg(long, value_enum, default_value = "detr")]
    recipe: Recipe,
    #[arg(long, default_value_t = 4)]
    batch: u64,
    /// Batches that are timed.
    #[arg(long, default_value_t = 40)]
    steps: usize,
    /// Threads; as many as the machine has, if not given.
    #[arg(long)]
    workers: Option<u64>,
    /// A picture to write; nothing is timed then.
    #[arg(long)]
    draw: Option<PathBuf>,
}

fn settings(args: &Args) -> Settings {
    let files = args.annotations.clone().zip(args.photos.clone());
    let files = files.map(|(annotations, photos)| AnnotatedFiles { annotations, photos });
    let data = DataConfig {
        root: args.root.as_ref().map(|root| root.display().to_string()),
        workers: args.workers,
        files: files.map(|files| SplitFiles { train: Some(files.clone()), validation: None, test: files }),
        ..DataConfig::named(&args.name)
    };
    Settings::plain(data, args.batch)
}

/// Those of the papers.
fn chance(recipe: Recipe) -> (SceneView, Vec<SceneAugment>) {
    let (filter, flip) = (Filter::Bilinear, SceneAugment::Flip(Flip { p: 0.5 }));
    match recipe {
        Recipe::Detr => {
            let short = |short| SceneFit::ShortSide { short, longest: Some(1333), filter };
            let train = short((480..=800).step_by(32).collect());
            let crop = ResizeCrop { p: 0.5, short: vec![400, 500, 600], smallest: 384, largest: 600, filter };
            let view = SceneView { train, test: short(vec![800]), multi_scale: None };
            (view, vec![flip, SceneAugment::ResizeCrop(crop)])
        }
        Recipe::Darknet => {
            let train = SceneFit::Jitter { width: 416, height: 416, jitter: 0.3, scale: [1.0, 1.0] };
            let test = SceneFit::Letterbox { width: 416, height: 416, filter };
            let hsv = SceneAugment::Hsv(Hsv { hue: 0.1, saturation: 1.5, exposure: 1.5 });
            (SceneView { train, test, multi_scale: None }, vec![hsv, flip])
        }
    }
}

fn run(args: &Args) -> Result<serde_json::Value> {
    torch_ext::keep_freed_memory(1 << 30);
    let (view, augment) = chance(args.recipe);
    let normalise = Normalise::Channels { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    let form = SceneForm { classes: Ids::Dense, stride: 1, view: &view, augment: &augment, normalise: &normalise };
    let data = Scenes::open(&form, &Setup::new(settings(args), Device::Cpu)?)?;
    // A set of a few photos is gone through again and again.
    let from = Cursor { seed: 1, step: 0, rank: 0, world: 1, batch: args.batch, pass: Pass::Endless, repeats: 1 };
    if let Some(path) = &args.draw {
        let names = data.classes();
        let drawn = data.shown(from, 12)?.into_iter().map(|one| {
            let boxes: Vec<Boxed> = one.truths.iter().map(|truth| Boxed::truth(truth, names)).collect();
            figures::boxes(&one.image, &boxes)
        });
        for (place, picture) in drawn.enumerate() {
            let path = path.with_extension(format!("{place}.png"));
            picture.save(&path).map_err(|e| Error::Failed(format!("cannot write {}: {e}", path.display())))?;
        }
        return Ok(serde_json::json!({"drawn": path}));
    }
    let mut batches = data.batches(from);
    batches.by_ref().take(WARM_UP).try_for_each(|batch| batch.map(drop))?;
    let (clock, mut sum, mut boxes) = (Instant::now(), 0.0, 0);
    for batch in batches.take(args.steps) {
        let batch = batch?;
        sum += batch.image.f_double_value(&[0, 0, 0, 0])?;
        boxes += batch.targets.counts.iter().sum::<i64>();
    }
    let seconds = clock.elapsed().as_secs_f64();
    Ok(serde_json::json!({
        "photos_per_second": (args.steps as u64 * args.batch) as f64 / seconds, "batch": args.batch, "steps": args.steps,
        "workers": args.workers, "boxes": boxes, "decoder": JPEG_DECODER, "sum": sum, "sha256": data.sha256(),
    }))
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(Error::exit_code(&error))
        }
    }
}
