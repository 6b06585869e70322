//! Values as texts: what files and environment variables say, and how a value is written back.

use std::time::Duration;

use toml::de::DeValue;

/// A value as it was written, before its key says what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A number in a file.
    Number(String),
    /// A text in a file.
    Text(String),
    /// A list of texts in a file.
    Texts(Vec<String>),
    /// An environment variable: text, number or a list with commas.
    Env(String),
    /// Something that no key takes.
    Other(&'static str),
}

/// Why a value is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It is of another kind, or cannot be understood.
    Kind,
    /// It is understood and out of bounds; says what is allowed.
    Range(String),
}

impl Raw {
    pub(super) fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => {
                let value = i128::from_str_radix(number.as_str(), number.radix());
                Self::Number(value.map_or_else(|_| number.to_string(), |value| value.to_string()))
            }
            DeValue::Array(values) => {
                let texts: Option<Vec<_>> =
                    values.iter().map(|value| value.get_ref().as_str().map(str::to_owned)).collect();
                texts.map_or(Self::Other("list"), Self::Texts)
            }
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
                Self::Other(value.type_str())
            }
        }
    }

    /// The value as it was written, for an error.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Number(text) | Self::Env(text) => text.clone(),
            Self::Text(text) => quote(text),
            Self::Texts(texts) => format!("{texts:?}"),
            Self::Other(kind) => format!("a {kind}"),
        }
    }

    pub(super) fn duration(&self) -> Result<Duration, Rejected> {
        match self {
            Self::Text(text) | Self::Env(text) => parse_duration(text).ok_or(Rejected::Kind),
            Self::Number(_) | Self::Texts(_) | Self::Other(_) => Err(Rejected::Kind),
        }
    }

    pub(super) fn bytes(&self) -> Result<u64, Rejected> {
        match self {
            Self::Number(text) | Self::Text(text) | Self::Env(text) => bytes_of(text),
            Self::Texts(_) | Self::Other(_) => Err(Rejected::Kind),
        }
    }

    pub(super) fn count(&self) -> Result<u64, Rejected> {
        match self {
            Self::Number(text) | Self::Env(text) => whole(text),
            Self::Text(_) | Self::Texts(_) | Self::Other(_) => Err(Rejected::Kind),
        }
    }

    pub(super) fn text(&self) -> Result<&str, Rejected> {
        match self {
            Self::Number(text) | Self::Text(text) | Self::Env(text) => Ok(text),
            Self::Texts(_) | Self::Other(_) => Err(Rejected::Kind),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<String>, Rejected> {
        match self {
            Self::Texts(texts) => Ok(texts.clone()),
            Self::Text(text) | Self::Env(text) => Ok(text.split(',').map(|text| text.trim().to_owned()).collect()),
            Self::Number(_) | Self::Other(_) => Err(Rejected::Kind),
        }
    }
}

/// A whole number; one that is negative or beyond 64 bits is out of bounds.
fn whole(text: &str) -> Result<u64, Rejected> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Rejected::Kind);
    }
    text.parse().map_err(|_| Rejected::Range(format!("0 to {}", u64::MAX)))
}

const SIZES: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// A size: a whole number, of bytes or with one of the units `B`, `KiB`, `MiB` and `GiB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    bytes_of(text).ok()
}

fn bytes_of(text: &str) -> Result<u64, Rejected> {
    let Some((number, shift)) = SIZES.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift))) else {
        return whole(text);
    };
    let number = whole(number.trim_end())?;
    number.checked_mul(1 << shift).ok_or_else(|| Rejected::Range(format!("0 to {}", u64::MAX)))
}

pub(super) fn show_bytes(bytes: u64) -> String {
    let exact = SIZES.iter().find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    match exact {
        Some((unit, shift)) if *shift > 0 => quote(&format!("{}{unit}", bytes >> shift)),
        _ => bytes.to_string(),
    }
}

const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// A time: a whole number and one of the units `ms`, `s`, `m` and `h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let (_, millis) = TIMES.iter().find(|(known, _)| *known == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*millis).map(Duration::from_millis)
}

/// The same, back: exact to the millisecond.
pub(super) fn show_duration(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let whole = TIMES.iter().rev().find(|(_, unit)| millis != 0 && millis.is_multiple_of(*unit));
    let (unit, unit_millis) = whole.copied().unwrap_or(("s", 1000));
    format!("{}{unit}", millis / unit_millis)
}

/// A text in quotes, as TOML and JSON both read it.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
