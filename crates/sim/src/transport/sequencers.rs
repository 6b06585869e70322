//! The sequencers of a node behind a network that loses and delays.

use bifrost_types::{LogletId, NodeGeneration};
use bifrost_wire::RpcError;
use bifrost_wire::sequencer::{AppendOpen, AppendStream, SequencerCallError, SequencerTails, Sequencers};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::call::{Failures, Line, Repeat};
use super::connect::Services;
use super::log_server::next;
use super::{Route, spawn};

/// Answers that wait on the way.
const QUEUED: usize = 256;

const UNREACHABLE: Failures<SequencerCallError> = Failures {
    refused: SequencerCallError::Rpc(RpcError::Unreachable),
    lost: SequencerCallError::Rpc(RpcError::Unreachable),
};

/// Made by [`FaultyConnect`](super::FaultyConnect). Appends are never repeated: their stream is one connection's.
#[derive(Debug)]
pub struct FaultySequencers {
    route: Route,
    services: Services,
}

impl FaultySequencers {
    pub(super) const fn new(route: Route, services: Services) -> Self {
        Self { route, services }
    }
}

impl Sequencers for FaultySequencers {
    fn open_append(&self, open: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        Box::pin(async move {
            let services = self.services.clone();
            let execute = move |line: Line| -> BoxFuture<'static, Result<AppendStream, SequencerCallError>> {
                let services = services.get(line);
                Box::pin(async move {
                    let services = services.ok_or(RpcError::Unreachable)?;
                    services.sequencers.open_append(open).await
                })
            };
            let AppendStream { opened, requests, replies: mut back } =
                self.route.call("open-append", Repeat::Reads, UNREACHABLE, execute).await?;
            let (caller, replies) = mpsc::channel(QUEUED);
            let route = self.route.clone();
            // Dropping the answers ends the requests too.
            spawn(async move {
                while let Some(reply) = next(&mut back, &caller).await {
                    if route.loses_reply("append") || caller.send(reply).await.is_err() {
                        return;
                    }
                }
            });
            Ok(AppendStream { opened, requests, replies })
        })
    }

    fn tails(
        &self,
        loglet: LogletId,
        sequencer: NodeGeneration,
    ) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        let services = self.services.clone();
        let execute = move |line: Line| -> BoxFuture<'static, Result<SequencerTails, SequencerCallError>> {
            let services = services.get(line);
            Box::pin(async move {
                let services = services.ok_or(RpcError::Unreachable)?;
                services.sequencers.tails(loglet, sequencer).await
            })
        };
        Box::pin(self.route.call("tails", Repeat::Reads, UNREACHABLE, execute))
    }
}
