//! What makes copies behave as one: the quorums of a loglet, closing it, reading it, and proving that it is open.
//!
//! It is not a log: it knows no chain, no LSN and no metadata, and takes no append. What it needs of the world are its
//! arguments: the parameters of one loglet, and [`Peers`], the log servers by node.
//!
//! ```text
//!  appends     sequencer ──► Quorum::best_committed          how far a write quorum has stored (A2)
//!
//!  closing     close_loglet ──seal──► all members            S1   first f-majority
//!                   │ ◄─── sealed answers ───                S2   lowest safe tail, highest stored tail
//!                   ├──read─► a copy ──repair─► another      S3   only what is not on a write quorum
//!                   ▼
//!              Closed { candidate tail } ──► the chain decides ──► settle_loglet (S5)
//!
//!  find tail   confirm_open ──state─► all members            R4   write quorum not sealed
//!  reading     read ──► one copy at a time                   R1, R2, R3
//! ```
//!
//! Cores decide and drivers act: [`close::CloseLoglet`] is a plain struct of events and effects, and
//! [`close_loglet`] runs it over log servers. The simulator and the tests run the same core.
//!
//! Reading order: [`quorum`], [`peers`], [`alarm`], [`close`], [`tail`], [`settle`], [`read`], [`metrics`].

pub mod alarm;
pub mod close;
pub mod metrics;
pub mod peers;
pub mod quorum;
pub mod read;
pub mod settle;
pub mod tail;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod script;

pub use alarm::Alarm;
pub use close::{Blocked, CloseError, CloseOptions, CloseProgress, Closed, close_loglet};
pub use peers::{MemberError, Peers};
pub use quorum::{Missing, Quorum, QuorumError};
pub use settle::{MemberAnswer, settle_loglet, trim_loglet};
pub use tail::{OpenCheck, confirm_open};
