//! `lenet`: see README.md.
fn main() {}
