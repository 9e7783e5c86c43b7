//! `ddpm`: see the crate's README.

fn main() {}
