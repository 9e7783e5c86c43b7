//! What a paper's commands answer with: lines for people, JSON for programs, pictures, tables.

use std::path::PathBuf;

use serde_json::{Value, json};
use tch::Tensor;

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
}

impl Answer {
    /// Classes with probabilities, best first.
    pub fn classes(input: PathBuf, classes: &[(String, f64)], pictures: Vec<PathBuf>) -> Self {
        let best: Vec<_> = classes.iter().take(5).map(|(name, p)| format!("{name} {:.1} %", 100.0 * p)).collect();
        Self { input, lines: vec![best.join("   ")], json: json!({ "classes": classes }), pictures }
    }

    /// `{"image": …, "pictures": […]}` and the answer's own fields.
    pub fn json(&self) -> Value {
        let mut all = json!({ "image": self.input, "pictures": self.pictures });
        if let (Some(all), Value::Object(own)) = (all.as_object_mut(), &self.json) {
            all.extend(own.clone());
        }
        all
    }

    /// The input with the first line behind it, the others and the pictures below.
    pub fn text(&self) -> String {
        let pictures = self.pictures.iter().map(|picture| picture.display().to_string());
        let mut right = self.lines.iter().cloned().chain(pictures);
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
    fn a_table_lines_its_columns_up() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let table = Table { head: row(["class", "n"]), rows: vec![row(["a", "1000"]), row(["longer", "7"])] };
        assert_eq!(table.text(), "class      n\na       1000\nlonger     7");
    }
}
