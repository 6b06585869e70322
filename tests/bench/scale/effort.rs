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
    /// For figures.
    pub const FULL: Self = Self {
        appends: 20_000,
        alone: 300,
        deliveries: 200_000,
        idle: Duration::from_secs(10),
        backlog_bytes: 4 << 20,
        tells: true,
    };

    /// To see that it works.
    pub const LEAST: Self = Self {
        appends: 40,
        alone: 4,
        deliveries: 1000,
        idle: Duration::from_millis(50),
        backlog_bytes: 64 << 10,
        tells: false,
    };

    pub fn told(&self, what: &str) {
        if self.tells {
            eprintln!("scale: {what}");
        }
    }
}
