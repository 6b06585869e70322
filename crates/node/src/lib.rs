//! A node of a cluster: a log server and sequencers behind one gRPC listener, and the tools of the binary `bifrost`.
//!
//! Reading order: [`server`] (one node), [`gateway`] (its door for thin clients), [`local_cluster`] (several nodes in this
//! process), [`ledger`] (what was acknowledged and read, and the verdicts on it), [`demo`], [`config`], [`cli`].

pub mod cli;
pub mod config;
pub mod demo;
pub mod gateway;
pub mod ledger;
pub mod local_cluster;
mod nearest;
pub mod server;
