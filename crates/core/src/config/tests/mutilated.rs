//! Whatever the text, never a panic.

use proptest::prelude::*;

use super::*;

/// One random change of a text: characters, lines and values deleted, doubled, replaced.
#[derive(Debug, Clone)]
enum Change {
    Delete(prop::sample::Index),
    Double(prop::sample::Index),
    Put(prop::sample::Index, String),
    DeleteLine(prop::sample::Index),
    DoubleLine(prop::sample::Index),
    Value(prop::sample::Index, String),
}

impl Change {
    fn apply(&self, text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        if chars.is_empty() || lines.is_empty() {
            return text.to_string();
        }
        match self {
            Change::Delete(at) => drop(chars.remove(at.index(chars.len()))),
            Change::Double(at) => chars.insert(at.index(chars.len()), chars[at.index(chars.len())]),
            Change::Put(at, new) => {
                let at = at.index(chars.len());
                chars.splice(at..=at, new.chars());
            }
            Change::DeleteLine(at) => drop(lines.remove(at.index(lines.len()))),
            Change::DoubleLine(at) => lines.insert(at.index(lines.len()), lines[at.index(lines.len())].clone()),
            Change::Value(at, value) => {
                let line = &mut lines[at.index(text.lines().count())];
                *line = format!("{}: {value}", line.split(':').next().unwrap_or_default());
            }
        }
        match self {
            Change::Delete(_) | Change::Double(_) | Change::Put(..) => chars.into_iter().collect(),
            _ => lines.join("\n") + "\n",
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let put = prop_oneof!["[-:{}\\[\\]#&*!|>'\"%@`,? \t\n.0-9a-z]{1,2}", "\\PC"];
    let value = prop_oneof![
        Just("-1".to_string()),
        Just("1e999".to_string()),
        Just("99999999999999999999999999".to_string()),
        Just(".nan".to_string()),
        Just("{kind: 3}".to_string()),
        Just("{kind: sgd}".to_string()),
        Just("[[], {}]".to_string()),
        Just("!!binary aGk=".to_string()),
        Just("*x".to_string()),
        Just("\"\\x85\\0\"".to_string()),
        "\\PC{0,6}",
    ];
    prop_oneof![
        at().prop_map(Change::Delete),
        at().prop_map(Change::Double),
        (at(), put).prop_map(|(at, new)| Change::Put(at, new)),
        at().prop_map(Change::DeleteLine),
        at().prop_map(Change::DoubleLine),
        (at(), value).prop_map(|(at, value)| Change::Value(at, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutilated_row_is_read_or_refused_in_words(changes in prop::collection::vec(change(), 1..4), given in "([a-z.]{0,12}=)?\\PC{0,8}") {
        let row = changes.iter().fold(ROW.to_string(), |text, change| change.apply(&text));
        let folder = Folder::new(&row);
        for overrides in [&[][..], &[given.as_str()]] {
            match folder.load_with(overrides, &[]) {
                Ok(read) => {
                    let again = Folder::new(&read.resolved.yaml()).load(&[]);
                    prop_assert_eq!((again.settings, again.paper), (read.settings, read.paper));
                    prop_assert_eq!(again.resolved.hash(), read.resolved.hash());
                }
                Err(Error::User(message)) => prop_assert!(message.trim().len() > 10, "{:?}", message),
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
