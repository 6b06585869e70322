//! Numbers, replicates and acknowledges the appends of one loglet. Knows no LSN and no metadata.
//!
//! ```text
//!  append streams ──► admission ──► core (window, spread) ──► store pipes ══► log servers
//!     (one per        decode,         numbers, decides          one per
//!      writer)        verify,         what is committed         log server,
//!        ▲            reserve                 │                  all loglets
//!        └───────────── acknowledgements ◄────┘◄─── stored ─────────┘
//! ```
//!
//! Reading order: [`window`] (batches that wait for their write quorum), [`spread`] (what each copy has and was sent),
//! [`core`] (every decision), `driver` (one task per loglet), [`pipe`] (one ordered stream per log server, A4),
//! [`admission`] (append streams and back-pressure), `backfill` (what slow copies missed), [`host`] (all sequencers of one life of a node).
//!
//! A sequencer is bound to a node generation (A6): its offsets live in memory only, so a loglet whose sequencer is gone
//! is never continued, it is closed and followed by another.

pub mod admission;
mod backfill;
pub mod core;
mod driver;
pub mod host;
pub mod metrics;
pub mod pipe;
pub mod spread;
pub mod window;

pub use host::{LogletSource, SequencerHost};
