//! stub
use crate::config::Config;
use repro::Result;
use repro::answer::Answer;
use repro::cli::Asked;
/// x
pub fn flags(c: clap::Command) -> clap::Command {
    c
}
/// x
pub fn metrics(_: &Asked<Config>) -> Result<Vec<Answer>> {
    Ok(vec![])
}
