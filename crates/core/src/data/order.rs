//! The order of an epoch.

use super::Cursor;
use crate::random::order;

/// The numbers of the pictures that an epoch over a set of `len` sees, in its order.
///
/// Without repeats they are the places in the set. With repeated augmentation (arXiv:1902.05509, §3; R = `repeats`) the first of the epoch's
/// order are there R times each, as in timm 1.0.31's `RepeatAugSampler` of one process; an epoch has as many places as before. Copy k of picture s
/// has the number s + k·`len`, from which its own draws are made.
///
/// timm has the copies side by side and mixes the first picture of a batch with the last. Here neighbours are mixed, so two pictures take turns:
/// a b a b a b, then the next two.
pub(super) fn of_epoch(Cursor { seed, repeats, .. }: &Cursor, epoch: u64, len: u64) -> Vec<i64> {
    let once = order(*seed, epoch, len);
    if *repeats < 2 {
        return once;
    }
    let number = |place: u64| {
        let (pair, within) = (place / (2 * repeats), place % (2 * repeats));
        once[(2 * pair + within % 2) as usize] + (within / 2 * len) as i64
    };
    (0..len).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pass;
    use proptest::prelude::*;

    fn cursor(seed: u64, repeats: u64) -> Cursor {
        Cursor { seed, step: 0, rank: 0, world: 1, batch: 1, pass: Pass::DropRest, repeats }
    }

    #[test]
    fn two_pictures_take_turns() {
        let [a, b, c, d] = order(3, 5, 8)[..4] else { panic!("eight pictures") };
        assert_eq!(of_epoch(&cursor(3, 3), 5, 8), [a, b, a + 8, b + 8, a + 16, b + 16, c, d]);
        assert_eq!(of_epoch(&cursor(3, 1), 5, 8), order(3, 5, 8));
    }

    proptest! {
        #[test]
        fn an_epoch_has_each_of_its_pictures_in_all_its_copies(seed: u64, epoch in 0_u64..9, len in 1_u64..80, repeats in 1_u64..6) {
            let seen = of_epoch(&cursor(seed, repeats), epoch, len);
            let once = order(seed, epoch, len);
            prop_assert_eq!(seen.len() as u64, len);
            let mut numbers = seen.clone();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), seen.len(), "no number comes twice");
            // Those before the last pair are there `repeats` times, and they are the first of the order.
            let whole = (len / (2 * repeats) * 2) as usize;
            for (place, picture) in once.iter().enumerate() {
                let copies = seen.iter().filter(|number| *number % len as i64 == *picture).count() as u64;
                let fits = if place < whole { copies == repeats } else { copies <= repeats };
                prop_assert!(fits, "{copies} of {picture} at {place}");
            }
            // Neighbours that are mixed are two pictures.
            for pair in seen.chunks_exact(2) {
                prop_assert_ne!(pair[0] % len as i64, pair[1] % len as i64);
            }
        }
    }
}
