//! Judges a history of calls and observations by the promises of the log, online and in linear time.
//!
//! ```text
//!  clients, readers ───────────────► Event ─┐   in the order of one clock
//!  metadata store, nodes, disks ───► Event ─┴─► Checker::observe ─► breaches, each with its rule and its events
//!                                      End ───► Checker::finish  ─► what only the end shows; how often each rule was checked
//! ```
//! It knows nothing of how the log works and shares no code with it: what a write quorum is, for example, is written
//! down here a second time, as simply as can be. Used by the simulator, the integration tests and the process tests.
//!
//! Reading order: [`event`], [`Rule`], [`Checker`]; then `appends.rs` and `readers.rs` (what clients saw), `chain.rs` (what
//! metadata took), `loglet.rs` and `quorum.rs` (what disks have), `progress.rs` (what the end shows).

mod appends;
mod breach;
mod chain;
mod checker;
mod end;
pub mod event;
mod log;
mod loglet;
mod nodes;
mod operations;
mod progress;
mod quorum;
mod readers;
mod rule;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use breach::{Breach, EventNumber, Summary, Tally};
pub use checker::Checker;
pub use end::{Bound, End};
pub use rule::Rule;
