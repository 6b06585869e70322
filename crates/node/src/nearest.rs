//! What a misspelt name may have meant.

/// Changes of letters after which a name is no misspelling any more.
const MISSPELT_MAX: usize = 4;

/// What is fewest letters away from `name`, if it is so near that it may have been meant.
pub(crate) fn nearest<T>(name: &str, known: impl Iterator<Item = T>, text: impl Fn(&T) -> &str) -> Option<T> {
    let distances = known.map(|known| (distance(name, text(&known)), known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= MISSPELT_MAX.min(name.len().div_ceil(2))).then_some(known)
}

/// How many letters must be put in, taken out or changed.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, letter) in one.chars().enumerate() {
        let mut diagonal = number;
        let mut left = number + 1;
        let mut next = vec![left];
        for (above, known) in row.iter().skip(1).zip(&other) {
            let changed = diagonal + usize::from(letter != *known);
            left = changed.min(above + 1).min(left + 1);
            next.push(left);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_another_one_is_not() {
        let known = ["orders", "payments", "a"];
        let meant = |name: &str| nearest(name, known.into_iter(), |known| known);
        assert_eq!(meant("ordrs"), Some("orders"));
        assert_eq!(meant("Payment"), Some("payments"));
        assert_eq!(meant("stock-levels"), None);
        assert_eq!(meant("b"), Some("a"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
