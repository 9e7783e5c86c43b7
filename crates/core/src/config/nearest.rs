//! What a misspelt name was meant to be.

/// `; did you mean x?`, or else the names there are.
pub(super) fn suggestion<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(wanted, &known) {
        Some(name) => format!("; did you mean {name}?"),
        None if known.is_empty() => String::new(),
        None => format!("; there are: {}", known.join(", ")),
    }
}

/// The name that was probably meant.
pub(crate) fn nearest<'a>(wanted: &str, known: &[&'a str]) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let score = |name: &str| match strsim::damerau_levenshtein(&wanted, name) {
        1 if name.len() > 2 => 1.0, // one slip of the keys; Jaro-Winkler sees no swap in short words
        _ if name.strip_suffix(&wanted).is_some_and(|rest| rest.ends_with('_')) => 0.99, // `lr` is `base_lr` and not `lr_scale`
        _ => strsim::jaro_winkler(&wanted, name),
    };
    let best = known.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) > 0.75).then_some(best) // below it the nearest name is no nearer than chance
}
