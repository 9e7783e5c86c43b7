//! How fast pictures of CIFAR-10 become two views, as SimCLR draws them: prints one line of JSON. `scripts/bench/run.sh simclr` holds it
//! against torchvision.
//!
//! `views ROOT [--batch 256] [--steps 40]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use repro::data::{
    Augment, ColorJitter, Cursor, DataConfig, Filter, Flip, Grey, Normalise, Pass, Pictures, RandomResizedCrop,
    Resident, Source, Views, load,
};
use repro::{Error, Result};
use tch::Device;

/// Batches before the clock starts.
const WARM_UP: usize = 2;

#[derive(Parser)]
struct Args {
    /// The set's folder.
    root: PathBuf,
    #[arg(long, default_value_t = 256)]
    batch: u64,
    /// Batches that are timed.
    #[arg(long, default_value_t = 40)]
    steps: usize,
}

fn run(args: &Args) -> Result<serde_json::Value> {
    torch_ext::keep_freed_memory(1 << 30);
    let config = DataConfig { root: Some(args.root.display().to_string()), ..DataConfig::named("cifar10") };
    // Those of experiments/simclr/cifar10_10k_rn20_e20.yaml.
    let normalise = Normalise::Channels { mean: vec![0.0; 3], std: vec![1.0; 3] };
    let list = [
        Augment::RandomResizedCrop(RandomResizedCrop {
            scale: [0.08, 1.0],
            ratio: [0.75, 1.3333],
            filter: Filter::Bilinear,
            size: None,
        }),
        Augment::Flip(Flip { p: 0.5 }),
        Augment::ColorJitter(ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8 }),
        Augment::Grey(Grey { p: 0.2 }),
    ];
    let pictures = Resident::new(load(&config, Device::Cpu)?, Vec::new(), Some(&normalise))?;
    let data = Views::new(Pictures::Resident(pictures), &[("view1", &list), ("view2", &list)])?;
    let from = Cursor { seed: 1, step: 0, rank: 0, world: 1, batch: args.batch, pass: Pass::DropRest, repeats: 1 };
    let mut batches = data.batches(from);
    batches.by_ref().take(WARM_UP).try_for_each(|views| views.map(drop))?;
    let (clock, mut sum) = (Instant::now(), 0.0);
    for views in batches.take(args.steps) {
        for view in views? {
            sum += view.image.f_double_value(&[0, 0, 0, 0])?;
        }
    }
    let seconds = clock.elapsed().as_secs_f64();
    Ok(serde_json::json!({
        "pictures_per_second": (args.steps as u64 * args.batch) as f64 / seconds, "batch": args.batch, "steps": args.steps,
        "threads": tch::get_num_threads(), "sum": sum, "sha256": data.sha256(),
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
