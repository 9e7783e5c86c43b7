//! A paper's results: the tables that `results/<paper>.yaml` lays out, its experiments, and the evidence for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use repro::config::Claim;
use repro::{Result, user};
use serde::Deserialize;

use crate::evidence::{self, Evidence};
use crate::experiment::{self, Better, Experiment};
use crate::status::{Held, Spread, Status};

/// `results/<paper>.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    /// Heading of the page.
    pub(crate) title: String,
    /// What a reader should know first, in Markdown.
    pub(crate) about: String,
    /// In the order of the page.
    pub(crate) tables: Vec<Table>,
}

/// A table or figure of the paper: rows with numbers, a plot over epochs, both, or a plot with a row for each of its points.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// As `paper.table` of the experiments says it.
    pub(crate) name: String,
    pub(crate) title: String,
    /// In Markdown, under the title.
    pub(crate) caption: Option<String>,
    /// What all its numbers are: `test/error`.
    pub(crate) metric: String,
    /// Which way it gets better. `None`: errors and losses lower, accuracies higher.
    pub(crate) better: Option<Better>,
    /// Size of the test set, for the noise of a share of it.
    pub(crate) test_examples: Option<u64>,
    /// The configurations that train as the paper does; all others train in another way. `None`: all train as the paper does.
    pub(crate) paper_recipe: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) rows: Vec<Row>,
    /// A line over epochs for each configuration.
    pub(crate) curves: Option<Curves>,
    /// Lines through the results of several configurations.
    pub(crate) points: Option<Points>,
    /// A column that tells when a curve came so low.
    pub(crate) reach: Option<Reach>,
}

/// The epoch at which a curve first comes to a value or below.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reach {
    /// Heading of the column.
    pub(crate) label: String,
    /// Which curve of the evidence: `train/error`.
    pub(crate) curve: String,
    pub(crate) value: f64,
}

/// A row of the paper. Several configurations may stand for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// As `paper.row` of the experiments says it.
    pub(crate) row: String,
    /// As printed in the paper.
    pub(crate) label: String,
    /// The paper's value in the metric's unit; `error` and `accuracy` are fractions.
    pub(crate) paper: Option<f64>,
    /// Configuration → a word on how it trains, where several stand for the row.
    #[serde(default)]
    pub(crate) recipes: BTreeMap<String, String>,
    /// Whether its method draws nothing, so that every seed gives the same.
    #[serde(default)]
    pub(crate) deterministic: bool,
    /// Configuration → a sentence on why it misses the paper's value, printed if it does.
    #[serde(default)]
    pub(crate) why: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Curves {
    pub(crate) x: String,
    pub(crate) y: String,
    /// Which curve of the evidence: `monitor/error`.
    pub(crate) curve: String,
    /// The curve that is drawn thin beside it, and what the legend calls it: `{curve: train/error, label: training}`.
    pub(crate) beside: Option<Beside>,
    pub(crate) lines: Vec<CurveLine>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Beside {
    pub(crate) curve: String,
    pub(crate) label: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CurveLine {
    pub(crate) label: String,
    pub(crate) config: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Points {
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) lines: Vec<PointLine>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PointLine {
    pub(crate) label: String,
    /// Configuration → x.
    pub(crate) configs: BTreeMap<String, f64>,
}

/// All of it together.
#[derive(Debug)]
pub(crate) struct Paper {
    pub(crate) name: String,
    /// `results/<paper>.yaml`.
    pub(crate) file: PathBuf,
    pub(crate) layout: Layout,
    experiments: Vec<Experiment>,
    /// By configuration, then by seed.
    evidence: BTreeMap<String, Vec<Evidence>>,
}

/// A line of a table: a row with one of its configurations.
pub(crate) struct Line<'a> {
    pub(crate) label: String,
    /// As `paper.row` says it; of a plot's line, none.
    pub(crate) row: Option<&'a str>,
    pub(crate) paper: Option<f64>,
    pub(crate) experiment: Option<&'a Experiment>,
    pub(crate) deterministic: bool,
    /// Why it misses the paper's value, as far as somebody has found out.
    pub(crate) why: Option<&'a str>,
    /// By seed.
    pub(crate) evidence: &'a [Evidence],
}

impl Line<'_> {
    /// What the seeds gave; `None`: not run.
    pub(crate) fn spread(&self, table: &Table) -> Option<Spread> {
        Spread::of(&self.evidence.iter().filter_map(|e| e.value(&table.metric)).collect::<Vec<_>>())
    }

    pub(crate) fn status(&self, table: &Table) -> Result<Status> {
        let Some(experiment) = self.experiment else { return Ok(Status::NoExperiment) };
        let Some(ours) = self.spread(table) else { return Ok(Status::NotRun) };
        let Some(paper) = self.paper else { return Ok(Status::NoNumber) };
        let as_printed = |configs: &Vec<String>| configs.contains(&experiment.name);
        let held = Held {
            better: Better::of(table.better, &table.metric)?,
            metric: &table.metric,
            paper,
            examples: table.test_examples,
            deterministic: self.deterministic,
            other_recipe: !table.paper_recipe.as_ref().is_none_or(as_printed),
        };
        Ok(held.status(ours))
    }
}

impl Paper {
    pub(crate) fn read(root: &Path, name: &str) -> Result<Self> {
        let known = experiment::papers(root)?;
        if !known.iter().any(|paper| paper == name) {
            return Err(user!("there is no paper {name}; papers: {}", known.join(", ")));
        }
        let file = root.join("results").join(format!("{name}.yaml"));
        let text = fs::read_to_string(&file).map_err(|e| {
            user!(
                "cannot read {}: {e}; it lays out the paper's tables (results/lenet.yaml is an example)",
                file.display()
            )
        })?;
        let layout = serde_saphyr::from_str(&text).map_err(|e| user!("{}: {e}", file.display()))?;
        let experiments = experiment::all(root, name)?;
        let evidence = experiments.iter().map(|e| Ok((e.name.clone(), evidence::of_config(root, name, &e.name)?)));
        let evidence = evidence.collect::<Result<_>>()?;
        Ok(Self { name: name.into(), file, layout, experiments, evidence })
    }

    /// The table of this name.
    pub(crate) fn table(&self, name: &str) -> Result<&Table> {
        self.layout.tables.iter().find(|table| table.name == name).ok_or_else(|| {
            let known: Vec<_> = self.layout.tables.iter().map(|t| format!("{}/{}", self.name, t.name)).collect();
            user!("there is no table {}/{name}; tables: {}", self.name, known.join(", "))
        })
    }

    /// The table's lines in their order.
    pub(crate) fn lines<'a>(&'a self, table: &'a Table) -> Vec<Line<'a>> {
        let mut lines = Vec::new();
        for row in &table.rows {
            let line = |experiment: Option<&'a Experiment>| Line {
                label: match experiment.and_then(|e| row.recipes.get(&e.name)) {
                    Some(recipe) => format!("{}: {recipe}", row.label),
                    None => row.label.clone(),
                },
                row: Some(&row.row),
                paper: row.paper,
                experiment,
                deterministic: row.deterministic,
                why: experiment.and_then(|e| row.why.get(&e.name)).map(String::as_str),
                evidence: self.evidence_of(experiment),
            };
            let configs: Vec<_> = self.claiming(&table.name).filter(|(_, claimed)| *claimed == row.row).collect();
            lines.extend(configs.iter().map(|(experiment, _)| line(Some(experiment))));
            if configs.is_empty() {
                lines.push(line(None));
            }
        }
        let mut named = |config: &str, label: String| {
            let experiment = self.experiments.iter().find(|e| e.name == config);
            // A configuration that stands for a row may be drawn as well.
            if lines.iter().any(|line| line.row.is_some() && line.experiment.is_some_and(|e| e.name == config)) {
                return;
            }
            let deterministic = experiment.is_some_and(|e| self.is_deterministic(e));
            let evidence = self.evidence_of(experiment);
            lines.push(Line { label, row: None, paper: None, experiment, deterministic, why: None, evidence });
        };
        for line in table.curves.iter().flat_map(|curves| &curves.lines) {
            named(&line.config, line.label.clone());
        }
        for line in table.points.iter().flat_map(|points| &points.lines) {
            for (config, x) in line.by_x() {
                named(config, format!("{}, {}", line.label, crate::words::thousands(x as u64)));
            }
        }
        lines
    }

    /// The experiments that claim a row of the table, with the row.
    fn claiming<'a>(&'a self, table: &'a str) -> impl Iterator<Item = (&'a Experiment, &'a str)> {
        let claims = self.experiments.iter().filter_map(|e| Some((e, e.claim.as_ref()?)));
        claims.filter(move |(_, claim)| claim.table == table).map(|(e, claim)| (e, claim.row.as_str()))
    }

    fn evidence_of(&self, experiment: Option<&Experiment>) -> &[Evidence] {
        experiment.and_then(|e| self.evidence.get(&e.name)).map_or(&[], Vec::as_slice)
    }

    /// Whether every seed of the configuration gives the same, as the row says that it stands for.
    pub(crate) fn is_deterministic(&self, experiment: &Experiment) -> bool {
        let Some(claim) = &experiment.claim else { return false };
        let rows = self.layout.tables.iter().filter(|table| table.name == claim.table).flat_map(|table| &table.rows);
        rows.into_iter().any(|row| row.row == claim.row && row.deterministic)
    }

    /// Whether any of it was run.
    pub(crate) fn has_evidence(&self) -> bool {
        self.evidence.values().any(|of_config| !of_config.is_empty())
    }

    /// The evidence of a configuration, by seed.
    pub(crate) fn evidence(&self, config: &str) -> &[Evidence] {
        self.evidence.get(config).map_or(&[], Vec::as_slice)
    }

    /// What a configuration stands for.
    pub(crate) fn claimed(&self, config: &str) -> Option<&Claim> {
        self.experiments.iter().find(|e| e.name == config)?.claim.as_ref()
    }

    /// Where the layout and the experiments disagree: what is wrong, and what to do.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let layout = self.file.display();
        for experiment in &self.experiments {
            let Some(claim) = &experiment.claim else { continue };
            let file = experiment.file.display();
            let Ok(table) = self.table(&claim.table) else {
                found.push(format!(
                    "{file}: paper.table is {}, which {layout} does not have; add the table there",
                    claim.table
                ));
                continue;
            };
            if claim.metric != table.metric {
                found.push(format!(
                    "{file}: paper.metric is {}, but {} is of {}; make them agree",
                    claim.metric, table.name, table.metric
                ));
            }
            let row = table.rows.iter().find(|row| row.row == claim.row);
            let drawn = self.lines(table).iter().any(|line| line.experiment.is_some_and(|e| e.name == experiment.name));
            match row {
                Some(row) if row.paper != claim.value => found.push(format!(
                    "{file}: paper.value is {}, but row {} of {layout} says {}; look into the paper, and make them agree",
                    told(claim.value),
                    row.row,
                    told(row.paper)
                )),
                None if !drawn => found.push(format!(
                    "{file}: paper.row is {}, which table {} of {layout} does not have; add the row there",
                    claim.row, table.name
                )),
                _ => {}
            }
        }
        for table in &self.layout.tables {
            let mut unknown = |config: &str, row: Option<&str>, what: &str| {
                if !self
                    .claiming(&table.name)
                    .any(|(e, claimed)| e.name == config && row.is_none_or(|row| row == claimed))
                {
                    let of = row.map_or(table.name.clone(), |row| format!("row {row} of {}", table.name));
                    found.push(format!(
                        "{layout}: {of} has {what} {config}, but no such experiment stands for it; take it out"
                    ));
                }
            };
            for config in table.paper_recipe.iter().flatten() {
                unknown(config, None, "a paper_recipe");
            }
            for row in &table.rows {
                row.recipes.keys().for_each(|config| unknown(config, Some(&row.row), "a recipe for"));
                row.why.keys().for_each(|config| unknown(config, Some(&row.row), "a reason why for"));
            }
        }
        for experiment in self.experiments.iter().filter(|e| self.is_deterministic(e)) {
            let metric = experiment.claim.as_ref().map_or("", |claim| &claim.metric);
            let evidence = self.evidence(&experiment.name);
            if evidence.iter().any(|e| e.value(metric) != evidence[0].value(metric)) {
                found.push(format!(
                    "{layout}: the row of {} is called deterministic, but its seeds differ; take that word out",
                    experiment.name
                ));
            }
        }
        found
    }
}

fn told(value: Option<f64>) -> String {
    value.map_or("nothing".into(), |value| value.to_string())
}

impl PointLine {
    /// Configurations with their x, from left to right.
    pub(crate) fn by_x(&self) -> Vec<(&str, f64)> {
        let mut points: Vec<_> = self.configs.iter().map(|(config, x)| (config.as_str(), *x)).collect();
        points.sort_by(|a, b| a.1.total_cmp(&b.1));
        points
    }
}

/// What `R` names in a table: a row (all its configurations), a configuration, or the configuration alone where both are called alike
/// (`R.yaml`). `None`: everything. Each configuration once.
pub(crate) fn select<'a>(paper: &'a Paper, table: &'a Table, wanted: Option<&str>) -> Result<Vec<&'a Experiment>> {
    let lines = paper.lines(table);
    let of_row = |name: &str| lines.iter().any(|line| line.row == Some(name));
    let chosen = |line: &&Line| match wanted {
        None => true,
        Some(name) if of_row(name) => line.row == Some(name),
        Some(name) => line.experiment.is_some_and(|e| e.name == name.trim_end_matches(".yaml")),
    };
    let mut found: Vec<&Experiment> = Vec::new();
    for experiment in lines.iter().filter(chosen).filter_map(|line| line.experiment) {
        if found.iter().all(|other| other.name != experiment.name) {
            found.push(experiment);
        }
    }
    match wanted {
        Some(name) if found.is_empty() && of_row(name) => {
            Err(user!("row {name} of {}/{} has no experiment in experiments/{}", paper.name, table.name, paper.name))
        }
        Some(name) if found.is_empty() => {
            let mut known: Vec<_> = lines.iter().filter(|l| l.experiment.is_some()).filter_map(|l| l.row).collect();
            known.extend(lines.iter().filter_map(|l| Some(l.experiment?.name.as_str())));
            known.sort_unstable();
            known.dedup();
            Err(user!(
                "{}/{} has neither a row nor a configuration {name}; there are: {}",
                paper.name,
                table.name,
                known.join(", ")
            ))
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Checkout;
    use crate::{noise, plots, render};

    fn names(experiments: &[&Experiment]) -> Vec<String> {
        experiments.iter().map(|e| e.name.clone()).collect()
    }

    #[test]
    fn a_table_has_a_line_for_each_configuration_of_a_row() {
        let checkout = Checkout::new();
        checkout.write("experiments/toy/late.yaml", crate::testing::EXPERIMENT);
        for (seed, error) in [(2, 0.0205), (3, 0.0200)] {
            evidence::add(checkout.root(), &checkout.run(seed, error)).unwrap();
        }
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        let page = render::section(&paper, paper.table("t1").unwrap()).unwrap();
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
        assert_eq!(
            rows,
            [
                "| [a] One | 2.00 % | – | not run | – | – | – | – | – | [late](../experiments/toy/late.yaml) |",
                "| [a] One: plainly | 2.00 % | 2.05 ± 0.05 % ([3 seeds](runs/toy/one)) | **reproduced** | 2 | 60,000 | 101 | A CPU, 1 \
                 thread | 0123456 | [one](../experiments/toy/one.yaml) |",
                "| Two | 50.00 % | – | no experiment | – | – | – | – | – | – |",
            ]
        );
        assert!(page.contains("5 min of training in 3 runs"), "{page}");
        assert!(page.contains("Not counted: 1 experiment without a run"), "{page}");
    }

    #[test]
    fn a_drawn_table_keeps_its_rows_and_tells_when_a_curve_came_low() {
        let checkout = Checkout::new();
        let to = "test_examples: 10000\n    curves: {x: passes, y: error, curve: monitor/error, lines: [{label: One, config: one}]}";
        checkout.replace("results/toy.yaml", "test_examples: 10000", to);
        let lines =
            |page: &str| page.lines().filter(|line| line.starts_with("| ")).map(String::from).collect::<Vec<_>>();
        let section = || {
            let paper = Paper::read(checkout.root(), "toy").unwrap();
            render::section(&paper, paper.table("t1").unwrap()).unwrap()
        };
        let page = section();
        assert!(page.contains("figures/toy-t1.png") && page.contains("in 1 run,"), "{page}");
        let plain = lines(&page);
        assert_eq!(plain.len(), 3, "{page}");
        assert!(plain[1].contains("| 2.10 % ([1 seed]") && !plain[0].contains("epochs to"), "{page}");

        // The curve: 10 % at half an epoch, 5 % at one, 3.3 % at one and a half.
        for (value, told) in [("0.05", "1.0"), ("0.049", "1.5"), ("0.03", "not reached")] {
            let reach =
                format!("reach: {{label: epochs to, curve: monitor/error, value: {value}}}\n    test_examples: 10000");
            checkout.replace("results/toy.yaml", "test_examples: 10000", &reach);
            let rows = lines(&section());
            assert!(rows[0].contains("| ours | epochs to | status |"), "{rows:?}");
            assert!(rows[1].contains(&format!("([1 seed](runs/toy/one)) | {told} | partial")), "{rows:?}");
            assert!(rows[2].contains("| – | – | no experiment |"), "{rows:?}");
            checkout.replace("results/toy.yaml", &reach, "test_examples: 10000");
        }
    }

    #[test]
    fn plots_are_of_all_seeds_and_end_in_the_result() {
        let checkout = Checkout::new();
        evidence::add(checkout.root(), &checkout.run(2, 0.025)).unwrap();
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        let over_epochs = plots::of(&paper, paper.table("f2").unwrap()).unwrap();
        let curve = &over_epochs.curves[0];
        assert_eq!(curve.label, "One (2 seeds)");
        assert_eq!(curve.points.iter().map(|p| p.0).collect::<Vec<_>>(), [0.5, 1.0, 1.5, 2.0]);
        let (x, low, high) = curve.band[3];
        // 2.1 and 2.5 %: mean 2.3, standard deviation 0.4/√2.
        assert!(x == 2.0 && (curve.points[3].1 - 2.3).abs() < 1e-9 && (high - low - 0.8 / 2f64.sqrt()).abs() < 1e-9);
        let level = &over_epochs.levels[0];
        assert!(level.label == "paper, One: 2.00 %" && (level.value - 2.0).abs() < 1e-12, "{level:?}");
        assert_eq!((over_epochs.levels.len(), curve.beside.len()), (1, 0));
        assert_eq!(plots::png(&over_epochs).unwrap(), plots::png(&over_epochs).unwrap());
        assert!(plots::of(&paper, paper.table("t1").unwrap()).is_none());
    }

    #[test]
    fn a_line_over_sizes_is_drawn_from_three_points_on() {
        let checkout = Checkout::new();
        checkout.replace("results/toy.yaml", "{half: 1000, one: 2000}", "{half: 1000, one: 2000, more: 3000}");
        let drawn = || {
            let paper = Paper::read(checkout.root(), "toy").unwrap();
            plots::of(&paper, paper.table("f3").unwrap())
        };
        let run = |config: &str, error: f64| {
            checkout.write(&format!("experiments/toy/{config}.yaml"), crate::testing::EXPERIMENT);
            let run = checkout.changed_run(1, error, &|result| result["config"] = config.into());
            evidence::add(checkout.root(), &run).unwrap();
        };
        run("half", 0.05);
        assert!(drawn().is_none(), "two points are no line");
        run("more", 0.01);
        let plot = drawn().unwrap();
        let expected = [(1000.0, 5.0), (2000.0, 2.1), (3000.0, 1.0)];
        assert!(plot.curves[0].points.iter().zip(expected).all(|(p, e)| p.0 == e.0 && (p.1 - e.1).abs() < 1e-9));
    }

    #[test]
    fn training_stands_beside_and_the_value_of_a_column_is_a_line() {
        let checkout = Checkout::new();
        let beside = "curve: monitor/error, beside: {curve: train/loss, label: training}, lines";
        checkout.replace("results/toy.yaml", "curve: monitor/error, lines", beside);
        let to = "    title: \"Figure 2\"\n    reach: {label: epochs to, curve: monitor/error, value: 0.05}\n";
        checkout.replace("results/toy.yaml", "    title: \"Figure 2\"\n", to);
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        let plot = plots::of(&paper, paper.table("f2").unwrap()).unwrap();
        assert_eq!((plot.beside.as_str(), plot.curves[0].beside.len()), ("training", evidence::MOST_POINTS));
        let levels: Vec<_> = plot.levels.iter().map(|level| level.label.as_str()).collect();
        assert_eq!(levels, ["5.00 %", "paper, One: 2.00 %"]);
    }

    /// The row of `one` on the page, with a word changed in the layout.
    fn told(errors: &[f64], row: &str, table: &str) -> String {
        let checkout = Checkout::new();
        std::fs::remove_file(checkout.root().join("results/runs/toy/one/seed1.json")).unwrap();
        for (seed, error) in (1..).zip(errors) {
            evidence::add(checkout.root(), &checkout.run(seed, *error)).unwrap();
        }
        checkout.replace("results/toy.yaml", "recipes: {one: plainly}", &format!("recipes: {{one: plainly}}{row}"));
        checkout.replace("results/toy.yaml", "test_examples: 10000", &format!("test_examples: 10000{table}"));
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        assert_eq!(paper.problems(), Vec::<String>::new());
        render::section(&paper, paper.table("t1").unwrap()).unwrap()
    }

    #[test]
    fn a_miss_is_explained_or_said_to_be_unexplained() {
        let far = [0.05, 0.05, 0.05];
        let page = told(&far, "", "");
        assert!(page.contains("| missed by 3.00 points (allowed: 0.20 points) |"), "{page}");
        assert!(page.contains("- [a] One: plainly: not explained yet."), "{page}");
        let page = told(&far, ", why: {one: the pictures are too small.}", "");
        assert!(page.contains("- [a] One: plainly: the pictures are too small."), "{page}");
        assert!(told(&far[..1], "", "").contains("missed by 3.00 points (allowed: 0.20 points), 1 of 3 seeds |"));
        let page = told(&[0.02, 0.02, 0.02], ", why: {one: the pictures are too small.}", "");
        assert!(
            page.contains("**reproduced**") && !page.contains("too small"),
            "a reason is printed for a miss only: {page}"
        );
    }

    #[test]
    fn another_recipe_and_a_method_without_chance_say_so() {
        let best = [0.01, 0.01, 0.01];
        assert!(told(&best, "", "").contains("| **reproduced** |"));
        assert!(told(&best, "", "\n    paper_recipe: [one]").contains("| **reproduced** |"));
        assert!(told(&best, "", "\n    paper_recipe: []").contains("| better, other recipe |"));
        let page = told(&[0.0201], ", deterministic: true", "");
        assert!(page.contains("| 2.01 % ([deterministic](runs/toy/one)) | **reproduced** |"), "{page}");
        assert!(told(&[0.0201], "", "").contains("| partial: 1 of 3 seeds |"));
    }

    #[test]
    fn every_page_prints_the_rule() {
        let page = Checkout::new().read("results/toy.md");
        assert!(page.contains("t·sd/√n + 2·√(p(1 − p)/N)") && page.contains("a tenth of p"), "{page}");
    }

    #[test]
    fn rows_and_configurations_are_chosen_by_name() {
        let checkout = Checkout::new();
        checkout.write("experiments/toy/late.yaml", crate::testing::EXPERIMENT);
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        let table = paper.table("t1").unwrap();
        let chosen = |wanted: Option<&str>| select(&paper, table, wanted).map(|found| names(&found));
        assert_eq!(chosen(None).unwrap(), ["late", "one"]);
        assert_eq!(chosen(Some("one")).unwrap(), ["late", "one"], "a row stands for all its configurations");
        assert_eq!(chosen(Some("one.yaml")).unwrap(), ["one"]);
        assert_eq!(chosen(Some("late")).unwrap(), ["late"]);
        for (wrong, words) in [("two", "no experiment"), ("three", "late, one")] {
            let error = chosen(Some(wrong)).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(words), "{error}");
        }
        assert!(paper.table("t9").unwrap_err().to_string().contains("toy/t1, toy/f2, toy/f3"));
        assert!(Paper::read(checkout.root(), "tox").unwrap_err().to_string().contains("papers: toy"));
        assert_eq!(names(&select(&paper, paper.table("f3").unwrap(), None).unwrap()), ["one"]);
    }

    #[test]
    fn noise_needs_two_seeds() {
        let checkout = Checkout::new();
        let of = |name: &str| noise::report(&Paper::read(checkout.root(), "toy").unwrap(), name);
        let alone = of("one").unwrap_err();
        assert!(alone.exit_code() == 2 && alone.to_string().contains("one seed has no spread"), "{alone}");
        evidence::add(checkout.root(), &checkout.run(2, 0.023)).unwrap();
        // sd = 0.002/√2; with 2 degrees of freedom t is 4.3027 and 1.0607, times √(2/2).
        let told = of("one").unwrap();
        assert!(told.contains("2.20 ± 0.14 %") && told.contains("0.76 %"), "{told}");
        assert!(of("three").unwrap_err().to_string().contains("there are: one"));
    }
}
