//! `ddpm sample` on the user's own pictures: ways between two (Figure 8), and parts painted anew.

use std::path::{Path, PathBuf};

use repro::{Result, figures, user};
use tch::Tensor;

use crate::draw::{Draw, nothing, pixels};
use crate::edit::{self, Known};
use crate::judge::scale;
use crate::photos::Photos;

/// Pictures on the way between two, with both ends; steps of diffusion t of the rows, as parts of T.
const SHARES: usize = 9;
const ROWS: [f64; 4] = [0.125, 0.25, 0.5, 0.75];
/// Other fillings that are drawn of each picture.
const FILLINGS: i64 = 6;

/// Between two pictures, a row for each t that both are taken to (of Figure 8 and of Figure 9 in the appendix): `interpolated.png` in the folder.
///
/// # Errors
/// Not two pictures; those of reading, sampling and drawing.
pub fn interpolate(draw: &Draw, photos: &mut Photos, paths: &[PathBuf], out: &Path) -> Result<PathBuf> {
    let [a, b] = paths else {
        return Err(user!(
            "--interpolate takes two pictures, and {} were given: sample … --interpolate A.png B.png",
            paths.len()
        ));
    };
    let ends = [
        photos.read(a)?.f_to_kind(draw.kind)?.f_to_device(draw.setup.device)?,
        photos.read(b)?.f_to_kind(draw.kind)?.f_to_device(draw.setup.device)?,
    ];
    let many = [&[SHARES as i64][..], draw.shape].concat();
    // All pictures of a row have the same noise, so that what changes is the mixture.
    let shared = |step: usize| Ok(draw.noise(step, 0..1)?.f_expand(&many[..], false)?);
    let (noise, mut rows) = ([draw.noise(0, 1..2)?, draw.noise(0, 2..3)?], Vec::new());
    for part in ROWS {
        let t = (part * draw.process.schedule.len() as f64) as usize;
        let at = |k: usize| {
            edit::between(draw.process, [&ends[0], &ends[1]], [&noise[0], &noise[1]], k as f64 / (SHARES - 1) as f64, t)
        };
        let x = Tensor::f_cat(&(0..SHARES).map(at).collect::<Result<Vec<_>>>()?, 0)?;
        let mut sampler = draw.sampler.clone();
        sampler.steps = sampler.steps.map(|steps| steps.min(t + 1));
        let classes = draw.null.map(|null| vec![null; SHARES]);
        rows.push(draw.with_network(classes.as_deref(), |net| {
            edit::denoise(draw.process, &sampler, net, &x, t, &mut |step| shared(step), &mut nothing)
        })?);
    }
    let all = pixels(&Tensor::f_cat(&rows, 0)?)?;
    let times: Vec<_> =
        ROWS.iter().map(|part| format!("{}", (part * draw.process.schedule.len() as f64) as usize)).collect();
    let title = format!("Between two pictures by x_t, row by row t = {}", times.join(", "));
    let file = out.join("interpolated.png");
    figures::save(&figures::framed(&all, SHARES as u32, scale(&all), &[], &[], &title)?, &file)?;
    Ok(file)
}

/// Pictures whose part under the white of the mask is painted anew, each several times: `inpainted.png` in the folder.
///
/// # Errors
/// No picture; a mask that leaves nothing to do; those of reading, sampling and drawing.
pub fn inpaint(draw: &Draw, photos: &mut Photos, paths: &[PathBuf], mask: &Path, out: &Path) -> Result<PathBuf> {
    if paths.is_empty() {
        return Err(user!("--inpaint takes pictures: sample … --inpaint --mask M.png PHOTO.png"));
    }
    let white = photos.read(mask)?.f_mean_dim([1_i64].as_slice(), true, tch::Kind::Float)?.gt(0.0);
    if white.any().f_int64_value(&[])? == 0 {
        return Err(user!(
            "{}: nothing of it is white, so nothing is to be painted; white is what is painted anew",
            mask.display()
        ));
    }
    let known = white.logical_not().f_to_kind(draw.kind)?.f_to_device(draw.setup.device)?;
    let mut rows = Vec::new();
    for (row, path) in paths.iter().enumerate() {
        let photo = photos.read(path)?.f_to_kind(draw.kind)?.f_to_device(draw.setup.device)?;
        let x0 = photo.f_repeat([FILLINGS, 1, 1, 1])?;
        let places =
            |salt: u64| (row as u64 * 2 + salt) * FILLINGS as u64..(row as u64 * 2 + salt + 1) * FILLINGS as u64;
        let x = draw.noise(0, places(0))?;
        let mut of_known = |step: usize| draw.noise(step, places(1));
        let classes = draw.null.map(|null| vec![null; FILLINGS as usize]);
        let found = draw.with_network(classes.as_deref(), |net| {
            let known = Known { x0: &x0, mask: &known, noise: &mut of_known };
            edit::inpaint(
                draw.process,
                draw.sampler,
                net,
                &x,
                known,
                &mut |step| draw.noise(step, places(0)),
                &mut nothing,
            )
        })?;
        // What is to be painted is grey in the picture that is shown first.
        rows.push(Tensor::f_cat(&[&photo, &(&photo * &known), &found], 0)?);
    }
    let all = pixels(&Tensor::f_cat(&rows, 0)?)?;
    let file = out.join("inpainted.png");
    let title = "Each picture, what is known of it, and what is painted there";
    figures::save(&figures::framed(&all, 2 + FILLINGS as u32, scale(&all), &[], &[], title)?, &file)?;
    Ok(file)
}
