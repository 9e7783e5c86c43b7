//! Lengths and times as one scalar with its unit: `20 epochs`, `64000 steps`, `25 minutes`. A bare number is refused,
//! since 200 may mean either steps or epochs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// How long something lasts. In YAML `<number> step(s)` or `<number> epoch(s)`, never negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// Updates of the weights; a whole number.
    Steps(u64),
    /// Passes over the training set; may be a fraction. Finite, at least 0.
    Epochs(f64),
}

impl Length {
    /// The number of steps, rounded to the nearest; `steps_per_epoch` does not count the partial batch that training drops.
    pub fn steps(&self, steps_per_epoch: u64) -> u64 {
        match self {
            Length::Steps(steps) => *steps,
            Length::Epochs(epochs) => (epochs * steps_per_epoch as f64).round() as u64,
        }
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        matches!(self, Length::Steps(0)) || matches!(self, Length::Epochs(e) if *e == 0.0)
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write a number and its unit, such as `20 epochs` or `500 steps`";
        let (number, unit) = number_and_unit(text, FORM)?;
        match unit {
            "epoch" | "epochs" => Ok(Length::Epochs(number)),
            "step" | "steps" if number.fract() != 0.0 => Err(format!("`{text}` is not a whole number of steps")),
            // An f64 holds whole numbers exactly only up to 2^53, so the digits are read again where they can be.
            "step" | "steps" => Ok(Length::Steps(first_word(text).parse().unwrap_or(number as u64))),
            _ => Err(format!("unknown unit `{unit}` in `{text}`; {FORM}")),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Length::Steps(1) => write!(f, "1 step"),
            Length::Steps(steps) => write!(f, "{steps} steps"),
            Length::Epochs(1.0) => write!(f, "1 epoch"),
            Length::Epochs(epochs) => write!(f, "{epochs} epochs"),
        }
    }
}

/// A cadence: in YAML `never` or a [`Length`] above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Every {
    /// Not at all.
    Never,
    /// After each such length, counted from the start of the stage.
    Each(Length),
}

impl Every {
    /// The cadence in steps, at least 1; `None` for never.
    pub fn steps(&self, steps_per_epoch: u64) -> Option<u64> {
        match self {
            Every::Never => None,
            Every::Each(length) => Some(length.steps(steps_per_epoch).max(1)),
        }
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "never" {
            return Ok(Every::Never);
        }
        let length = Length::from_str(text).map_err(|e| format!("{e}, or `never`"))?;
        if length.is_zero() {
            return Err(format!("`{text}` must be more than 0; to switch it off write `never`"));
        }
        Ok(Every::Each(length))
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Every::Never => write!(f, "never"),
            Every::Each(length) => length.fmt(f),
        }
    }
}

/// A wall-clock limit above zero: in YAML `<number> second(s)|minute(s)|hour(s)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit(pub Duration);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write a number and its unit, such as `90 seconds`, `25 minutes` or `2 hours`";
        let (number, unit) = number_and_unit(text, FORM)?;
        let seconds = match unit {
            "second" | "seconds" => number,
            "minute" | "minutes" => number * 60.0,
            "hour" | "hours" => number * 3600.0,
            _ => return Err(format!("unknown unit `{unit}` in `{text}`; {FORM}")),
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) if time.is_zero() => Err(format!("`{text}` must be more than 0; for no limit leave the key away")),
            Ok(time) => Ok(Limit(time)),
            Err(_) => Err(format!("`{text}` is too long; for no limit leave the key away")),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let (number, unit) = match seconds {
            s if s % 3600.0 == 0.0 => (s / 3600.0, "hour"),
            s if s % 60.0 == 0.0 => (s / 60.0, "minute"),
            s => (s, "second"),
        };
        write!(f, "{number} {unit}{}", if number == 1.0 { "" } else { "s" })
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Splits `20 epochs`; the number is finite and not negative.
fn number_and_unit<'a>(text: &'a str, form: &str) -> Result<(f64, &'a str), String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = words.first().and_then(|word| word.parse::<f64>().ok());
    match (number, words.as_slice()) {
        (Some(number), _) if number.is_nan() || number.is_infinite() => {
            Err(format!("`{text}` is not a finite number; {form}"))
        }
        (Some(number), _) if number < 0.0 => Err(format!("`{text}` must not be negative; {form}")),
        (Some(_), [_]) => Err(format!("`{text}` has no unit; {form}")),
        (Some(number), [_, unit]) => Ok((number.abs(), unit)), // abs: `-0` is zero
        _ => Err(format!("cannot read `{text}`; {form}")),
    }
}

/// Takes whatever scalar YAML saw, so that a bare number meets [`FromStr`] and its message and not serde's.
struct Scalar<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number and its unit")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! from_scalar {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Scalar(std::marker::PhantomData))
            }
        }
    )*};
}
from_scalar!(Length, Every, Limit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written() {
        for (text, length, canonical) in [
            ("20 epochs", Length::Epochs(20.0), "20 epochs"),
            ("1 epochs", Length::Epochs(1.0), "1 epoch"),
            ("0.5 epoch", Length::Epochs(0.5), "0.5 epochs"),
            ("64000 steps", Length::Steps(64000), "64000 steps"),
            ("  1   step ", Length::Steps(1), "1 step"),
            ("1e3 steps", Length::Steps(1000), "1000 steps"),
            ("9007199254740993 steps", Length::Steps(9_007_199_254_740_993), "9007199254740993 steps"),
        ] {
            assert_eq!(text.parse(), Ok(length), "{text}");
            assert_eq!(length.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(length));
        }
    }

    #[test]
    fn steps_are_rounded() {
        assert_eq!(Length::Steps(7).steps(100), 7);
        assert_eq!(Length::Epochs(1.5).steps(937), 1406); // 1405.5
        assert_eq!(Length::Epochs(0.1).steps(4), 0);
        assert_eq!(Every::Each(Length::Epochs(0.1)).steps(4), Some(1));
        assert_eq!(Every::Never.steps(4), None);
    }

    #[test]
    fn wrong_lengths_are_refused_with_the_right_form() {
        for (text, says) in [
            ("200", "`200` has no unit"),
            ("-3 epochs", "must not be negative"),
            ("NaN steps", "not a finite number"),
            ("inf epochs", "not a finite number"),
            ("3 weeks", "unknown unit `weeks`"),
            ("3 epochs ago", "cannot read"),
            ("epochs", "cannot read"),
            ("", "cannot read"),
        ] {
            let error = text.parse::<Length>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(error.contains("`20 epochs` or `500 steps`"), "{text}: {error}");
        }
        assert!("1.5 steps".parse::<Length>().unwrap_err().contains("not a whole number of steps"));
    }

    #[test]
    fn cadences_and_limits() {
        assert_eq!("never".parse(), Ok(Every::Never));
        assert_eq!("1 epoch".parse(), Ok(Every::Each(Length::Epochs(1.0))));
        assert!("0 steps".parse::<Every>().unwrap_err().contains("`never`"));
        assert!("5".parse::<Every>().unwrap_err().ends_with("or `never`"));
        for (text, seconds, canonical) in
            [("25 minutes", 1500, "25 minutes"), ("90 seconds", 90, "90 seconds"), ("60 minutes", 3600, "1 hour")]
        {
            let limit: Limit = text.parse().unwrap();
            assert_eq!(limit.0, Duration::from_secs(seconds));
            assert_eq!(limit.to_string(), canonical);
        }
        for text in ["0 seconds", "-1 hours", "1e300 hours", "5", "5 fortnights", "nan hours"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
