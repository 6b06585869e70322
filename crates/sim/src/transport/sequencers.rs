//! The sequencers of a node behind a network that loses and delays.

use bifrost_types::{LogletId, NodeGeneration};
use bifrost_wire::RpcError;
use bifrost_wire::sequencer::{AppendOpen, AppendStream, EndRequest, SequencerCallError, SequencerTails, Sequencers};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, timeout};

use super::call::{Failures, Line, Repeat};
use super::connect::Services;
use super::log_server::next;
use super::{Route, spawn};

/// Answers that wait on the way.
const QUEUED: usize = 256;

/// How long a broken stream may carry what it has.
const LINGER: Duration = Duration::from_secs(20);

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
            let (stalling, route) = (self.route.clone(), self.route.clone());
            let (sent, mut queued) = mpsc::channel(QUEUED);
            spawn(async move {
                while let Some(request) = queued.recv().await {
                    if let Some(stall) = stalling.stalls() {
                        stalling.note("append", format_args!("stalls for {stall:?}"));
                        sleep(stall).await;
                    }
                    if requests.send(request).await.is_err() {
                        return;
                    }
                }
            });
            spawn(async move {
                while let Some(reply) = next(back.recv(), &caller).await {
                    if route.loses_reply("append") {
                        drop(caller);
                        // The connection is broken for its caller; what it carries arrives all the same, and then it ends.
                        let drained = async { while back.recv().await.is_some() {} };
                        let _ended = timeout(LINGER, drained).await;
                        return;
                    }
                    if caller.send(reply).await.is_err() {
                        return;
                    }
                }
            });
            Ok(AppendStream { opened, requests: sent, replies: replies.into() })
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

    fn end(&self, request: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        let services = self.services.clone();
        let execute = move |line: Line| -> BoxFuture<'static, Result<SequencerTails, SequencerCallError>> {
            let services = services.get(line);
            Box::pin(async move {
                let services = services.ok_or(RpcError::Unreachable)?;
                services.sequencers.end(request).await
            })
        };
        Box::pin(self.route.call("end-sequencer", Repeat::Idempotent, UNREACHABLE, execute))
    }
}
