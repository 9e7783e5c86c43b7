//! `ddpm metrics`: what is measured of two files of features, whatever made them.

use std::path::{Path, PathBuf};

use repro::answer::Answer;
use repro::cli::{Asked, note, say_json};
use repro::metrics::generative::{few, score};
use repro::weights::{self, Named};
use repro::{Result, user};
use serde_json::{Map, Value};
use tch::Tensor;

/// The files of [`metrics`].
pub fn flags(command: clap::Command) -> clap::Command {
    let file = |name: &'static str, help: &'static str| {
        let file = clap::Arg::new(name).long(name).value_name("FILE").required(true);
        file.value_parser(clap::value_parser!(PathBuf)).help(help)
    };
    command.arg(file("real", "Safetensors with `features` [N, D] of real pictures")).arg(file(
        "fake",
        "Safetensors with `features` [M, D] of generated pictures and, for the inception score, `probabilities` [M, K]",
    ))
}

/// `metrics --real A.safetensors --fake B.safetensors`: an object of `fid`, `kid`, `is` where there are probabilities, `precision` and `recall`
/// on stdout, computed in float64; on stderr what its reader must know. See [`repro::metrics::generative`] for what each is.
///
/// # Errors
/// Files that cannot be read or hold other tensors; those of [`score`].
pub fn metrics<C>(asked: &Asked<C>) -> Result<Vec<Answer>> {
    if let Some(word) = asked.words.first() {
        let word = word.display();
        return Err(user!("{word} is not understood here: metrics --real A.safetensors --fake B.safetensors"));
    }
    let file = |name: &str| asked.flags.get_one::<PathBuf>(name).ok_or_else(|| user!("--{name} FILE is missing"));
    let (found, warning) = measured(file("real")?, file("fake")?)?;
    warning.into_iter().for_each(note);
    say_json(&found)?;
    Ok(Vec::new())
}

/// The metrics of two files, and what their reader must know.
fn measured(real: &Path, fake: &Path) -> Result<(Map<String, Value>, Option<String>)> {
    let (real_tensors, _) = weights::read(real)?;
    let (fake_tensors, _) = weights::read(fake)?;
    let (real, fake) = (features(real, &real_tensors)?, features(fake, &fake_tensors)?);
    let found = score(real, fake, fake_tensors.get("probabilities"))?;
    Ok((found.into_iter().map(|(name, value)| (name.to_string(), value.into())).collect(), few(real, fake)))
}

fn features<'a>(file: &Path, tensors: &'a Named) -> Result<&'a Tensor> {
    tensors.get("features").ok_or_else(|| {
        let names: Vec<&str> = tensors.keys().map(String::as_str).take(5).collect();
        user!("{}: there is no tensor named features [N, D]; it holds {}", file.display(), names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use repro::golden;

    use super::*;

    #[test]
    fn two_files_are_measured() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, tensors: Named| {
            let file = folder.path().join(name);
            weights::write(&file, &tensors, None).unwrap();
            file
        };
        let one = |name: &str, tensor: Tensor| Named::from([(name.to_string(), tensor)]);
        let (real, fake) = (golden::input("real", &[9, 4]), golden::input("fake", &[8, 4]));
        let probabilities = golden::input("logits", &[8, 3]).softmax(1, tch::Kind::Float);
        let first = write("real", one("features", real.shallow_clone()));
        let second = write("fake", one("features", fake.shallow_clone()));
        let (found, warning) = measured(&first, &second).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["fid", "kid", "precision", "recall"]);
        assert_eq!(warning, None);
        let mut both = one("features", fake.shallow_clone());
        both.extend(one("probabilities", probabilities.shallow_clone()));
        let (found, _) = measured(&first, &write("both", both)).unwrap();
        for (name, value) in score(&real, &fake, Some(&probabilities)).unwrap() {
            // To the last digit.
            let text = found[name].to_string();
            assert_eq!(text.parse::<f64>().unwrap(), value, "{name}: {text}");
        }
        let wide = write("wide", one("features", golden::input("wide", &[9, 9])));
        assert!(measured(&wide, &wide).unwrap().1.is_some_and(|text| text.contains("too few")));
        let other = write("other", one("logits", real));
        let error = measured(&first, &other).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("it holds logits"), "{error}");
        assert!(measured(&first, &wide).unwrap_err().to_string().contains("4 features and generated ones 9"));
    }
}
