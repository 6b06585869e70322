//! How long is measured.

use std::time::Duration;

/// Bytes of each record's payload, where it does not matter.
pub const RECORD_BYTES: usize = 1024;

/// How much is done at each point.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Appends that are counted.
    pub appends: usize,
    /// Of them, how many with nothing else in flight.
    pub alone: usize,
    /// Records that are delivered to all readers of a log together, at most, while they are counted.
    pub deliveries: usize,
    /// How long is watched what servers do when nobody asks them for anything.
    pub idle: Duration,
    /// Bytes of a backlog that readers read from its start.
    pub backlog_bytes: u64,
    /// Whether to say on stderr how far it is.
    pub tells: bool,
}

impl Effort {
    pub fn told(&self, what: &str) {
        if self.tells {
            eprintln!("scale: {what}");
        }
    }
}
