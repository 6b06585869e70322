//! What one key is: its name, its words, and how it is read and written.

use std::fmt;
use std::time::Duration;

use super::Config;
use super::value::{Raw, Rejected, quote, show_bytes, show_duration};

/// Left to the part itself.
const AUTO: &str = "auto";

/// The full name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// Its section, as in `[section]`.
    pub section: &'static str,
    /// Its name within the section.
    pub key: &'static str,
}

/// One thing that can be set.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: KeyName,
    /// Unit and reason, for people; wrapped where it is shown.
    pub doc: &'static str,
    pub(super) access: Access,
}

/// How a value of each kind gets into the configuration and out of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Time { get: fn(&Config) -> Duration, set: fn(&mut Config, Duration) },
    Bytes { get: fn(&Config) -> u64, set: fn(&mut Config, u64) -> Result<(), Rejected> },
    AutoBytes { get: fn(&Config) -> Option<u64>, set: fn(&mut Config, Option<u64>) -> Result<(), Rejected> },
    Count { get: fn(&Config) -> u64, set: fn(&mut Config, u64) -> Result<(), Rejected> },
    Text { get: fn(&Config) -> String, set: fn(&mut Config, &str) -> Result<(), Rejected> },
    Texts { get: fn(&Config) -> Vec<String>, set: fn(&mut Config, Vec<String>) -> Result<(), Rejected> },
}

impl Access {
    /// What a value must look like.
    pub(super) const fn expected(&self) -> &'static str {
        match self {
            Self::Time { .. } => "a time with its unit, such as \"500ms\", \"10s\" or \"2m\"",
            Self::Bytes { .. } => "a number of bytes, such as 65536 or \"64KiB\"",
            Self::AutoBytes { .. } => "a number of bytes, such as 65536 or \"64KiB\", or \"auto\"",
            Self::Count { .. } => "a whole number",
            Self::Text { .. } => "a text",
            Self::Texts { .. } => "a list of texts",
        }
    }

    /// The value in the form of the file.
    pub(super) fn show(&self, config: &Config) -> String {
        match self {
            Self::Time { get, .. } => quote(&show_duration(get(config))),
            Self::Bytes { get, .. } => show_bytes(get(config)),
            Self::AutoBytes { get, .. } => get(config).map_or_else(|| quote(AUTO), show_bytes),
            Self::Count { get, .. } => get(config).to_string(),
            Self::Text { get, .. } => quote(&get(config)),
            Self::Texts { get, .. } => {
                let texts: Vec<String> = get(config).iter().map(|text| quote(text)).collect();
                format!("[{}]", texts.join(", "))
            }
        }
    }

    pub(super) fn set(&self, config: &mut Config, raw: &Raw) -> Result<(), Rejected> {
        match self {
            Self::Time { set, .. } => {
                set(config, raw.duration()?);
                Ok(())
            }
            Self::Bytes { set, .. } => set(config, raw.bytes()?),
            Self::AutoBytes { set, .. } if raw.text() == Ok(AUTO) => set(config, None),
            Self::AutoBytes { set, .. } => set(config, Some(raw.bytes()?)),
            Self::Count { set, .. } => set(config, raw.count()?),
            Self::Text { set, .. } => set(config, raw.text()?),
            Self::Texts { set, .. } => set(config, raw.texts()?),
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.key)
    }
}
