//! YAML text to figment values, with the line of every key; and back to text that reads as the same values.

use std::collections::BTreeMap;
use std::fmt;

use figment::value::{Dict, Empty, Num, Tag, Value};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

/// Dotted key → line in its file, from 1. List elements are `key[0]`.
pub(super) type Lines = BTreeMap<String, u64>;

/// A mistake in YAML text, with its line where one is known.
#[derive(Debug)]
pub(super) struct YamlError {
    pub(super) line: Option<u64>,
    pub(super) message: String,
}

/// Reads the text of a configuration file: a block of keys, or nothing.
pub(super) fn parse(text: &str) -> Result<(Dict, Lines), YamlError> {
    let root: Spanned<Node> = read(text)?;
    let mut lines = Lines::new();
    match value(root.value, "", &mut lines)? {
        Value::Dict(_, dict) => Ok((dict, lines)),
        Value::Empty(..) => Ok((Dict::new(), lines)),
        _ => Err(YamlError { line: Some(1), message: "must be a block of `key: value` lines".to_string() }),
    }
}

/// Reads the right side of an override, or any other value on its own. It is one line, which has no comment: `#` is text.
pub(super) fn parse_value(text: &str) -> Result<Value, YamlError> {
    let plain = text.trim();
    if plain.is_empty() {
        return Ok(Value::Empty(Tag::Default, Empty::Unit));
    }
    if !plain.starts_with(['[', '{', '"', '\''])
        && (plain.starts_with('#') || plain.contains([' ', '\t']) && plain.contains('#'))
    {
        return Ok(Value::from(plain));
    }
    // In a file these are useful; here they are a path or a name of which nothing would be left.
    if plain.starts_with(['&', '!', '*']) {
        let sign = plain.chars().next().unwrap_or_default();
        let message = format!("`{sign}` in front has a meaning of its own in YAML");
        return Err(YamlError { line: None, message });
    }
    value(read::<Spanned<Node>>(text)?.value, "", &mut Lines::new())
}

fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, YamlError> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map(|at| at.line()).filter(|line| *line > 0);
        let message = match error {
            serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
                let key = key.as_deref().unwrap_or_default();
                format!("the key `{key}` stands here for the second time; keep one")
            }
            serde_saphyr::Error::MultipleDocuments { .. } => {
                "a second document begins here (`---`); a configuration is one".to_string()
            }
            serde_saphyr::Error::NonFiniteFloat { value, .. } => {
                format!("{value} is not a finite number")
            }
            other => {
                // The position is given in our form; the rest of the first line is the parser's.
                let text = other.to_string();
                let first = text.lines().next().unwrap_or_default();
                let first = first.split(" at line ").next().unwrap_or(first).trim_start_matches("error: ");
                format!("this is not YAML: {first}")
            }
        };
        YamlError { line, message }
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        strict_booleans: true, // `no` and `on` are words
        underscored_numbers_as_strings: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 64 },
    }
}

/// YAML as it stands in the file, before keys are joined into dotted paths.
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Block(Vec<(Spanned<String>, Spanned<Node>)>),
}

fn value(node: Node, path: &str, lines: &mut Lines) -> Result<Value, YamlError> {
    Ok(match node {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let mut list = Vec::new();
            for (index, item) in items.into_iter().enumerate() {
                let path = format!("{path}[{index}]");
                lines.insert(path.clone(), item.referenced.line());
                list.push(value(item.value, &path, lines)?);
            }
            Value::Array(Tag::Default, list)
        }
        Node::Block(entries) => {
            let mut dict = Dict::new();
            for (key, entry) in entries {
                let (line, key) = (key.referenced.line(), key.value);
                let refuse = |why: &str| YamlError { line: Some(line), message: format!("key `{key}` {why}") };
                if key.is_empty() || key.contains(['.', '[', ']', '=']) {
                    return Err(refuse(
                        "must not be empty or contain . [ ] =; write nested keys on lines of their own",
                    ));
                }
                let path = join(path, &key);
                lines.insert(path.clone(), line);
                let entry = value(entry.value, &path, lines)?;
                if dict.contains_key(&key) {
                    return Err(refuse("stands here for the second time"));
                }
                dict.insert(key, entry);
            }
            Value::Dict(Tag::Default, dict)
        }
    })
}

/// `a` and `b` to `a.b`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number, a text, true or false, a list or a block")
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(v)))
    }
    // Whole numbers have one form each, U64 from zero up, so that equal values compare equal.
    fn visit_u64<E: Error>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(v)))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Scalar(u64::try_from(v).map_or(Value::from(v), Value::from)))
    }
    fn visit_u128<E: Error>(self, v: u128) -> Result<Node, E> {
        Err(E::custom(format!("the number {v} is too large")))
    }
    fn visit_i128<E: Error>(self, v: i128) -> Result<Node, E> {
        Err(E::custom(format!("the number {v} is too large")))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(v)))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(v)))
    }
    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Empty(Tag::Default, Empty::Unit)))
    }
    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut block = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            block.push(entry);
        }
        Ok(Node::Block(block))
    }
}

/// These keys stand first in printed YAML, in this order; then the others by name; then [`LAST`].
const FIRST: [&str; 9] = ["kind", "name", "paper", "seed", "length", "batch_size", "limit", "data", "model"];
const LAST: [&str; 4] = ["compute", "log", "eval", "checkpoint"];

/// The tree as YAML. `note` gives the comment behind each value's line; an empty one is left away.
pub(super) fn print(tree: &Dict, note: &dyn Fn(&str) -> String) -> String {
    let mut lines = Vec::new();
    print_block(tree, "", 0, note, &mut lines);
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0).min(60);
    let mut out = String::new();
    for (text, note) in lines {
        let comment = if note.is_empty() { String::new() } else { format!("  # {note}") };
        let pad = if note.is_empty() { 0 } else { width.saturating_sub(text.chars().count()) };
        out += &format!("{text}{:pad$}{comment}\n", "");
    }
    out
}

fn print_block(
    dict: &Dict,
    path: &str,
    depth: usize,
    note: &dyn Fn(&str) -> String,
    lines: &mut Vec<(String, String)>,
) {
    let rank = |key: &str| match (FIRST.iter().position(|k| *k == key), LAST.iter().position(|k| *k == key)) {
        (Some(first), _) => first,
        (_, Some(last)) => FIRST.len() + 1 + last,
        _ => FIRST.len(),
    };
    let mut keys: Vec<&String> = dict.keys().collect();
    keys.sort_by_key(|key| rank(key)); // stable: equal ranks stay in order of name
    for key in keys {
        let (path, indent) = (join(path, key), "  ".repeat(depth));
        let head = format!("{indent}{}:", text(key));
        match &dict[key] {
            Value::Dict(_, block) if !block.is_empty() => {
                lines.push((head, String::new()));
                print_block(block, &path, depth + 1, note, lines);
            }
            Value::Array(_, list) if list.iter().any(|item| matches!(item, Value::Dict(..) | Value::Array(..))) => {
                lines.push((head, note(&path)));
                lines.extend(list.iter().map(|item| (format!("{indent}  - {}", flow(item)), String::new())));
            }
            value => lines.push((format!("{head} {}", flow(value)), note(&path))),
        }
    }
}

/// A value on one line.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::String(_, s) => text(s),
        Value::Char(_, c) => text(&c.to_string()),
        Value::Bool(_, b) => b.to_string(),
        Value::Empty(..) => "null".to_string(),
        Value::Num(_, number) => match number {
            Num::F64(v) => format!("{v:?}"), // the shortest text that reads back as the same bits
            Num::F32(v) => format!("{v:?}"),
            Num::I64(v) => v.to_string(),
            other => other.to_u128().map(|v| v.to_string()).unwrap_or_default(),
        },
        Value::Array(_, list) => {
            format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Dict(_, dict) => {
            let entries: Vec<String> =
                dict.iter().map(|(key, value)| format!("{}: {}", text(key), flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// A text, in quotes where YAML would read the bare word as something else.
fn text(s: &str) -> String {
    let plain = s.starts_with(|c: char| c.is_ascii_alphanumeric() || "/.".contains(c))
        && !s.ends_with(' ')
        && s.chars().all(|c| c.is_ascii_alphanumeric() || "_-./+ ".contains(c));
    if plain && parse_value(s).is_ok_and(|value| value.as_str() == Some(s)) {
        return s.to_string();
    }
    let mut quoted = String::from("\"");
    for c in s.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c => quoted += &format!("\\U{:08X}", c as u32),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_keys() {
        let (_, lines) =
            parse("# head\nseed: 1\noptim:\n  kind: sgd\n\n  base_lr: 0.1\nlist:\n  - {a: 1}\n  - 2\n").unwrap();
        let expected = [("seed", 2), ("optim", 3), ("optim.kind", 4), ("optim.base_lr", 6), ("list", 7)];
        for (key, line) in expected.into_iter().chain([("list[0]", 8), ("list[0].a", 8), ("list[1]", 9)]) {
            assert_eq!(lines.get(key), Some(&line), "{key}");
        }
        assert_eq!(lines.len(), 8);
    }

    #[test]
    fn scalars() {
        let number = |text| parse_value(text).unwrap();
        assert_eq!(number("1"), Value::from(1u64));
        assert_eq!(number("-1"), Value::from(-1i64));
        assert_eq!(number("1e-4"), Value::from(1e-4));
        assert_eq!(number("1.0"), Value::from(1.0));
        assert_eq!(number("true"), Value::from(true));
        assert_eq!(number("\"1\""), Value::from("1"));
        assert_eq!(number("20 epochs"), Value::from("20 epochs"));
        for word in ["no", "on", "off", "yes", "fast", "010", "1_000"] {
            assert_eq!(number(word), Value::from(word));
        }
        for null in ["", "null", "~"] {
            assert!(matches!(number(null), Value::Empty(..)), "{null:?}");
        }
        assert_eq!(number("[1, a]"), Value::from(vec![Value::from(1u64), Value::from("a")]));
    }

    #[test]
    fn mistakes_have_a_line() {
        for (text, line, says) in [
            ("a: 1\nb: 2\na: 3\n", 3, "`a` stands here for the second time"),
            ("a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML"),
            ("a: 1\na.b: 2\n", 2, "`a.b`"),
            ("- 1\n- 2\n", 1, "block"),
            ("just words\n", 1, "block"),
            ("a: .nan\n", 1, ".nan is not a finite number"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.line.is_some_and(|at| at.abs_diff(line) <= 1), "{text}: {error:?}");
            assert!(error.message.contains(says) && !error.message.is_empty(), "{text}: {error:?}");
        }
        assert!(parse("").unwrap().0.is_empty());
        assert!(parse("# only a comment\n").unwrap().0.is_empty());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse_value(&"{a: ".repeat(1000)).is_err());
    }

    #[test]
    fn a_value_on_its_own_keeps_its_hash_signs_and_knows_no_marks() {
        for text in ["#b", "/photos #2", "a#b", "runs/x #", "/photos/#1/a"] {
            assert_eq!(parse_value(text).unwrap().as_str(), Some(text));
        }
        assert_eq!(parse_value(" \"#b\" ").unwrap().as_str(), Some("#b"));
        assert_eq!(parse_value("[\"#\", 2]").unwrap().into_array().unwrap().len(), 2);
        for text in ["&x", "*x", "!x"] {
            let message = parse_value(text).unwrap_err().message;
            assert!(message.contains(&format!("`{}`", &text[..1])), "{message}");
        }
        // A folder in the home folder is text; whether there is one is asked later.
        assert_eq!(parse_value("~/photos").unwrap().as_str(), Some("~/photos"));
    }

    #[test]
    fn printed_yaml_reads_back() {
        let odd = "a: [1, 2.0, 1e-7, -3, 1e300, 0.1]\nb: {c: 'no', d: '1', e: \"x\\ty\\\"#: z\", f: '', g: 'null', h: ' a ', i: 'é€', j: '- a'}\n\
                   c: []\nd: {}\ne: [{kind: crop, pad: 4}, [1, 2]]\nf:\ng: 18446744073709551615\nh: 'a, b]'\ni: '.5'\nj: ./data/x\n'k l': true\n";
        let (tree, _) = parse(odd).unwrap();
        let printed = print(&tree, &|key| format!("from {key}"));
        assert_eq!(parse(&printed).unwrap().0, tree, "{printed}");
        assert!(printed.contains("j: ./data/x"), "{printed}");
        let (tree, _) = parse("log: {every: 1 step}\nmodel: {a: 1, name: x}\nseed: 1\n").unwrap();
        assert_eq!(print(&tree, &|_| String::new()), "seed: 1\nmodel:\n  name: x\n  a: 1\nlog:\n  every: 1 step\n");
    }
}
