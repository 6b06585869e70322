//! Many items of a channel in one message: whatever waits, up to a limit, without waiting for more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bifrost_types::limits::{MESSAGE_BYTES_MAX, STORE_MESSAGE_BYTES};
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

use crate::codec::MESSAGE_ITEMS_MAX;
use crate::codec::sequencer::AppendMessage;
use crate::log_server::{ReadGrant, StoreReply, StoreRequest};
use crate::pb;
use crate::sequencer::{AppendReplies, AppendReply, AppendRequest};

/// What an item costs in a message besides its payload, rounded up.
const ITEM_OVERHEAD_BYTES: usize = 128;
/// What a batch costs besides its bytes.
const BATCH_OVERHEAD_BYTES: usize = 8;

const _: () = assert!(
    STORE_MESSAGE_BYTES + MESSAGE_ITEMS_MAX * BATCH_OVERHEAD_BYTES < MESSAGE_BYTES_MAX,
    "a coalesced message is a legal message"
);

/// Something that may share a message with what comes after it.
pub(super) trait Coalesce: Sized {
    /// The message.
    type Message;

    /// How many elements of the message's list, and how many bytes, the item takes.
    fn cost(&self) -> (usize, usize);

    /// Whether `next` may come into the message of this one, limits aside.
    fn joins(&self, _next: &Self) -> bool {
        true
    }

    /// The message of these items, at least one.
    fn pack(items: Vec<Self>) -> Self::Message;
}

/// Where items come from.
pub(super) trait Items {
    /// Of what kind they are.
    type Item: Coalesce;

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;

    /// One that waits already.
    fn try_recv(&mut self) -> Option<Self::Item>;
}

impl<T: Coalesce> Items for mpsc::Receiver<T> {
    type Item = T;

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Self::poll_recv(self, cx)
    }

    fn try_recv(&mut self) -> Option<T> {
        Self::try_recv(self).ok()
    }
}

impl Items for AppendReplies {
    type Item = AppendReply;

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<AppendReply>> {
        Pin::new(self).poll_next(cx)
    }

    fn try_recv(&mut self) -> Option<AppendReply> {
        Self::try_recv(self)
    }
}

/// The messages of items, in order. An item that is over the limits by itself travels alone.
#[derive(Debug)]
pub(super) struct Coalesced<Q: Items> {
    items: Q,
    /// Taken from the queue, and did not fit into the last message.
    held: Option<Q::Item>,
}

impl<Q: Items> Coalesced<Q> {
    pub(super) const fn new(items: Q) -> Self {
        Self { items, held: None }
    }
}

impl<Q: Items + Unpin> Stream for Coalesced<Q>
where
    Q::Item: Unpin,
{
    type Item = <Q::Item as Coalesce>::Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let first = match this.held.take() {
            Some(held) => held,
            None => match ready!(this.items.poll_recv(cx)) {
                Some(first) => first,
                None => return Poll::Ready(None),
            },
        };
        let (mut elements, mut bytes) = first.cost();
        let mut group = vec![first];
        while let Some(next) = this.items.try_recv() {
            let (more_elements, more_bytes) = next.cost();
            elements = elements.saturating_add(more_elements);
            bytes = bytes.saturating_add(more_bytes);
            let fits = elements <= MESSAGE_ITEMS_MAX && bytes <= STORE_MESSAGE_BYTES;
            if !fits || !group.last().is_some_and(|last| last.joins(&next)) {
                this.held = Some(next);
                break;
            }
            group.push(next);
        }
        Poll::Ready(Some(Q::Item::pack(group)))
    }
}

fn batch_bytes(batches: &[Bytes]) -> usize {
    batches.iter().map(|batch| batch.len().saturating_add(BATCH_OVERHEAD_BYTES)).fold(0, usize::saturating_add)
}

impl Coalesce for StoreRequest {
    type Message = pb::StoreRequest;

    fn cost(&self) -> (usize, usize) {
        (1, ITEM_OVERHEAD_BYTES.saturating_add(batch_bytes(&self.batches)))
    }

    fn pack(items: Vec<Self>) -> pb::StoreRequest {
        items.into()
    }
}

impl Coalesce for StoreReply {
    type Message = pb::StoreResponse;

    fn cost(&self) -> (usize, usize) {
        (1, ITEM_OVERHEAD_BYTES)
    }

    fn pack(items: Vec<Self>) -> pb::StoreResponse {
        items.into()
    }
}

impl Coalesce for AppendRequest {
    type Message = pb::AppendRequest;

    fn cost(&self) -> (usize, usize) {
        (self.batches.len(), batch_bytes(&self.batches))
    }

    /// Batches of one stream are in order and each is atomic by itself, so requests may be joined.
    fn pack(items: Vec<Self>) -> pb::AppendRequest {
        Self { batches: items.into_iter().flat_map(|item| item.batches).collect() }.into()
    }
}

impl Coalesce for AppendReply {
    type Message = pb::AppendResponse;

    fn cost(&self) -> (usize, usize) {
        match self {
            Self::Committed { first_offsets, .. } => {
                (first_offsets.len(), first_offsets.len().saturating_mul(BATCH_OVERHEAD_BYTES))
            }
            Self::Closed(_) => (1, ITEM_OVERHEAD_BYTES),
        }
    }

    fn joins(&self, next: &Self) -> bool {
        matches!((self, next), (Self::Committed { .. }, Self::Committed { .. }))
    }

    /// The tail after the last one holds for all.
    fn pack(items: Vec<Self>) -> pb::AppendResponse {
        let packed = items.into_iter().reduce(|packed, next| match (packed, next) {
            (Self::Committed { mut first_offsets, .. }, Self::Committed { first_offsets: more, committed_tail }) => {
                first_offsets.extend(more);
                Self::Committed { first_offsets, committed_tail }
            }
            (_, next) => next,
        });
        packed.map(|reply| AppendMessage::Reply(reply).into()).unwrap_or_default()
    }
}

impl Coalesce for ReadGrant {
    type Message = pb::ReadRequest;

    fn cost(&self) -> (usize, usize) {
        (1, ITEM_OVERHEAD_BYTES)
    }

    /// Credit adds up, the tail only grows.
    fn pack(items: Vec<Self>) -> pb::ReadRequest {
        let packed = items.into_iter().reduce(|packed, next| Self {
            credit_bytes: packed.credit_bytes.saturating_add(next.credit_bytes),
            readable_tail: packed.readable_tail.max(next.readable_tail),
        });
        packed.map(Into::into).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use bifrost_types::LogletOffset;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::sequencer::SequencerError;

    fn append(bytes: usize) -> AppendRequest {
        AppendRequest { batches: vec![Bytes::from(vec![7; bytes])] }
    }

    async fn sizes(items: Vec<AppendRequest>) -> Vec<usize> {
        let (sender, receiver) = mpsc::channel(items.len());
        for item in items {
            sender.try_send(item).expect("the channel is as large as the list");
        }
        drop(sender);
        let messages: Vec<pb::AppendRequest> = Coalesced::new(receiver).collect().await;
        messages
            .into_iter()
            .map(|message| AppendRequest::try_from(message).expect("what is packed is legal").batches.len())
            .collect()
    }

    #[tokio::test]
    async fn what_waits_shares_a_message_up_to_its_limits() {
        assert_eq!(sizes(vec![append(10), append(20), append(30)]).await, [3]);
        assert_eq!(sizes(vec![append(600 << 10), append(300 << 10), append(600 << 10)]).await, [2, 1]);
        assert_eq!(sizes(vec![append(1), append(15 << 20), append(1)]).await, [1, 1, 1], "a large one travels alone");
        let many = (0..MESSAGE_ITEMS_MAX + 1).map(|_| append(1)).collect();
        assert_eq!(sizes(many).await, [MESSAGE_ITEMS_MAX, 1]);
    }

    #[tokio::test]
    async fn commits_join_and_a_closing_stays_last() {
        let offset = |value| LogletOffset::new(value).expect("non-zero");
        let (sender, receiver) = mpsc::channel(4);
        for reply in [
            AppendReply::Committed { first_offsets: vec![offset(1)], committed_tail: offset(4) },
            AppendReply::Committed { first_offsets: vec![offset(4), offset(5)], committed_tail: offset(9) },
            AppendReply::Closed(SequencerError::Full),
        ] {
            sender.try_send(reply).expect("room for all");
        }
        drop(sender);
        let messages: Vec<_> = Coalesced::new(receiver)
            .map(|message| AppendMessage::try_from(message).expect("what is packed is legal"))
            .collect()
            .await;
        let joined =
            AppendReply::Committed { first_offsets: vec![offset(1), offset(4), offset(5)], committed_tail: offset(9) };
        let closed = AppendReply::Closed(SequencerError::Full);
        assert_eq!(messages, [AppendMessage::Reply(joined), AppendMessage::Reply(closed)]);
    }

    #[test]
    fn grants_add_up() {
        let offset = |value| LogletOffset::new(value).expect("non-zero");
        let grant = |credit_bytes, tail| ReadGrant { credit_bytes, readable_tail: offset(tail) };
        let packed = ReadGrant::pack(vec![grant(10, 7), grant(u64::MAX, 5)]);
        assert_eq!(ReadGrant::try_from(packed), Ok(grant(u64::MAX, 7)));
    }
}
