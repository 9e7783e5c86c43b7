use std::fs;

use super::check;
use crate::testing::Checkout;
use crate::{evidence, pages};

const EVIDENCE: &str = "results/runs/toy/one/seed1.json";

#[test]
fn a_checkout_in_order_has_no_finding() {
    let checkout = Checkout::new();
    assert_eq!(check(checkout.root()).unwrap(), Vec::<String>::new());
}

/// Changes one file, and expects exactly one finding with these words.
fn finds(path: &str, from: &str, to: &str, words: &[&str]) {
    let checkout = Checkout::new();
    checkout.replace(path, from, to);
    let found = check(checkout.root()).unwrap();
    assert_eq!(found.len(), 1, "{path}, {from:?} → {to:?}: {found:#?}");
    for word in words {
        assert!(found[0].contains(word), "{word:?} in {}", found[0]);
    }
}

#[test]
fn pages_that_are_not_what_the_evidence_gives() {
    finds("results/toy.md", "2.10 %", "1.90 %", &["results/toy.md", "report write"]);
    let checkout = Checkout::new();
    checkout.write("results/figures/toy-f2.png", "no picture");
    checkout.write("results/other.md", "# Left over\n");
    let found = check(checkout.root()).unwrap();
    assert!(
        found.len() == 2 && found[0].contains("toy-f2.png") && found[1].contains("other.md: no table"),
        "{found:#?}"
    );
}

#[test]
fn evidence_whose_configuration_is_gone_or_changed() {
    finds(
        "experiments/toy/one.yaml",
        "2 epochs",
        "3 epochs",
        &[EVIDENCE, "another configuration", "run the experiment again"],
    );
    let checkout = Checkout::new();
    checkout.replace("results/toy.yaml", ", recipes: {one: plainly}", "");
    fs::remove_file(checkout.root().join("experiments/toy/one.yaml")).unwrap();
    checkout.write("experiments/toy/other.yaml", "seed: 1\n");
    let found = check(checkout.root()).unwrap();
    // The page still links to it.
    assert!(
        found.len() == 2 && found[0].contains("delete the evidence") && found[1].contains("leads nowhere"),
        "{found:#?}"
    );
}

#[test]
fn evidence_that_contradicts_itself_or_its_place() {
    finds(EVIDENCE, "\"seed\": 1", "\"seed\": 2", &["belongs to results/runs/toy/one/seed2.json"]);
    finds(EVIDENCE, "\"done\"", "\"interrupted\"", &["status is Interrupted"]);
    finds(EVIDENCE, "\"test/error\": 0.021", "\"test/erred\": 0.021", &["has no metric test/error"]);
    finds(EVIDENCE, "\"test/error\": 0.021", "\"test/error\": 0.020", &["add up to 1"]);
    finds(EVIDENCE, "\"seconds\": 100.5", "\"seconds\": 0", &["seconds"]);
    finds(EVIDENCE, "\"parameters\": 60000,\n", "", &["damaged", "parameters", "report add"]);
    finds(EVIDENCE, "\"env\": {\n  \"commit\": \"0", "\"env\": {\n  \"commit\": \"1", &["env.commit"]);
    finds(
        EVIDENCE,
        "\"monitor/error\": [[0.5,0.1],",
        "\"monitor/error\": [[7.5,0.1],",
        &["in the order of its epochs"],
    );
    let many: String = (0..201).map(|i| format!("[0.{i:03},1.0],")).collect();
    finds(EVIDENCE, "\"monitor/error\": [", &format!("\"monitor/error\": [{many}"), &["204 points"]);
}

/// The claim is not part of what a run is: a correction asks for new pages, and for no new run.
#[test]
fn a_printed_value_is_corrected_without_a_new_run() {
    let checkout = Checkout::new();
    let experiment = "experiments/toy/one.yaml";
    checkout.replace(experiment, "value: 0.02", "value: 0.0204");
    checkout.replace(experiment, "every: 1 epoch", "every: 2 epochs");
    checkout.replace("results/toy.yaml", "paper: 0.02,", "paper: 0.0204,");
    let found = check(checkout.root()).unwrap();
    // The page, and the figure that draws the value as a line.
    assert!(found.len() == 2 && found.iter().all(|found| found.contains("report write")), "{found:#?}");
    pages::write(checkout.root()).unwrap();
    assert_eq!(check(checkout.root()).unwrap(), Vec::<String>::new());
    assert!(checkout.read("results/toy.md").contains("| 2.04 % | 2.10 %"), "{}", checkout.read("results/toy.md"));
}

#[test]
fn experiments_that_the_layout_does_not_know() {
    finds(
        "results/toy.yaml",
        "label: \"[a] One\", paper: 0.02",
        "label: One, paper: 0.03",
        &["paper.value is 0.02", "0.03"],
    );
    finds("results/toy.yaml", "{one: plainly}", "{one: plainly, two: so}", &["recipe for two"]);
    finds("results/toy.yaml", "{one: plainly}", "{one: plainly}, why: {two: so}", &["a reason why for two"]);
    finds(
        "results/toy.yaml",
        "test_examples: 10000",
        "test_examples: 10000\n    paper_recipe: [two]",
        &["t1 has a paper_recipe two"],
    );
    let checkout = Checkout::new();
    let other = |name: &str, claim: &str| {
        checkout.write(&format!("experiments/toy/{name}.yaml"), &format!("seed: 1\npaper: {claim}\n"))
    };
    other("a", "{table: t9, row: one, metric: test/error}");
    other("b", "{table: t1, row: three, metric: test/error}");
    other("c", "{table: t1, row: two, metric: test/accuracy, value: 0.5}");
    let found = check(checkout.root()).unwrap();
    assert_eq!(found.len(), 3, "{found:#?}");
    for (found, words) in found.iter().zip(["paper.table is t9", "paper.row is three", "paper.metric is test/accuracy"])
    {
        assert!(found.contains(words), "{words} in {found}");
    }
}

#[test]
fn a_row_that_is_called_deterministic_and_is_not() {
    let checkout = Checkout::new();
    checkout.replace("results/toy.yaml", "{one: plainly}", "{one: plainly}, deterministic: true");
    let add = |seed: u64, error: f64| {
        evidence::add(checkout.root(), &checkout.run(seed, error)).unwrap();
        check(checkout.root()).unwrap()
    };
    pages::write(checkout.root()).unwrap();
    assert_eq!(check(checkout.root()).unwrap(), Vec::<String>::new());
    assert!(add(2, 0.021).iter().all(|found| found.contains("report write")));
    let found = add(3, 0.022);
    assert!(found.len() == 1 && found[0].contains("one is called deterministic, but its seeds differ"), "{found:#?}");
}

#[test]
fn the_paper_s_table_of_items() {
    let readme = "crates/toy/README.md";
    finds(readme, "`Net::layers`", "`Net::layer`", &["src/app.rs has no item `Net::layer`"]);
    finds(readme, "| paper | code |", "| paper | where |", &["no table"]);
    // A link to a file that is gone is two findings: of the table, and of the links.
    let checkout = Checkout::new();
    checkout.replace(readme, "(src/app.rs)", "(src/gone.rs)");
    let found = check(checkout.root()).unwrap();
    assert!(
        found.len() == 2 && found[0].contains("`Net::layers` in src/gone.rs") && found[1].contains("leads nowhere"),
        "{found:#?}"
    );
}

#[test]
fn links_that_lead_nowhere() {
    finds("crates/toy/README.md", "results/toy.md", "results/tox.md", &["crates/toy/README.md", "results/tox.md"]);
    finds(
        "CITATION.md",
        "# Citations",
        "# Citations\n\n[a](#toy) [b](https://x.org/y) ![c](pictures/c.png)",
        &["pictures/c.png"],
    );
}

#[test]
fn titles_and_arxiv_numbers() {
    finds(
        "crates/toy/src/app.rs",
        "title: \"A Toy: it Works\"",
        "title: \"A Toy: It Works\"",
        &["app.rs", "A Toy: It Works"],
    );
    finds(
        "crates/toy/src/app.rs",
        "(arXiv:2001.00001)",
        "(https://arxiv.org/abs/2001.00002v3)",
        &["app.rs:1", "2001.00002"],
    );
    finds("experiments/toy/one.yaml", "seed: 1\n", "# arXiv: 1999.12345\nseed: 1\n", &["one.yaml:1", "1999.12345"]);
    // Not the numbers of strings, but those of comments, wherever they stand.
    let app = "crates/toy/src/app.rs";
    finds(
        app,
        "struct Net;",
        "struct Net;\n    // arXiv:1999.12345\nconst A: &str = \"arXiv:1999.54321\";",
        &["app.rs:3", "12345"],
    );
    finds("CITATION.md", "## toy", "## toys", &["## toy"]);
    // The README's first lines, and the line with the number, both lose the title.
    let checkout = Checkout::new();
    checkout.replace("crates/toy/README.md", "A Toy: it Works", "A Toy");
    let found = check(checkout.root()).unwrap();
    assert!(found.len() == 2 && found[0].contains("first lines") && found[1].contains("README.md:3"), "{found:#?}");
}

#[test]
fn every_finding_is_listed_and_writing_mends_the_pages() {
    let checkout = Checkout::new();
    checkout.replace("results/toy.md", "2.10 %", "1.90 %");
    checkout.replace("CITATION.md", "# Citations", "# Citations [a](gone.md)");
    checkout.replace("crates/toy/README.md", "`Net::layers`", "`Gone`");
    assert_eq!(check(checkout.root()).unwrap().len(), 3);
    assert_eq!(pages::write(checkout.root()).unwrap().len(), 1);
    assert_eq!(check(checkout.root()).unwrap().len(), 2);
    assert_eq!(pages::write(checkout.root()).unwrap().len(), 0, "the same evidence gives the same bytes");
}
