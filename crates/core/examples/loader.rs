//! How fast photos become normalised batches: prints one line of JSON. `scripts/bench/run.sh loader` holds it against torchvision.
//!
//! `loader ROOT [--edge 224] [--batch 64] [--workers 2] [--epochs 1] [--images N] [--name folder]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use repro::config::{DataConfig, Settings};
use repro::data::{
    Augment, Cursor, Filter, Flip, Form, JPEG_DECODER, Normalise, Pass, Pictures, Source, TestView, TrainView, View,
};
use repro::setup::Setup;
use repro::{Error, Result};
use tch::Device;

#[derive(Parser)]
struct Args {
    /// The set's folder.
    root: PathBuf,
    /// `folder` or `shards`.
    #[arg(long, default_value = "folder")]
    name: String,
    #[arg(long, default_value_t = 224)]
    edge: i64,
    #[arg(long, default_value_t = 64)]
    batch: u64,
    #[arg(long, default_value_t = 10)]
    classes: i64,
    /// Threads; as many as the machine has, if not given.
    #[arg(long)]
    workers: Option<u64>,
    #[arg(long, default_value_t = 1)]
    epochs: u64,
    /// Stop each epoch after so many.
    #[arg(long)]
    images: Option<u64>,
}

fn settings(args: &Args) -> Settings {
    let root = Some(args.root.display().to_string());
    let data = DataConfig { root, workers: args.workers, ..DataConfig::named(&args.name) };
    Settings::plain(data, args.batch)
}

/// Resident bytes of this process, and the seconds of processor time that it has used.
fn used() -> Option<(u64, f64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: f64 =
        stat.rsplit(')').next()?.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    Some((resident.split_whitespace().next()?.parse::<u64>().ok()? * 1024, ticks / 100.0))
}

fn run(args: &Args) -> Result<serde_json::Value> {
    torch_ext::keep_freed_memory(1 << 30);
    let filter = Filter::Bilinear;
    let view = View {
        train: TrainView::RandomResizedCrop { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], filter },
        test: TestView::ResizeCrop { resize: args.edge * 8 / 7, filter, edge: None },
    };
    let normalise = Normalise::Channels { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    let augment = [Augment::Flip(Flip { p: 0.5 })];
    let form = Form {
        edge: args.edge,
        channels: 3,
        classes: args.classes,
        augment: &augment,
        normalise: &normalise,
        view: Some(&view),
    };
    let begun = Instant::now();
    let data = Pictures::open(&form, &Setup::new(settings(args), Device::Cpu)?)?;
    let open_seconds = begun.elapsed().as_secs_f64();
    let steps = args.images.unwrap_or(data.len()).min(data.len()) / args.batch;
    let (mut speeds, mut resident, mut sum) = (Vec::new(), Vec::new(), 0.0);
    for epoch in 0..args.epochs {
        let before = used();
        let clock = Instant::now();
        let from = Cursor {
            seed: 1,
            step: epoch * (data.len() / args.batch),
            rank: 0,
            world: 1,
            batch: args.batch,
            pass: Pass::DropRest,
            repeats: 1,
        };
        for images in data.batches(from).take(steps as usize) {
            sum += images?.image.f_double_value(&[0, 0, 0, 0])?;
        }
        let (seconds, count) = (clock.elapsed().as_secs_f64(), (steps * args.batch) as f64);
        let after = used();
        let core = before.zip(after).map(|((_, before), (_, after))| count / (after - before).max(1e-9));
        speeds.push(serde_json::json!({"images_per_second": count / seconds, "images_per_core_second": core}));
        resident.push(after.map(|(bytes, _)| bytes));
    }
    Ok(serde_json::json!({
        "images": steps * args.batch, "edge": args.edge, "batch": args.batch, "workers": args.workers, "open_seconds": open_seconds,
        "epochs": speeds, "resident_bytes": resident, "decoder": JPEG_DECODER, "sum": sum, "sha256": data.sha256(),
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
