//! Drawings of the two processes.

use repro::figures::{self, Curve, Panel, Plot};
use repro::trainer::Eval;
use repro::{Result, user};
use tch::{Kind as Number, Tensor};

use crate::data::Examples;
use crate::draw::{Draw, evenly, nothing, pixels};
use crate::edit::slerp;
use crate::judge::{Asked, scale};
use crate::loss::Bound;
use crate::process::Process;
use crate::sampler::{Kind, SamplerConfig};

/// Columns of drawings over time, and rows of pictures in them; points in a panel.
const COLUMNS: usize = 9;
const ROWS: u64 = 6;
const POINTS: u64 = 1500;
/// Ways of points that are drawn, and steps of each.
const PATHS: u64 = 60;
const PATH: usize = 100;

/// x_t of pictures `[N, C, H, W]` from t = 0 to T − 1, a row each (Figure 2, from right to left).
///
/// # Errors
/// libtorch's, those of drawing.
pub fn forward(process: &Process, x0: &Tensor) -> Result<image::RgbImage> {
    let (n, steps) = (x0.size()[0], process.schedule.len());
    let times: Vec<usize> = (0..COLUMNS).map(|k| k * (steps - 1) / (COLUMNS - 1)).collect();
    tch::manual_seed(0);
    let noise = x0.f_randn_like()?;
    let at = |&t: &usize| {
        pixels(&process.noised(x0, &noise, &Tensor::f_full([n], t as i64, (Number::Int64, tch::Device::Cpu))?)?)
    };
    let all = Tensor::f_stack(&times.iter().map(at).collect::<Result<Vec<_>>>()?, 1)?.f_flatten(0, 1)?;
    let told: Vec<_> = times.iter().map(usize::to_string).collect();
    let title = format!("The forward process: x_t for t = {}", told.join(", "));
    figures::framed(&all, COLUMNS as u32, scale(&all), &[], &[], &title)
}

/// x and x̂_0 while pictures are drawn (Figures 6 and 10): pairs of rows.
///
/// # Errors
/// Those of sampling and drawing.
pub fn progress(draw: &Draw) -> Result<image::RgbImage> {
    let steps = draw.sampler.length(draw.process.schedule.len());
    let shown = evenly(steps, COLUMNS);
    let mut seen: Vec<[Tensor; 2]> = Vec::new();
    let _ = draw.pictures(0..ROWS / 2, None, &mut |step, x, x0| {
        if shown.contains(&step) {
            seen.push([pixels(x)?, pixels(x0)?]);
        }
        Ok(())
    })?;
    let column = |pair: &[Tensor; 2]| Tensor::f_stack(&[&pair[0], &pair[1]], 1);
    let all = Tensor::f_stack(&seen.iter().map(column).collect::<Result<Vec<_>, _>>()?, 2)?.f_flatten(0, 2)?;
    let told: Vec<_> = shown.iter().map(usize::to_string).collect();
    let title = format!("After steps {}: x, and below it the picture that it is thought to be", told.join(", "));
    figures::framed(&all, shown.len() as u32, scale(&all), &[], &[], &title)
}

/// Pictures of x_T on the ways between others along the sphere (DDIM, Figure 6): as many rows, each of so many pictures, at least 2.
///
/// # Errors
/// Those of sampling and drawing.
pub fn ways(draw: &Draw, rows: u64, columns: usize) -> Result<image::RgbImage> {
    let (from, to) = (draw.noise(0, 0..rows)?, draw.noise(0, rows..2 * rows)?);
    let share = |k: usize| slerp(&from, &to, k as f64 / (columns - 1) as f64);
    let all = Tensor::f_stack(&(0..columns).map(share).collect::<Result<Vec<_>>>()?, 1)?.f_flatten(0, 1)?;
    // A row is of one class.
    let class = draw.null.map(|k| (0..all.size()[0]).map(|place| place / columns as i64 % k).collect::<Vec<_>>());
    let x = draw.from(&all, class.as_deref(), &mut |_| Err(user!("nothing is drawn on the way")), &mut nothing)?;
    let title = "From the picture of one noise to that of another, along the sphere";
    figures::framed(&pixels(&x)?, columns as u32, scale(&x), &[], &[], title)
}

/// Figure 5: what is lost against what is told.
pub fn progressive(bound: &Bound) -> Plot {
    let points = bound.progressive();
    Plot {
        title: "Progressive coding (Figure 5)".into(),
        x_label: "rate so far, bits a number".into(),
        y_label: "RMSE of the picture, pixels being in [0, 255]".into(),
        curves: vec![Curve { label: "test pictures".into(), points, ..Curve::default() }],
        ..Plot::default()
    }
}

/// Points as dots.
fn dots(x: &Tensor, parts: &[i64]) -> Result<Vec<(f64, f64, usize)>> {
    let numbers = Vec::<f64>::try_from(x.f_to_device(tch::Device::Cpu)?.f_to_kind(Number::Double)?.f_view(-1)?)?;
    Ok(numbers
        .chunks(2)
        .zip(parts.iter().chain(std::iter::repeat(&0)))
        .map(|(at, part)| (at[0], at[1], *part as usize))
        .collect())
}

/// What can be seen of a model of points: the forward process, the reverse one, the paths, and where the noise points from each place.
///
/// # Errors
/// Those of sampling and drawing.
pub fn of_points(asked: &Asked, draw: &Draw, out: &mut Eval) -> Result<()> {
    let Asked { process, model, data, split, .. } = asked;
    let Examples::Points { set, .. } = data else { return Err(user!("these are no points")) };
    let real = data.first(*split, POINTS)?;
    let parts = Vec::<i64>::try_from(real.label.to_device(tch::Device::Cpu))?;
    let steps = process.schedule.len();
    out.picture("forward", || {
        let noise = draw.noise(usize::MAX / 4, 0..real.image.size()[0] as u64)?;
        let panel = |k: usize| {
            let t = k * (steps - 1) / 5;
            let at = Tensor::f_full([real.image.size()[0]], t as i64, (Number::Int64, tch::Device::Cpu))?;
            Ok(Panel { caption: format!("t = {t}"), dots: dots(&process.noised(&real.image, &noise, &at)?, &parts)? })
        };
        figures::scatter(&format!("{set}: the forward process"), &(0..6).map(panel).collect::<Result<Vec<_>>>()?, &[])
    })?;
    // Most of what there is to see happens in the last steps.
    let length = draw.sampler.length(steps);
    let shown: Vec<usize> = [50, 70, 80, 90, 95, 100].iter().map(|share| share * length / 100).collect();
    out.picture("samples", || {
        let mut panels = Vec::new();
        let _ = draw.pictures(0..POINTS, None, &mut |step, x, _| {
            if shown.contains(&step) {
                panels.push(Panel { caption: format!("after step {step} of {length}"), dots: dots(x, &[])? });
            }
            Ok(())
        })?;
        figures::scatter(&format!("{set}: points of the model"), &panels, &[])
    })?;
    out.picture("paths", || {
        // Without noise on the way, so that there is a way to be seen.
        let straight = SamplerConfig { steps: Some(steps.min(PATH)), ..SamplerConfig::of(Kind::Ddim) };
        let x = draw.noise(0, 0..PATHS)?;
        let mut paths = vec![x.f_to_device(tch::Device::Cpu)?];
        let _ = Draw { sampler: &straight, ..*draw }.pictures(0..PATHS, None, &mut |_, x, _| {
            paths.push(x.f_to_device(tch::Device::Cpu)?);
            Ok(())
        })?;
        let paths = Tensor::f_stack(&paths, 1)?.f_to_kind(Number::Double)?;
        let path = |k: i64| Ok(dots(&paths.f_get(k)?, &[])?.into_iter().map(|(x, y, _)| (x, y)).collect::<Vec<_>>());
        let paths = (0..PATHS as i64).map(path).collect::<Result<Vec<_>>>()?;
        figures::field(&format!("{set}: the ways of {PATHS} points out of the noise, by DDIM"), &paths, &[])
    })?;
    out.picture("field", || {
        // −ε̂ points to where the model thinks that the points are.
        let t = steps / 10;
        let line: Vec<f64> = (0..23).map(|k| -1.98 + 0.18 * f64::from(k)).collect();
        let at: Vec<[f64; 2]> = line.iter().flat_map(|y| line.iter().map(|x| [*x, *y])).collect();
        let x = Tensor::f_from_slice(at.as_flattened())?
            .f_view([-1, 2])?
            .f_to_kind(Number::Float)?
            .f_to_device(draw.setup.device)?;
        let steps = Tensor::f_full([x.size()[0]], t as i64, (Number::Int64, draw.setup.device))?;
        let said = model.forward(&x, &steps, None, repro::nn::Mode::Eval)?;
        let told = process.told(&said, &x, &steps, false)?;
        let arrows: Vec<_> = at
            .iter()
            .zip(dots(&told.eps, &[])?)
            .map(|(at, (dx, dy, _))| ((at[0], at[1]), (-0.05 * dx, -0.05 * dy)))
            .collect();
        figures::field(&format!("{set}: where the model would go at t = {t}"), &[], &arrows)
    })
}
