//! From the sources to one checked [`Config`].

use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bifrost::liveness::InvalidLiveness;
use bifrost_logserver::InvalidOption;
use bifrost_wire::grpc::InvalidLimits;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::key::{Key, KeyName};
use super::keys::{ADDRESSES, SECTIONS, keys};
use super::value::{Raw, Rejected};
use super::{Config, Origin};
use crate::nearest::nearest;

/// Read if it is in the working directory and no other file is named.
pub const FILE: &str = "bifrost.toml";
/// Before `SECTION__KEY`.
const ENV_PREFIX: &str = "BIFROST__";
const ENV_FILE: &str = "BIFROST_CONFIG";
const ENV_ADDRESS: &str = "BIFROST_ADDRESS";
/// Far more than every key with its comment takes; a larger file is not read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where configuration is looked for, flags apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where [`FILE`] is looked for.
    pub directory: PathBuf,
}

impl Source {
    /// The environment and working directory of this process.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self { file, env: std::env::vars_os().collect(), directory: PathBuf::new() }
    }

    fn env(&self, name: &str) -> Option<&OsString> {
        let value = self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        value.filter(|value| !value.is_empty())
    }

    /// The file that is to be read, if any.
    fn path(&self) -> Option<PathBuf> {
        if let Some(named) = self.file.clone().or_else(|| self.env(ENV_FILE).map(PathBuf::from)) {
            return Some(named);
        }
        let local = self.directory.join(FILE);
        local.is_file().then_some(local)
    }
}

impl Config {
    /// Defaults, then the file, then the environment. Flags come after, and then [`check`](Self::check).
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load(source: &Source) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = source.path() {
            let text = read(&path).map_err(|error| ConfigError::Unreadable { path: path.clone(), source: error })?;
            config.apply_file(&path, &text)?;
        }
        config.apply_env(source)?;
        config.check()?;
        Ok(config)
    }

    pub(super) fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let line = |span: Range<usize>| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1;
        let document = DeTable::parse(text).map_err(|source| {
            let line = line(source.span().unwrap_or_default());
            ConfigError::Syntax { path: path.to_owned(), line, source }
        })?;
        let origin = |span| Origin::File { path: path.to_owned(), line: line(span) };
        for (name, value) in in_order(document.get_ref()) {
            let DeValue::Table(table) = value.get_ref() else {
                return Err(unknown_key(origin(name.span()), None, name.get_ref()));
            };
            let section = section(name.get_ref()).map_err(|nearest| ConfigError::UnknownSection {
                origin: origin(name.span()),
                section: name.get_ref().to_string(),
                nearest,
            })?;
            for (name, value) in in_order(table) {
                let key = find(section, name.get_ref())
                    .ok_or_else(|| unknown_key(origin(name.span()), Some(section), name.get_ref()))?;
                self.set(key, &Raw::of(value.get_ref()), origin(name.span()))?;
            }
        }
        Ok(())
    }

    fn apply_env(&mut self, source: &Source) -> Result<(), ConfigError> {
        if let Some(value) = source.env(ENV_ADDRESS) {
            self.set_from_env(&ADDRESSES, ENV_ADDRESS, value)?;
        }
        for (name, value) in &source.env {
            let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else { continue };
            let origin = Origin::Env { name: name.to_owned() };
            let words = name.trim_start_matches(ENV_PREFIX).to_ascii_lowercase();
            let (in_section, key) = words.split_once("__").unwrap_or((&words, ""));
            let section = section(in_section).map_err(|nearest| ConfigError::UnknownSection {
                origin: origin.clone(),
                section: in_section.to_owned(),
                nearest,
            })?;
            let known = find(section, key).ok_or_else(|| unknown_key(origin, Some(section), key))?;
            self.set_from_env(&known.name, name, value)?;
        }
        Ok(())
    }

    fn set_from_env(&mut self, key: &KeyName, name: &str, value: &OsString) -> Result<(), ConfigError> {
        let text = value.to_str().ok_or_else(|| ConfigError::EnvNotText { name: name.to_owned() })?;
        match find(key.section, key.key) {
            Some(key) => self.set(key, &Raw::Env(text.to_owned()), Origin::Env { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    fn set(&mut self, key: &Key, raw: &Raw, origin: Origin) -> Result<(), ConfigError> {
        match key.access.set(self, raw) {
            Ok(()) => {
                self.origins.insert(key.name, origin);
                Ok(())
            }
            Err(Rejected::Kind) => {
                let expected = key.access.expected();
                Err(ConfigError::Kind { origin, key: key.name, value: raw.shown(), expected })
            }
            Err(Rejected::Range(allowed)) => {
                Err(ConfigError::Range { origin, key: key.name, value: raw.shown(), allowed })
            }
        }
    }

    /// Checks what no value can say alone: the bounds of each part, and what its values must be to each other.
    ///
    /// # Errors
    /// [`ConfigError::Range`] names the first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let limits = |section, checked: Result<(), InvalidLimits>| match checked {
            Ok(()) => Ok(()),
            Err(InvalidLimits::Zero { field }) => Err(self.out_of_range(section, field, "more than 0".to_owned())),
            Err(InvalidLimits::OutOfRange { field, min, max, .. }) => {
                Err(self.out_of_range(section, field, format!("{min} to {max}")))
            }
        };
        limits("server", self.server.validate())?;
        limits("connection", self.connection.validate())?;
        let checked = self.failover.liveness.validate();
        checked.map_err(|InvalidLiveness { .. }| {
            self.out_of_range("failover", "silent_after", "three times failover.beat_interval to 1s".to_owned())
        })?;
        let checked = self.storage.validate();
        checked.map_err(|InvalidOption { option, least, most }| {
            self.out_of_range("storage", option, format!("{least} to {most}"))
        })
    }

    fn out_of_range(&self, section: &'static str, field: &'static str, allowed: String) -> ConfigError {
        let name = KeyName { section, key: field };
        let found = find(section, field);
        ConfigError::Range {
            origin: found.map(|key| self.origin(key)).unwrap_or_default(),
            key: name,
            value: found.map(|key| self.value(key)).unwrap_or_default(),
            allowed,
        }
    }
}

/// The file, if it is not absurdly large.
fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{bytes} bytes are no configuration")));
    }
    fs::read_to_string(path)
}

/// The entries of a table as they are written: the first mistake is told, not the first by name.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// The section of this name, or the nearest one.
fn section(name: &str) -> Result<&'static str, Option<&'static str>> {
    let sections = SECTIONS.iter().map(|(section, _)| *section);
    sections.clone().find(|known| *known == name).ok_or_else(|| nearest(name, sections, |section| section))
}

pub(super) fn find(section: &str, key: &str) -> Option<&'static Key> {
    keys().find(|known| known.name.section == section && known.name.key == key)
}

/// The nearest name may be in another section: then the section was mistaken.
fn unknown_key(origin: Origin, section: Option<&'static str>, key: &str) -> ConfigError {
    let names = keys().map(|known| known.name);
    let same = names.clone().find(|name| name.key == key);
    let here = || nearest(key, names.clone().filter(|name| Some(name.section) == section), |name| name.key);
    let anywhere = || nearest(key, names.clone(), |name| name.key);
    let nearest = same.or_else(here).or_else(anywhere);
    ConfigError::UnknownKey { origin, section, key: key.to_owned(), nearest }
}
