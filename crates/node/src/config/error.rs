//! Why a configuration is refused. Each says where, what and what is allowed.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::Origin;
use super::key::KeyName;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not TOML: {}", path.display(), source.message())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        source: toml::de::Error,
    },
    /// There is no such section.
    #[error("{origin}: unknown section [{section}]")]
    UnknownSection {
        /// Where it was named.
        origin: Origin,
        /// The section.
        section: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// There is no such key.
    #[error("{origin}: unknown key {}{key}", section.map(|section| format!("{section}.")).unwrap_or_default())]
    UnknownKey {
        /// Where it was named.
        origin: Origin,
        /// Its section; `None` for a key outside of all.
        section: Option<&'static str>,
        /// The key.
        key: String,
        /// What may have been meant.
        nearest: Option<KeyName>,
    },
    /// The value is of the wrong kind.
    #[error("{origin}: {key} is {value}, and must be {expected}")]
    Kind {
        /// Where it was set.
        origin: Origin,
        /// Which key.
        key: KeyName,
        /// The value.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The value is out of bounds, or contradicts another one.
    #[error("{origin}: {key} is {value}, allowed is {allowed}")]
    Range {
        /// Where it was set.
        origin: Origin,
        /// Which key.
        key: KeyName,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// An environment variable is not text.
    #[error("the environment variable {name} is not valid UTF-8")]
    EnvNotText {
        /// Which one.
        name: String,
    },
}

impl ConfigError {
    /// What to do about it, in one sentence.
    pub fn advice(&self) -> String {
        const ALL: &str = "`bifrost config example` shows every key";
        match self {
            Self::Unreadable { .. } => "name another file with --config or BIFROST_CONFIG".to_owned(),
            Self::UnknownSection { nearest: Some(nearest), .. } => format!("did you mean [{nearest}]? {ALL}"),
            Self::UnknownKey { nearest: Some(nearest), .. } => format!("did you mean {nearest}? {ALL}"),
            Self::EnvNotText { name } => format!("unset {name}"),
            Self::Syntax { .. }
            | Self::UnknownSection { .. }
            | Self::UnknownKey { .. }
            | Self::Kind { .. }
            | Self::Range { .. } => ALL.to_owned(),
        }
    }
}
