//! The body of an answer, counted: see [`account`](crate::account).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::futures::OwnedNotified;

use crate::account::{Account, Ahead};

/// Makes the next frame only while its account has room or its service has one ready that is counted already, and counts each
/// one until its last byte is gone.
///
/// hyper asks for a frame whenever it has none in hand, also while the peer gives no HTTP/2 window; so without the gate
/// each stream of a peer that takes nothing would cost a message.
pub(super) struct CountedAnswer<B> {
    body: B,
    account: Arc<Account>,
    /// What its service has ready.
    ahead: Ahead,
    /// While it waits for room. Not while it waits for the service.
    waiting: Option<Pin<Box<OwnedNotified>>>,
    /// Its place among the open requests of the listener.
    _place: OwnedSemaphorePermit,
}

impl<B> CountedAnswer<B> {
    pub(super) const fn new(body: B, account: Arc<Account>, ahead: Ahead, place: OwnedSemaphorePermit) -> Self {
        Self { body, account, ahead, waiting: None, _place: place }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() && self.account.has_room() {
            return Poll::Ready(());
        }
        if self.ahead.poll_ready(cx).is_ready() {
            self.waiting = None;
            return Poll::Ready(());
        }
        loop {
            if let Some(freed) = &mut self.waiting {
                std::task::ready!(freed.as_mut().poll(cx));
                self.waiting = None;
                if self.account.has_room() {
                    return Poll::Ready(());
                }
            }
            // Made before the check, so that a release in between is not missed.
            let freed = Box::pin(self.account.freed());
            if self.account.has_room() {
                return Poll::Ready(());
            }
            self.waiting = Some(freed);
        }
    }
}

impl<B> Body for CountedAnswer<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let waited = this.waiting.is_some();
        std::task::ready!(this.poll_room(cx));
        let account = &this.account;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let counted = polled.map(|frame| Some(frame?.map(|frame| frame.map_data(|data| account.hold_bytes(data)))));
        if waited {
            // Whoever was woken wakes the next one: this stream may have nothing to say.
            this.account.pass_on();
        }
        counted
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
