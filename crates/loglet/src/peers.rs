//! The members of a nodeset as something to call.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use bifrost_types::{LogletId, LogletOffset, NodeGeneration, NodeId, NodeSet, Nodeset, OpId};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{CallError, LogServer};
use futures_util::future::BoxFuture;
use thiserror::Error;

/// Where the log servers are. The caller keeps it up to date; it is asked anew for every call.
pub trait Peers: Send + Sync + std::fmt::Debug {
    /// The log server of a node, or `None` while its address is not known or after the node was removed.
    fn log_server(&self, node: NodeId) -> Option<Arc<dyn LogServer>>;

    /// Which members have disks that an operator gave up, as of now: they will never answer again. `None` if that cannot be
    /// found out now; the caller asks again. By default nobody can say.
    fn who_is_lost(&self, nodeset: &Nodeset) -> BoxFuture<'static, Option<NodeSet>> {
        let _ = nodeset;
        Box::pin(ready(None))
    }

    /// Ends the sequencer of a loglet for good, in the name of an operation that sealed it, and says with which committed tail:
    /// it never acknowledged, and never will, anything at or above. `None` if it cannot be asked or does not say. By default
    /// nobody can ask it.
    fn end_sequencer(
        &self,
        loglet: LogletId,
        sequencer: NodeGeneration,
        op: OpId,
    ) -> BoxFuture<'static, Option<LogletOffset>> {
        let _ = (loglet, sequencer, op);
        Box::pin(ready(None))
    }
}

/// Why one member of a nodeset gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MemberError {
    /// Nobody knows where the node is: it was removed, or not heard of yet.
    #[error("no address is known for the node")]
    AddressUnknown,
    /// The call failed, or the server refused. A wrong disk is one of these: it is lost, never empty (W2).
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<RpcError> for MemberError {
    fn from(error: RpcError) -> Self {
        Self::Call(error.into())
    }
}

/// One call, for at most `deadline`.
pub(crate) async fn call<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, CallError>>,
) -> Result<T, MemberError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(RpcError::DeadlinePassed.into()),
    }
}
