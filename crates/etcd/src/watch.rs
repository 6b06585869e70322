//! One watch: a stream of etcd on one side, whole revisions in a bounded channel on the other.
//!
//! A watcher that does not read makes its stream wait, which etcd bounds; when history is compacted under it, etcd says so
//! and the watch ends with `Compacted`. A stream that breaks closes the channel, and the watcher resumes.

use bifrost_metadata::{Change, Changes, MetadataError, Revision, WatchStream};
use bifrost_types::limits::METADATA_TXN_ITEMS_MAX;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::answer::{Malformed, positive, signed};
use crate::keys::Keys;
use crate::pb::event::EventType;
use crate::pb::watch_client::WatchClient;
use crate::pb::watch_request::RequestUnion;
use crate::pb::{Event, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::store::led;

/// Revisions that wait for the watcher; each is one transaction at most.
const QUEUE: usize = 16;

/// Makes whole revisions of what etcd sends in pieces.
#[derive(Debug)]
pub(crate) struct Assembler {
    keys: Keys,
    /// The last revision that was delivered, or after which the watch began.
    told: Revision,
    /// The changes of one revision of which more may come.
    begun: Option<Changes>,
}

impl Assembler {
    fn new(keys: Keys, after: Revision) -> Self {
        Self { keys, told: after, begun: None }
    }

    /// Takes one message. `more` says that the last revision in it goes on in the next one.
    fn take(&mut self, events: Vec<Event>, more: bool, out: &mut Vec<Changes>) -> Result<(), Malformed> {
        for event in events {
            let pair = event.kv.ok_or(Malformed)?;
            let revision = positive(pair.mod_revision)?;
            // Where the watch begins etcd repeats what is known.
            if revision <= self.told {
                continue;
            }
            let value = match EventType::try_from(event.r#type) {
                Ok(EventType::Put) => Some(Bytes::from(pair.value)),
                Ok(EventType::Delete) => None,
                Err(_) => return Err(Malformed),
            };
            let change = Change { key: self.keys.own(&pair.key).ok_or(Malformed)?, revision, value };
            match &mut self.begun {
                Some(begun) if begun.revision == revision => begun.changes.push(change),
                Some(begun) if begun.revision > revision => return Err(Malformed),
                Some(_) | None => {
                    self.finish(out);
                    self.begun = Some(Changes { revision, changes: vec![change] });
                }
            }
            if self.begun.as_ref().is_some_and(|begun| begun.changes.len() > METADATA_TXN_ITEMS_MAX) {
                return Err(Malformed);
            }
        }
        if !more {
            self.finish(out);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Changes>) {
        if let Some(begun) = self.begun.take() {
            self.told = begun.revision;
            out.push(begun);
        }
    }
}

/// Carries the changes of one watch.
#[derive(Debug)]
pub(crate) struct Driver {
    stream: Streaming<WatchResponse>,
    /// The other direction: etcd ends the watch when it is closed.
    _open: mpsc::Sender<WatchRequest>,
    assembler: Assembler,
    items: mpsc::Sender<Result<Changes, MetadataError>>,
}

/// Opens a stream of what happened to keys under `prefix` after a revision.
pub(crate) async fn open(
    mut client: WatchClient<Channel>,
    keys: Keys,
    prefix: String,
    after: Revision,
) -> Result<(Driver, WatchStream), MetadataError> {
    // From `after` on and not from the revision behind it: etcd keeps the removals of every revision but the one that it
    // compacted up to, so that one must be known already. It has nothing at revision 1, and 0 would mean "from now on".
    let create = WatchCreateRequest {
        key: keys.start(&prefix, None),
        range_end: keys.end(&prefix),
        start_revision: signed(after.max(1)),
        fragment: true,
    };
    let unavailable = |error: Status| {
        tracing::debug!(%error, "etcd does not open a watch");
        MetadataError::Unavailable
    };
    let (open, requests) = mpsc::channel(1);
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    open.try_send(request).map_err(|_| MetadataError::Unavailable)?;
    let stream = client.watch(led(ReceiverStream::new(requests))).await.map_err(unavailable)?;
    let mut stream = stream.into_inner();
    let first = stream.message().await.map_err(unavailable)?.ok_or(MetadataError::Unavailable)?;
    if let Some(end) = ended(&first) {
        return Err(end);
    }
    let (items, receiver) = mpsc::channel(QUEUE);
    let mut driver = Driver { stream, _open: open, assembler: Assembler::new(keys, after), items };
    driver.deliver(first).await.map_err(|Over| MetadataError::Unavailable)?;
    Ok((driver, receiver))
}

/// The watch is over.
struct Over;

impl Driver {
    /// Carries changes until the watch ends or nobody takes them.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.items.closed() => return,
                message = self.stream.message() => message,
            };
            let response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "a watch of etcd broke"),
            };
            if let Some(end) = ended(&response) {
                let last = self.items.send(Err(end));
                let _gone = stop.run_until_cancelled(last).await;
                return;
            }
            match stop.run_until_cancelled(self.deliver(response)).await {
                Some(Ok(())) => {}
                Some(Err(Over)) | None => return,
            }
        }
    }

    async fn deliver(&mut self, response: WatchResponse) -> Result<(), Over> {
        let mut out = Vec::new();
        let taken = self.assembler.take(response.events, response.fragment, &mut out);
        for changes in out {
            self.items.send(Ok(changes)).await.map_err(|_| Over)?;
        }
        taken.map_err(|error| {
            tracing::warn!(%error, "a watch of etcd ends");
            Over
        })
    }
}

/// What the watcher is told if this is the end of the watch.
fn ended(response: &WatchResponse) -> Option<MetadataError> {
    match positive(response.compact_revision) {
        Ok(oldest) => Some(MetadataError::Compacted { oldest }),
        Err(Malformed) => response.canceled.then_some(MetadataError::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::KeyValue;

    const PUT: i32 = EventType::Put as i32;
    const DELETE: i32 = EventType::Delete as i32;

    fn event(kind: i32, key: &str, revision: i64) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, value: b"v".to_vec() };
        Event { r#type: kind, kv: Some(kv) }
    }

    fn take(assembler: &mut Assembler, events: &[Event], more: bool) -> Result<Vec<(Revision, usize)>, Malformed> {
        let mut out = Vec::new();
        assembler.take(events.to_vec(), more, &mut out)?;
        Ok(out.into_iter().map(|changes| (changes.revision, changes.changes.len())).collect())
    }

    #[test]
    fn a_revision_in_pieces_is_told_once_and_whole() {
        let mut assembler = Assembler::new(Keys::new("b/"), 4);
        let known = [event(PUT, "b/a", 3), event(PUT, "b/a", 4)];
        assert_eq!(take(&mut assembler, &known, false), Ok(vec![]), "what is known is not told again");
        assert_eq!(take(&mut assembler, &[event(PUT, "b/a", 5), event(PUT, "b/a", 6)], true), Ok(vec![(5, 1)]));
        assert_eq!(take(&mut assembler, &[event(DELETE, "b/b", 6)], true), Ok(vec![]));
        assert_eq!(
            take(&mut assembler, &[event(PUT, "b/c", 6), event(PUT, "b/a", 9)], false),
            Ok(vec![(6, 3), (9, 1)])
        );
        assert_eq!(take(&mut assembler, &[], false), Ok(vec![]));
    }

    #[test]
    fn events_that_no_etcd_sends_end_the_watch() {
        let nothing = Event { r#type: PUT, kv: None };
        for wrong in [nothing, event(7, "b/a", 5), event(PUT, "c/a", 5), event(PUT, "b/a", 0), event(PUT, "b/a", -1)] {
            assert_eq!(take(&mut Assembler::new(Keys::new("b/"), 4), &[wrong], false), Err(Malformed));
        }
        let back = [event(PUT, "b/a", 6), event(PUT, "b/a", 5)];
        assert_eq!(take(&mut Assembler::new(Keys::new("b/"), 4), &back, false), Err(Malformed));
        let endless = vec![event(PUT, "b/a", 5); METADATA_TXN_ITEMS_MAX + 1];
        assert_eq!(take(&mut Assembler::new(Keys::new("b/"), 4), &endless, true), Err(Malformed));
    }
}
