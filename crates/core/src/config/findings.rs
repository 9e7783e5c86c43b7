//! What is wrong with a configuration.

use crate::Result;

/// All that the types of a configuration allow and the method does not: dotted keys, each with what is wrong and what to do.
#[derive(Debug, Default)]
pub struct Findings(Vec<(String, String)>);

impl Findings {
    /// Says `message` of `key`, unless it `holds`.
    pub fn must(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            self.0.push((key.to_string(), message.into()));
        }
    }

    /// Takes in what the check of the block `key` says; it begins with the key that it is about, such as `ema.decay is 1; …`.
    pub fn check(&mut self, key: &str, checked: Result<()>) {
        let Err(error) = checked else { return };
        let text = error.to_string();
        let (named, message) = match text.split_once(' ') {
            Some((word, rest)) if word.starts_with(key) => (word.trim_end_matches(':'), rest),
            _ => (key, text.as_str()),
        };
        self.must(false, named, message);
    }

    /// Each key with its message.
    pub fn list(&self) -> &[(String, String)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user;

    #[test]
    fn a_check_is_told_of_the_key_that_it_begins_with() {
        let mut found = Findings::default();
        found.must(true, "a", "is right");
        found.must(false, "a", "is wrong");
        found.check("b", Ok(()));
        found.check("ema", Err(user!("ema.decay is 1; it must be below")));
        found.check("augment", Err(user!("augment: `flip` stands twice")));
        found.check("c", Err(user!("something else")));
        let expected = [
            ("a", "is wrong"),
            ("ema.decay", "is 1; it must be below"),
            ("augment", "`flip` stands twice"),
            ("c", "something else"),
        ];
        assert_eq!(found.list(), expected.map(|(key, message)| (key.to_string(), message.to_string())));
    }
}
