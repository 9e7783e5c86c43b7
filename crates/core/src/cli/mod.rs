//! The command line that every paper's binary shares.
