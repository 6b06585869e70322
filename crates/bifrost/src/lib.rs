//! A segmented, replicated log you can embed.
//!
//! A log is a chain of segments in versioned metadata. Appenders talk to the sequencer of the last segment, which
//! replicates to log servers and acknowledges after an fsync on a write quorum. Moving a log to other machines means
//! sealing the last segment and opening the next, in one transaction that anybody can resume.
//!
//! ```
//! use bifrost::{Bifrost, LogOptions, ReadEvent, ReadOptions};
//! use futures_util::StreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bifrost = Bifrost::in_memory().await?; // or embedded(dir), or connect(addresses)
//! let orders = bifrost.open_log("orders", LogOptions::default()).await?;
//! let lsn = orders.appender().append("one espresso").await?;
//!
//! let mut reader = orders.read(ReadOptions { from: lsn, ..ReadOptions::default() });
//! if let Some(Ok(ReadEvent::Record(record))) = reader.next().await {
//!     assert_eq!(&record.payload[..], b"one espresso");
//! }
//! # bifrost.shutdown().await; Ok(()) }
//! ```
//!
//! ```text
//!  Bifrost ─► Log ─┬─► Appender ─► queue ─► driver ─► Sequencers (trait) ─► ...
//!                  ├─► Reader ─► loglet reader ─► log servers (trait)
//!                  └─► find_tail, trim, reconfigure, resolve
//!                        │
//!                     LogState: the chain as last seen, how far each segment may be read
//!                        │
//!                     Catalog ─► MetadataStore (trait)        Directory ─► Connect ─► services of each node
//! ```
//!
//! Reading order: [`handle`] (the entry point), [`log`], [`appender`], [`reader`], [`chain`] (the transitions),
//! [`reconfigure`], [`delete`] and [`shorten`] (the steps), [`controller`] (who resumes them), [`liveness`] (who is silent),
//! `hand_over` (a planned stop), `log_state` (what handles share), `tail` (where an open loglet's tail is), `follow` (how
//! they hear of changes), `declared_lost` (what readers need not wait for),
//! `settle` (A7), [`placement`], [`catalog`], [`directory`], [`connect`], [`metadata_pool`], [`membership`] and
//! [`local_node`] (a node in this process), [`catch_up`] (what its disk misses), [`nodes`] (what an operator sees and
//! does), [`error`], [`options`]; and [`explain`] for people.

pub mod appender;
mod back_off;
pub mod catalog;
pub mod catch_up;
pub mod chain;
mod clock;
mod cluster;
pub mod connect;
pub mod controller;
mod create;
mod declared_lost;
pub mod delete;
pub mod directory;
mod drain;
pub mod error;
pub mod explain;
mod follow;
mod give_back;
mod hand_over;
pub mod handle;
pub mod liveness;
pub mod local_node;
pub mod log;
mod log_state;
pub mod membership;
pub mod metadata_pool;
pub mod nodes;
pub mod options;
pub mod placement;
pub mod reader;
pub mod reconfigure;
mod resume;
mod settle;
pub mod shorten;
mod states;
mod tail;
#[cfg(test)]
mod test_world;

pub use appender::{Appender, Permit, Ticket};
pub use bifrost_loglet::read::{GapKind, MissingDisk};
pub use bifrost_types::{AppendId, Chain, KeyFilter, Keys, LogId, Lsn, OpId, Record, ReplicationProperty};
pub use cluster::fresh_op;
pub use error::{Advice, AppendError, LogError, NotAppended, ReadError, ReserveError, Resolved};
pub use explain::Explanation;
pub use hand_over::{HandOverOptions, HandedOver};
pub use handle::{Bifrost, StartError};
pub use log::{Log, Plan, ReconfigureOptions, ResolveError, Tail, TailKind};
pub use options::{AppenderOptions, LogOptions, Options, ReadOptions};
pub use placement::PlanError;
pub use reader::{LogRecord, ReadEvent, Reader, WaitsFor};
pub use reconfigure::Reconfigured;
pub use tail::TailUnknown;

/// The code of the README compiles.
#[cfg(all(doctest, feature = "rocksdb"))]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
