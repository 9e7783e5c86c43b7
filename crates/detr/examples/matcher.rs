//! Speed of the matching: `matcher ROWS COLUMNS` prints the median seconds of a table of costs, and what the pairs cost, as JSON.
//! SciPy solves the same table by `linear_sum_assignment(2 * golden.uniform("costs", rows * columns).reshape(rows, columns))`.

use std::time::Instant;

use detr::matcher::assign;
use repro::{Result, golden, user};

/// How often each table is solved.
const TIMES: usize = 201;

fn main() -> Result<()> {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [rows, columns] = sizes[..] else { return Err(user!("give rows and columns, such as 100 20")) };
    let costs: Vec<f64> = Vec::try_from(golden::input("costs", &[(rows * columns) as i64]))?;
    let mut seconds = Vec::with_capacity(TIMES);
    let mut total = 0.0;
    for _ in 0..TIMES {
        let begun = Instant::now();
        let pairs = assign(&costs, rows, columns)?;
        seconds.push(begun.elapsed().as_secs_f64());
        total = pairs.iter().map(|&(row, column)| costs[row * columns + column]).sum();
    }
    seconds.sort_by(f64::total_cmp);
    println!("{{\"rows\": {rows}, \"columns\": {columns}, \"seconds\": {:e}, \"cost\": {total}}}", seconds[TIMES / 2]);
    Ok(())
}
