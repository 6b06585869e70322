//! What is left of a log that is being deleted. This is the noun; the steps are in `bifrost::delete`.

use crate::chain::Chain;
use crate::id::{LogId, OpId};

/// The intent to delete a log, and afterwards the list of what its servers still have to give back. It goes when they
/// have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The log.
    pub log: LogId,
    /// The deletion. Doing the same one again ends in the same result.
    pub op: OpId,
    /// When it began, in milliseconds since the Unix epoch by the clock of whoever began it. Information only.
    pub opened_at_millis: u64,
    /// The final chain: every segment is sealed, nothing is pending. `None` while the log is being closed and its chain
    /// is still there.
    pub removed: Option<Chain>,
}
