//! A file's tensors into a model: name by name, and what is packing undone.

use tch::Kind;

use super::Named;
use super::names::{LISTED, below_prefix, some};
use crate::config::Head;
use crate::{Error, Result, user};

/// What wrappers put in front of every name: `DataParallel` the first, `torch.compile` the second.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Batches that a norm has seen, which serves no network here; older files and many converters leave it out.
const COUNTER: &str = "num_batches_tracked";

/// How tensors as people have them are fitted to a model.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// What the messages call them.
    pub origin: &'a str,
    /// The model's name of a tensor, from the file's, wrappers' prefixes taken off; `None` passes the tensor over.
    pub rename: &'a dyn Fn(&str) -> Option<String>,
    /// Prefixes of the model's names that make up its classifier, which may keep the values that it has; see [`Self::classifier`].
    pub head: &'a [&'a str],
    /// When the classifier does so. `None`: where it differs from the file's in the number of classes and in nothing else.
    pub classifier: Option<Head>,
}

impl<'a> Load<'a> {
    /// Names as they are, all tensors, no fresh classifier.
    pub fn of(origin: &'a str) -> Self {
        Self { origin, rename: &|name| Some(name.to_string()), head: &[], classifier: None }
    }

    /// Copies `given` into `model` and says, line by line, in what they differed:
    ///
    /// * a prefix of all names that `DataParallel` or `torch.compile` left is taken off;
    /// * floating point of another kind is converted, float16, bfloat16 and float32 exactly, float64 rounded;
    /// * batch norm's counters that are missing are 0;
    /// * a classifier for another number of classes starts fresh, as [`Self::head`] and [`Self::classifier`] have it.
    ///
    /// # Errors
    /// [`Error::User`] that counts every other difference and lists ten, and then nothing is copied.
    pub fn copy(&self, model: &Named, given: &Named) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut source = self.named(model, given, &mut notes)?;
        let mut target: Named = model.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        if let Some(note) = self.keep_fresh(&mut target, &mut source) {
            notes.push(note);
        }
        let counters: Vec<String> = target
            .iter()
            .filter(|(name, t)| name.rsplit('.').next() == Some(COUNTER) && t.kind() == Kind::Int64)
            .filter(|(name, _)| !source.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &counters {
            source.insert(name.clone(), target[name].f_zeros_like()?);
        }
        if !counters.is_empty() {
            notes.push(format!("{}: {} {COUNTER} are missing and start at 0", self.origin, counters.len()));
        }
        refuse(&differences(&target, &source, true), self)?;
        notes.extend(self.conversions(&target, &source)?);
        copy(&target, &source)?;
        Ok(notes)
    }

    /// The tensors by the model's names.
    fn named(&self, model: &Named, given: &Named, notes: &mut Vec<String>) -> Result<Named> {
        let mut wrapped = String::new();
        while let Some(prefix) = WRAPPERS.into_iter().find(|prefix| {
            let all = |names: &Named, prefix: &str| !names.is_empty() && names.keys().all(|n| n.starts_with(prefix));
            all(given, &format!("{wrapped}{prefix}")) && !model.keys().any(|n| n.starts_with(prefix))
        }) {
            wrapped += prefix;
        }
        if !wrapped.is_empty() {
            notes.push(format!("{}: `{wrapped}` in front of all names is taken off", self.origin));
        }
        let mut named = Named::new();
        let mut passed_over = Vec::new();
        for (name, tensor) in given {
            let Some(to) = (self.rename)(&name[wrapped.len()..]) else {
                passed_over.push(name.as_str());
                continue;
            };
            if named.insert(to.clone(), tensor.shallow_clone()).is_some() {
                return Err(user!("{}: {name} and another tensor both stand for {to}", self.origin));
            }
        }
        if !passed_over.is_empty() {
            let (n, names) = (passed_over.len(), some(&passed_over));
            notes
                .push(format!("{}: {n} tensors have no place in this model and are passed over: {names}", self.origin));
        }
        Ok(named)
    }

    /// Takes the classifier out of both sides if it keeps the values that it has, and says so.
    fn keep_fresh(&self, target: &mut Named, source: &mut Named) -> Option<String> {
        let is_head = |name: &str| self.head.iter().any(|prefix| below_prefix(name, prefix));
        let head: Vec<String> = target.keys().filter(|name| is_head(name)).cloned().collect();
        let classes = head.iter().find_map(|name| {
            let (theirs, ours) = (source.get(name)?.size(), target[name].size());
            (theirs.first() != ours.first()).then_some((*theirs.first()?, *ours.first()?))
        });
        // Another width of the features is no other number of classes: then it is another network.
        let same_features =
            head.iter().all(|name| source.get(name).is_some_and(|t| t.size().get(1..) == target[name].size().get(1..)));
        match self.classifier {
            None if classes.is_some() && same_features => {}
            Some(Head::Fresh) if !head.is_empty() => {}
            _ => return None,
        }
        source.retain(|name, _| !is_head(name));
        target.retain(|name, _| !is_head(name));
        let names = some(&head.iter().map(String::as_str).collect::<Vec<_>>());
        Some(match classes {
            Some((theirs, ours)) if same_features => {
                format!("{names} start fresh: the file has {theirs} classes, this run {ours}")
            }
            _ => format!("{names} start fresh, as init.head asks"),
        })
    }

    /// What floating point is converted from and to.
    fn conversions(&self, target: &Named, source: &Named) -> Result<Vec<String>> {
        let mut counts = std::collections::BTreeMap::new();
        for (name, target) in target {
            let (from, to) = (source[name].kind(), target.kind());
            if from != to {
                *counts.entry((word(from), word(to))).or_insert(0) += 1;
                if (from, to) == (Kind::Double, Kind::Float) && overflows(&source[name])? {
                    return Err(user!("{}: {name} holds numbers that are too large for float32", self.origin));
                }
            }
        }
        Ok(counts
            .iter()
            .map(|((a, b), n)| format!("{}: {n} tensors are converted from {a} to {b}", self.origin))
            .collect())
    }
}

/// Whether a finite number of float64 is an infinite one of float32.
fn overflows(tensor: &tch::Tensor) -> Result<bool> {
    let infinite = tensor.f_to_kind(Kind::Float)?.f_isinf()?;
    Ok(infinite.f_logical_xor(&tensor.f_isinf()?)?.f_any()?.f_int64_value(&[])? != 0)
}

/// Copies `source` into `targets` by name, bit for bit. Every missing, unexpected or misshapen tensor is counted and ten are listed, and
/// nothing is copied then. `origin` names the source in the message.
///
/// # Errors
/// [`Error::User`] with the differences.
pub fn copy_into(targets: &Named, source: &Named, origin: &str) -> Result<()> {
    refuse(&differences(targets, source, false), &Load::of(origin))?;
    copy(targets, source)
}

fn copy(targets: &Named, source: &Named) -> Result<()> {
    tch::no_grad(|| {
        for (name, target) in targets {
            // `copy_` through a handle: the model sees the new values.
            target.shallow_clone().f_copy_(&source[name])?;
        }
        Ok(())
    })
}

/// Differences of a source from its targets, one line each, by kind.
struct Differences([(&'static str, Vec<String>); 4]);

fn differences(targets: &Named, source: &Named, convert: bool) -> Differences {
    let (mut missing, mut misshapen, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (name, target) in targets {
        match source.get(name) {
            None => missing.push(format!("{name} {:?}", target.size())),
            Some(s) if s.size() != target.size() => {
                misshapen.push(format!("{name} is {:?} and should be {:?}", s.size(), target.size()))
            }
            Some(s) if s.kind() == target.kind() || convert && s.is_floating_point() && target.is_floating_point() => {}
            Some(s) => kinds.push(format!("{name} is {} and should be {}", word(s.kind()), word(target.kind()))),
        }
    }
    let unexpected = source.iter().filter(|(n, _)| !targets.contains_key(*n));
    let unexpected = unexpected.map(|(n, t)| format!("{n} {:?}", t.size())).collect();
    Differences([("missing", missing), ("misshapen", misshapen), ("wrong kind", kinds), ("unexpected", unexpected)])
}

fn refuse(Differences(found): &Differences, load: &Load) -> Result<()> {
    let count: usize = found.iter().map(|(_, lines)| lines.len()).sum();
    if count == 0 {
        return Ok(());
    }
    let plural = if count == 1 { "" } else { "s" };
    let mut text = format!("{} does not fit this model ({count} difference{plural}):", load.origin);
    let (mut left, mut kinds) = (LISTED, found.iter().filter(|(_, lines)| !lines.is_empty()).count());
    for (kind, lines) in found.iter().filter(|(_, lines)| !lines.is_empty()) {
        // An even share of the ten, and what the kinds before have left of theirs.
        let listed = lines.len().min(left / kinds);
        (left, kinds) = (left - listed, kinds - 1);
        text.extend(lines[..listed].iter().map(|line| format!("\n  {kind}: {line}")));
        if lines.len() > listed {
            text += &format!("\n  {kind}: {} more", lines.len() - listed);
        }
    }
    let [(_, missing), (_, misshapen), ..] = found;
    let differing = missing.iter().chain(misshapen).all(|line| {
        let name = line.split(' ').next().unwrap_or_default();
        load.head.iter().any(|prefix| below_prefix(name, prefix))
    });
    if !load.head.is_empty() && differing && missing.len() + misshapen.len() > 0 {
        text += "\nonly the classifier differs; init.head=fresh starts it anew";
    }
    Err(Error::User(text))
}

/// As PyTorch calls it.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::Int64 => "int64",
        Kind::Int => "int32",
        Kind::Int16 => "int16",
        Kind::Int8 => "int8",
        Kind::Uint8 => "uint8",
        Kind::Bool => "bool",
        _ => "another kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::hash;
    use proptest::prelude::*;
    use tch::{Device, Tensor};

    fn named<const N: usize>(tensors: [(&str, Tensor); N]) -> Named {
        tensors.map(|(name, tensor)| (name.to_string(), tensor)).into()
    }

    fn filled(shape: &[i64], value: f64) -> Tensor {
        Tensor::full(shape, value, (Kind::Float, Device::Cpu))
    }

    /// A layer, its norm and a classifier of `classes`.
    fn network(value: f64, classes: i64) -> Named {
        named([
            ("conv.weight", filled(&[2, 3], value)),
            ("bn.running_var", filled(&[2], value)),
            ("bn.num_batches_tracked", Tensor::from(value as i64)),
            ("fc.weight", filled(&[classes, 2], value)),
            ("fc.bias", filled(&[classes], value)),
        ])
    }

    fn renamed(tensors: &Named, to: impl Fn(&str) -> String) -> Named {
        tensors.iter().map(|(name, t)| (to(name), t.shallow_clone())).collect()
    }

    fn converted(tensors: &Named, kind: Kind) -> Named {
        let convert = |t: &Tensor| if t.is_floating_point() { t.to_kind(kind) } else { t.shallow_clone() };
        tensors.iter().map(|(name, t)| (name.clone(), convert(t))).collect()
    }

    fn same(a: &Named, b: &Named) -> bool {
        hash(a).unwrap() == hash(b).unwrap()
    }

    proptest! {
        /// However wrappers, precision and absent counters combine: the model gets the values, and each thing is said once.
        #[test]
        fn packing_is_undone(
            wrappers in prop::collection::vec(prop::sample::select(WRAPPERS.to_vec()), 0..4),
            kind in prop::sample::select(vec![Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double]),
            counters: bool,
        ) {
            let (model, mut given) = (network(0.0, 3), converted(&network(5.0, 3), kind));
            let mut expected = network(5.0, 3);
            if !counters {
                given.remove("bn.num_batches_tracked");
                expected.insert("bn.num_batches_tracked".into(), Tensor::from(0i64));
            }
            let prefix = wrappers.concat();
            let notes = Load::of("w").copy(&model, &renamed(&given, |name| format!("{prefix}{name}"))).unwrap();
            prop_assert!(same(&model, &expected));
            let said = |part: &str| notes.iter().filter(|note| note.contains(part)).count();
            prop_assert_eq!(said(&format!("`{prefix}` in front")), usize::from(!prefix.is_empty()));
            prop_assert_eq!(said("to float32"), usize::from(kind != Kind::Float));
            prop_assert_eq!(said("are missing and start at 0"), usize::from(!counters));
            prop_assert_eq!(notes.len(), said(""));
        }
    }

    #[test]
    fn a_prefix_that_not_all_names_have_is_no_wrapper() {
        let model = network(0.0, 3);
        let given =
            renamed(&network(5.0, 3), |name| if name == "fc.bias" { name.into() } else { format!("module.{name}") });
        assert!(Load::of("w").copy(&model, &given).unwrap_err().to_string().contains("unexpected: module.conv.weight"));
        // A model may itself have a part of this name.
        let own = named([("module.weight", filled(&[2], 0.0))]);
        assert!(Load::of("w").copy(&own, &named([("module.weight", filled(&[2], 1.0))])).unwrap().is_empty());
        assert!(same(&own, &named([("module.weight", filled(&[2], 1.0))])));
    }

    /// In float64 weights stay what they are; numbers that float32 has no room for are not made infinite.
    #[test]
    fn float64_stays_or_is_rounded() {
        let third = named([("w", Tensor::from(1.0 / 3.0))]);
        let double = named([("w", Tensor::from(0.0f64))]);
        assert!(Load::of("w").copy(&double, &third).unwrap().is_empty());
        assert!(same(&double, &third));
        let single = named([("w", Tensor::from(0.0f32))]);
        let text = Load::of("w").copy(&single, &named([("w", Tensor::from(1e300))])).unwrap_err().to_string();
        assert!(text.contains("w holds numbers that are too large for float32"), "{text}");
        assert!(same(&single, &named([("w", Tensor::from(0.0f32))])));
        Load::of("w").copy(&single, &named([("w", Tensor::from(f64::INFINITY))])).unwrap();
        assert_eq!(single["w"].double_value(&[]), f64::INFINITY);
    }

    #[test]
    fn a_paper_may_rename_and_pass_over() {
        let (model, mut given) = (network(0.0, 3), renamed(&network(5.0, 3), |name| format!("_orig_mod.enc.{name}")));
        given.insert("_orig_mod.dec.weight".into(), filled(&[1], 0.0));
        let rename = |name: &str| name.strip_prefix("enc.").map(str::to_string);
        let notes = Load { rename: &rename, ..Load::of("w") }.copy(&model, &given).unwrap();
        assert!(same(&model, &network(5.0, 3)));
        assert!(notes[1].contains("1 tensors have no place") && notes[1].ends_with("dec.weight"), "{notes:?}");
        let one = Load { rename: &|_| Some("conv.weight".into()), ..Load::of("w") };
        assert!(one.copy(&model, &given).unwrap_err().to_string().contains("both stand for conv.weight"));
    }

    #[test]
    fn a_classifier_for_other_classes_starts_fresh() {
        let load = |classifier| Load { head: &["fc"], classifier, ..Load::of("w") };
        let mut half_fresh = network(5.0, 3);
        half_fresh.extend(named([("fc.weight", filled(&[3, 2], 0.0)), ("fc.bias", filled(&[3], 0.0))]));
        for classifier in [None, Some(Head::Fresh)] {
            let model = network(0.0, 3);
            let notes = load(classifier).copy(&model, &network(5.0, 1000)).unwrap();
            assert_eq!(notes, ["fc.bias, fc.weight start fresh: the file has 1000 classes, this run 3"]);
            assert!(same(&model, &half_fresh));
        }
        // As many classes: they may be others all the same, which only the user knows.
        let model = network(0.0, 3);
        assert!(load(None).copy(&model, &network(5.0, 3)).unwrap().is_empty());
        assert!(same(&model, &network(5.0, 3)));
        let model = network(0.0, 3);
        assert_eq!(load(Some(Head::Fresh)).copy(&model, &network(5.0, 3)).unwrap().len(), 1);
        assert!(same(&model, &half_fresh));
    }

    #[test]
    fn a_classifier_that_does_not_fit_otherwise_is_refused() {
        let refused = |head: &[&str], classifier, given: &Named| {
            let model = network(0.0, 3);
            let text = Load { head, classifier, ..Load::of("w") }.copy(&model, given).unwrap_err().to_string();
            assert!(same(&model, &network(0.0, 3)));
            text
        };
        let thousand = network(5.0, 1000);
        let hint = "only the classifier differs; init.head=fresh";
        assert!(refused(&["fc"], Some(Head::Strict), &thousand).contains(hint));
        assert!(!refused(&[], None, &thousand).contains(hint));
        let mut wider = network(5.0, 1000);
        wider.insert("fc.weight".into(), filled(&[1000, 9], 5.0));
        assert!(refused(&["fc"], None, &wider).contains("misshapen: fc.weight is [1000, 9] and should be [3, 2]"));
        let trunk: Named = network(5.0, 3).into_iter().filter(|(name, _)| !name.starts_with("fc")).collect();
        assert!(refused(&["fc"], None, &trunk).contains(hint));
        Load { head: &["fc"], classifier: Some(Head::Fresh), ..Load::of("w") }.copy(&network(0.0, 3), &trunk).unwrap();
    }

    #[test]
    fn differences_are_counted_and_ten_listed() {
        let target = network(0.0, 3);
        let mut given = renamed(&network(5.0, 3), |name| name.replace("conv", "convolution"));
        given.insert("fc.bias".into(), filled(&[1], 5.0));
        given.extend((0..25).map(|n| (format!("extra.{n:02}"), filled(&[1], 5.0))));
        for text in [
            Load::of("x").copy(&target, &given).unwrap_err().to_string(),
            copy_into(&target, &given, "x").unwrap_err().to_string(),
        ] {
            for part in [
                "x does not fit this model (28 differences)",
                "missing: conv.weight [2, 3]",
                "misshapen: fc.bias is [1] and should be [3]",
                "unexpected: convolution.weight",
                "unexpected: extra.06",
                "unexpected: 18 more",
            ] {
                assert!(text.contains(part), "{text}");
            }
            assert_eq!(text.lines().count(), 12, "{text}");
        }
        assert!(same(&target, &network(0.0, 3)));
    }

    /// Of checkpoints, which must return bit for bit.
    #[test]
    fn a_copy_of_state_converts_nothing() {
        let (target, given) = (network(0.0, 3), converted(&network(5.0, 3), Kind::Half));
        let text = copy_into(&target, &given, "x").unwrap_err().to_string();
        assert!(text.contains("wrong kind: fc.bias is float16 and should be float32"), "{text}");
    }
}
