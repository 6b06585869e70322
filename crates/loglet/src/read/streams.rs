//! The open streams of one reader, polled by the reader itself: no task of their own, so dropping them ends everything.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bifrost_types::NodeId;
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{CallError, ReadGrant, ReadReply, ReadRequest, ReadStream};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::lane::StreamId;
use crate::peers::Peers;

/// What a stream gave.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A part or news.
    Reply(ReadReply),
    /// The stream is over; `None` if it ended in good order.
    Ended(Option<CallError>),
}

/// One stream.
struct Slot {
    state: State,
    /// What could not be sent yet, merged into one: grants never pile up.
    pending: Option<ReadGrant>,
}

enum State {
    Opening(BoxFuture<'static, Result<ReadStream, CallError>>),
    Open { grants: PollSender<ReadGrant>, replies: mpsc::Receiver<Result<ReadReply, CallError>> },
}

/// All streams of a reader.
#[derive(Default)]
pub(super) struct Streams {
    slots: BTreeMap<StreamId, Slot>,
}

impl Streams {
    /// Opens a stream; it begins when it is polled.
    pub(super) fn open(&mut self, stream: StreamId, peers: Arc<dyn Peers>, node: NodeId, request: ReadRequest) {
        let opening = Box::pin(async move {
            let server = peers.log_server(node).ok_or(RpcError::Unreachable)?;
            server.read(request).await
        });
        self.slots.insert(stream, Slot { state: State::Opening(opening), pending: None });
    }

    /// Ends a stream, if it has not ended by itself.
    pub(super) fn close(&mut self, stream: StreamId) {
        self.slots.remove(&stream);
    }

    /// Whether no stream is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Sends a grant now, or as soon as there is room.
    pub(super) fn grant(&mut self, stream: StreamId, grant: ReadGrant) {
        let Some(slot) = self.slots.get_mut(&stream) else { return };
        let merged = match slot.pending.take() {
            None => grant,
            Some(earlier) => ReadGrant {
                credit_bytes: earlier.credit_bytes.saturating_add(grant.credit_bytes),
                readable_tail: earlier.readable_tail.max(grant.readable_tail),
            },
        };
        if let State::Open { grants, .. } = &slot.state
            && let Some(sender) = grants.get_ref()
            && sender.try_send(merged).is_ok()
        {
            return;
        }
        slot.pending = Some(merged);
    }

    /// Waits for something of `wanted`, else of any stream that `also` names.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken from a stream without being returned.
    pub(super) async fn next(
        &mut self,
        wanted: Option<StreamId>,
        also: impl Fn(StreamId) -> bool,
    ) -> (StreamId, Arrival) {
        poll_fn(|cx| {
            if let Some(stream) = wanted
                && let Some(slot) = self.slots.get_mut(&stream)
                && let Poll::Ready(arrival) = slot.poll(cx)
            {
                return Poll::Ready((stream, arrival));
            }
            for (stream, slot) in &mut self.slots {
                if Some(*stream) != wanted
                    && also(*stream)
                    && let Poll::Ready(arrival) = slot.poll(cx)
                {
                    return Poll::Ready((*stream, arrival));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Slot {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        if let State::Opening(opening) = &mut self.state {
            match ready!(opening.as_mut().poll(cx)) {
                Ok(ReadStream { grants, replies }) => {
                    self.state = State::Open { grants: PollSender::new(grants), replies };
                }
                Err(error) => return Poll::Ready(Arrival::Ended(Some(error))),
            }
        }
        self.flush(cx);
        let State::Open { replies, .. } = &mut self.state else { return Poll::Pending };
        Poll::Ready(match ready!(replies.poll_recv(cx)) {
            Some(Ok(reply)) => Arrival::Reply(reply),
            Some(Err(error)) => Arrival::Ended(Some(error)),
            None => Arrival::Ended(None),
        })
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        let State::Open { grants, .. } = &mut self.state else { return };
        if self.pending.is_some()
            && let Poll::Ready(room) = grants.poll_reserve(cx)
            && let Some(grant) = self.pending.take()
            && room.is_ok()
        {
            // Fails only if the server is gone, and then the replies end, too.
            let _ = grants.send_item(grant);
        }
    }
}
