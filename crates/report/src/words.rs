//! Numbers as people read them.

/// `3 seeds`.
pub(crate) fn seeds(n: usize) -> String {
    count(n, "seed")
}

/// `1 seed`, `2 seeds`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `60000` → `60,000`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
