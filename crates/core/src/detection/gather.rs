//! The scenes of all processes in each of them.

use tch::Tensor;

use super::{Detection, Scene, Truth};
use crate::setup::Setup;
use crate::{Error, Result};

/// Numbers of a row; the first says what it is.
const ROW: usize = 9;
const PHOTO: f64 = 0.0;
const TRUTH: f64 = 1.0;
const FOUND: f64 = 2.0;

/// The scenes that each process has, with the places of their photos in the set, by ascending place: evaluated in every process they give
/// one result, whoever looked at which photo.
///
/// # Errors
/// A process left.
pub fn together(setup: &Setup, scenes: &[(u64, Scene)]) -> Result<Vec<(u64, Scene)>> {
    let rows = Tensor::f_from_slice(&rows(scenes))?.f_view([-1, ROW as i64])?;
    let mut all = Vec::new();
    for part in setup.gather_rows(&rows)? {
        all.extend(from_rows(&Vec::try_from(part.f_reshape([-1])?)?)?);
    }
    all.sort_by_key(|(place, _)| *place);
    Ok(all)
}

/// In one table, so that the processes meet once: each photo, behind it its truths and its detections.
fn rows(scenes: &[(u64, Scene)]) -> Vec<f64> {
    let mut rows = Vec::new();
    for (place, scene) in scenes {
        rows.extend([PHOTO, *place as f64, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        for Truth { class, rect: [x, y, w, h], area, crowd, difficult } in &scene.truths {
            let (crowd, difficult) = (f64::from(*crowd), f64::from(*difficult));
            rows.extend([TRUTH, *class as f64, *x, *y, *w, *h, *area, crowd, difficult]);
        }
        for Detection { class, score, rect: [x, y, w, h] } in &scene.detections {
            rows.extend([FOUND, *class as f64, *x, *y, *w, *h, *score, 0.0, 0.0]);
        }
    }
    rows
}

fn from_rows(rows: &[f64]) -> Result<Vec<(u64, Scene)>> {
    let mut scenes: Vec<(u64, Scene)> = Vec::new();
    for row in rows.chunks_exact(ROW) {
        let (class, rect) = (row[1] as usize, [row[2], row[3], row[4], row[5]]);
        match (row[0], scenes.last_mut()) {
            (PHOTO, _) => scenes.push((row[1] as u64, Scene::default())),
            (TRUTH, Some((_, scene))) => {
                let (crowd, difficult) = (row[7] == 1.0, row[8] == 1.0);
                scene.truths.push(Truth { class, rect, area: row[6], crowd, difficult });
            }
            (FOUND, Some((_, scene))) => scene.detections.push(Detection { class, score: row[6], rect }),
            _ => return Err(Error::Failed("a process sent detections that cannot be read".into())),
        }
    }
    Ok(scenes)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn scenes_survive_the_way_to_another_process() {
        let scenes = fixture::read("odd").scenes;
        let sent: Vec<_> = scenes.into_iter().enumerate().map(|(place, scene)| (place as u64, scene)).collect();
        assert_eq!(from_rows(&rows(&sent)).unwrap(), sent);
        assert_eq!(from_rows(&rows(&[])).unwrap(), []);
        assert!(from_rows(&[FOUND; ROW]).is_err());
    }
}
