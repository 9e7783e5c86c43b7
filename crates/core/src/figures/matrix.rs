//! A table of numbers as colours.

use image::{Rgb, RgbImage};

use super::{BLUE, GREY, INK, RED, WHITE, blend, fill, text};
use crate::{Error, Result};

const MARGIN: u32 = 16;
const TITLE: f32 = 18.0;
const LABEL: f32 = 13.0;
/// Edge of a cell without a number, and height of one with its number.
const CELL: (u32, u32) = (17, 44);
/// Width and length of the colour bar.
const BAR: (u32, u32) = (18, 220);
/// Of a cell without a value.
const EMPTY: Rgb<u8> = Rgb([236, 236, 236]);

/// Numbers in rows and columns that have names.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    /// Over the picture.
    pub title: String,
    /// What the rows are, beside them, and what the columns are, over them.
    pub axes: (String, String),
    /// A name for each row.
    pub rows: Vec<String>,
    /// A name for each column.
    pub columns: Vec<String>,
    /// By rows. `None`: grey.
    pub cells: Vec<Vec<Option<f64>>>,
    /// What is written into each cell, by rows; nothing is where it is empty.
    pub texts: Vec<Vec<String>>,
    /// What the colours mean, under the colour bar.
    pub scale: String,
    /// The values of the last colours. From below zero they run from blue over white to red, else from white to blue.
    pub range: (f64, f64),
    /// After how many rows, and columns, a line divides the cells. 0: nowhere.
    pub divide: usize,
}

impl Matrix {
    fn colour(&self, value: f64) -> Rgb<u8> {
        let (low, high) = self.range;
        if low < 0.0 {
            return match value < 0.0 {
                true => blend(WHITE, BLUE, (value / low).clamp(0.0, 1.0)),
                false => blend(WHITE, RED, (value / high.max(1e-12)).clamp(0.0, 1.0)),
            };
        }
        blend(WHITE, BLUE, ((value - low) / (high - low).max(1e-12)).clamp(0.0, 1.0))
    }

    fn check(&self) -> Result<()> {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let fits = |lengths: Vec<usize>| lengths.len() == rows && lengths.iter().all(|&length| length == columns);
        let texts = self.texts.is_empty() || fits(self.texts.iter().map(Vec::len).collect());
        if rows * columns > 0 && texts && fits(self.cells.iter().map(Vec::len).collect()) {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "the matrix '{}' has {rows} rows and {columns} columns that its cells do not",
            self.title
        )))
    }
}

/// Draws the matrix with its names and its scale.
///
/// # Errors
/// No cells, or not as many as there are names.
pub fn matrix(matrix: &Matrix) -> Result<RgbImage> {
    matrix.check()?;
    let wide = |texts: &[String]| texts.iter().map(|text| text::width(text, LABEL)).max().unwrap_or(0);
    let inside = matrix.texts.iter().map(|row| wide(row)).max();
    let (cell_width, cell_height) = match inside {
        Some(width) => ((width + 14).max(wide(&matrix.columns) + 8), CELL.1),
        None => (CELL.0, CELL.0),
    };
    // Names over the columns stand up if they do not fit lying.
    let upright = wide(&matrix.columns) + 2 > cell_width;
    let over = if upright { wide(&matrix.columns) } else { LABEL as u32 };
    let line = LABEL as u32 + 8;
    let (left, top) = (MARGIN + line + wide(&matrix.rows) + 6, MARGIN + TITLE as u32 + 12 + line + over + 6);
    let (width, height) = (matrix.columns.len() as u32 * cell_width, matrix.rows.len() as u32 * cell_height);
    let bar = left + width + 24;
    let ends = [number(matrix.range.1), number(matrix.range.0)];
    let right = (bar + BAR.0 + 6 + wide(&ends)).max(MARGIN + text::width(&matrix.title, TITLE));
    let right = right.max(left + text::width(&matrix.axes.1, LABEL)).max(left + text::width(&matrix.scale, LABEL));
    let down = (top + height).max(top + text::width(&matrix.axes.0, LABEL)) + line;
    let mut picture = RgbImage::from_pixel(right + MARGIN, down + MARGIN, WHITE);

    text::draw(&mut picture, &matrix.title, MARGIN, MARGIN, TITLE, INK);
    let middle = |from: u32, length: u32, text: &str| from + length.saturating_sub(text::width(text, LABEL)) / 2;
    let axis = middle(left, width, &matrix.axes.1);
    text::draw(&mut picture, &matrix.axes.1, axis, MARGIN + TITLE as u32 + 12, LABEL, GREY);
    let foot = middle(top, height, &matrix.axes.0) + text::width(&matrix.axes.0, LABEL);
    text::draw_upward(&mut picture, &matrix.axes.0, MARGIN, foot, LABEL, GREY);
    for (place, name) in matrix.columns.iter().enumerate() {
        let x = left + place as u32 * cell_width;
        match upright {
            true => {
                text::draw_upward(&mut picture, name, x + (cell_width - LABEL as u32) / 2, top - 6, LABEL, INK);
            }
            false => text::draw(&mut picture, name, middle(x, cell_width, name), top - 6 - over, LABEL, INK),
        }
    }
    fill(&mut picture, left - 1, top - 1, width + 1, height + 1, blend(WHITE, GREY, 0.4));
    for (row, (name, cells)) in matrix.rows.iter().zip(&matrix.cells).enumerate() {
        let y = top + row as u32 * cell_height;
        let text_top = y + (cell_height - LABEL as u32) / 2;
        text::draw(&mut picture, name, left - 6 - text::width(name, LABEL), text_top, LABEL, INK);
        for (column, value) in cells.iter().enumerate() {
            let x = left + column as u32 * cell_width;
            let colour = value.map_or(EMPTY, |value| matrix.colour(value));
            fill(&mut picture, x, y, cell_width - 1, cell_height - 1, colour);
            if let Some(text) = matrix.texts.get(row).and_then(|row| row.get(column)) {
                let dark = colour.0.iter().map(|&part| u32::from(part)).sum::<u32>() < 360;
                let ink = if dark {
                    WHITE
                } else if value.is_none() {
                    GREY
                } else {
                    INK
                };
                text::draw(&mut picture, text, middle(x, cell_width, text), text_top, LABEL, ink);
            }
        }
    }
    if matrix.divide > 0 {
        let (x, y) = (left + matrix.divide as u32 * cell_width, top + matrix.divide as u32 * cell_height);
        fill(&mut picture, x - 1, top, 1, height, INK);
        fill(&mut picture, left, y - 1, width, 1, INK);
    }
    let length = BAR.1.min(height);
    fill(&mut picture, bar - 1, top - 1, BAR.0 + 2, length + 2, GREY);
    for y in 0..length {
        let share = f64::from(y) / f64::from(length.max(2) - 1);
        let value = matrix.range.1 + share * (matrix.range.0 - matrix.range.1);
        fill(&mut picture, bar, top + y, BAR.0, 1, matrix.colour(value));
    }
    let beside = bar + BAR.0 + 6;
    text::draw(&mut picture, &ends[0], beside, top, LABEL, INK);
    text::draw(&mut picture, &ends[1], beside, top + length - LABEL as u32, LABEL, INK);
    text::draw(&mut picture, &matrix.scale, left, down - line + 8, LABEL, GREY);
    Ok(picture)
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Matrix {
        let names = || vec!["a".to_string(), "b".to_string()];
        Matrix {
            title: "two by two".into(),
            rows: names(),
            columns: names(),
            cells: vec![vec![Some(1.0), Some(-1.0)], vec![None, Some(0.5)]],
            range: (-1.0, 1.0),
            ..Matrix::default()
        }
    }

    #[test]
    fn cells_have_the_colours_of_their_values() {
        let picture = matrix(&small()).unwrap();
        let has = |colour: Rgb<u8>| picture.pixels().filter(|pixel| **pixel == colour).count();
        let cell = ((CELL.0 - 1) * (CELL.0 - 1)) as usize;
        assert!(has(RED) >= cell && has(BLUE) >= cell && has(blend(WHITE, RED, 0.5)) >= cell);
        assert!(has(EMPTY) >= cell, "what has no value is grey");
    }

    #[test]
    fn numbers_widen_the_cells_and_names_must_fit() {
        let told = Matrix { texts: vec![vec!["55.95 %".into(); 2], vec!["not run".into(); 2]], ..small() };
        assert!(matrix(&told).unwrap().height() > matrix(&small()).unwrap().height());
        for wrong in [
            Matrix { rows: vec!["a".into()], ..small() },
            Matrix { texts: vec![vec![String::new()]], ..small() },
            Matrix::default(),
        ] {
            assert!(matrix(&wrong).is_err());
        }
        assert_eq!([1.0, -1.0, 0.25, 40.0].map(number), ["1", "−1", "0.25", "40"]);
    }
}
