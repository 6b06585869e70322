//! A log by its name or its number.

use std::fmt;
use std::str::FromStr;

use bifrost::LogId;
use bifrost::catalog::validate_name;
use thiserror::Error;

/// Which log a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogRef {
    /// By its number.
    Id(LogId),
    /// By its name, which is never a plain number.
    Name(String),
}

/// A text that can be neither the name nor the number of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum InvalidLogRef {
    /// Not a name.
    #[error(
        "a name has 1 to 255 letters, digits, `-`, `_` and `.`, begins with a letter or digit, and has a letter in it"
    )]
    Name,
    /// Not a number.
    #[error("the numbers of logs go from 1 to 18446744073709551615")]
    Number,
}

impl FromStr for LogRef {
    type Err = InvalidLogRef;

    fn from_str(text: &str) -> Result<Self, InvalidLogRef> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Id).map_err(|_| InvalidLogRef::Number);
        }
        validate_name(text).map_err(|_| InvalidLogRef::Name)?;
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for LogRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(log) => write!(f, "{log}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_by_name_or_number() {
        assert_eq!("orders".parse(), Ok(LogRef::Name("orders".to_owned())));
        assert!(matches!("17".parse(), Ok(LogRef::Id(log)) if log.get() == 17));
        assert_eq!("0".parse::<LogRef>(), Err(InvalidLogRef::Number));
        assert_eq!("99999999999999999999".parse::<LogRef>(), Err(InvalidLogRef::Number));
        for text in ["", "../x", "a b", "a\0b", "-1", "x\u{1b}[2J"] {
            assert_eq!(text.parse::<LogRef>(), Err(InvalidLogRef::Name), "{text:?}");
        }
    }
}
