//! `results/benchmarks.md` from `results/benchmarks/<paper>.json`: how fast we are beside a peer on the same machine.

use std::fs;
use std::path::Path;

use repro::{Error, Result, user};
use serde::Deserialize;

/// One file of measurements, taken in one sitting.
#[derive(Debug, Deserialize)]
struct Benchmarks {
    paper: String,
    date: String,
    commit: String,
    command: String,
    machine: Machine,
    libtorch: String,
    /// Name and version.
    peer: String,
    measures: Vec<Measure>,
}

#[derive(Debug, Deserialize)]
struct Machine {
    cpu: String,
    cores: u64,
    threads: u64,
}

#[derive(Debug, Deserialize)]
struct Measure {
    name: String,
    config: String,
    unit: String,
    better: Better,
    /// The ratio that we want to reach. `None`: none is set.
    bar: Option<f64>,
    /// Ours first; then peers.
    sides: Vec<Side>,
    note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    Higher,
    Lower,
}

/// Values of interleaved rounds: the k-th of each side were taken one after the other.
#[derive(Debug, Deserialize)]
struct Side {
    name: String,
    values: Vec<f64>,
}

/// The page; `None` without measurements.
pub(crate) fn page(root: &Path) -> Result<Option<String>> {
    let files: Vec<_> = crate::files_below(&root.join("results/benchmarks"));
    let sections = files.iter().map(|file| section(file)).collect::<Result<Vec<_>>>()?;
    Ok((!sections.is_empty()).then(|| {
        format!(
            "# Speed and memory\n\nOur program and a peer run on the same machine, in turns. The ratio is ours divided by the peer's where more is \
             better, and the peer's divided by ours where less is better: above 1, ours is better. Each number is the median over the rounds; \
             the smallest and the largest ratio stand in brackets. The column *aim* has the ratio that we want to reach.\n\nWritten by `report` from [benchmarks](benchmarks); not to be edited.\n\n{}",
            sections.join("\n")
        )
    }))
}

fn section(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
    let found: Benchmarks = serde_json::from_str(&text)
        .map_err(|e| user!("{}: is damaged: {e}; measure again with the command that wrote it", file.display()))?;
    let Benchmarks { paper, date, commit, command, machine, libtorch, peer, measures } = found;
    let rows = measures.iter().map(|m| m.rows().map_err(|why| user!("{}: {}: {why}", file.display(), m.name)));
    let rows: Vec<_> = rows.collect::<Result<Vec<_>>>()?.concat();
    Ok(format!(
        "## {paper}\n\n{}, {} cores, {} threads; libtorch {libtorch} against {peer}; {date}, commit {:.7}; `{command}`.\n\n\
         | measure | config | ours | peer | ratio | aim | |\n|---|---|---|---|---|---|---|\n{}\n",
        machine.cpu,
        machine.cores,
        machine.threads,
        commit,
        rows.join("\n")
    ))
}

impl Measure {
    /// A line of the table for each peer.
    fn rows(&self) -> Result<Vec<String>, String> {
        let [ours, peers @ ..] = &self.sides[..] else { return Err("has no sides; measure again".into()) };
        if peers.is_empty() {
            return Err("has no peer; measure ours and the peer's in turns".into());
        }
        peers.iter().map(|peer| self.row(ours, peer)).collect()
    }

    fn row(&self, ours: &Side, peer: &Side) -> Result<String, String> {
        let positive = |side: &Side| side.values.iter().all(|v| *v > 0.0 && v.is_finite());
        if ours.values.is_empty() || ours.values.len() != peer.values.len() || !positive(ours) || !positive(peer) {
            return Err(format!(
                "{} and {} need as many rounds as each other, of values above 0",
                ours.name, peer.name
            ));
        }
        let ratio = |(ours, peer): (&f64, &f64)| if self.better == Better::Higher { ours / peer } else { peer / ours };
        let ratios = sorted(ours.values.iter().zip(&peer.values).map(ratio));
        let middle = median(&ratios);
        let verdict = match self.bar {
            None => "–".into(),
            Some(bar) if middle >= bar => format!("{bar}: met"),
            Some(bar) => format!("{bar}: **missed**"),
        };
        let told = |side: &Side| format!("{} {}", digits(median(&sorted(side.values.iter().copied()))), self.unit);
        let cells = [
            self.name.clone(),
            self.config.clone(),
            told(ours),
            format!("{} ({})", told(peer), peer.name),
            format!("{middle:.2} [{:.2}, {:.2}]", ratios[0], ratios[ratios.len() - 1]),
            verdict,
            self.note.clone(),
        ];
        Ok(format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")))
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of sorted values, at least one.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Three significant digits; whole numbers from 100 on.
fn digits(value: f64) -> String {
    let places = (2 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    if value >= 100.0 { crate::words::thousands(value.round() as u64) } else { format!("{value:.places$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(better: &str, bar: &str, ours: &str, peer: &str) -> Measure {
        let text = format!(
            r#"{{"name": "step", "config": "lenet5", "unit": "ms", "better": "{better}", "bar": {bar}, "note": "",
                "sides": [{{"name": "repro", "values": {ours}}}, {{"name": "PyTorch", "values": {peer}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_favour_us_above_one() {
        // Rounds 200/100, 300/100, 100/100: the median of ratios is 2, though the ratio of medians is, too; the last differs.
        let row = &measure("higher", "1.2", "[200, 300, 100]", "[100, 100, 100]").rows().unwrap()[0];
        assert_eq!(row, "| step | lenet5 | 200 ms | 100 ms (PyTorch) | 2.00 [1.00, 3.00] | 1.2: met |  |");
        let row = &measure("lower", "1.2", "[1, 2]", "[1.5, 2]").rows().unwrap()[0];
        assert_eq!(row, "| step | lenet5 | 1.50 ms | 1.75 ms (PyTorch) | 1.25 [1.00, 1.50] | 1.2: met |  |");
        let row = &measure("higher", "1.2", "[1, 2]", "[1.5, 2]").rows().unwrap()[0];
        assert!(row.contains("0.83 [0.67, 1.00] | 1.2: **missed**"), "{row}");
        // The median ratio is not the ratio of the medians.
        let row = &measure("higher", "null", "[1, 10, 4]", "[2, 4, 40]").rows().unwrap()[0];
        assert!(row.contains("0.50 [0.10, 2.50] | –"), "{row}");
    }

    #[test]
    fn rounds_that_have_no_partner_or_no_size_are_refused() {
        for (ours, peer) in [("[1, 2]", "[1]"), ("[]", "[]"), ("[0]", "[1]")] {
            assert!(measure("higher", "null", ours, peer).rows().is_err(), "{ours} {peer}");
        }
    }
}
