//! A disk that was away catches up: it gets what it misses of closed segments from the other members of their nodesets.
//!
//! A sequencer sends every record to every member of the nodeset, so *everything* means: each member in service has every
//! record of the segment that is not trimmed. Of the open segment its sequencer takes care, which knows what each copy has
//! and sends the rest. When a segment closes, nobody sends any more; then its members look after themselves, each its own
//! disk, here.
//!
//! ```text
//!  chains, node records ─► core ─► prepare ─► survey ─► copy ─► attest
//!                                  settle     read own   read others   remember that
//!                                  here       copy       repair here   nothing is missing
//! ```
//!
//! One step of one segment at a time, so memory is bounded by one chunk and bandwidth by one bucket. The newest segments of
//! a log come first: they are read most, and old ones are trimmed first. Nothing is remembered but what is durable in the
//! copies, and every step is idempotent, so it may be stopped anywhere and begun again.
//!
//! Nothing of it decides who serves, numbers appends or is read: there is no state that a node could carry into another
//! role. While a copy has holes it says that it misses the records, and readers ask another one; a record is lost only when
//! *every* copy denies it that was not declared lost (R3).
//!
//! Reading order: [`share`] (what a disk should have), [`core`], `cases` (which segment is next), [`progress`], [`pace`], `step` (what one step does),
//! `driver`, `metrics`.

mod cases;
pub mod core;
mod driver;
mod metrics;
pub mod pace;
pub mod progress;
pub mod share;
mod step;

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use bifrost_types::limits::STORE_MESSAGE_BYTES;

pub use self::driver::{CatchUp, Place};
pub use self::progress::{CatchUpError, CatchUpState, Progress};

/// How a disk catches up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpOptions {
    /// Bytes per second that are fetched from others or read back here, together. Default 64 MiB: a fraction of a disk's
    /// and a network's bandwidth, so that appends and readers hardly notice.
    pub bytes_per_second: NonZeroU64,
    /// Bytes that are fetched at once: what is held in memory, with one batch more. Default 1 MiB: a message.
    pub chunk_bytes: NonZeroUsize,
    /// How long a segment is left alone that was closed a moment ago. Default 1 s: its writers cross over, and want the disks
    /// and the machine for that; its servers are being told the tail.
    pub quiet: Duration,
    /// The pause after the first attempt in vain at a segment; it doubles with each. Default 1 s.
    pub pause_min: Duration,
    /// The longest pause. Default 30 s: how late it may be noticed that somebody who has the records answers again.
    pub pause_max: Duration,
    /// How long one step may take. Default 10 s: far more than a megabyte needs.
    pub step_deadline: Duration,
}

impl Default for CatchUpOptions {
    fn default() -> Self {
        Self {
            bytes_per_second: const { NonZeroU64::new(64 << 20).expect("not 0") },
            chunk_bytes: const { NonZeroUsize::new(STORE_MESSAGE_BYTES).expect("not 0") },
            quiet: Duration::from_secs(1),
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
            step_deadline: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests;
