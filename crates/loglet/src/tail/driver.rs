//! Asks all members at once, and again after a pause when they fail, until the core knows.

use std::time::Duration;

use bifrost_types::{LogletParams, NodeIndex};
use bifrost_wire::log_server::StateRequest;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::{ConfirmOpen, Event, OpenCheck};
use crate::peers::{MemberError, Peers, call};
use crate::quorum::QuorumError;

/// Between a failed call and the next one to the same member.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Proves that the loglet was open after this call began, or that it is fenced (R4). The tail itself comes from the
/// sequencer; ask it at the same time, not before. Returns on the first answers that suffice, and after `deadline` at
/// the latest.
///
/// # Errors
/// [`QuorumError`] when the parameters contradict each other.
///
/// # Cancel safety
/// Safe: it only asks.
pub async fn confirm_open(
    params: &LogletParams,
    peers: &dyn Peers,
    deadline: Duration,
) -> Result<OpenCheck, QuorumError> {
    let mut core = ConfirmOpen::new(params)?;
    let until = Instant::now() + deadline;
    let mut calls: FuturesUnordered<BoxFuture<'_, Event>> = FuturesUnordered::new();
    for index in params.nodeset.indexes() {
        calls.push(ask(params, peers, index, until, Duration::ZERO));
    }
    loop {
        let event = tokio::select! {
            biased;
            Some(event) = calls.next() => event,
            () = tokio::time::sleep_until(until) => Event::DeadlinePassed,
        };
        if let Some(result) = core.step(event) {
            return Ok(result);
        }
        if let Event::Failed { index, .. } = event {
            calls.push(ask(params, peers, index, until, RETRY_PAUSE));
        }
    }
}

fn ask<'a>(
    params: &'a LogletParams,
    peers: &'a dyn Peers,
    index: NodeIndex,
    until: Instant,
    pause: Duration,
) -> BoxFuture<'a, Event> {
    Box::pin(async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let answer = async {
            let member = params.nodeset.member(index).ok_or(MemberError::AddressUnknown)?;
            let server = peers.log_server(member.node).ok_or(MemberError::AddressUnknown)?;
            let request = StateRequest { loglet: params.id, disk: member.disk };
            call(until.saturating_duration_since(Instant::now()), server.state(request)).await
        };
        match answer.await {
            Ok(state) => Event::Answered { index, state },
            Err(error) => Event::Failed { index, error },
        }
    })
}
