//! Values of arguments: positions and times.

use std::time::Duration;

use bifrost::{KeyFilter, Keys, Lsn};
use bifrost_types::limits::RECORD_BYTES_MAX;

use crate::config;

/// An LSN. The first one is 1.
pub(crate) fn parse_lsn(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|_| "an LSN is a number from 1 on".to_owned())
}

/// A time such as 500ms, 10s or 2m.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let time = config::parse_duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "a time is a whole number and a unit, such as 500ms, 10s or 2m".to_owned())
}

/// A size of a record such as 128, 1KiB or 1MiB.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let size = config::parse_bytes(text).and_then(|bytes| usize::try_from(bytes).ok());
    size.filter(|size| *size <= RECORD_BYTES_MAX)
        .ok_or_else(|| format!("a size is a number of bytes up to {RECORD_BYTES_MAX}, such as 128, 1KiB or 1MiB"))
}

/// Keys of records: `7`, `7,9`, or `7-9` for all from 7 to 9.
pub(crate) fn parse_keys(text: &str) -> Result<Keys, String> {
    let keys = match text.split_once(',') {
        Some((one, two)) => key(one).zip(key(two)).map(|(one, two)| Keys::Pair(one, two)),
        None => key_range(text)
            .map(|(first, last)| if first == last { Keys::Single(first) } else { Keys::Range(first, last) }),
    };
    keys.ok_or_else(|| "keys are one number, two as in 7,9, or a range as in 7-9".to_owned())
}

/// Which records are wanted: those with a key, or with one from a range.
pub(crate) fn parse_key_filter(text: &str) -> Result<KeyFilter, String> {
    let filter = key_range(text)
        .map(|(first, last)| if first == last { KeyFilter::Key(first) } else { KeyFilter::Range(first, last) });
    filter.ok_or_else(|| "a key is a number, or a range of them as in 7-9".to_owned())
}

fn key(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Both ends are inclusive.
fn key_range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    key(first).zip(key(last)).filter(|(first, last)| first <= last)
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the first record that is not trimmed.
    Oldest,
    /// At an LSN.
    Lsn(Lsn),
    /// So many records before the tail.
    BeforeTail(u64),
}

/// `oldest`, `tail`, `tail-100`, or an LSN.
pub(crate) fn parse_start(text: &str) -> Result<Start, String> {
    let records =
        text.strip_prefix("tail").map(|rest| rest.strip_prefix('-').unwrap_or(if rest.is_empty() { "0" } else { "" }));
    let start = match records {
        Some(records) => records.parse().ok().map(Start::BeforeTail),
        None if text == "oldest" => Some(Start::Oldest),
        None => text.parse().ok().map(Start::Lsn),
    };
    start.ok_or_else(|| "reading begins at `oldest`, `tail`, `tail-N`, or an LSN from 1 on".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_one_two_or_a_range() {
        assert_eq!(parse_keys("7"), Ok(Keys::Single(7)));
        assert_eq!(parse_keys("7,9"), Ok(Keys::Pair(7, 9)));
        assert_eq!(parse_keys("7-9"), Ok(Keys::Range(7, 9)));
        assert_eq!(parse_key_filter("0"), Ok(KeyFilter::Key(0)));
        assert_eq!(parse_key_filter("7-9"), Ok(KeyFilter::Range(7, 9)));
        for text in ["", "a", "9-7", "1,2,3", "-1", "1-", "18446744073709551616"] {
            assert!(parse_keys(text).is_err(), "{text}");
            assert!(parse_key_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reading_begins_somewhere() {
        assert_eq!(parse_start("oldest"), Ok(Start::Oldest));
        assert_eq!(parse_start("tail"), Ok(Start::BeforeTail(0)));
        assert_eq!(parse_start("tail-100"), Ok(Start::BeforeTail(100)));
        assert_eq!(parse_start("1"), Ok(Start::Lsn(Lsn::FIRST)));
        for text in ["", "0", "-1", "tail-", "tail100", "tail--1", "newest", "18446744073709551616"] {
            assert!(parse_start(text).is_err(), "{text}");
        }
    }
}
