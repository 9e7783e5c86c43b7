//! `results/<paper>.md`: the same evidence gives the same bytes.

use repro::Result;
use repro::trainer::run::{RunResult, StageResult};

use crate::evidence::Evidence;
use crate::experiment::is_fraction;
use crate::paper::{Line, Numbers, Paper, Reach, Table};
use crate::plots;
use crate::status::{RULE, SEEDS, Spread, Status};
use crate::words::{count, seeds, thousands};

/// The whole page.
pub(crate) fn page(paper: &Paper) -> Result<String> {
    let name = &paper.name;
    // Before the first run there is no such folder to link to.
    let runs = match paper.has_evidence() {
        true => format!("[runs/{name}](runs/{name})"),
        false => format!("runs/{name}"),
    };
    let mut text = format!(
        "# {}\n\n{}\n\nWritten by `report` from {runs} and [{name}.yaml]({name}.yaml); not to be edited. \
         [How to read the tables](#how-to-read-the-tables) stands at the end.\n",
        paper.layout.title,
        paper.layout.about.trim(),
    );
    for table in &paper.layout.tables {
        text += "\n";
        text += &section(paper, table)?;
    }
    text += &format!("\n## How to read the tables\n\n{RULE}\n");
    Ok(text)
}

/// One table with its plot, the reasons of its misses and its cost.
pub(crate) fn section(paper: &Paper, table: &Table) -> Result<String> {
    let lines = paper.lines(table);
    let mut parts = vec![format!("## {}", table.title)];
    parts.extend(table.caption.as_ref().map(|caption| caption.trim().to_string()));
    let picture = |told: &str| format!("![{}](figures/{})\n\n{told}", table.title, plots::file_name(paper, table));
    if table.matrix.is_some() {
        parts.push(match plots::matrix(paper, table) {
            Some(_) => picture(
                "Each cell is the mean over its seeds, and a mean of cells is one of those that were run. Grey cells were not.",
            ),
            None => "No picture yet: no cell was run.".into(),
        });
    } else if table.curves.is_some() || table.points.is_some() {
        parts.push(match plots::of(paper, table) {
            Some(_) => picture(
                "Each line is the mean over its seeds. The band around it is one standard deviation wide on each side.",
            ),
            None => "No picture yet: a curve is drawn from three points on.".into(),
        });
    }
    // A plot over epochs may show runs whose numbers stand in other tables.
    let shown: Vec<_> = lines.iter().filter(|line| line.row.is_some() || table.curves.is_none()).collect();
    if !shown.is_empty() {
        let mut header =
            ["row", "paper", "ours", "status", "epochs", "parameters", "seconds", "device", "commit", "config"]
                .to_vec();
        if let Some(reach) = &table.reach {
            header.insert(REACH_COLUMN, &reach.label);
        }
        let rule = "---|".repeat(header.len());
        let rows = shown.iter().map(|line| row(paper, table, line)).collect::<Result<Vec<_>>>()?;
        parts.push(format!("| {} |\n|{rule}\n{}", header.join(" | "), rows.join("\n")));
    }
    parts.extend(table.numbers.as_ref().map(|numbers| beside(paper, numbers)));
    parts.extend(misses(table, &lines)?);
    parts.push(cost(paper, table, &lines));
    Ok(parts.join("\n\n") + "\n")
}

/// Several numbers of each run, each the mean over its seeds.
fn beside(paper: &Paper, numbers: &Numbers) -> String {
    let header = [std::slice::from_ref(&numbers.corner), &numbers.columns, &["seeds".into()]].concat();
    let rows = numbers.rows.iter().map(|row| {
        let evidence = paper.evidence(&row.config);
        let cell = |metric: &Option<String>| {
            let Some(metric) = metric else { return "–".into() };
            let values: Vec<_> = evidence.iter().filter_map(|e| e.value(metric)).collect();
            Spread::of(&values).map_or("not run".into(), |spread| mean(metric, spread))
        };
        let cells: Vec<String> = row.metrics.iter().map(cell).collect();
        format!("| {} | {} | {} |", row.label, cells.join(" | "), evidence.len())
    });
    let rows: Vec<String> = rows.collect();
    format!("| {} |\n|{}\n{}", header.join(" | "), "---|".repeat(header.len()), rows.join("\n"))
}

/// Why rows miss the paper's values.
fn misses(table: &Table, lines: &[Line]) -> Result<Option<String>> {
    let mut whys = Vec::new();
    for line in lines {
        if let Status::Missed { .. } = line.status(table)? {
            whys.push(format!("- {}: {}", line.label, line.why.unwrap_or("not explained yet.")));
        }
    }
    Ok((!whys.is_empty()).then(|| format!("Why rows miss the paper's value:\n\n{}", whys.join("\n"))))
}

fn row(paper: &Paper, table: &Table, line: &Line) -> Result<String> {
    let number = |value: f64| number(&table.metric, value);
    let folder = |config: &str| format!("runs/{}/{config}", paper.name);
    let spread = line.spread(table);
    let ours = match (spread, line.experiment) {
        (Some(spread), Some(e)) => {
            let runs = if line.deterministic { "deterministic".into() } else { seeds(spread.n) };
            format!("{} ([{runs}]({}))", mean(&table.metric, spread), folder(&e.name))
        }
        _ => "–".into(),
    };
    let of_seeds = spread.map_or(String::new(), |spread| format!("{} of {SEEDS} seeds", spread.n));
    let status = match line.status(table)? {
        Status::NoExperiment => "no experiment".into(),
        Status::NotRun => "not run".into(),
        Status::NoNumber => "no number in the paper".into(),
        Status::Reproduced => "**reproduced**".into(),
        Status::OtherRecipe => "better, other recipe".into(),
        Status::FewSeeds => format!("partial: {of_seeds}"),
        Status::Missed { by, allowed } => {
            let few = !line.deterministic && spread.is_some_and(|spread| spread.n < SEEDS);
            let seeds = if few { format!(", {of_seeds}") } else { String::new() };
            format!("missed by {} (allowed: {}){seeds}", gap(&table.metric, by), gap(&table.metric, allowed))
        }
    };
    let config = line.experiment.map(|e| format!("[{0}](../experiments/{1}/{0}.yaml)", e.name, paper.name));
    let mut cells = vec![
        line.label.clone(),
        line.paper.map_or("–".into(), number),
        ours,
        status,
        distinct(line.evidence, epochs),
        distinct(line.evidence, |e| thousands(e.result.parameters)),
        fastest(line.evidence).map_or("–".into(), |seconds| thousands(seconds.round() as u64)),
        distinct(line.evidence, device),
        distinct(line.evidence, |e| commit(&e.result.commit)),
        config.unwrap_or("–".into()),
    ];
    if let Some(reach) = &table.reach {
        cells.insert(REACH_COLUMN, reached(reach, line.evidence));
    }
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    Ok(format!("| {} |", cells.join(" | ")))
}

/// The column of [`Reach`]: after row, paper and ours.
const REACH_COLUMN: usize = 3;

/// When the curve first came so low, over the seeds; every seed must have come there.
fn reached(reach: &Reach, evidence: &[Evidence]) -> String {
    let first =
        |e: &Evidence| e.curves.get(&reach.curve)?.iter().find(|(_, y)| *y <= reach.value).map(|(epoch, _)| *epoch);
    match evidence.iter().map(first).collect::<Option<Vec<_>>>() {
        Some(epochs) => Spread::of(&epochs).map_or("–".into(), |spread| match spread.n {
            1 => format!("{:.1}", spread.mean),
            _ => format!("{:.1} ± {:.1}", spread.mean, spread.sd),
        }),
        None => "not reached".into(),
    }
}

/// The epochs of each stage that trains something: `20`, or `20 + 100` of a paper that has two.
fn epochs(evidence: &Evidence) -> String {
    let result = &evidence.result;
    let later = later_stages(result).filter(|stage| stage.steps > 0).map(|stage| stage.epochs);
    let all = std::iter::once(result.epochs).chain(later);
    all.map(|epochs| format!("{}", (epochs * 100.0).round() / 100.0)).collect::<Vec<_>>().join(" + ")
}

/// The first stage's numbers are the result's own.
fn later_stages(result: &RunResult) -> impl Iterator<Item = &StageResult> {
    result.stages.values().filter(|stage| stage.weights_sha256 != result.weights_sha256)
}

/// Seconds of training, in all stages, of the fastest seed: what slows the others is the company they had on the machine, not the row.
fn fastest(evidence: &[Evidence]) -> Option<f64> {
    let all = |result: &RunResult| result.seconds + later_stages(result).map(|stage| stage.seconds).sum::<f64>();
    evidence.iter().map(|e| all(&e.result)).min_by(f64::total_cmp)
}

/// The different answers of the seeds, in their order.
fn distinct(evidence: &[Evidence], of: impl Fn(&Evidence) -> String) -> String {
    let mut found: Vec<String> = Vec::new();
    for text in evidence.iter().map(of) {
        if !found.contains(&text) {
            found.push(text);
        }
    }
    if found.is_empty() { "–".into() } else { found.join(", ") }
}

fn device(evidence: &Evidence) -> String {
    let env = &evidence.env;
    match env.device.as_str() {
        "cpu" => format!("{}, {}", env.cpu, count(env.threads as usize, "thread")),
        gpu => format!("{gpu}, {}", env.cpu),
    }
}

/// A commit's first seven digits, and whether the checkout had changes.
fn commit(hash: &str) -> String {
    let (hash, changes) = hash.split_once('+').map_or((hash, ""), |(hash, _)| (hash, " with changes"));
    format!("{}{changes}", hash.get(..7).unwrap_or(hash))
}

/// What running the table again costs, by what it cost.
fn cost(paper: &Paper, table: &Table, lines: &[Line]) -> String {
    let command = format!("`scripts/reproduce.sh {}/{}`", paper.name, table.name);
    let runs: usize = lines.iter().map(|line| line.evidence.len()).sum();
    let seconds: f64 = lines.iter().filter_map(|line| Some(fastest(line.evidence)? * line.evidence.len() as f64)).sum();
    let idle = lines.iter().filter(|line| line.experiment.is_some() && line.evidence.is_empty()).count();
    let idle = match idle {
        0 => String::new(),
        n => format!(" Not counted: {} without a run.", count(n, "experiment")),
    };
    match runs {
        0 => format!("Cost to train again: not known, because none of its experiments was run. {command} runs them."),
        _ => format!(
            "Cost to train again: {} of training in {}, by the seconds of each row's fastest seed ({command}).{idle}",
            duration(seconds),
            count(runs, "run")
        ),
    }
}

/// `0.92 ± 0.03 %`; of one seed, `0.92 %`.
pub(crate) fn mean(metric: &str, spread: Spread) -> String {
    let plain = number(metric, spread.mean);
    if spread.n < 2 {
        return plain;
    }
    match plain.strip_suffix(" %") {
        Some(mean) => format!("{mean} ± {}", number(metric, spread.sd)),
        None => format!("{plain} ± {}", number(metric, spread.sd)),
    }
}

/// A value of the metric as printed: errors and accuracies in per cent.
pub(crate) fn number(metric: &str, value: f64) -> String {
    if is_fraction(metric) { format!("{:.2} %", 100.0 * value) } else { format!("{value:.4}") }
}

/// A difference of two values: percentage points where they are in per cent.
fn gap(metric: &str, difference: f64) -> String {
    if is_fraction(metric) { format!("{:.2} points", 100.0 * difference) } else { number(metric, difference) }
}

/// `42 s`, `6 min`, `1 h 12 min`.
fn duration(seconds: f64) -> String {
    match seconds.round() as u64 {
        s @ ..90 => format!("{s} s"),
        s @ ..3600 => format!("{} min", (s + 30) / 60),
        s => format!("{} h {} min", (s + 30) / 3600, (s + 30) % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Checkout;
    use serde_json::json;

    /// A row of several stages tells the epochs of each that trains, and its cost is that of all.
    #[test]
    fn every_stage_counts() {
        let checkout = Checkout::new();
        let stage = |steps: u64, epochs: f64, seconds: f64, weights: &serde_json::Value| {
            json!({
                "done": true, "steps": steps, "epochs": epochs, "seconds": seconds, "examples_per_second": 1.0, "effective_batch": 2,
                "lr": {}, "data_sha256": null, "weights_sha256": weights
            })
        };
        let run = checkout.changed_run(2, 0.022, &|result| {
            let other = |digit: &str| json!(digit.repeat(64));
            result["stages"] = json!({
                "pretrain": stage(1000, 2.0, 100.5, &result["weights_sha256"].clone()),
                "probe": stage(500, 30.0, 20.0, &other("a")),
                "knn": stage(0, 0.0, 0.0, &other("b")),
            });
        });
        std::fs::remove_file(checkout.root().join("results/runs/toy/one/seed1.json")).unwrap();
        crate::evidence::add(checkout.root(), &run).unwrap();
        crate::pages::write(checkout.root()).unwrap();
        let page = checkout.read("results/toy.md");
        assert!(page.contains("| 2 + 30 | 60,000 | 121 |"), "{page}");
    }

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1000, 60_000, 1_234_567].map(thousands), ["0", "999", "1,000", "60,000", "1,234,567"]);
        assert_eq!([0.4, 89.0, 363.0, 3599.0, 4320.0].map(duration), ["0 s", "89 s", "6 min", "60 min", "1 h 12 min"]);
        let spread = Spread { n: 3, mean: 0.00917, sd: 0.00031 };
        assert_eq!(mean("test/error", spread), "0.92 ± 0.03 %");
        assert_eq!(mean("test/error", Spread { n: 1, ..spread }), "0.92 %");
        assert_eq!(mean("test/loss", spread), "0.0092 ± 0.0003");
        assert_eq!((gap("test/error", 0.0189), gap("test/loss", 0.5)), ("1.89 points".into(), "0.5000".into()));
        assert_eq!(commit("f37d6aace3a19d32+changes"), "f37d6aa with changes");
        assert_eq!(commit("unknown"), "unknown");
    }
}
