//! How fast detections are judged: prints one line of JSON. `scripts/bench/run.sh detections` holds it against pycocotools on the same files.
//!
//! `detections ANNOTATIONS.json FOUND.json`

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use repro::detection::{Rect, Scene, Truth, coco, results};
use repro::{Error, Result, user};
use serde::Deserialize;

#[derive(Parser)]
struct Args {
    /// Truths as COCO writes them.
    annotations: PathBuf,
    /// Detections in COCO's results format.
    found: PathBuf,
}

#[derive(Deserialize)]
struct Annotations {
    images: Vec<Id>,
    categories: Vec<Id>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Id {
    id: i64,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    category_id: i64,
    bbox: Rect,
    area: f64,
    iscrowd: u8,
}

/// The scenes, and how many classes there are.
fn scenes(args: &Args) -> Result<(Vec<Scene>, usize)> {
    let text = fs::read(&args.annotations).map_err(Error::io("read", &args.annotations))?;
    let told: Annotations =
        serde_json::from_slice(&text).map_err(|error| user!("{}: {error}", args.annotations.display()))?;
    let sorted = |ids: &[Id]| {
        let mut ids: Vec<i64> = ids.iter().map(|one| one.id).collect();
        ids.sort_unstable();
        ids
    };
    let (photos, categories) = (sorted(&told.images), sorted(&told.categories));
    let found = results::by_photo(&results::read(&args.found)?, &photos, &categories)?;
    let mut scenes: Vec<_> = found.into_iter().map(|detections| Scene { truths: Vec::new(), detections }).collect();
    let places = |ids: &[i64]| ids.iter().enumerate().map(|(place, &id)| (id, place)).collect::<HashMap<_, _>>();
    let (places, classes) = (places(&photos), places(&categories));
    for note in told.annotations {
        let (Some(&photo), Some(&class)) = (places.get(&note.image_id), classes.get(&note.category_id)) else {
            return Err(user!("{}: an annotation of no photo or category", args.annotations.display()));
        };
        let (rect, area, crowd) = (note.bbox, note.area, note.iscrowd == 1);
        scenes[photo].truths.push(Truth { class, rect, area, crowd, difficult: false });
    }
    Ok((scenes, categories.len()))
}

fn run(args: &Args) -> Result<serde_json::Value> {
    let (scenes, classes) = scenes(args)?;
    let clock = Instant::now();
    let found = coco::evaluate(&scenes, classes)?;
    let seconds = clock.elapsed().as_secs_f64();
    Ok(serde_json::json!({
        "seconds": seconds, "numbers": found.numbers, "photos": scenes.len(),
        "detections": scenes.iter().map(|scene| scene.detections.len()).sum::<usize>(),
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
