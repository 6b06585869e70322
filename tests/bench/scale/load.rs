//! The points that are measured, by name.

use std::fmt;
use std::path::Path;

use bifrost_node::config::parse_bytes;

use super::effort::Effort;
use super::point::Point;
use super::{history, logs, readers, segments};

/// One size of one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// So many logs on three servers.
    Logs(usize),
    /// So many readers at the end of one log.
    TailReaders(usize),
    /// The same, of as many logs.
    SpreadReaders(usize),
    /// So many readers of the same old records.
    BacklogReaders(usize),
    /// One log that was moved so often.
    Segments(usize),
    /// So many bytes in one log.
    History(u64),
}

impl Load {
    /// What the last row is about, where the disk is large enough.
    pub const HISTORY_WANTED: u64 = 50 << 30;
    const NAMES: [&str; 6] = ["logs", "tail_readers", "spread_readers", "backlog_readers", "segments", "history"];

    /// Without a word: everything. The history is a third of what is free at most.
    fn all(free_bytes: u64) -> Vec<Self> {
        let history = Self::HISTORY_WANTED.min(free_bytes / 3);
        let mut all: Vec<Self> = [1, 100, 10_000, 100_000].map(Self::Logs).into();
        all.extend([1, 1000].map(Self::TailReaders));
        all.extend([1, 1000].map(Self::SpreadReaders));
        all.extend([1, 1000].map(Self::BacklogReaders));
        all.extend([100, 10_000].map(Self::Segments));
        all.extend([history / 16, history].map(Self::History));
        all
    }

    const fn name(self) -> &'static str {
        let [logs, tail, spread, backlog, segments, history] = Self::NAMES;
        match self {
            Self::Logs(_) => logs,
            Self::TailReaders(_) => tail,
            Self::SpreadReaders(_) => spread,
            Self::BacklogReaders(_) => backlog,
            Self::Segments(_) => segments,
            Self::History(_) => history,
        }
    }

    /// `logs=100`
    fn parse(word: &str) -> Option<Self> {
        let (name, size) = word.split_once('=')?;
        let count = || size.parse().ok().filter(|count| *count > 0);
        let [logs, tail, spread, backlog, segments, history] = Self::NAMES;
        Some(match name {
            name if name == logs => Self::Logs(count()?),
            name if name == tail => Self::TailReaders(count()?),
            name if name == spread => Self::SpreadReaders(count()?),
            name if name == backlog => Self::BacklogReaders(count()?),
            name if name == segments => Self::Segments(count()?),
            name if name == history => Self::History(parse_bytes(size).filter(|bytes| *bytes > 0)?),
            _ => return None,
        })
    }

    pub async fn measure(self, below: &Path, effort: &Effort) -> Point {
        match self {
            Self::Logs(logs) => logs::measure(below, logs, effort).await,
            Self::TailReaders(readers) => readers::at_the_tail(self.name(), below, readers, 1, effort).await,
            Self::SpreadReaders(readers) => readers::at_the_tail(self.name(), below, readers, readers, effort).await,
            Self::BacklogReaders(readers) => readers::of_a_backlog(below, readers, effort).await,
            Self::Segments(segments) => segments::measure(below, segments, effort).await,
            Self::History(bytes) => history::measure(below, bytes, effort).await,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self {
            Self::Logs(count)
            | Self::TailReaders(count)
            | Self::SpreadReaders(count)
            | Self::BacklogReaders(count)
            | Self::Segments(count) => *count as u64,
            Self::History(bytes) => *bytes,
        };
        write!(f, "{}={size}", self.name())
    }
}

/// What these words name, in order of load and size; the word that names nothing otherwise.
pub fn wanted(words: &[String], free_bytes: u64) -> Result<Vec<Load>, String> {
    let all = Load::all(free_bytes);
    if words.is_empty() {
        return Ok(all);
    }
    let mut wanted = Vec::new();
    for word in words {
        match Load::parse(word) {
            Some(load) => wanted.push(load),
            None => {
                let before = wanted.len();
                wanted.extend(all.iter().filter(|load| load.name().contains(word.as_str())));
                if wanted.len() == before {
                    return Err(word.clone());
                }
            }
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}
