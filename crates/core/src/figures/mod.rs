//! Pictures: grids, plots, confusion matrices.
