//! COCO's results format: a JSON list of `{image_id, category_id, bbox, score}`, as pycocotools' `loadRes` takes it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Detection, Rect};
use crate::files::write_atomic_with;
use crate::{Error, Result, user};

/// Bytes that are gathered before they go to the disk.
const BLOCK: usize = 1 << 20;

/// A detection as the format has it. Other keys (`area`, `segmentation`, `id`) are passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The photo's id in the annotations.
    pub image_id: i64,
    /// The class's id in the annotations.
    pub category_id: i64,
    /// Left, top, width, height in pixels of the photo as its file has it.
    pub bbox: Rect,
    /// Confidence; higher is surer.
    pub score: f64,
}

/// Writes the detections of photos: for each its id and what was found in it; `categories` has the id of each class.
///
/// # Errors
/// A class without an id, a number that is none, which JSON cannot hold; the disk's.
pub fn write<'a>(
    path: &Path,
    photos: impl IntoIterator<Item = (i64, &'a [Detection])>,
    categories: &[i64],
) -> Result<()> {
    write_atomic_with(path, |put| {
        let mut text = b"[".to_vec();
        let mut first = true;
        for (image_id, found) in photos {
            for one in found {
                let row = Row { image_id, category_id: id(one, categories)?, bbox: one.rect, score: one.score };
                if !one.score.is_finite() || one.rect.iter().any(|side| !side.is_finite()) {
                    return Err(user!(
                        "a detection cannot be written to {}, since it is no number: {row:?}",
                        path.display()
                    ));
                }
                text.extend_from_slice(if std::mem::take(&mut first) { b"\n" } else { b",\n" });
                serde_json::to_writer(&mut text, &row).map_err(|error| Error::Failed(error.to_string()))?;
                if text.len() > BLOCK {
                    put(&text)?;
                    text.clear();
                }
            }
        }
        text.extend_from_slice(b"\n]\n");
        put(&text)
    })
}

fn id(found: &Detection, categories: &[i64]) -> Result<i64> {
    let missing = || Error::Failed(format!("a detection has class {} of {}", found.class, categories.len()));
    categories.get(found.class).copied().ok_or_else(missing)
}

/// Reads a file in this format.
///
/// # Errors
/// A file that is missing or in another format, with the place in it.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read(path).map_err(|error| user!("cannot read {}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| {
        user!("{}: {error}; it must be a list of {{image_id, category_id, bbox: [x, y, w, h], score}}", path.display())
    })
}

/// The rows of each of `photos`, by their ids, in the order of the file; `categories` has the id of each class. Rows of other categories are passed over,
/// as pycocotools does.
///
/// # Errors
/// A row of a photo that is none of them.
pub fn by_photo(rows: &[Row], photos: &[i64], categories: &[i64]) -> Result<Vec<Vec<Detection>>> {
    let places = |ids: &[i64]| ids.iter().enumerate().map(|(place, &id)| (id, place)).collect::<HashMap<_, _>>();
    let (places, classes) = (places(photos), places(categories));
    let mut found = vec![Vec::new(); photos.len()];
    for row in rows {
        let Some(&photo) = places.get(&row.image_id) else {
            return Err(user!(
                "the detections name the photo {}, which the annotations do not have; give the file of the same photos",
                row.image_id
            ));
        };
        if let Some(&class) = classes.get(&row.category_id) {
            found[photo].push(Detection { class, score: row.score, rect: row.bbox });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn what_is_written_reads_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("found.json");
        let known = fixture::read("real");
        let ids: Vec<i64> = (0..known.scenes.len() as i64).map(|place| 7 * place + 3).collect();
        let categories: Vec<i64> = (0..80).map(|class| 2 * class + 1).collect();
        let found: Vec<_> = known.scenes.iter().map(|scene| scene.detections.clone()).collect();
        write(&path, ids.iter().copied().zip(found.iter().map(Vec::as_slice)), &categories).unwrap();
        let rows = read(&path).unwrap();
        assert_eq!(by_photo(&rows, &ids, &categories).unwrap(), found);
        assert_eq!(rows.len(), found.iter().map(Vec::len).sum::<usize>());
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("[\n{\"image_id\":") && text.contains(",\"category_id\":") && text.contains(",\"bbox\":[")
        );
        write(&path, [(1, [].as_slice())], &categories).unwrap();
        assert_eq!(read(&path).unwrap(), []);
    }

    #[test]
    fn what_others_write_is_read_or_refused_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("found.json");
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path).map_err(|error| (error.to_string(), error.exit_code()))
        };
        let row =
            r#"{"score": 1, "category_id": 90, "id": 4, "image_id": 5, "bbox": [1, 2.5, 3, 4], "segmentation": []}"#;
        let rows = told(&format!("[{row}]")).unwrap();
        assert_eq!(rows, [Row { image_id: 5, category_id: 90, bbox: [1.0, 2.5, 3.0, 4.0], score: 1.0 }]);
        assert_eq!(by_photo(&rows, &[5], &[1]).unwrap(), [vec![]], "a category that nobody asks for");
        let error = by_photo(&rows, &[6], &[90]).unwrap_err().to_string();
        assert!(error.starts_with("the detections name the photo 5"), "{error}");
        for wrong in [
            r#"{"annotations": []}"#,
            r#"[{"image_id": 5, "category_id": 1, "score": 0.5}]"#,
            r#"[{"image_id": 5, "category_id": 1, "score": 0.5, "bbox": [1, 2, 3]}]"#,
            r#"[{"image_id": 5, "category_id": 1, "score": NaN, "bbox": [1, 2, 3, 4]}]"#,
            r#"[{"image_id": 5, "category_id": 1, "score": 0.5"#,
        ] {
            let (text, code) = told(wrong).unwrap_err();
            assert!(text.contains("found.json: ") && text.contains("line 1") && code == 2, "{text}");
        }
        let nan = Detection { class: 0, score: f64::NAN, rect: [0.0; 4] };
        fs::remove_file(&path).unwrap();
        assert!(write(&path, [(1, [nan].as_slice())], &[1]).unwrap_err().to_string().contains("no number"));
        assert_eq!(read(&path).unwrap_err().exit_code(), 2);
    }
}
