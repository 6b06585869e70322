//! A node of a cluster: a log server and sequencers behind one gRPC listener, and the tools of the binary `bifrost`.
//!
//! Reading order: [`server`] (one node), [`gateway`] (its door for thin clients), [`ledger`] (what was acknowledged and read,
//! and the verdicts on it); with the feature `raft` [`metadata_member`] (a member of the metadata group), with `rocksdb`
//! [`local_cluster`] (several nodes in this process), with `process` [`process`] (a node as `bifrost server` runs it) and
//! [`join`] (the same node inside an embedder's process), and with `cli` [`demo`], [`config`], [`cli`].

#[cfg(feature = "process")]
pub use join::{Join, JoinError, Joined};

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cli")]
pub mod demo;
pub mod failover;
pub mod gateway;
#[cfg(feature = "process")]
pub mod join;
pub mod ledger;
#[cfg(feature = "rocksdb")]
pub mod local_cluster;
#[cfg(feature = "raft")]
pub mod metadata_member;
#[cfg(feature = "cli")]
mod nearest;
#[cfg(feature = "cli")]
mod observe;
#[cfg(feature = "process")]
pub mod process;
pub mod server;
