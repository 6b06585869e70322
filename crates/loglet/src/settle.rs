//! Telling every member of a nodeset something that it may learn late: the decided tail, and what to trim.
//!
//! Both are best effort. A server that misses the decided tail keeps garbage above it that nobody reads (S5, R1), and
//! one that misses a trim keeps records that nobody asks for; whoever calls may call again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bifrost_types::{DiskId, LogletOffset, LogletParams, NodeId, OpId};
use bifrost_wire::log_server::{CallError, CopyState, LogServer, SettleRequest, TrimRequest};
use futures_util::future::join_all;

use crate::peers::{MemberError, Peers, call};

/// What one member answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberAnswer {
    /// The member.
    pub node: NodeId,
    /// Its state once the request was durable there, or why it is not known to be.
    pub result: Result<CopyState, MemberError>,
}

/// Tells all members where the loglet ended. Returns one answer for each member, by node id, after the last of them and
/// no later than `deadline`.
///
/// # Cancel safety
/// Safe: idempotent at every server.
pub async fn settle_loglet(
    params: &LogletParams,
    op: OpId,
    decided_tail: LogletOffset,
    peers: &dyn Peers,
    deadline: Duration,
) -> Vec<MemberAnswer> {
    let loglet = params.id;
    ask_all(params, peers, deadline, |server, disk| async move {
        server.settle(SettleRequest { loglet, disk, op, decided_tail }).await
    })
    .await
}

/// Drops records up to and including `trim_point` at all members. Returns one answer for each member, by node id, after
/// the last of them and no later than `deadline`; each holds the trim point that is now in force there.
///
/// # Cancel safety
/// Safe: idempotent at every server.
pub async fn trim_loglet(
    params: &LogletParams,
    trim_point: LogletOffset,
    peers: &dyn Peers,
    deadline: Duration,
) -> Vec<MemberAnswer> {
    let loglet = params.id;
    ask_all(params, peers, deadline, |server, disk| async move {
        server.trim(TrimRequest { loglet, disk, trim_point }).await
    })
    .await
}

async fn ask_all<F: Future<Output = Result<CopyState, CallError>>>(
    params: &LogletParams,
    peers: &dyn Peers,
    deadline: Duration,
    ask: impl Fn(Arc<dyn LogServer>, DiskId) -> F,
) -> Vec<MemberAnswer> {
    join_all(params.nodeset.members().iter().map(|member| {
        let asked = peers.log_server(member.node).map(|server| ask(server, member.disk));
        async move {
            let result = match asked {
                Some(answer) => call(deadline, answer).await,
                None => Err(MemberError::AddressUnknown),
            };
            MemberAnswer { node: member.node, result }
        }
    }))
    .await
}

#[cfg(test)]
mod tests;
