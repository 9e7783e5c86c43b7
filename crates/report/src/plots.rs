//! The pictures of `results/figures`: lines over seeds with their spread.

use image::RgbImage;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use repro::figures::{Curve, Plot, plot};
use repro::{Error, Result};

use crate::evidence::Evidence;
use crate::experiment::{is_fraction, last_part};
use crate::paper::{Paper, Table};
use crate::status::Spread;
use crate::words::seeds;

/// `lenet-figure5.png`.
pub(crate) fn file_name(paper: &Paper, table: &Table) -> String {
    format!("{}-{}.png", paper.name, table.name)
}

/// The table's plot; `None` where it has none, or no evidence to draw.
pub(crate) fn of(paper: &Paper, table: &Table) -> Option<Plot> {
    let (x, y, curves) = if let Some(curves) = &table.curves {
        let line =
            |line: &crate::paper::CurveLine| over_epochs(&line.label, paper.evidence(&line.config), &curves.curve);
        (&curves.x, &curves.y, curves.lines.iter().map(line).collect::<Vec<_>>())
    } else {
        let points = table.points.as_ref()?;
        let line = |line: &crate::paper::PointLine| {
            let results = line.by_x().into_iter().filter_map(|(config, x)| {
                let values: Vec<_> = paper.evidence(config).iter().filter_map(Evidence::value).collect();
                Some((x, Spread::of(&values)?))
            });
            drawn(line.label.clone(), &table.metric, results)
        };
        (&points.x, &points.y, points.lines.iter().map(line).collect())
    };
    let curves: Vec<_> = curves.into_iter().filter(|curve| !curve.points.is_empty()).collect();
    let plot = Plot { title: table.title.clone(), x_label: x.clone(), y_label: y.clone(), log_y: false, curves };
    (!plot.curves.is_empty()).then_some(plot)
}

/// The picture's bytes.
pub(crate) fn png(picture: &Plot) -> Result<Vec<u8>> {
    let picture: RgbImage = plot(picture)?;
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
    }
}
