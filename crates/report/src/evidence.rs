//! Evidence: what a finished run says for itself, in `results/runs/<paper>/<config>/seed<k>.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use repro::trainer::read_metrics;
use repro::trainer::run::{RunResult, Status, read_result, real_folder};
use repro::{Error, Result, files, user};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::experiment::{self, Experiment, last_part};

/// Points that a curve keeps: enough for a picture, few enough for a repository.
pub(crate) const MOST_POINTS: usize = 200;

const REMEDY: &str = "delete the file and add the run again with `report add`";

/// `result.json`, `env.json` without its command, and thinned curves, in one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Evidence {
    #[serde(flatten)]
    pub(crate) result: RunResult,
    pub(crate) env: Env,
    /// Scalar → (epoch, value), by epoch.
    pub(crate) curves: BTreeMap<String, Vec<(f64, f64)>>,
}

/// `env.json` but for the command, which may name folders of somebody's machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Env {
    pub(crate) commit: String,
    pub(crate) version: String,
    pub(crate) libtorch: String,
    /// 0: none.
    pub(crate) cuda: i64,
    pub(crate) device: String,
    pub(crate) cpu: String,
    pub(crate) cores: u64,
    pub(crate) threads: u64,
}

/// Where the evidence of a seed lies.
pub(crate) fn place(root: &Path, paper: &str, config: &str, seed: u64) -> PathBuf {
    root.join("results/runs").join(paper).join(config).join(format!("seed{seed}.json"))
}

pub(crate) fn read(path: &Path) -> Result<Evidence> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text)
        .map_err(|e| user!("{}: is damaged: {e}; delete it, and add the run again with `report add`", path.display()))
}

/// The evidence of a configuration, by seed.
pub(crate) fn of_config(root: &Path, paper: &str, config: &str) -> Result<Vec<Evidence>> {
    let folder = root.join("results/runs").join(paper).join(config);
    let mut found: Vec<_> = crate::files_below(&folder).iter().map(|path| read(path)).collect::<Result<_>>()?;
    found.sort_by_key(|evidence| evidence.result.seed);
    Ok(found)
}

/// What `add` did.
#[derive(Debug, PartialEq)]
pub(crate) enum Added {
    New(PathBuf),
    Already(PathBuf),
}

/// Takes a finished run into the evidence. Never writes over a file.
///
/// # Errors
/// [`Error::User`] for a run that is unfinished, that no experiment stands for, or that contradicts evidence of its seed.
pub(crate) fn add(root: &Path, run: &Path) -> Result<Added> {
    let run = &real_folder(run);
    let result = read_result(run)?;
    if result.status != Status::Done {
        return Err(user!(
            "{} is not done ({:?}); finish it with `{} train --resume {}`",
            run.display(),
            result.status,
            result.paper,
            run.display()
        ));
    }
    let experiment = Experiment::find(root, &result.paper, &result.config)
        .map_err(|e| user!("{}: {e}; only runs of an experiment are evidence", run.display()))?;
    let Some(claim) = &experiment.claim else {
        return Err(user!(
            "{} has no `paper:` block, so {} stands in no table; give it table, row and metric",
            experiment.file.display(),
            run.display()
        ));
    };
    let wanted = experiment.hash(result.seed)?;
    if wanted != result.config_sha256 {
        return Err(user!(
            "{} is no run of {} with seed={}: its config hash is {:.8} and not {wanted:.8}; run the experiment as it stands, or give the \
             changed one a YAML of its own (such as {}_short.yaml)",
            run.display(),
            experiment.file.display(),
            result.seed,
            result.config_sha256,
            result.config
        ));
    }
    let env_path = run.join("env.json");
    let env = fs::read_to_string(&env_path).map_err(|e| user!("cannot read {}: {e}", env_path.display()))?;
    let env = serde_json::from_str(&env).map_err(|e| user!("{} is damaged: {e}", env_path.display()))?;
    let evidence = Evidence { curves: curves(run, last_part(&claim.metric))?, env, result };
    let path = place(root, &evidence.result.paper, &evidence.result.config, evidence.result.seed);
    if let Some(problem) = evidence.problems(&path).into_iter().chain(evidence.lacks(&claim.metric)).next() {
        return Err(user!("{}: {problem}", run.display()));
    }
    if path.exists() {
        return match read(&path)?.result.weights_sha256 == evidence.result.weights_sha256 {
            true => Ok(Added::Already(path)),
            false => Err(user!(
                "{} holds another run of this seed (its weights differ from those of {}); keep it, or delete it first if this run should \
                 take its place",
                path.display(),
                run.display()
            )),
        };
    }
    files::create_folder(path.parent().unwrap_or(root))?;
    files::write_atomic(&path, &[text(&evidence)?.as_bytes()])?;
    Ok(Added::New(path))
}

/// The loss and the claimed metric over epochs, as logged in training (`train/loss`, `monitor/error`).
fn curves(run: &Path, metric: &str) -> Result<BTreeMap<String, Vec<(f64, f64)>>> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for row in read_metrics(run)? {
        let Some(epoch) = row.get("epoch").and_then(Value::as_f64) else { continue };
        for (name, value) in &row {
            if let (true, Some(value)) = (["loss", metric].contains(&last_part(name)), value.as_f64()) {
                curves.entry(name.clone()).or_default().push((epoch, value));
            }
        }
    }
    curves.values_mut().for_each(|points| *points = thinned(points));
    // A single point is the end, and stands among the metrics.
    curves.retain(|_, points| points.len() > 1);
    Ok(curves)
}

/// At most [`MOST_POINTS`] points at even distances, the first and the last among them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    (0..MOST_POINTS).map(|i| points[i * (points.len() - 1) / (MOST_POINTS - 1)]).collect()
}

/// One line per field, metric and curve, so that a change is seen as one.
fn text(evidence: &Evidence) -> Result<String> {
    let value = serde_json::to_value(evidence).map_err(|e| Error::Failed(format!("cannot write evidence: {e}")))?;
    let lines = |value: &Value, indent: &str, line: &dyn Fn(&Value) -> String| match value {
        Value::Object(map) => {
            let lines: Vec<_> = map.iter().map(|(key, value)| format!("{indent}\"{key}\": {}", line(value))).collect();
            format!("{{\n{}\n{}}}", lines.join(",\n"), &indent[1..])
        }
        other => other.to_string(),
    };
    Ok(lines(&value, " ", &|field| lines(field, "  ", &|leaf| leaf.to_string())) + "\n")
}

impl Evidence {
    /// What the run measured. Which metric counts is the experiment's to say, as it stands now: the claim in the file is only what was said
    /// when the run began.
    pub(crate) fn value(&self, metric: &str) -> Option<f64> {
        self.result.metrics.get(metric).copied()
    }

    /// Refuses evidence without the metric that its experiment claims.
    pub(crate) fn lacks(&self, metric: &str) -> Option<String> {
        self.value(metric).is_none().then(|| format!("it has no metric {metric}; {REMEDY}"))
    }

    /// What is damaged or contradicts itself or its place: what is wrong, and what to do.
    pub(crate) fn problems(&self, path: &Path) -> Vec<String> {
        let result = &self.result;
        let mut found = Vec::new();
        let mut must = |holds: bool, message: String| {
            if !holds {
                found.push(message);
            }
        };
        let expected = place(Path::new(""), &result.paper, &result.config, result.seed);
        must(path.ends_with(&expected), format!("its fields say that it belongs to {}; {REMEDY}", expected.display()));
        must(
            result.status == Status::Done,
            format!("its status is {:?} and not done; finish the run first", result.status),
        );
        for (name, points) in &self.curves {
            must(
                points.len() <= MOST_POINTS,
                format!("the curve {name} has {} points, more than {MOST_POINTS}; {REMEDY}", points.len()),
            );
            must(
                points.is_sorted_by(|a, b| a.0 < b.0) && points.iter().all(|p| p.1.is_finite()),
                format!(
                    "the curve {name} is not in the order of its epochs, or has values that are no numbers; {REMEDY}"
                ),
            );
        }
        let hash = |text: Option<&str>| text.is_some_and(|t| t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit()));
        must(hash(Some(&result.config_sha256)), format!("config_sha256 is no SHA-256; {REMEDY}"));
        must(hash(result.weights_sha256.as_deref()), format!("weights_sha256 is no SHA-256; {REMEDY}"));
        must(hash(result.data_sha256.as_deref()), format!("data_sha256 is no SHA-256; {REMEDY}"));
        must(self.env.commit == result.commit, format!("env.commit is not commit; {REMEDY}"));
        must(self.env.device == result.device, format!("env.device is not device; {REMEDY}"));
        for (name, value) in &result.metrics {
            let fraction = !experiment::is_fraction(name) || (0.0..=1.0).contains(value);
            must(value.is_finite() && fraction, format!("{name} is {value}; {REMEDY}"));
            let error = name.strip_suffix("accuracy").and_then(|start| result.metrics.get(&format!("{start}error")));
            must(
                error.is_none_or(|error| name.ends_with("_accuracy") || (error + value - 1.0).abs() < 1e-9),
                format!("{name} and its error do not add up to 1; {REMEDY}"),
            );
        }
        must(result.seconds > 0.0 && result.seconds.is_finite(), format!("seconds is {}; {REMEDY}", result.seconds));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Checkout;

    #[test]
    fn a_run_becomes_evidence_once() {
        let checkout = Checkout::new();
        let run = checkout.run(2, 0.0205);
        let path = place(checkout.root(), "toy", "one", 2);
        assert_eq!(add(checkout.root(), &run).unwrap(), Added::New(path.clone()));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(add(checkout.root(), &run).unwrap(), Added::Already(path.clone()));
        let other = add(checkout.root(), &checkout.run(2, 0.0306)).unwrap_err();
        assert!(other.exit_code() == 2 && other.to_string().contains("weights differ"), "{other}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing is written over");

        assert!(!text.contains("somebody"), "the command may name folders: {text}");
        assert!(text.lines().count() < 50, "{text}");
        let evidence = read(&path).unwrap();
        assert_eq!(evidence.value("test/error"), Some(0.0205));
        assert_eq!(evidence.curves.keys().collect::<Vec<_>>(), ["monitor/error", "train/loss"]);
        assert_eq!(evidence.curves["monitor/error"], [(0.5, 0.1), (1.0, 0.05), (1.5, 0.1 / 3.0)]);
        let loss = &evidence.curves["train/loss"];
        assert_eq!((loss.len(), loss[0], loss[MOST_POINTS - 1]), (MOST_POINTS, (0.002, 1.0), (2.0, 0.001)));
    }

    #[test]
    fn runs_that_are_no_evidence_are_refused() {
        let checkout = Checkout::new();
        let refused = |key: &str, value: Value, words: &str| {
            let run = checkout.changed_run(3, 0.02, &|result| result[key] = value.clone());
            let error = add(checkout.root(), &run).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(words), "{words:?} in {error}");
        };
        refused("status", "interrupted".into(), "--resume");
        refused("status", "running".into(), "not done");
        refused("config_sha256", "cd".repeat(32).into(), "_short.yaml");
        refused("seed", 4.into(), "seed=4");
        refused("config", "two".into(), "two.yaml");
        refused("paper", "tox".into(), "tox");
        refused("weights_sha256", Value::Null, "weights_sha256");
        refused("metrics", serde_json::json!({}), "test/error");
        assert!(!place(checkout.root(), "toy", "one", 3).exists() && !place(checkout.root(), "toy", "one", 4).exists());
        assert_eq!(add(checkout.root(), Path::new("no/such/run")).unwrap_err().exit_code(), 2);
        // An experiment without a claim stands in no table.
        checkout.write("experiments/toy/one.yaml", "seed: 1\n");
        let error = add(checkout.root(), &checkout.run(3, 0.02)).unwrap_err();
        assert!(error.to_string().contains("`paper:` block"), "{error}");
    }
}
