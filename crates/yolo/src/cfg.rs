//! Darknet's `.cfg`: written from a [`Plan`], and read as one. What a file says beyond the sections that are known here is refused, so that
//! no network is built that computes something else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use repro::{Result, user};

use crate::sections::{Plan, Section};

/// A block of a file: its heading, the line that it stands on, its keys.
struct Block<'a> {
    name: &'a str,
    line: usize,
    keys: BTreeMap<&'a str, &'a str>,
}

/// Keys of each heading that are understood: those that say what the network computes, and those of training, which nothing here looks at.
const KNOWN: [(&str, &[&str]); 7] = [
    ("convolutional", &["batch_normalize", "filters", "size", "stride", "pad", "activation"]),
    ("maxpool", &["size", "stride"]),
    ("upsample", &["stride"]),
    ("shortcut", &["from", "activation"]),
    ("route", &["layers"]),
    ("yolo", &["mask", "anchors", "classes", "num", "jitter", "ignore_thresh", "truth_thresh", "random"]),
    (
        "detection",
        &[
            "classes",
            "num",
            "coords",
            "sqrt",
            "side",
            "softmax",
            "jitter",
            "rescore",
            "object_scale",
            "noobject_scale",
            "class_scale",
            "coord_scale",
        ],
    ),
];

/// A network of a file and the size of its pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Cfg {
    /// The network.
    pub plan: Plan,
    /// Height and width of its input in pixels.
    pub edges: (i64, i64),
}

/// Reads a file.
///
/// # Errors
/// A file that cannot be read; in one sentence what it says that is not known here, or that does not fit together.
pub fn read(path: &Path) -> Result<Cfg> {
    let text = std::fs::read_to_string(path).map_err(|e| user!("cannot read {}: {e}", path.display()))?;
    parse(&text).map_err(|e| user!("{}: {e}", path.display()))
}

/// The network that a text describes.
///
/// # Errors
/// In one sentence what it says that is not known here, or that does not fit together.
pub fn parse(text: &str) -> Result<Cfg> {
    let blocks = blocks(text)?;
    let Some((net, rest)) = blocks.split_first().filter(|(net, _)| ["net", "network"].contains(&net.name)) else {
        return Err(user!("a network must begin with [net]"));
    };
    if net.number("channels", Some(3))? != 3 {
        return Err(user!("line {}: [net] has other channels than the 3 of a picture", net.line));
    }
    let edges = (net.number("height", None)?, net.number("width", None)?);
    let (mut sections, mut anchors, mut classes) = (Vec::new(), Vec::new(), None);
    for block in rest {
        sections.push(block.section()?);
        if ["yolo", "detection"].contains(&block.name) {
            let own = block.number("classes", None)?;
            if *classes.get_or_insert(own) != own {
                return Err(user!(
                    "line {}: [{}] has {own} classes, and an output before it others",
                    block.line,
                    block.name
                ));
            }
        }
        if block.name == "yolo" {
            let own = block.anchors()?;
            if !anchors.is_empty() && anchors != own {
                return Err(user!("line {}: [yolo] has other anchors than the one before it", block.line));
            }
            anchors = own;
        }
    }
    let classes =
        classes.ok_or_else(|| user!("the network has no output: it needs a [yolo] or a [detection] section"))?;
    let plan = Plan { sections, anchors, classes };
    plan.check()?;
    Ok(Cfg { plan, edges })
}

fn blocks(text: &str) -> Result<Vec<Block<'_>>> {
    let mut blocks: Vec<Block> = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split(['#', ';']).next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            blocks.push(Block { name: name.trim(), line, keys: BTreeMap::new() });
            continue;
        }
        let (Some((key, value)), Some(block)) = (content.split_once('='), blocks.last_mut()) else {
            return Err(user!("line {line}: {content:?} is neither a [heading] nor a key=value below one"));
        };
        block.keys.insert(key.trim(), value.trim());
    }
    Ok(blocks)
}

impl Block<'_> {
    fn wrong(&self, why: String) -> repro::Error {
        user!("line {}: [{}] {why}", self.line, self.name)
    }

    fn number(&self, key: &str, default: Option<i64>) -> Result<i64> {
        let Some(text) = self.keys.get(key) else {
            return default.ok_or_else(|| self.wrong(format!("lacks {key}")));
        };
        text.parse().map_err(|_| self.wrong(format!("has {key}={text}, which is no whole number")))
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>> {
        let text = self.keys.get(key).ok_or_else(|| self.wrong(format!("lacks {key}")))?;
        let number = |part: &str| part.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        text.split(',')
            .map(|part| number(part).ok_or_else(|| self.wrong(format!("has {key}={text}, which are no numbers"))))
            .collect()
    }

    fn anchors(&self) -> Result<Vec<[f64; 2]>> {
        let sides = self.numbers("anchors")?;
        let pairs: Vec<[f64; 2]> = sides.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        let num = self.number("num", Some(pairs.len() as i64))?;
        if sides.len() % 2 != 0 || num != pairs.len() as i64 {
            return Err(self.wrong(format!("has {} numbers as the sides of {num} anchors", sides.len())));
        }
        Ok(pairs)
    }

    /// Refuses another value than the only one that is known.
    fn only(&self, key: &str, known: &str, default: &str) -> Result<()> {
        match self.keys.get(key).copied().unwrap_or(default) {
            value if value == known => Ok(()),
            value => Err(self.wrong(format!("has {key}={value}; only {key}={known} is known here"))),
        }
    }

    fn section(&self) -> Result<Section> {
        let Some((_, keys)) = KNOWN.iter().find(|(name, _)| *name == self.name) else {
            let names: Vec<_> = KNOWN.iter().map(|(name, _)| format!("[{name}]")).collect();
            return Err(self.wrong(format!("is not known here; known are {}", names.join(", "))));
        };
        if let Some(key) = self.keys.keys().find(|key| !keys.contains(*key)) {
            return Err(self.wrong(format!("has {key}, which is not known here")));
        }
        Ok(match self.name {
            "convolutional" => {
                let norm = self.number("batch_normalize", Some(0))? != 0;
                self.only("activation", if norm { "leaky" } else { "linear" }, "logistic")?;
                let size = self.number("size", Some(1))?;
                if size > 1 {
                    self.only("pad", "1", "0")?;
                }
                let (filters, stride) = (self.number("filters", Some(1))?, self.number("stride", Some(1))?);
                Section::Conv { filters, size, stride, norm }
            }
            "maxpool" => {
                let stride = self.number("stride", Some(1))?;
                Section::MaxPool { size: self.number("size", Some(stride))?, stride }
            }
            "upsample" => {
                self.only("stride", "2", "2")?;
                Section::Upsample
            }
            "shortcut" => {
                self.only("activation", "linear", "linear")?;
                Section::Shortcut { from: self.number("from", None)? }
            }
            "route" => {
                Section::Route { layers: self.numbers("layers")?.into_iter().map(|layer| layer as i64).collect() }
            }
            "yolo" => Section::Yolo { mask: self.numbers("mask")?.into_iter().map(|anchor| anchor as usize).collect() },
            _ => {
                self.only("sqrt", "1", "0")?;
                self.only("coords", "4", "1")?;
                Section::Grid { boxes: self.number("num", Some(1))? }
            }
        })
    }
}

/// The text of a network for pictures of these edges (height, width), whose `[yolo]` sections ignore what covers a truth by more than `ignore`.
pub fn text(plan: &Plan, edges: (i64, i64), ignore: Option<f64>) -> String {
    let mut text = format!("[net]\nwidth={}\nheight={}\nchannels=3\n", edges.1, edges.0);
    for section in &plan.sections {
        let lines = match section {
            Section::Conv { filters, size, stride, norm } => {
                let (normed, activation) = if *norm { ("batch_normalize=1\n", "leaky") } else { ("", "linear") };
                format!("{normed}filters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation={activation}\n")
            }
            Section::MaxPool { size, stride } => format!("size={size}\nstride={stride}\n"),
            Section::Upsample => "stride=2\n".to_string(),
            Section::Shortcut { from } => format!("from={from}\nactivation=linear\n"),
            Section::Route { layers } => format!("layers = {}\n", joined(layers)),
            Section::Yolo { mask } => {
                let sides: Vec<String> = plan.anchors.iter().map(|[w, h]| format!("{w},{h}")).collect();
                let (anchors, n, classes) = (sides.join(",  "), plan.anchors.len(), plan.classes);
                let ignore = ignore.map_or(String::new(), |ignore| format!("ignore_thresh={ignore}\n"));
                format!(
                    "mask = {}\nanchors = {anchors}\nclasses={classes}\nnum={n}\n{ignore}truth_thresh=1\n",
                    joined(mask)
                )
            }
            Section::Grid { boxes } => format!("classes={}\ncoords=4\nnum={boxes}\nsqrt=1\n", plan.classes),
        };
        // Writing to a text cannot fail.
        let _ = write!(text, "\n[{}]\n{lines}", section.name());
    }
    text
}

fn joined(numbers: &[impl ToString]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections::VARIANTS;

    /// What is written is read as the same list.
    #[test]
    fn networks_go_out_and_in() {
        for (name, variant) in VARIANTS {
            let plan = variant.plan(7);
            let read = parse(&text(&plan, (96, 128), Some(0.5))).unwrap();
            assert_eq!((read.plan, read.edges), (plan, (96, 128)), "{name}");
        }
    }

    #[test]
    fn files_that_do_not_fit_are_refused_in_a_sentence() {
        let whole = text(&crate::sections::Variant::Yolov3Tiny.plan(80), (416, 416), None);
        let told = |from: &str, to: &str| {
            assert!(whole.contains(from), "{from}");
            let error = parse(&whole.replacen(from, to, 1)).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().lines().count()), (2, 1));
            error.to_string()
        };
        for (from, to, why) in [
            ("[net]", "[maxpool]", "must begin with [net]"),
            ("filters=255", "filters=254", "need 255 channels, and 254 come"),
            ("filters=32", "filters=many", "which is no whole number"),
            ("activation=leaky", "activation=mish", "only activation=leaky is known"),
            ("stride=1\npad=1", "stride=1\ngroups=2\npad=1", "[convolutional] has groups"),
            ("[upsample]", "[gru]", "[gru] is not known here; known are [convolutional]"),
            ("layers = -1,8", "layers = -1,88", "there is no section 88 before it"),
            ("layers = -1,8", "layers = -1,6", "the maps that it joins differ in size"),
            ("mask = 3,4,5", "mask = 3,4,9", "anchor 9 is none of the 6"),
            ("10,14", "10", "has 11 numbers as the sides of 6 anchors"),
            ("10,14", "12,14", "other anchors than the one before it"),
            ("classes=80", "classes=81", "others"),
            ("width=416", "width", "is neither a [heading] nor a key=value"),
            ("pad=1", "pad=0", "only pad=1 is known"),
        ] {
            let text = told(from, to);
            assert!(text.contains(why), "{to}: {text}");
        }
    }
}
