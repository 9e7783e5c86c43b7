//! What the binaries promise, held from outside: one test binary, so that libtorch is linked once.
//!
//! New tests of one paper's arithmetic belong in its crate; what holds for every paper's program belongs here.

mod configs;
mod downloads;
mod facts;
mod faults;
mod finetune;
mod full_disk;
mod gpu;
mod hub;
mod longer;
mod mae;
mod mutated;
mod photos;
mod pictures;
mod predict;
mod processes;
mod program;
mod readme;
mod refusals;
mod report;
mod resume;
mod run_folder;
mod screen;
mod simclr;
mod simclr_rows;
mod stages;
mod subcommands;
mod sweeps;
mod vit;
