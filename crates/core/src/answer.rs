//! What a paper's commands answer with: lines for people, JSON for programs, pictures, tables.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use image::{RgbImage, imageops};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Edge of a picture with boxes in [`Look::boxed`], in pixels.
const TILE: u32 = 320;

/// An answer of `predict`, or of a command of a paper's own.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The picture or the file asked about.
    pub input: PathBuf,
    /// For people.
    pub lines: Vec<String>,
    /// For programs: an object, such as `{"classes": [["cat", 0.9]]}`.
    pub json: Value,
    /// Pictures that were drawn.
    pub pictures: Vec<PathBuf>,
    /// Why there is no answer; the other fields are empty then.
    pub error: Option<String>,
}

/// An answer for each picture. `answer` is given a picture and a stem for the files that it draws, which no other of these pictures has. What
/// is wrong with one picture ([`Error::User`]) is its answer, and the others get theirs.
///
/// # Errors
/// Those of `answer` that are of no picture's making, such as a full disk.
pub fn each(images: &[PathBuf], mut answer: impl FnMut(&Path, &str) -> Result<Answer>) -> Result<Vec<Answer>> {
    let one = |(path, stem): (&PathBuf, &String)| match answer(path, stem) {
        Err(Error::User(why)) => Ok(Answer::none(path.clone(), why)),
        answered => answered,
    };
    images.iter().zip(&stems(images)).map(one).collect()
}

/// The names of files without ending; from the second of a name on with a number: `x`, `x-2`.
fn stems(paths: &[PathBuf]) -> Vec<String> {
    let mut taken = HashSet::new();
    let stem = |path: &PathBuf| {
        let own = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut stem = own.clone();
        let mut number = 1;
        while !taken.insert(stem.clone()) {
            number += 1;
            stem = format!("{own}-{number}");
        }
        stem
    };
    paths.iter().map(stem).collect()
}

impl Answer {
    /// That there is none, and why.
    pub fn none(input: PathBuf, why: String) -> Self {
        Self { input, lines: Vec::new(), json: json!({}), pictures: Vec::new(), error: Some(why) }
    }

    /// Classes with probabilities, best first.
    pub fn classes(input: PathBuf, classes: &[(String, f64)], pictures: Vec<PathBuf>) -> Self {
        let best: Vec<_> = classes.iter().take(5).map(|(name, p)| format!("{name} {:.1} %", 100.0 * p)).collect();
        Self { input, lines: vec![best.join("   ")], json: json!({ "classes": classes }), pictures, error: None }
    }

    /// `{"image": …, "pictures": […]}` and the answer's own fields, or `error`.
    pub fn json(&self) -> Value {
        // Not every path is a text, and JSON holds texts.
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut all =
            json!({ "image": text(&self.input), "pictures": self.pictures.iter().map(text).collect::<Vec<_>>() });
        if let Some(why) = &self.error {
            all["error"] = why.as_str().into();
        }
        if let (Some(all), Value::Object(own)) = (all.as_object_mut(), &self.json) {
            all.extend(own.clone());
        }
        all
    }

    /// The input with the first line behind it, the others and the pictures below.
    pub fn text(&self) -> String {
        let pictures = self.pictures.iter().map(|picture| picture.display().to_string());
        let error = self.error.iter().map(|why| format!("no answer: {why}"));
        let mut right = error.chain(self.lines.iter().cloned()).chain(pictures);
        let mut text = format!("{:32} {}", self.input.display(), right.next().unwrap_or_default());
        for line in right {
            text += &format!("\n{:32} {line}", "");
        }
        text
    }
}

/// What `data` shows.
#[derive(Debug)]
pub struct Look {
    /// Training pictures after augmentation `[N, C, H, W]` in [0, 1].
    pub images: Tensor,
    /// A caption each.
    pub captions: Vec<String>,
    /// Counts and sizes, for people.
    pub tables: Vec<Table>,
    /// What else is to be said.
    pub notes: Vec<String>,
    /// The same for programs: an object.
    pub json: Value,
}

impl Look {
    /// Of pictures with labels: `classes` is name, training and test pictures; mean and deviation are per channel, of the training pixels in
    /// [0, 1] before augmentation.
    pub fn labelled(
        images: Tensor,
        captions: Vec<String>,
        classes: &[(String, u64, u64)],
        mean_std: &[(f64, f64)],
    ) -> Self {
        let mut rows: Vec<Vec<String>> =
            classes.iter().map(|(n, a, b)| vec![n.clone(), a.to_string(), b.to_string()]).collect();
        let total = |f: fn(&(String, u64, u64)) -> u64| classes.iter().map(f).sum::<u64>().to_string();
        rows.push(vec!["total".into(), total(|c| c.1), total(|c| c.2)]);
        let (mean, std): (Vec<f64>, Vec<f64>) = mean_std.iter().copied().unzip();
        let json: Vec<_> = classes.iter().map(|(n, a, b)| json!({"class": n, "train": a, "test": b})).collect();
        Self {
            images,
            captions,
            tables: vec![Table { head: ["class", "train", "test"].map(String::from).to_vec(), rows }],
            notes: vec![format!("mean {mean:.4?}  standard deviation {std:.4?}  (training pixels in [0, 1])")],
            json: json!({ "classes": json, "mean": mean, "std": std }),
        }
    }
}

impl Look {
    /// Of pictures in which boxes are drawn, of any sizes; else as [`Look::labelled`], whose counts are then those of boxes.
    ///
    /// # Errors
    /// libtorch's.
    pub fn boxed(
        pictures: &[RgbImage],
        captions: Vec<String>,
        classes: &[(String, u64, u64)],
        mean_std: &[(f64, f64)],
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        for picture in pictures {
            let share = f64::from(TILE) / f64::from(picture.width().max(picture.height()));
            let [width, height] =
                [picture.width(), picture.height()].map(|side| ((f64::from(side) * share).round() as u32).max(1));
            let mut tile = RgbImage::from_pixel(TILE, TILE, image::Rgb([255; 3]));
            let fitted = imageops::resize(picture, width, height, imageops::FilterType::Triangle);
            imageops::replace(&mut tile, &fitted, 0, 0);
            bytes.extend_from_slice(tile.as_raw());
        }
        let size = [pictures.len() as i64, i64::from(TILE), i64::from(TILE), 3];
        let images = Tensor::f_from_data_size(&bytes, &size, Kind::Uint8)?.f_permute([0, 3, 1, 2])?;
        Ok(Self::labelled(images.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?, captions, classes, mean_std))
    }
}

/// A table for the terminal: the first column is of names, the others are of numbers.
#[derive(Debug, Clone)]
pub struct Table {
    /// What the columns are.
    pub head: Vec<String>,
    /// As long as the head, each.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns as wide as they need, the first from the left, the others from the right.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.head]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        [&self.head].into_iter().chain(&self.rows).map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_for_people_and_for_programs() {
        let classes = [("cat".to_string(), 0.75), ("dog".to_string(), 0.25)];
        let answer = Answer::classes("a.png".into(), &classes, vec!["p/a-cam.png".into()]);
        assert_eq!(
            answer.json(),
            json!({"image": "a.png", "pictures": ["p/a-cam.png"], "classes": [["cat", 0.75], ["dog", 0.25]]})
        );
        let text = answer.text();
        assert!(text.starts_with("a.png ") && text.contains("cat 75.0 %   dog 25.0 %\n"), "{text}");
        assert!(text.ends_with(" p/a-cam.png"), "{text}");
    }

    #[test]
    fn what_is_drawn_has_a_name_of_its_own() {
        let paths = ["a/x.jpg", "b/x.jpg", "x-2.png", "x.png", "y"].map(PathBuf::from);
        assert_eq!(stems(&paths), ["x", "x-2", "x-2-2", "x-3", "y"]);
    }

    #[test]
    fn a_picture_without_an_answer_leaves_the_others_theirs() {
        let paths = ["a.jpg", "b.jpg", "c.jpg"].map(PathBuf::from);
        let answers = each(&paths, |path, stem| match stem {
            "b" => Err(crate::user!("b.jpg: JPEG: cut off")),
            _ => Ok(Answer::classes(path.to_owned(), &[("cat".into(), 1.0)], vec![])),
        });
        let answers: Vec<Value> = answers.unwrap().iter().map(Answer::json).collect();
        assert_eq!(answers[1], json!({"image": "b.jpg", "pictures": [], "error": "b.jpg: JPEG: cut off"}));
        assert_eq!(answers[2]["classes"][0][0], "cat");
        let full = each(&paths, |_, _| Err(Error::Failed("the disk is full".into())));
        assert!(matches!(full, Err(Error::Failed(_))));
    }

    #[test]
    fn a_table_lines_its_columns_up() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let table = Table { head: row(["class", "n"]), rows: vec![row(["a", "1000"]), row(["longer", "7"])] };
        assert_eq!(table.text(), "class      n\na       1000\nlonger     7");
    }
}
