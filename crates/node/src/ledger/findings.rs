//! Breaches that were found: all are counted, the first few are told.

use std::fmt;

/// More sentences are only counted.
const SENTENCES_MAX: usize = 5;

/// Breaches of one promise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    count: u64,
    sentences: Vec<String>,
}

impl Findings {
    /// That many, of which these are told.
    pub(crate) fn new(count: u64, sentences: impl Iterator<Item = String>) -> Self {
        Self { count, sentences: sentences.take(SENTENCES_MAX).collect() }
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The first few, as sentences.
    pub fn sentences(&self) -> &[String] {
        &self.sentences
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences.join("; "))?;
        match self.count.saturating_sub(u64::try_from(self.sentences.len()).unwrap_or(u64::MAX)) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
