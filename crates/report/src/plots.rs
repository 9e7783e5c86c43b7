//! The pictures of `results/figures`: lines over seeds with their spread, and matrices.

use image::RgbImage;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use repro::figures::{self, Curve, Level, Plot, plot};
use repro::{Error, Result};

use crate::evidence::Evidence;
use crate::experiment::{is_fraction, last_part};
use crate::paper::{Curves, Paper, Table};
use crate::render::number;
use crate::status::Spread;
use crate::words::seeds;

/// `lenet-figure5.png`.
pub(crate) fn file_name(paper: &Paper, table: &Table) -> String {
    format!("{}-{}.png", paper.name, table.name)
}

/// The table's matrix or plot; `None` where it has none, or too little evidence.
pub(crate) fn picture(paper: &Paper, table: &Table) -> Result<Option<RgbImage>> {
    match matrix(paper, table) {
        Some(cells) => figures::matrix(&cells).map(Some),
        None => of(paper, table).map(|lines| plot(&lines)).transpose(),
    }
}

/// The table's matrix; `None` where it has none, or none of its cells was run.
pub(crate) fn matrix(paper: &Paper, table: &Table) -> Option<figures::Matrix> {
    let layout = table.matrix.as_ref()?;
    let values =
        |config: &str| -> Vec<_> { paper.evidence(config).iter().filter_map(|e| e.value(&table.metric)).collect() };
    let mean = |values: &[f64]| Spread::of(values).map(|spread| spread.mean);
    let means = layout.cells.iter().map(|row| {
        let cells: Vec<_> = row.iter().map(|config| mean(&values(config.as_deref()?))).collect();
        let ran: Vec<_> = cells.iter().flatten().copied().collect();
        [cells, layout.mean.iter().map(|_| mean(&ran)).collect()].concat()
    });
    let means: Vec<Vec<Option<f64>>> = means.collect();
    let unit = if is_fraction(&table.metric) { 100.0 } else { 1.0 };
    let drawn = |cell: &Option<f64>| cell.map(|value| unit * value);
    let cells: Vec<Vec<_>> = means.iter().map(|row| row.iter().map(drawn).collect()).collect();
    let ran = || cells.iter().flatten().flatten().copied();
    let range = (ran().min_by(f64::total_cmp)?, ran().max_by(f64::total_cmp)?);
    let told = |cell: &Option<f64>| cell.map_or("not run".into(), |value| number(&table.metric, value));
    let [rows, columns] = layout.axes.clone();
    Some(figures::Matrix {
        title: table.title.clone(),
        axes: (rows, columns),
        rows: layout.rows.clone(),
        columns: layout.columns.iter().chain(&layout.mean).cloned().collect(),
        texts: means.iter().map(|row| row.iter().map(told).collect()).collect(),
        cells,
        scale: layout.scale.clone(),
        range,
        divide: 0,
    })
}

/// The table's plot; `None` where it has none, or too little evidence for a curve.
pub(crate) fn of(paper: &Paper, table: &Table) -> Option<Plot> {
    let mut plot = Plot { title: table.title.clone(), ..Plot::default() };
    if let Some(curves) = &table.curves {
        (plot.x_label, plot.y_label) = (curves.x.clone(), curves.y.clone());
        plot.beside = curves.beside.as_ref().map_or(String::new(), |beside| beside.label.clone());
        for line in &curves.lines {
            let evidence = paper.evidence(&line.config);
            let beside = curves.beside.as_ref().map(|beside| over_epochs(&line.label, evidence, &beside.curve).points);
            let curve = over_epochs(&line.label, evidence, &curves.curve);
            plot.curves.push(Curve { beside: beside.unwrap_or_default(), ..curve });
        }
        plot.levels = levels(paper, table, curves);
    } else {
        let points = table.points.as_ref()?;
        (plot.x_label, plot.y_label) = (points.x.clone(), points.y.clone());
        for line in &points.lines {
            let results = line.by_x().into_iter().filter_map(|(config, x)| {
                let values: Vec<_> = paper.evidence(config).iter().filter_map(|e| e.value(&table.metric)).collect();
                Some((x, Spread::of(&values)?))
            });
            plot.curves.push(drawn(line.label.clone(), &table.metric, results));
        }
    }
    (!plot.is_empty()).then_some(plot)
}

/// What the curves are held against: the value that a column of the table is about, and the paper's values for the drawn configurations.
fn levels(paper: &Paper, table: &Table, curves: &Curves) -> Vec<Level> {
    let unit = if is_fraction(&curves.curve) { 100.0 } else { 1.0 };
    let level = |label: String, value: f64| Level { label, value: unit * value };
    let reach = table.reach.iter().filter(|reach| reach.curve == curves.curve);
    let mut levels: Vec<_> = reach.map(|reach| level(number(&curves.curve, reach.value), reach.value)).collect();
    for line in curves.lines.iter().filter(|line| !paper.evidence(&line.config).is_empty()) {
        // The paper's value is a test error: it says nothing about a curve of training.
        let of_test = ["monitor/", "val/", "test/"].iter().any(|split| curves.curve.starts_with(split));
        let value = paper.claimed(&line.config).filter(|claim| {
            of_test && claim.metric.starts_with("test/") && last_part(&claim.metric) == last_part(&curves.curve)
        });
        if let Some(value) = value.and_then(|claim| claim.value) {
            levels.push(level(format!("paper, {}: {}", line.label, number(&curves.curve, value)), value));
        }
    }
    levels
}

/// The picture's bytes.
pub(crate) fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut png = Vec::new();
    // Flat colours: without a filter the file is a third of what the default gives.
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::NoFilter);
    picture.write_with_encoder(encoder).map_err(|e| Error::Failed(format!("cannot encode a plot: {e}")))?;
    Ok(png)
}

/// A curve's mean over seeds, and their standard deviation to each side, in per cent where the metric is a fraction. The run's last
/// evaluation is no point of its curve but a result; it is put at the end.
fn over_epochs(label: &str, evidence: &[Evidence], name: &str) -> Curve {
    let with_end = |e: &Evidence| {
        let mut points = e.curves.get(name).cloned().unwrap_or_default();
        let end = e.result.metrics.get(&format!("test/{}", last_part(name)));
        points.extend(end.filter(|_| name.starts_with("monitor/")).map(|end| (e.result.epochs, *end)));
        points
    };
    let runs: Vec<_> = evidence.iter().map(with_end).collect();
    let first = runs.first().cloned().unwrap_or_default();
    let at = |x: f64| -> Option<(f64, Spread)> {
        // Only where every seed has a point is the mean one of all seeds.
        let values: Option<Vec<f64>> = runs.iter().map(|run| Some(run.iter().find(|p| p.0 == x)?.1)).collect();
        Some((x, Spread::of(&values?)?))
    };
    let label = format!("{label} ({})", seeds(evidence.len()));
    drawn(label, name, first.iter().filter_map(|point| at(point.0)))
}

fn drawn(label: String, metric: &str, points: impl Iterator<Item = (f64, Spread)>) -> Curve {
    let unit = if is_fraction(metric) { 100.0 } else { 1.0 };
    let points: Vec<_> = points.collect();
    Curve {
        label,
        points: points.iter().map(|(x, s)| (*x, unit * s.mean)).collect(),
        band: points
            .iter()
            .filter(|(_, s)| s.n > 1)
            .map(|(x, s)| (*x, unit * (s.mean - s.sd), unit * (s.mean + s.sd)))
            .collect(),
        ..Curve::default()
    }
}
