//! What is known when a history is over.

use crate::event::Micros;

/// Something that was counted or measured, and how much of it is fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// What, with its unit, for sentences.
    pub what: &'static str,
    /// How much there was.
    pub found: u64,
    /// How much is fine.
    pub max: u64,
}

/// The end of a history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct End {
    /// When it ended.
    pub at: Micros,
    /// Whether a fresh reader was opened for each log after its last append ended, from its beginning to its tail: then
    /// everything acknowledged must be below what such a reader passed (P1).
    pub scanned: bool,
    /// Requests and retries while the cluster was idle or waiting (P5.quiet).
    pub quiet: Vec<Bound>,
    /// The longest time without an acknowledged append (P6).
    pub pauses: Vec<Bound>,
}
