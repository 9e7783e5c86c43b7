//! A paper's results: the tables that `results/<paper>.yaml` lays out, its experiments, and the evidence for them.

#[cfg(test)]
mod tests;

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

/// A table or figure of the paper: rows with numbers, a plot over epochs, both, or a plot or matrix with a row for each of its points or cells.
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
    /// Numbers as colours, by two names each.
    pub(crate) matrix: Option<Matrix>,
    /// Several numbers of each run, beside each other.
    pub(crate) numbers: Option<Numbers>,
    /// A column that tells when a curve came so low.
    pub(crate) reach: Option<Reach>,
}

/// A small table of its own: metrics of runs whose rows stand in this table or in another.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Numbers {
    /// Over the labels: what the rows are.
    pub(crate) corner: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<NumberRow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NumberRow {
    pub(crate) label: String,
    /// Whose runs these are.
    pub(crate) config: String,
    /// One for each column, as result.json names them; `null` where there is none.
    pub(crate) metrics: Vec<Option<String>>,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matrix {
    /// What the rows are, and what the columns are.
    pub(crate) axes: [String; 2],
    pub(crate) rows: Vec<String>,
    pub(crate) columns: Vec<String>,
    /// What the numbers are: `test accuracy`.
    pub(crate) scale: String,
    /// The configuration of each cell, by rows; `null` where there is none.
    pub(crate) cells: Vec<Vec<Option<String>>>,
    /// Heading of a last column: each row's mean over its cells that were run. `None`: no such column.
    pub(crate) mean: Option<String>,
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
        for (label, config) in table.matrix.iter().flat_map(Matrix::named) {
            named(config, label);
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
            for row in table.numbers.iter().flat_map(|numbers| &numbers.rows) {
                let columns = table.numbers.as_ref().map_or(0, |numbers| numbers.columns.len());
                if row.metrics.len() != columns {
                    found.push(format!(
                        "{layout}: {}: {} has {} metrics for {columns} columns; write null where there is none",
                        table.name,
                        row.label,
                        row.metrics.len()
                    ));
                }
                if !self.experiments.iter().any(|e| e.name == row.config) {
                    found.push(format!(
                        "{layout}: {}: {} is of {}, but there is no such experiment; take it out",
                        table.name, row.label, row.config
                    ));
                }
            }
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
            if let Some(matrix) = &table.matrix {
                matrix.named().for_each(|(_, config)| unknown(config, None, "a cell for"));
                let mut problems = matrix.problems();
                if table.curves.is_some() || table.points.is_some() {
                    problems
                        .push("has a matrix and a plot, but one picture; give one of them a table of its own".into());
                }
                found.extend(problems.into_iter().map(|what| format!("{layout}: {} {what}", table.name)));
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

impl Matrix {
    /// The configurations with both their names, or with one where it is the same.
    fn named(&self) -> impl Iterator<Item = (String, &str)> {
        self.rows.iter().zip(&self.cells).flat_map(move |(row, cells)| {
            self.columns.iter().zip(cells).filter_map(move |(column, config)| {
                let label = if row == column { row.clone() } else { format!("{row}, {column}") };
                Some((label, config.as_deref()?))
            })
        })
    }

    /// Cells that are not those of its names, and what stands in it twice.
    fn problems(&self) -> Vec<String> {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let mut found = Vec::new();
        if rows * columns == 0 || self.cells.len() != rows || self.cells.iter().any(|cells| cells.len() != columns) {
            found.push(format!(
                "names {rows} rows and {columns} columns, but its cells are not as many; write a list for each row, of a configuration or null \
                 for each column"
            ));
        }
        let cells: Vec<_> = self.cells.iter().flatten().flatten().cloned().collect();
        for (what, names) in [("row", &self.rows), ("column", &self.columns), ("cell", &cells)] {
            let twice = names.iter().enumerate().filter(|(place, name)| names[..*place].contains(name));
            found.extend(twice.map(|(_, name)| format!("has two {what}s of {name}; take one out")));
        }
        found
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
