//! What makes copies behave as one: quorums, seal, find tail, repair, read plan, trim.

pub mod peers;
pub mod quorum;
pub mod read;

pub use peers::{MemberError, Peers};
pub use quorum::{Missing, Quorum, QuorumError};
