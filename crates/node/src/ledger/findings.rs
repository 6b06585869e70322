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
    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The first few, as sentences.
    pub fn sentences(&self) -> &[String] {
        &self.sentences
    }

    pub(crate) fn add(&mut self, sentence: impl FnOnce() -> String) {
        self.count += 1;
        if self.sentences.len() < SENTENCES_MAX {
            self.sentences.push(sentence());
        }
    }

    pub(crate) fn require(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.add(sentence);
        }
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.count += others.count;
        let room = SENTENCES_MAX.saturating_sub(self.sentences.len());
        self.sentences.extend(others.sentences.iter().take(room).cloned());
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
