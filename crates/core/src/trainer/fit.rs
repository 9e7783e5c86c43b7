//! The loop. It touches no loss, no learning rate and no mask: those are the paper's.

use std::collections::BTreeMap;
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::checkpoint::Sums;
use super::plan::Plan;
use super::run::{Progressed, Run};
use super::{Eval, Recipe, Scalar, Scalars, Step, checkpoint};
use crate::config::Every;
use crate::data::{Cursor, Source, Split};
use crate::setup::Setup;
use crate::weights::Named;
use crate::{Error, Result};

/// Device values are read at the latest after so many steps, however rarely a run logs.
const PENDING: usize = 1000;

/// Runs the steps of one stage from where it stands to its end; stops early, with a checkpoint, at a signal or the limit.
///
/// `summed`: what the steps before it have left to be logged. Returns where it stands then.
pub(super) fn fit<R: Recipe>(
    recipe: &mut R,
    data: &R::Data,
    plan: &Plan,
    setup: &Setup,
    run: &mut Run,
    from: Progressed,
    summed: &Sums,
) -> Result<Progressed> {
    let cursor = Cursor::of(setup, from.step);
    let steps_per_epoch = cursor.steps_per_epoch(data.len());
    let total = plan.steps(steps_per_epoch);
    let settings = &setup.settings;
    let due = |every: Every, done: u64| every.steps(steps_per_epoch).is_some_and(|n| done.is_multiple_of(n));

    let mut batches = data.batches(cursor);
    let mut pending = Pending::of(summed, setup);
    let mut at = from;
    while at.step < total {
        let clock = Instant::now();
        let step = Step { index: at.step, total, steps_per_epoch, setup };
        step.reseed();
        let batch = batches.next().ok_or_else(|| Error::Failed("the data ended before the run".into()))??;
        pending.push(at.step, recipe.step(batch, data, &step)?);
        at.step += 1;
        let done = at.step;
        let stop = setup.any(run.stop())?;
        let evaluate = due(settings.eval.every, done) && done < total;
        let checkpoint = due(settings.checkpoint.every, done) || done == total || stop;
        let log_due = due(Every::Each(settings.log.every), done);
        let log = log_due || done == total;
        // The only places that wait for the device.
        if log || evaluate || checkpoint || pending.len() >= PENDING {
            pending.read()?;
        }
        at.seconds += clock.elapsed().as_secs_f64();

        run.progressed(&at, steps_per_epoch);
        run.show(&at);
        if log || evaluate || checkpoint {
            run.notes(data.notes())?;
        }
        if log {
            run.trained(&step, at.seconds, pending.means(setup)?)?;
        }
        // What the end of the stage alone has logged, a longer one would go on summing.
        if log_due {
            pending.sums.clear();
        }
        if evaluate {
            let (split, name) =
                if R::has_validation(data) { (Split::Validation, "val") } else { (Split::Test, "monitor") };
            let full = settings.eval.full_every.is_some_and(|every| due(every, done));
            let found = evaluate_into(Eval::on_the_way(full), recipe, data, split, &step)?;
            run.evaluated(name, &step, &found, false)?;
        }
        if checkpoint {
            let sums = pending.of_all(setup)?;
            if setup.rank == 0 {
                finite(&recipe.state(), done)?;
                run.flush()?;
                let header = run.header(&at, sums);
                checkpoint::save(&run.checkpoints(), header, &recipe.state(), settings.checkpoint.keep)?;
            }
        }
        if stop {
            break;
        }
    }
    Ok(at)
}

/// Refuses to save weights that are no numbers: the loss of the last step was taken before its update.
fn finite(state: &Named, done: u64) -> Result<()> {
    for (name, tensor) in state.iter().filter(|(_, t)| t.is_floating_point()) {
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(Error::Diverged(format!(
                "training diverged at step {}: {name} holds values that are no numbers; try a smaller optim.base_lr",
                done - 1
            )));
        }
    }
    Ok(())
}

/// One evaluation, without gradients. All processes take part, and leave it together, however long it takes one of them.
pub(super) fn evaluate_into<R: Recipe>(
    mut out: Eval,
    recipe: &mut R,
    data: &R::Data,
    split: Split,
    at: &Step,
) -> Result<Eval> {
    // Each process has seen other pictures, and its batch norms have other running statistics: what is measured are the weights that are saved,
    // which are rank 0's.
    let learned = recipe.state().into_iter().filter(|(name, _)| !name.starts_with("optim.")).collect();
    at.setup.share(&learned)?;
    tch::no_grad(|| recipe.evaluate(data, split, at, &mut out))?;
    at.setup.meet()?;
    Ok(out)
}

/// Scalars of steps that have not been read from the device yet.
#[derive(Default)]
pub(super) struct Pending {
    steps: Vec<(u64, Scalars)>,
    /// Sums and counts since the last log, by name.
    sums: BTreeMap<String, (f64, u64)>,
}

impl Pending {
    /// What this process had summed when the checkpoint was written; where the processes were of another number, the mean of theirs.
    fn of(summed: &Sums, setup: &Setup) -> Self {
        let own = |sums: &Vec<(f64, u64)>| match sums.get(setup.rank as usize) {
            Some(own) if sums.len() as u64 == setup.world => *own,
            _ => {
                let sum: f64 = sums.iter().map(|(sum, _)| sum).sum();
                (sum / sums.len().max(1) as f64, sums.first().map_or(0, |(_, count)| *count))
            }
        };
        let sums = summed.iter().map(|(name, sums)| (name.clone(), own(sums))).collect();
        Self { steps: Vec::new(), sums }
    }

    /// The sums of all processes, which all of them ask for together.
    fn of_all(&self, setup: &Setup) -> Result<Sums> {
        let own: Vec<f64> = self.sums.values().flat_map(|(sum, count)| [*sum, *count as f64]).collect();
        if own.is_empty() {
            return Ok(Sums::new());
        }
        let rows = setup.gather_rows(&Tensor::f_from_slice(&own)?)?;
        let all: Vec<Vec<f64>> = rows.iter().map(|row| Ok(Vec::try_from(row)?)).collect::<Result<_>>()?;
        let of = |place: usize| all.iter().map(|row| (row[2 * place], row[2 * place + 1] as u64)).collect();
        Ok(self.sums.keys().enumerate().map(|(place, name)| (name.clone(), of(place))).collect())
    }

    pub(super) fn push(&mut self, step: u64, mut scalars: Scalars) {
        for (_, scalar) in &mut scalars {
            // A loss that is kept until the next log must not keep its graph.
            if let Scalar::Device(value) = scalar {
                *value = value.detach();
            }
        }
        self.steps.push((step, scalars));
    }

    fn len(&self) -> usize {
        self.steps.len()
    }

    /// Reads all device values in one copy; the first value that is no number ends the run.
    pub(super) fn read(&mut self) -> Result<()> {
        let on_device: Vec<Tensor> = self
            .steps
            .iter()
            .flat_map(|(_, scalars)| scalars)
            .filter_map(
                |(_, s)| {
                    if let Scalar::Device(t) = s { Some(t.to_kind(Kind::Float).reshape([1])) } else { None }
                },
            )
            .collect();
        let read: Vec<f32> = match on_device.is_empty() {
            true => Vec::new(),
            false => Vec::try_from(Tensor::f_cat(&on_device, 0)?.f_to_device(Device::Cpu)?)?,
        };
        let mut read = read.into_iter();
        for (step, scalars) in self.steps.drain(..) {
            let mut values = Vec::with_capacity(scalars.len());
            for (name, scalar) in &scalars {
                let value = match scalar {
                    Scalar::Host(v) => *v,
                    Scalar::Device(_) => f64::from(read.next().unwrap_or(f32::NAN)),
                };
                values.push((*name, value));
            }
            if values.iter().any(|(_, v)| !v.is_finite()) {
                let all: Vec<_> = values.iter().map(|(n, v)| format!("{n} = {v}")).collect();
                return Err(Error::Diverged(format!(
                    "training diverged at step {step} ({}); try a smaller optim.base_lr or a longer schedule.warmup",
                    all.join(", ")
                )));
            }
            for (name, value) in values {
                let sum = self.sums.entry(name.to_string()).or_default();
                *sum = (sum.0 + value, sum.1 + 1);
            }
        }
        Ok(())
    }

    /// The mean of every scalar over the steps that are summed, and over the processes.
    fn means(&self, setup: &Setup) -> Result<BTreeMap<String, f64>> {
        let means = self.mean_here();
        let values: Vec<f64> = means.values().copied().collect();
        Ok(means.into_keys().zip(setup.means(&values)?).collect())
    }

    /// The same over the steps of this process alone.
    pub(super) fn mean_here(&self) -> BTreeMap<String, f64> {
        self.sums.iter().map(|(name, (sum, count))| (name.clone(), sum / *count as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(v: f32) -> Scalar {
        Scalar::Device(Tensor::from(v))
    }

    #[test]
    fn pending_values_are_averaged_and_the_first_bad_step_is_named() {
        let mut pending = Pending::default();
        pending.push(0, vec![("loss", device(1.0)), ("lr", Scalar::Host(0.1))]);
        pending.push(1, vec![("loss", device(3.0)), ("lr", Scalar::Host(0.3))]);
        pending.read().unwrap();
        let means = pending.mean_here();
        assert_eq!(means["loss"], 2.0);
        assert!((means["lr"] - 0.2).abs() < 1e-12);
        for (step, v) in [(5, 1.0), (6, f32::NAN), (7, f32::INFINITY)] {
            pending.push(step, vec![("loss", device(v))]);
        }
        let error = pending.read().unwrap_err();
        assert!(matches!(error, Error::Diverged(_)));
        assert!(error.to_string().contains("step 6 (loss = NaN)"), "{error}");
    }
}
