//! The cheapest pairing of predictions and objects (Eq. 1), exact.
//!
//! Rows are added one at a time, each by the shortest path that alternates between pairs to be made and pairs to be undone (Jonker and Volgenant,
//! 1987), in reduced costs that potentials keep from being negative: O(rows² · columns) at worst, in float64.

use repro::{Error, Result};

/// Of `rows` × `columns` costs, row after row, the pairs (row, column) of least total, rows ascending: each row of a flat or square table has
/// one, each column of a tall one.
///
/// # Errors
/// A cost that is no finite number: then no pairing means anything.
///
/// # Panics
/// If there are not `rows` × `columns` costs.
pub fn assign(costs: &[f64], rows: usize, columns: usize) -> Result<Vec<(usize, usize)>> {
    assert_eq!(costs.len(), rows * columns, "a table of {rows} × {columns} costs");
    if let Some(place) = costs.iter().position(|cost| !cost.is_finite()) {
        return Err(Error::Failed(format!(
            "the matching has a cost of {} (row {}, column {} of {rows} × {columns}): the network's answers or the boxes are no numbers any \
             more; lower the learning rate, or look at the labels",
            costs[place],
            place / columns,
            place % columns
        )));
    }
    if rows <= columns {
        return Ok(pair(costs, rows, columns));
    }
    let mut turned = vec![0.0; costs.len()];
    for (row, line) in costs.chunks_exact(columns.max(1)).enumerate() {
        line.iter().enumerate().for_each(|(column, &cost)| turned[column * rows + row] = cost);
    }
    let mut pairs: Vec<_> = pair(&turned, columns, rows).into_iter().map(|(column, row)| (row, column)).collect();
    pairs.sort_unstable();
    Ok(pairs)
}

/// No row, or no column.
const NONE: usize = usize::MAX;

/// The same with at least as many columns as rows.
fn pair(costs: &[f64], rows: usize, columns: usize) -> Vec<(usize, usize)> {
    let (mut of_rows, mut of_columns) = (vec![0.0; rows], vec![0.0; columns]);
    let (mut column_of, mut row_of) = (vec![NONE; rows], vec![NONE; columns]);
    let (mut distance, mut from) = (vec![0.0; columns], vec![NONE; columns]);
    let (mut open, mut reached) = (Vec::with_capacity(columns), Vec::with_capacity(rows));
    for start in 0..rows {
        distance.fill(f64::INFINITY);
        open.clear();
        open.extend(0..columns);
        reached.clear();
        // Dijkstra from the new row to the nearest free column, through the rows of columns that are taken.
        let (mut row, mut walked) = (start, 0.0);
        let free = loop {
            let (line, offset) = (&costs[row * columns..][..columns], walked - of_rows[row]);
            let (mut nearest, mut place) = (f64::INFINITY, 0);
            for (at, &column) in open.iter().enumerate() {
                let through = offset + line[column] - of_columns[column];
                if through < distance[column] {
                    (distance[column], from[column]) = (through, row);
                }
                // Of equally near columns a free one ends the walk.
                let far = distance[column];
                if far < nearest || (far == nearest && row_of[column] == NONE) {
                    (nearest, place) = (far, at);
                }
            }
            walked = nearest;
            let column = open.swap_remove(place);
            if row_of[column] == NONE {
                break column;
            }
            reached.push(column);
            row = row_of[column];
        };
        of_rows[start] += walked;
        for &column in &reached {
            let slack = walked - distance[column];
            of_rows[row_of[column]] += slack;
            of_columns[column] -= slack;
        }
        // Back along the path: each of its rows takes the column that it was left by.
        let mut column = free;
        loop {
            let row = from[column];
            row_of[column] = row;
            column = std::mem::replace(&mut column_of[row], column);
            if row == start {
                break;
            }
        }
    }
    column_of.into_iter().enumerate().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pathfinding::prelude::{Matrix, kuhn_munkres_min};
    use proptest::prelude::*;

    fn total(costs: &[f64], columns: usize, pairs: &[(usize, usize)]) -> f64 {
        pairs.iter().map(|&(row, column)| costs[row * columns + column]).sum()
    }

    /// The least total over all ways to give each of the rows left a column of its own.
    fn by_force(costs: &[f64], columns: usize, row: usize, taken: &mut Vec<bool>) -> f64 {
        if row * columns == costs.len() {
            return 0.0;
        }
        let mut least = f64::INFINITY;
        for column in 0..columns {
            if !std::mem::replace(&mut taken[column], true) {
                least = least.min(costs[row * columns + column] + by_force(costs, columns, row + 1, taken));
                taken[column] = false;
            }
        }
        least
    }

    fn are_pairs(pairs: &[(usize, usize)], rows: usize, columns: usize) {
        assert_eq!(pairs.len(), rows.min(columns));
        assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0));
        let mut taken: Vec<usize> = pairs.iter().map(|pair| pair.1).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), pairs.len());
    }

    #[test]
    fn the_worked_example() {
        let costs = [4.0, 1.0, 3.0, 2.0, 0.0, 5.0, 3.0, 2.0, 2.0, 1.0, 5.0, 9.0];
        let pairs = assign(&costs, 4, 3).unwrap();
        assert_eq!(pairs, [(1, 1), (2, 2), (3, 0)]);
        assert_eq!(total(&costs, 3, &pairs), 3.0);
    }

    #[test]
    fn nothing_has_no_pairs() {
        assert_eq!(assign(&[], 0, 5).unwrap(), []);
        assert_eq!(assign(&[], 5, 0).unwrap(), []);
        assert_eq!(assign(&[7.0], 1, 1).unwrap(), [(0, 0)]);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let told = assign(&[1.0, 2.0, wrong, 4.0], 2, 2).unwrap_err().to_string();
            assert!(told.contains("row 1, column 0 of 2 × 2"), "{told}");
        }
    }

    proptest! {
        /// Whole numbers make ties.
        #[test]
        fn small_tables_are_those_of_brute_force(rows in 1_usize..6, columns in 1_usize..7, numbers in prop::collection::vec(-9_i32..9, 42)) {
            let costs: Vec<f64> = numbers[..rows * columns].iter().map(|&n| f64::from(n)).collect();
            let pairs = assign(&costs, rows, columns).unwrap();
            are_pairs(&pairs, rows, columns);
            let turned: Vec<f64> = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| costs[r * columns + c]).collect();
            let (flat, wide) = if rows <= columns { (&costs, columns) } else { (&turned, rows) };
            prop_assert_eq!(total(&costs, columns, &pairs), by_force(flat, wide, 0, &mut vec![false; wide]));
        }

        #[test]
        fn large_tables_are_those_of_another_library(rows in 1_usize..60, more in 0_usize..90, seed: u64) {
            let columns = rows + more;
            let mut state = seed | 1;
            let mut number = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 44) as i64
            };
            let numbers: Vec<i64> = (0..rows * columns).map(|_| number()).collect();
            let costs: Vec<f64> = numbers.iter().map(|&n| n as f64).collect();
            let pairs = assign(&costs, rows, columns).unwrap();
            are_pairs(&pairs, rows, columns);
            let least = kuhn_munkres_min(&Matrix::from_vec(rows, columns, numbers).unwrap()).0;
            prop_assert_eq!(total(&costs, columns, &pairs), least as f64);
        }
    }
}
