//! Optimizers, schedules, clipping, averages.
