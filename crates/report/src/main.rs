//! `report`: takes finished runs into the evidence, writes `results/*.md` from it, and checks that what is said agrees with what is
//! there. Run it in the root of the checkout.

mod benchmarks;
mod check;
mod evidence;
mod experiment;
mod noise;
mod pages;
mod paper;
mod plots;
mod render;
mod status;
#[cfg(test)]
mod testing;
mod words;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use repro::{Error, Result, user};

use crate::evidence::Added;
use crate::experiment::Experiment;
use crate::paper::{Paper, select};

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Writes the results pages from the evidence; checks that pages, evidence, links and citations agree",
    after_help = "Exit codes: 0 done, 2 your input is wrong, 1 any other failure or a finding of `check`."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write results/*.md and their plots from the evidence. The default command
    Write,
    /// Copy the results of finished runs to results/runs; existing evidence is never overwritten
    Add {
        /// Run folders
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<PathBuf>,
    },
    /// Compare tables, evidence, links and citations with the files; list every finding
    Check,
    /// Spread over seeds, and how small a difference they can show
    Noise {
        /// A configuration, or a row for all its configurations
        #[arg(value_name = "PAPER/NAME")]
        name: String,
    },
    /// List the configurations and seeds of a table that have no evidence: `config seed`, one a line
    Todo {
        #[arg(value_name = "PAPER/TABLE")]
        table: String,
        /// Seeds 1 to N; of a deterministic row seed 1 alone
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
        /// A row (all its configurations) or a configuration; R.yaml is the configuration where both are called alike
        #[arg(long, value_name = "R")]
        row: Option<String>,
    },
    /// Print one table as Markdown
    Show {
        #[arg(value_name = "PAPER/TABLE")]
        table: String,
    },
}

fn main() -> ExitCode {
    // An empty root: paths in messages stand as the user writes them.
    match run(Path::new(""), Cli::parse().command.unwrap_or(Command::Write)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(root: &Path, command: Command) -> Result<()> {
    experiment::papers(root)?;
    match command {
        Command::Write => {
            let written = pages::write(root)?;
            written.iter().for_each(|path| say(format!("wrote {}", path.display())));
            if written.is_empty() {
                say("every page is what the evidence gives");
            }
        }
        Command::Add { runs } => {
            for run in runs {
                say(match evidence::add(root, &run)? {
                    Added::New(path) => format!("added {}", path.display()),
                    Added::Already(path) => format!("{} is there already", path.display()),
                });
            }
        }
        Command::Check => {
            let found = check::check(root)?;
            found.iter().for_each(say);
            if !found.is_empty() {
                return Err(Error::Failed(format!("{} finding(s)", found.len())));
            }
            say("tables, evidence, links and citations agree");
        }
        Command::Noise { name } => {
            let (paper, name) = split(root, &name, "NAME")?;
            say(noise::report(&Paper::read(root, paper)?, name)?);
        }
        Command::Todo { table, seeds, row } => {
            let (paper, table) = split(root, &table, "TABLE")?;
            let paper = Paper::read(root, paper)?;
            let configs = select(&paper, paper.table(table)?, row.as_deref())?;
            // Seed by seed, so that a table that is cut short has every row. What is deterministic needs one seed.
            for seed in 1..=seeds {
                let wanted = |config: &&&Experiment| {
                    let needed = seed == 1 || !paper.is_deterministic(config);
                    needed && !evidence::place(root, &paper.name, &config.name, seed).exists()
                };
                for config in configs.iter().filter(wanted) {
                    say(format!("{} {seed}", config.name));
                }
            }
        }
        Command::Show { table } => {
            let (paper, table) = split(root, &table, "TABLE")?;
            let paper = Paper::read(root, paper)?;
            say(render::section(&paper, paper.table(table)?)?.trim_end());
        }
    }
    Ok(())
}

/// `lenet/figure9` → `lenet`, `figure9`.
fn split<'a>(root: &Path, name: &'a str, what: &str) -> Result<(&'a str, &'a str)> {
    name.split_once('/').filter(|(paper, name)| !paper.is_empty() && !name.is_empty()).ok_or_else(|| {
        let papers = experiment::papers(root).unwrap_or_default().join(", ");
        user!("{name:?} is not PAPER/{what}, such as lenet/figure9; papers: {papers}")
    })
}

/// Prints to stdout; a reader that has gone away (`| head`) is no error.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The entries of a folder by name, hidden ones left out; none where there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let readable = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries =
        std::fs::read_dir(readable).into_iter().flatten().flatten().map(|entry| folder.join(entry.file_name()));
    let mut shown: Vec<_> = entries.filter(|path| !stem(path).starts_with('.')).collect();
    shown.sort();
    shown
}

/// The files in a folder and in all folders below it, by path.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries(folder).into_iter().flat_map(below).collect()
}

/// A file's name without its ending.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
