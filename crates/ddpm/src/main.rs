//! `ddpm`: see the crate's README.

use std::process::ExitCode;

fn main() -> ExitCode {
    repro::cli::main(ddpm::app::app())
}
