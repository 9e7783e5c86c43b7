//! `report noise`: what seeds alone change, and what difference they can show.

use repro::{Result, user};

use crate::experiment::{Experiment, is_fraction};
use crate::paper::{Paper, select};
use crate::render::{mean, number};
use crate::status::{Spread, detectable, seeds_for};
use crate::words::seeds;

/// Each configuration that `name` stands for, with its spread over seeds.
///
/// # Errors
/// [`repro::Error::User`] for an unknown name, and where no configuration has two seeds.
pub(crate) fn report(paper: &Paper, name: &str) -> Result<String> {
    let tables = || paper.layout.tables.iter();
    let mut found: Vec<&Experiment> = Vec::new();
    for table in tables() {
        // A row's name may be that of a configuration in another table; a name that no table knows is an error below.
        for experiment in select(paper, table, Some(name)).unwrap_or_default() {
            if found.iter().all(|other| other.name != experiment.name) {
                found.push(experiment);
            }
        }
    }
    if found.is_empty() {
        let mut known: Vec<_> =
            tables().flat_map(|t| paper.lines(t)).filter_map(|l| Some(l.experiment?.name.clone())).collect();
        known.sort();
        known.dedup();
        return Err(user!("{} has no experiment {name}; there are: {}", paper.name, known.join(", ")));
    }
    let told: Vec<_> = found.iter().map(|e| of_config(paper, e)).collect();
    if told.iter().all(Result::is_err) {
        let whys: Vec<_> = told.iter().filter_map(|t| t.as_ref().err()).map(ToString::to_string).collect();
        return Err(user!("{}", whys.join("\n")));
    }
    let told: Vec<_> = told.into_iter().map(|t| t.unwrap_or_else(|why| format!("{why}\n"))).collect();
    Ok(told.join("\n")
        + "\nRule: two groups of n seeds, two-sided t-test at 5 %, power 80 %: (t0.975 + t0.80)·sd·√(2/n), t with 2(n − 1) degrees of freedom.")
}

fn of_config(paper: &Paper, experiment: &Experiment) -> Result<String> {
    let (name, evidence) = (&experiment.name, paper.evidence(&experiment.name));
    if paper.is_deterministic(experiment) {
        return Err(user!("{name}: deterministic, so every seed gives the same number and there is no spread"));
    }
    let metric = experiment.claim.as_ref().map_or("", |claim| claim.metric.as_str());
    let mut values: Vec<_> = evidence.iter().filter_map(|e| e.value(metric)).collect();
    let spread = match Spread::of(&values) {
        None => return Err(user!("{name}: not run, so its spread is not known; run at least 2 seeds")),
        Some(Spread { n: 1, .. }) => return Err(user!("{name}: one seed has no spread; run at least one more")),
        Some(spread) => spread,
    };
    values.sort_by(f64::total_cmp);
    // A tenth of a point, which is what papers argue about.
    let small = if is_fraction(metric) { 0.001 } else { 0.1 };
    let needed = seeds_for(spread.sd, small).map_or("more than a thousand seeds".into(), seeds);
    Ok(format!(
        "{name}: {metric}, {}\n\
         mean ± sd             {}\n\
         smallest, largest     {}, {}\n\
         smallest difference   {}: what {} can tell from noise\n\
         for {:17} {needed}\n",
        seeds(spread.n),
        mean(metric, spread),
        number(metric, values[0]),
        number(metric, values[values.len() - 1]),
        number(metric, detectable(spread.sd, spread.n)?),
        seeds(spread.n),
        number(metric, small),
    ))
}
