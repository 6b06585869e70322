//! Whoever judges members by what they apply: the simulator.

use std::fmt;

use bifrost_metadata::{Keyspace, Txn};

use crate::types::LogId;

/// Sees what one member applies, before anybody else can know of it. It may not wait.
pub trait Witness: fmt::Debug + Send + Sync + 'static {
    /// The member applies an entry: these transactions, or none if it is one of Raft itself.
    fn applies(&self, id: LogId, txns: &[Txn]);

    /// The member goes on from a snapshot that ends with this entry: its own at a start, or that of a leader.
    fn installs(&self, keyspace: &Keyspace, applied: Option<LogId>);
}
