use super::*;
use crate::testing::Checkout;
use crate::{noise, plots, render};

fn names(experiments: &[&Experiment]) -> Vec<String> {
    experiments.iter().map(|e| e.name.clone()).collect()
}

#[test]
fn a_table_has_a_line_for_each_configuration_of_a_row() {
    let checkout = Checkout::new();
    checkout.write("experiments/toy/late.yaml", crate::testing::EXPERIMENT);
    for (seed, error) in [(2, 0.0205), (3, 0.0200)] {
        evidence::add(checkout.root(), &checkout.run(seed, error)).unwrap();
    }
    let paper = Paper::read(checkout.root(), "toy").unwrap();
    let page = render::section(&paper, paper.table("t1").unwrap()).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(
        rows,
        [
            "| [a] One | 2.00 % | – | not run | – | – | – | – | – | [late](../experiments/toy/late.yaml) |",
            "| [a] One: plainly | 2.00 % | 2.05 ± 0.05 % ([3 seeds](runs/toy/one)) | **reproduced** | 2 | 60,000 | 101 | A CPU, 1 \
             thread | 0123456 | [one](../experiments/toy/one.yaml) |",
            "| Two | 50.00 % | – | no experiment | – | – | – | – | – | – |",
        ]
    );
    assert!(page.contains("5 min of training in 3 runs"), "{page}");
    assert!(page.contains("Not counted: 1 experiment without a run"), "{page}");
}

#[test]
fn a_drawn_table_keeps_its_rows_and_tells_when_a_curve_came_low() {
    let checkout = Checkout::new();
    let to = "test_examples: 10000\n    curves: {x: passes, y: error, curve: monitor/error, lines: [{label: One, config: one}]}";
    checkout.replace("results/toy.yaml", "test_examples: 10000", to);
    let lines = |page: &str| page.lines().filter(|line| line.starts_with("| ")).map(String::from).collect::<Vec<_>>();
    let section = || {
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        render::section(&paper, paper.table("t1").unwrap()).unwrap()
    };
    let page = section();
    assert!(page.contains("figures/toy-t1.png") && page.contains("in 1 run,"), "{page}");
    let plain = lines(&page);
    assert_eq!(plain.len(), 3, "{page}");
    assert!(plain[1].contains("| 2.10 % ([1 seed]") && !plain[0].contains("epochs to"), "{page}");

    // The curve: 10 % at half an epoch, 5 % at one, 3.3 % at one and a half.
    for (value, told) in [("0.05", "1.0"), ("0.049", "1.5"), ("0.03", "not reached")] {
        let reach =
            format!("reach: {{label: epochs to, curve: monitor/error, value: {value}}}\n    test_examples: 10000");
        checkout.replace("results/toy.yaml", "test_examples: 10000", &reach);
        let rows = lines(&section());
        assert!(rows[0].contains("| ours | epochs to | status |"), "{rows:?}");
        assert!(rows[1].contains(&format!("([1 seed](runs/toy/one)) | {told} | partial")), "{rows:?}");
        assert!(rows[2].contains("| – | – | no experiment |"), "{rows:?}");
        checkout.replace("results/toy.yaml", &reach, "test_examples: 10000");
    }
}

#[test]
fn plots_are_of_all_seeds_and_end_in_the_result() {
    let checkout = Checkout::new();
    evidence::add(checkout.root(), &checkout.run(2, 0.025)).unwrap();
    let paper = Paper::read(checkout.root(), "toy").unwrap();
    let over_epochs = plots::of(&paper, paper.table("f2").unwrap()).unwrap();
    let curve = &over_epochs.curves[0];
    assert_eq!(curve.label, "One (2 seeds)");
    assert_eq!(curve.points.iter().map(|p| p.0).collect::<Vec<_>>(), [0.5, 1.0, 1.5, 2.0]);
    let (x, low, high) = curve.band[3];
    // 2.1 and 2.5 %: mean 2.3, standard deviation 0.4/√2.
    assert!(x == 2.0 && (curve.points[3].1 - 2.3).abs() < 1e-9 && (high - low - 0.8 / 2f64.sqrt()).abs() < 1e-9);
    let level = &over_epochs.levels[0];
    assert!(level.label == "paper, One: 2.00 %" && (level.value - 2.0).abs() < 1e-12, "{level:?}");
    assert_eq!((over_epochs.levels.len(), curve.beside.len()), (1, 0));
    let png = || plots::png(&plots::picture(&paper, paper.table("f2").unwrap()).unwrap().unwrap()).unwrap();
    assert_eq!(png(), png());
    assert!(plots::of(&paper, paper.table("t1").unwrap()).is_none());
}

#[test]
fn a_line_over_sizes_is_drawn_from_three_points_on() {
    let checkout = Checkout::new();
    checkout.replace("results/toy.yaml", "{half: 1000, one: 2000}", "{half: 1000, one: 2000, more: 3000}");
    let drawn = || {
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        plots::of(&paper, paper.table("f3").unwrap())
    };
    let run = |config: &str, error: f64| {
        checkout.write(&format!("experiments/toy/{config}.yaml"), crate::testing::EXPERIMENT);
        let run = checkout.changed_run(1, error, &|result| result["config"] = config.into());
        evidence::add(checkout.root(), &run).unwrap();
    };
    run("half", 0.05);
    assert!(drawn().is_none(), "two points are no line");
    run("more", 0.01);
    let plot = drawn().unwrap();
    let expected = [(1000.0, 5.0), (2000.0, 2.1), (3000.0, 1.0)];
    assert!(plot.curves[0].points.iter().zip(expected).all(|(p, e)| p.0 == e.0 && (p.1 - e.1).abs() < 1e-9));
}

#[test]
fn training_stands_beside_and_the_value_of_a_column_is_a_line() {
    let checkout = Checkout::new();
    let beside = "curve: monitor/error, beside: {curve: train/loss, label: training}, lines";
    checkout.replace("results/toy.yaml", "curve: monitor/error, lines", beside);
    let to = "    title: \"Figure 2\"\n    reach: {label: epochs to, curve: monitor/error, value: 0.05}\n";
    checkout.replace("results/toy.yaml", "    title: \"Figure 2\"\n", to);
    let paper = Paper::read(checkout.root(), "toy").unwrap();
    let plot = plots::of(&paper, paper.table("f2").unwrap()).unwrap();
    assert_eq!((plot.beside.as_str(), plot.curves[0].beside.len()), ("training", evidence::MOST_POINTS));
    let levels: Vec<_> = plot.levels.iter().map(|level| level.label.as_str()).collect();
    assert_eq!(levels, ["5.00 %", "paper, One: 2.00 %"]);
}

#[test]
fn numbers_of_a_run_stand_beside_each_other() {
    let checkout = Checkout::new();
    let to = "test_examples: 10000\n    numbers: {corner: sampler, columns: [a, b], rows: [{label: ten steps, config: one, metrics: [test/error, ~]}]}";
    checkout.replace("results/toy.yaml", "test_examples: 10000", to);
    evidence::add(checkout.root(), &checkout.run(2, 0.025)).unwrap();
    let paper = || Paper::read(checkout.root(), "toy").unwrap();
    assert_eq!(paper().problems(), Vec::<String>::new());
    let page = render::section(&paper(), paper().table("t1").unwrap()).unwrap();
    assert!(
        page.contains("| sampler | a | b | seeds |\n|---|---|---|---|\n| ten steps | 2.30 ± 0.28 % | – | 2 |"),
        "{page}"
    );
    checkout.replace(
        "results/toy.yaml",
        "config: one, metrics: [test/error, ~]",
        "config: gone, metrics: [test/error]",
    );
    let problems = paper().problems();
    assert!(problems.len() == 2 && problems[0].contains("1 metrics for 2 columns"), "{problems:?}");
    assert!(problems[1].contains("there is no such experiment"), "{problems:?}");
}

/// Two rows and columns; the cells are `a`, `b`, `c`, and none.
const MATRIX: &str = "
  - name: f4
    title: \"Figure 4\"
    metric: test/error
    matrix:
      axes: [first, second]
      rows: [crop, blur]
      columns: [crop, blur]
      scale: error
      mean: mean
      cells: [[a, b], [c, ~]]
";

fn with_matrix(runs: &[(&str, u64, f64)]) -> Checkout {
    let checkout = Checkout::new();
    checkout.write("results/toy.yaml", &(checkout.read("results/toy.yaml") + MATRIX));
    for config in ["a", "b", "c"] {
        let claim = crate::testing::EXPERIMENT.replace("table: t1, row: one", "table: f4, row: any");
        checkout.write(&format!("experiments/toy/{config}.yaml"), &claim);
    }
    for (config, seed, error) in runs {
        let run = checkout.changed_run(*seed, *error, &|result| result["config"] = (*config).into());
        evidence::add(checkout.root(), &run).unwrap();
    }
    checkout
}

#[test]
fn a_matrix_has_the_means_of_its_cells_and_of_its_rows() {
    let checkout = with_matrix(&[("a", 1, 0.10), ("a", 2, 0.30), ("b", 1, 0.40)]);
    let paper = Paper::read(checkout.root(), "toy").unwrap();
    assert_eq!(paper.problems(), Vec::<String>::new());
    let table = paper.table("f4").unwrap();
    let matrix = plots::matrix(&paper, table).unwrap();
    // (10 + 30) / 2 = 20; the row's mean is one of cells and not of runs: (20 + 40) / 2.
    let expected = [[Some(20.0), Some(40.0), Some(30.0)], [None; 3]];
    for (found, expected) in matrix.cells.iter().flatten().zip(expected.as_flattened()) {
        assert!(found.zip(*expected).is_some_and(|(a, b)| (a - b).abs() < 1e-9) || (*found, *expected) == (None, None));
    }
    assert_eq!(matrix.texts, [["20.00 %", "40.00 %", "30.00 %"], ["not run"; 3]]);
    assert_eq!(matrix.columns, ["crop", "blur", "mean"]);
    assert!((matrix.range.0 - 20.0).abs() < 1e-9 && (matrix.range.1 - 40.0).abs() < 1e-9, "{:?}", matrix.range);
    let page = render::section(&paper, table).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(page.contains("![Figure 4](figures/toy-f4.png)"), "{page}");
    assert_eq!(rows.len(), 3, "an empty cell has no row");
    for (row, told) in rows.iter().zip([
        "| crop | – | 20.00 ± 14.14 %",
        "| crop, blur | – | 40.00 %",
        "| blur, crop | – | – | not run",
    ]) {
        assert!(row.starts_with(told), "{row}");
    }
    assert_eq!(names(&select(&paper, table, None).unwrap()), ["a", "b", "c"]);
    crate::pages::write(checkout.root()).unwrap();
    assert!(checkout.root().join("results/figures/toy-f4.png").is_file());
}

#[test]
fn a_matrix_without_evidence_has_no_picture_and_without_a_heading_no_mean() {
    let section = |checkout: &Checkout| {
        let paper = Paper::read(checkout.root(), "toy").unwrap();
        let table = paper.table("f4").unwrap();
        (plots::matrix(&paper, table).map(|matrix| matrix.columns), render::section(&paper, table).unwrap())
    };
    let (columns, page) = section(&with_matrix(&[]));
    assert!(columns.is_none() && page.contains("No picture yet: no cell was run."), "{page}");
    let checkout = with_matrix(&[("c", 1, 0.2)]);
    checkout.replace("results/toy.yaml", "      mean: mean\n", "");
    assert_eq!(section(&checkout).0.unwrap(), ["crop", "blur"]);
}

#[test]
fn a_matrix_that_does_not_fit_the_experiments_is_found() {
    let checkout = with_matrix(&[("a", 1, 0.1)]);
    let found = |cells: &str, rest: &str| {
        checkout.replace("results/toy.yaml", "cells: [[a, b], [c, ~]]", &format!("cells: {cells}{rest}"));
        let found = Paper::read(checkout.root(), "toy").unwrap().problems();
        checkout.replace("results/toy.yaml", &format!("cells: {cells}{rest}"), "cells: [[a, b], [c, ~]]");
        assert_eq!(found.len(), 1, "{cells}: {found:#?}");
        found[0].clone()
    };
    let plot = "\n    points: {x: x, y: y, lines: []}";
    for (cells, rest, words) in [
        ("[[a, b], [c, gone]]", "", "f4 has a cell for gone, but no such experiment"),
        ("[[a, b], [c, one]]", "", "f4 has a cell for one, but no such experiment stands for it"),
        ("[[a, b], [c, a]]", "", "f4 has two cells of a"),
        ("[[a, b], [c]]", "", "f4 names 2 rows and 2 columns"),
        ("[[a, b], [c, ~], [~, ~]]", "", "f4 names 2 rows and 2 columns"),
        ("[[a, b], [~, ~]]", "", "c.yaml: paper.row is any, which table f4"),
        ("[[a, b], [c, ~]]", plot, "f4 has a matrix and a plot"),
    ] {
        assert!(found(cells, rest).contains(words), "{words}: {}", found(cells, rest));
    }
}

/// The row of `one` on the page, with a word changed in the layout.
fn told(errors: &[f64], row: &str, table: &str) -> String {
    let checkout = Checkout::new();
    std::fs::remove_file(checkout.root().join("results/runs/toy/one/seed1.json")).unwrap();
    for (seed, error) in (1..).zip(errors) {
        evidence::add(checkout.root(), &checkout.run(seed, *error)).unwrap();
    }
    checkout.replace("results/toy.yaml", "recipes: {one: plainly}", &format!("recipes: {{one: plainly}}{row}"));
    checkout.replace("results/toy.yaml", "test_examples: 10000", &format!("test_examples: 10000{table}"));
    let paper = Paper::read(checkout.root(), "toy").unwrap();
    assert_eq!(paper.problems(), Vec::<String>::new());
    render::section(&paper, paper.table("t1").unwrap()).unwrap()
}

#[test]
fn a_miss_is_explained_or_said_to_be_unexplained() {
    let far = [0.05, 0.05, 0.05];
    let page = told(&far, "", "");
    assert!(page.contains("| missed by 3.00 points (allowed: 0.20 points) |"), "{page}");
    assert!(page.contains("- [a] One: plainly: not explained yet."), "{page}");
    let page = told(&far, ", why: {one: the pictures are too small.}", "");
    assert!(page.contains("- [a] One: plainly: the pictures are too small."), "{page}");
    assert!(told(&far[..1], "", "").contains("missed by 3.00 points (allowed: 0.20 points), 1 of 3 seeds |"));
    let page = told(&[0.02, 0.02, 0.02], ", why: {one: the pictures are too small.}", "");
    assert!(
        page.contains("**reproduced**") && !page.contains("too small"),
        "a reason is printed for a miss only: {page}"
    );
}

#[test]
fn another_recipe_and_a_method_without_chance_say_so() {
    let best = [0.01, 0.01, 0.01];
    assert!(told(&best, "", "").contains("| **reproduced** |"));
    assert!(told(&best, "", "\n    paper_recipe: [one]").contains("| **reproduced** |"));
    assert!(told(&best, "", "\n    paper_recipe: []").contains("| better, other recipe |"));
    let page = told(&[0.0201], ", deterministic: true", "");
    assert!(page.contains("| 2.01 % ([deterministic](runs/toy/one)) | **reproduced** |"), "{page}");
    assert!(told(&[0.0201], "", "").contains("| partial: 1 of 3 seeds |"));
}

#[test]
fn every_page_prints_the_rule() {
    let page = Checkout::new().read("results/toy.md");
    assert!(page.contains("t·sd/√n + 2·√(p(1 − p)/N)") && page.contains("a tenth of p"), "{page}");
}

#[test]
fn rows_and_configurations_are_chosen_by_name() {
    let checkout = Checkout::new();
    checkout.write("experiments/toy/late.yaml", crate::testing::EXPERIMENT);
    let paper = Paper::read(checkout.root(), "toy").unwrap();
    let table = paper.table("t1").unwrap();
    let chosen = |wanted: Option<&str>| select(&paper, table, wanted).map(|found| names(&found));
    assert_eq!(chosen(None).unwrap(), ["late", "one"]);
    assert_eq!(chosen(Some("one")).unwrap(), ["late", "one"], "a row stands for all its configurations");
    assert_eq!(chosen(Some("one.yaml")).unwrap(), ["one"]);
    assert_eq!(chosen(Some("late")).unwrap(), ["late"]);
    for (wrong, words) in [("two", "no experiment"), ("three", "late, one")] {
        let error = chosen(Some(wrong)).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(words), "{error}");
    }
    assert!(paper.table("t9").unwrap_err().to_string().contains("toy/t1, toy/f2, toy/f3"));
    assert!(Paper::read(checkout.root(), "tox").unwrap_err().to_string().contains("papers: toy"));
    assert_eq!(names(&select(&paper, paper.table("f3").unwrap(), None).unwrap()), ["one"]);
}

#[test]
fn noise_needs_two_seeds() {
    let checkout = Checkout::new();
    let of = |name: &str| noise::report(&Paper::read(checkout.root(), "toy").unwrap(), name);
    let alone = of("one").unwrap_err();
    assert!(alone.exit_code() == 2 && alone.to_string().contains("one seed has no spread"), "{alone}");
    evidence::add(checkout.root(), &checkout.run(2, 0.023)).unwrap();
    // sd = 0.002/√2; with 2 degrees of freedom t is 4.3027 and 1.0607, times √(2/2).
    let told = of("one").unwrap();
    assert!(told.contains("2.20 ± 0.14 %") && told.contains("0.76 %"), "{told}");
    assert!(of("three").unwrap_err().to_string().contains("there are: one"));
}
