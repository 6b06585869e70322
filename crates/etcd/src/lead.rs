//! Who leads among those that stand: whoever has one key, which goes with a lease of etcd.
//!
//! | the key | what one who stands does |
//! |---|---|
//! | is not there | takes it, in one transaction, under a lease of a few seconds |
//! | is its own | keeps the lease, and leads while etcd has confirmed that within the time of the lease |
//! | is another's | waits until it is gone |
//!
//! A holder that dies or is cut off from etcd is followed by another when its lease is over; one that stops ends it. Two may
//! believe at once that they lead: one whose clock stood still. So **nothing that must be right may depend on it**. What
//! follows from a lead here is who judges silence, and a wrong verdict costs a move.

use std::time::Duration;

use bifrost_metadata::{Change, Changes, MetadataError, Precondition, Revision};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::answer;
use crate::pb::request_op::Request as Op;
use crate::pb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest};
use crate::store::{Answer, EtcdMetadata, demand, led, read_error};

/// The key, among those that are no metadata.
const KEY: &str = "\0lead";
/// Seconds of the lease. etcd grants none that is shorter than one and a half of its elections: with its defaults, 2 s.
const LEASE_SECONDS: i64 = 2;
/// The lease is confirmed so many times in its time.
const CONFIRMATIONS: u32 = 4;
/// Between two attempts at what etcd did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// For one call.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// For the call that ends a lease: without it the next one leads when the lease is over.
const REVOKE_DEADLINE: Duration = Duration::from_millis(300);

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// A later lead has a higher term.
    pub term: Revision,
    /// What the holder calls itself.
    pub holder: String,
}

/// What one who stands knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Who leads, as far as it was heard.
    pub lead: Option<Lead>,
    /// Whether that is oneself, by a lease that was confirmed within its time.
    pub mine: bool,
}

/// Stands as `me` until `stop`, and tells what it knows; run it as a task. No two that stand at the same time may have the same
/// name.
///
/// # Cancel safety
/// Safe: a lease that nobody keeps ends by itself.
pub async fn stand(store: EtcdMetadata, me: String, told: watch::Sender<Standing>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let looked = stop.run_until_cancelled(look(&store)).await;
        match looked {
            None => return,
            Some(Ok((seen, Some(lead)))) => {
                told.send_replace(Standing { lead: Some(lead), mine: false });
                if let Some(Err(error)) = stop.run_until_cancelled(until_gone(&store, seen)).await {
                    debug!(%error, "who leads is not followed");
                    let _stopped = stop.run_until_cancelled(sleep(PAUSE)).await;
                }
            }
            Some(Ok((_, None))) => {
                told.send_replace(Standing::default());
                hold(&store, &me, &told, &stop).await;
            }
            Some(Err(error)) => {
                debug!(%error, "who leads cannot be read");
                let _stopped = stop.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }
}

/// Who has the key, and the revision of the store in which that is so.
async fn look(store: &EtcdMetadata) -> Result<(Revision, Option<Lead>), MetadataError> {
    let (seen, responses) = store.read(|| vec![store.get_op(KEY)]).await.map_err(read_error)?;
    let response = responses.into_iter().next().ok_or(MetadataError::Unavailable)?;
    let found = answer::value(response).map_err(|_| MetadataError::Unavailable)?;
    let holder = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Ok((seen, found.map(|found| Lead { term: found.revision, holder: holder(&found.value) })))
}

/// Waits until the key that was there in this revision of the store is not any more. That is not the revision that wrote it, which
/// may be long ago, and compacted.
async fn until_gone(store: &EtcdMetadata, seen: Revision) -> Result<(), MetadataError> {
    let mut watch = store.begin_watch(KEY.to_owned(), seen).await?;
    loop {
        let Changes { changes, .. } = watch.recv().await.ok_or(MetadataError::Unavailable)??;
        if changes.iter().any(|Change { value, .. }| value.is_none()) {
            return Ok(());
        }
    }
}

/// A lease, and until when it surely holds.
#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    until: Instant,
}

/// Takes the key if it is free, and holds it as long as possible. Whatever becomes of it, the lease is over then.
async fn hold(store: &EtcdMetadata, me: &str, told: &watch::Sender<Standing>, stop: &CancellationToken) {
    let Some(lease) = timeout(CALL_DEADLINE, grant(store)).await.ok().flatten() else {
        let _stopped = stop.run_until_cancelled(sleep(PAUSE)).await;
        return;
    };
    let key = store.keys().key(KEY);
    let take = Op::RequestPut(PutRequest { key: key.clone(), value: me.into(), lease: lease.id });
    let taking = store.call(vec![demand(key, Precondition::Absent)], vec![take], Vec::new());
    // Any other answer, and none, is the same: another one was faster, or the key goes with the lease.
    if let Ok(Ok(Answer::Held(term, _))) = timeout_at(lease.until, taking).await {
        info!(term, "this node leads: its controller judges who is silent");
        told.send_replace(Standing { lead: Some(Lead { term, holder: me.to_owned() }), mine: true });
        let _stopped = stop.run_until_cancelled(keep(store, lease)).await;
        told.send_replace(Standing::default());
        info!(term, "this node does not lead any more");
    }
    let revoke = LeaseRevokeRequest { id: lease.id };
    let _expires_otherwise = timeout(REVOKE_DEADLINE, store.lease().lease_revoke(led(revoke))).await;
}

async fn grant(store: &EtcdMetadata) -> Option<Lease> {
    let asked = Instant::now();
    let granted = store.lease().lease_grant(led(LeaseGrantRequest { ttl: LEASE_SECONDS })).await;
    match granted.map(tonic::Response::into_inner) {
        Ok(granted) => Some(Lease { id: granted.id, until: asked + seconds(granted.ttl) }),
        Err(error) => {
            debug!(%error, "etcd grants no lease");
            None
        }
    }
}

/// Returns when etcd has not confirmed the lease within its time, or says that it is over.
async fn keep(store: &EtcdMetadata, mut lease: Lease) {
    while Instant::now() < lease.until {
        // A stream that breaks is opened again: another member of etcd may answer.
        match keep_by_one_stream(store, &mut lease).await {
            Kept::Over => return,
            Kept::Broken => sleep_until(lease.until.min(Instant::now() + PAUSE)).await,
        }
    }
}

enum Kept {
    Over,
    Broken,
}

async fn keep_by_one_stream(store: &EtcdMetadata, lease: &mut Lease) -> Kept {
    let (requests, receiver) = mpsc::channel(1);
    let request = LeaseKeepAliveRequest { id: lease.id };
    let mut asked = Instant::now();
    if requests.try_send(request).is_err() {
        return Kept::Broken;
    }
    let mut client = store.lease();
    let opening = client.lease_keep_alive(led(ReceiverStream::new(receiver)));
    let mut answers = match timeout_at(lease.until, opening).await {
        Ok(Ok(answers)) => answers.into_inner(),
        Ok(Err(_)) => return Kept::Broken,
        Err(_) => return Kept::Over,
    };
    loop {
        let time = match timeout_at(lease.until, answers.message()).await {
            Ok(Ok(Some(answer))) if answer.ttl > 0 => seconds(answer.ttl),
            Ok(Ok(Some(_))) | Err(_) => return Kept::Over,
            Ok(Ok(None) | Err(_)) => return Kept::Broken,
        };
        lease.until = asked + time;
        sleep(time / CONFIRMATIONS).await;
        asked = Instant::now();
        if requests.send(request).await.is_err() {
            return Kept::Broken;
        }
    }
}

/// Bounded: a lease is seconds long, whatever a peer says.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0).min(60))
}

#[cfg(test)]
mod tests;
