//! Values of arguments: positions and times.

use std::time::Duration;

use bifrost::Lsn;

/// An LSN. The first one is 1.
pub(crate) fn parse_lsn(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|_| "an LSN is a number from 1 on".to_owned())
}

/// A time such as 500ms, 10s or 2m.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("a time is a number and a unit, such as 500ms, 10s or 2m".to_owned()),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_millis));
    millis.map(Duration::from_millis).ok_or_else(|| "not a time".to_owned())
}
