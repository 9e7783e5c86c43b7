//! Optimizers, schedules, clipping, averages.
pub struct Params;
