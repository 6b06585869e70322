//! What: records as a caller sees them.

use bytes::Bytes;

/// The optional keys of a record. A reader with a [`KeyFilter`] gets the records whose keys match, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Keys {
    /// No key: matches only [`KeyFilter::Any`].
    #[default]
    None,
    /// One key.
    Single(u64),
    /// Two keys; either one matches.
    Pair(u64, u64),
    /// Every key from the first to the last, both inclusive. A range whose first is above its last is refused.
    Range(u64, u64),
}

/// Which records a reader wants; evaluated at the log server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyFilter {
    /// All records, also those without a key.
    #[default]
    Any,
    /// Records with this key.
    Key(u64),
    /// Records with a key from the first to the last, both inclusive.
    Range(u64, u64),
}

impl KeyFilter {
    /// Whether a record with these keys is wanted.
    pub const fn matches(self, keys: Keys) -> bool {
        let (first, last) = match self {
            Self::Any => return true,
            Self::Key(key) => (key, key),
            Self::Range(first, last) => (first, last),
        };
        match keys {
            Keys::None => false,
            Keys::Single(key) => first <= key && key <= last,
            Keys::Pair(one, two) => (first <= one && one <= last) || (first <= two && two <= last),
            Keys::Range(from, to) => from <= last && first <= to,
        }
    }
}

/// What a caller appends: a payload of 0 to [`RECORD_BYTES_MAX`](crate::limits::RECORD_BYTES_MAX) bytes, and keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Record {
    /// The caller's bytes; zero bytes are legal.
    pub payload: Bytes,
    /// Optional keys.
    pub keys: Keys,
}

impl Record {
    /// A record without keys.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), keys: Keys::None }
    }

    /// The same record with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }
}

impl<T: Into<Bytes>> From<T> for Record {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_single_pair_and_range_keys() {
        for (filter, keys, matches) in [
            (KeyFilter::Any, Keys::None, true),
            (KeyFilter::Key(5), Keys::None, false),
            (KeyFilter::Key(5), Keys::Single(5), true),
            (KeyFilter::Key(5), Keys::Single(6), false),
            (KeyFilter::Key(5), Keys::Pair(1, 5), true),
            (KeyFilter::Key(5), Keys::Pair(1, 9), false),
            (KeyFilter::Key(5), Keys::Range(1, 5), true),
            (KeyFilter::Key(5), Keys::Range(6, 9), false),
            (KeyFilter::Range(3, 6), Keys::Range(6, 9), true),
            (KeyFilter::Range(3, 6), Keys::Pair(0, 7), false),
        ] {
            assert_eq!(filter.matches(keys), matches, "{filter:?} on {keys:?}");
        }
    }
}
