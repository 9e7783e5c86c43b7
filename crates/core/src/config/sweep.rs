//! `--sweep key=a,b,c`: one list of overrides per combination of values.

use super::layers::split_assignment;
use crate::{Result, user};

/// The cross product of sweep specifications, each `key=a,b,c`: one list of `key=value` overrides per run, the last
/// specification varying fastest. Commas inside brackets, braces and quotes do not separate. No specification: one run without overrides.
///
/// # Errors
/// [`Error::User`](crate::Error::User) for a missing `=`, an empty key or value, a key given twice, a bracket or quote left open.
pub fn sweep(specs: &[String]) -> Result<Vec<Vec<String>>> {
    let mut runs: Vec<Vec<String>> = vec![vec![]];
    let mut keys = Vec::new();
    for spec in specs {
        let (key, list) = split_assignment(spec).map_err(|why| user!("--sweep {spec}: {why}"))?;
        if keys.contains(&key) {
            return Err(user!("--sweep {spec}: {key} is swept twice; give all its values in one list"));
        }
        keys.push(key);
        let values = split_list(list).map_err(|why| user!("--sweep {spec}: {why}"))?;
        if let Some((_, twice)) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value)) {
            return Err(user!("--sweep {spec}: {twice} stands twice; each value is one run"));
        }
        runs = runs
            .iter()
            .flat_map(|run| values.iter().map(|value| [run.as_slice(), &[format!("{key}={value}")]].concat()))
            .collect();
    }
    Ok(runs)
}

fn split_list(list: &str) -> Result<Vec<&str>, String> {
    let (mut values, mut start) = (Vec::new(), 0);
    let mut open: Vec<char> = Vec::new(); // what closes the innermost bracket or quote
    for (at, c) in list.char_indices() {
        match (open.last(), c) {
            (Some(close), c) if c == *close => drop(open.pop()),
            (Some('"' | '\''), _) => {}
            (_, '[') => open.push(']'),
            (_, '{') => open.push('}'),
            (_, '"' | '\'') => open.push(c),
            (None, ',') => {
                values.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    values.push(list[start..].trim());
    match open.last() {
        Some(close) => Err(format!("a `{close}` is missing")),
        None if values.contains(&"") => Err("a value is missing; write key=a,b,c".to_string()),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(specs: &[&str]) -> Result<Vec<Vec<String>>> {
        sweep(&specs.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn cross_product() {
        assert_eq!(run(&[]).unwrap(), [Vec::<String>::new()]);
        let runs = run(&["seed=1,2", "optim.base_lr=0.1,0.2, 0.3"]).unwrap();
        assert_eq!(runs.len(), 6);
        assert_eq!(runs[0], ["seed=1", "optim.base_lr=0.1"]);
        assert_eq!(runs[5], ["seed=2", "optim.base_lr=0.3"]);
    }

    #[test]
    fn commas_inside_brackets_and_quotes() {
        let runs = run(&["schedule.scale=[1,0.1],[1,[2,3]]", r#"data.root="a,b",'c,]'"#, "optim={kind: sgd, m: 0},x"])
            .unwrap();
        assert_eq!(runs.len(), 8);
        assert_eq!(runs[0], ["schedule.scale=[1,0.1]", r#"data.root="a,b""#, "optim={kind: sgd, m: 0}"]);
        assert_eq!(runs[7], ["schedule.scale=[1,[2,3]]", "data.root='c,]'", "optim=x"]);
    }

    #[test]
    fn mistakes() {
        for (specs, says) in [
            (&["seed"][..], "write key=value"),
            (&["=1,2"], "key"),
            (&["seed="], "value is missing"),
            (&["seed=1,,2"], "value is missing"),
            (&["seed=1", "seed=2"], "twice"),
            (&["seed=1,2, 1"], "1 stands twice"),
            (&["a=[1,2"], "`]` is missing"),
            (&["a='x"], "`'` is missing"),
        ] {
            let error = run(specs).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(says), "{specs:?}: {error}");
        }
    }
}
