//! The store: each call is one transaction of etcd, or one stream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bifrost_metadata::keyspace::{PAGE_KEY_BYTES_MAX, PAGE_VALUE_BYTES_MAX, validate};
use bifrost_metadata::{
    MetadataError, MetadataStore, Page, Precondition, Revision, Txn, TxnOutcome, Versioned, WatchStream, Write,
    validate_key,
};
use bifrost_types::ClusterId;
use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_TXN_ITEMS_MAX, METADATA_VALUE_BYTES_MAX};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::answer::{self, Malformed, ReadFailure, read_failure, txn_failure};
use crate::keys::{Keys, RESERVED};
use crate::options::{EtcdOptions, Guard, InvalidEtcdOptions};
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::kv_client::KvClient;
use crate::pb::lease_client::LeaseClient;
use crate::pb::request_op::Request as Op;
use crate::pb::watch_client::WatchClient;
use crate::pb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest};
use crate::watch;

/// Calls under way; one more is refused.
const CALLS_MAX: usize = 1024;
/// Watches at the same time; one more is refused. Each is a stream to etcd.
const WATCHES_MAX: usize = 4096;
/// Entries of a list that are asked for at once: etcd counts entries and not bytes.
const CHUNK: usize = 32;
/// Bytes of one answer.
pub(crate) const ANSWER_BYTES_MAX: usize = CHUNK * (METADATA_VALUE_BYTES_MAX + METADATA_KEY_BYTES_MAX) + (1 << 20);
/// Most operations or demands of one transaction, as etcd has it by default.
const OPERATIONS_MAX: usize = 128;
/// Between two attempts of a read.
const PAUSE: Duration = Duration::from_millis(100);
/// For one attempt of a read: another member of etcd may answer the next one.
const ATTEMPT: Duration = Duration::from_secs(2);
/// After this time without a sign of life, and then this time without an answer, a connection is given up. etcd refuses
/// clients that ask more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

const _: () = assert!(METADATA_TXN_ITEMS_MAX <= OPERATIONS_MAX, "etcd takes the largest transaction");

/// A handle to what one cluster has in etcd; clones share its connections. Watches end with the last handle.
#[derive(Clone)]
pub struct EtcdMetadata {
    shared: Arc<Shared>,
}

struct Shared {
    options: EtcdOptions,
    keys: Keys,
    channel: Channel,
    calls: Semaphore,
    watches: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stops: DropGuard,
}

/// How a transaction of etcd ended.
pub(crate) enum Answer {
    /// Every demand held.
    Held(Revision, Vec<ResponseOp>),
    /// One of the caller's did not.
    Failed(Vec<ResponseOp>),
    /// The prefix belongs to somebody else.
    Foreign(MetadataError),
}

impl fmt::Debug for EtcdMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdMetadata").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl EtcdMetadata {
    /// A handle. Nobody is asked anything yet: etcd may be started later. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`InvalidEtcdOptions`].
    pub fn connect(options: EtcdOptions) -> Result<Self, InvalidEtcdOptions> {
        options.validate()?;
        let endpoints: Result<Vec<Endpoint>, _> = options.endpoints.iter().map(|text| endpoint(text)).collect();
        let channel = Channel::balance_list(endpoints?.into_iter());
        let stop = CancellationToken::new();
        let shared = Shared {
            keys: Keys::new(&options.prefix),
            options,
            channel,
            calls: Semaphore::new(CALLS_MAX),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            tasks: TaskTracker::new(),
            _stops: stop.clone().drop_guard(),
            stop,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.shared.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.shared.channel.clone())
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    pub(crate) fn get_op(&self, key: &str) -> Op {
        Op::RequestRange(RangeRequest { key: self.shared.keys.key(key), ..RangeRequest::default() })
    }

    /// Reads nothing, and has etcd find out what is new before it answers.
    fn look(&self) -> Op {
        Op::RequestRange(RangeRequest { key: self.shared.keys.key(""), keys_only: true, ..RangeRequest::default() })
    }

    /// One transaction under the guard.
    pub(crate) async fn call(
        &self,
        mut demands: Vec<Compare>,
        then: Vec<Op>,
        mut otherwise: Vec<Op>,
    ) -> Result<Answer, CallError> {
        let guard = self.shared.options.guard.as_ref();
        if let Some(guard) = guard {
            let key = self.shared.keys.key(&guard.key);
            let value = TargetUnion::Value(guard.cluster.to_string().into_bytes());
            demands.insert(0, compare(key, CompareResult::Equal, CompareTarget::Value, value));
            otherwise.insert(0, self.get_op(&guard.key));
        }
        let ops = |ops: Vec<Op>| ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
        let txn = TxnRequest { compare: demands, success: ops(then), failure: ops(otherwise) };
        let answer = self.kv().txn(led(txn)).await?.into_inner();
        let revision = answer::revision(answer.header.as_ref())?;
        if answer.succeeded {
            return Ok(Answer::Held(revision, answer.responses));
        }
        let mut responses = answer.responses;
        if let Some(guard) = guard {
            if responses.is_empty() {
                return Err(Malformed.into());
            }
            if let Some(error) = foreign(guard, answer::value(responses.remove(0))?) {
                return Ok(Answer::Foreign(error));
            }
        }
        Ok(Answer::Failed(responses))
    }

    /// Reads, again if need be, until the deadline.
    pub(crate) async fn read(&self, ops: impl Fn() -> Vec<Op>) -> Result<(Revision, Vec<ResponseOp>), ReadFailure> {
        let unavailable = ReadFailure::Refused(MetadataError::Unavailable);
        let _call = self.shared.calls.try_acquire().map_err(|_| unavailable)?;
        let reading = async {
            loop {
                match timeout(ATTEMPT, self.call(Vec::new(), ops(), Vec::new())).await {
                    Ok(Ok(Answer::Held(revision, responses))) => return Ok((revision, responses)),
                    Ok(Ok(Answer::Foreign(error))) => return Err(ReadFailure::Refused(error)),
                    // Without demands of the caller there is none that could not hold.
                    Ok(Ok(Answer::Failed(_)) | Err(CallError::Malformed(_))) => return Err(unavailable),
                    Ok(Err(CallError::Etcd(error))) => match read_failure(&error) {
                        ReadFailure::Passing => tracing::debug!(%error, "etcd does not answer a read"),
                        failure => return Err(failure),
                    },
                    Err(_) => tracing::debug!("etcd does not answer a read in time"),
                }
                sleep(PAUSE).await;
            }
        };
        timeout(self.shared.options.request_timeout, reading).await.unwrap_or(Err(unavailable))
    }

    /// Keys of one page: in chunks, all of one revision.
    async fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, MetadataError> {
        let keys = &self.shared.keys;
        let (mut start, end) = (keys.start(prefix, after), keys.end(prefix));
        let mut page = Page { revision: 0, entries: Vec::new(), more: false };
        let (mut value_bytes, mut key_bytes) = (0_usize, 0_usize);
        loop {
            let asked = limit.saturating_sub(page.entries.len()).clamp(1, CHUNK);
            let chunk = RangeRequest {
                key: start.clone(),
                range_end: end.clone(),
                limit: asked as i64,
                // 0 for the first chunk: the present.
                revision: answer::signed(page.revision),
                keys_only: false,
            };
            let (revision, responses) = match self.read(|| vec![Op::RequestRange(chunk.clone())]).await {
                Ok(answer) => answer,
                // What was read so far is a page.
                Err(ReadFailure::Compacted) if !page.entries.is_empty() => {
                    page.more = true;
                    return Ok(page);
                }
                Err(failure) => return Err(read_error(failure)),
            };
            if page.revision == 0 {
                page.revision = revision;
            }
            let response = responses.into_iter().next().ok_or(MetadataError::Unavailable)?;
            let range = answer::range(response).map_err(|_| MetadataError::Unavailable)?;
            for pair in range.kvs {
                let (raw, versioned) = answer::versioned(pair).map_err(|_| MetadataError::Unavailable)?;
                let key = keys.own(&raw).ok_or(MetadataError::Unavailable)?;
                value_bytes = value_bytes.saturating_add(versioned.value.len());
                key_bytes = key_bytes.saturating_add(key.len());
                let full = value_bytes > PAGE_VALUE_BYTES_MAX || key_bytes > PAGE_KEY_BYTES_MAX;
                if page.entries.len() >= limit || (full && !page.entries.is_empty()) {
                    page.more = true;
                    return Ok(page);
                }
                start = keys.start(prefix, Some(&key));
                page.entries.push((key, versioned));
            }
            if !range.more || page.entries.len() >= limit {
                page.more = range.more;
                return Ok(page);
            }
        }
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, MetadataError> {
        validate(&txn)?;
        let demanded = txn.preconditions.iter().map(|(key, _)| key);
        demanded.chain(txn.writes.iter().map(|(key, _)| key)).try_for_each(|key| not_reserved(key))?;
        let guards = usize::from(self.shared.options.guard.is_some());
        if txn.preconditions.len() + guards > OPERATIONS_MAX {
            return Err(MetadataError::TooLarge);
        }
        let keys = &self.shared.keys;
        let demanded: Vec<String> = txn.preconditions.iter().map(|(key, _)| key.clone()).collect();
        let demands = txn.preconditions.iter().map(|(key, precondition)| demand(keys.key(key), *precondition));
        let mut then: Vec<Op> = txn.writes.into_iter().map(|(key, write)| write_op(keys.key(&key), write)).collect();
        if then.is_empty() {
            // Without any operation etcd would answer from what this one of its members has, however old.
            then.push(self.look());
        }
        let otherwise = demanded.iter().map(|key| self.get_op(key)).collect();
        let _call = self.shared.calls.try_acquire().map_err(|_| MetadataError::Unavailable)?;
        let answer = timeout(self.shared.options.request_timeout, self.call(demands.collect(), then, otherwise)).await;
        match answer.map_err(|_| MetadataError::Unknown)? {
            Ok(Answer::Held(revision, _)) => Ok(TxnOutcome::Committed(revision)),
            Ok(Answer::Failed(responses)) => {
                let present: Result<Vec<_>, Malformed> = responses.into_iter().map(answer::value).collect();
                // Nothing was written, but what is there cannot be told.
                let present = present.ok().filter(|present| present.len() == demanded.len());
                let present = present.ok_or(MetadataError::Unavailable)?;
                Ok(TxnOutcome::Conflict(demanded.into_iter().zip(present).collect()))
            }
            Ok(Answer::Foreign(error)) => Err(error),
            Err(CallError::Malformed(Malformed)) => Err(MetadataError::Unknown),
            Err(CallError::Etcd(error)) => {
                let failure = txn_failure(&error);
                tracing::debug!(%error, %failure, "etcd does not commit a transaction");
                Err(failure)
            }
        }
    }

    pub(crate) async fn begin_watch(&self, prefix: String, after: Revision) -> Result<WatchStream, MetadataError> {
        let place = Arc::clone(&self.shared.watches).try_acquire_owned().map_err(|_| MetadataError::Unavailable)?;
        // Checks the cluster, and that `after` is a revision of this store.
        let read = self.read(|| vec![self.look()]).await;
        let (present, _) = read.map_err(read_error)?;
        if after > present {
            return Err(MetadataError::Compacted { oldest: present });
        }
        let client = WatchClient::new(self.shared.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let opening = watch::open(client, self.shared.keys.clone(), prefix, after);
        let opened = timeout(self.shared.options.request_timeout, opening).await;
        let (driver, stream) = opened.unwrap_or(Err(MetadataError::Unavailable))?;
        let stop = self.shared.stop.child_token();
        self.shared.tasks.spawn(async move {
            driver.run(stop).await;
            drop(place);
        });
        Ok(stream)
    }
}

/// Why a transaction has no answer.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Etcd(#[from] Status),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

pub(crate) fn read_error(failure: ReadFailure) -> MetadataError {
    match failure {
        ReadFailure::Refused(error) => error,
        ReadFailure::Passing | ReadFailure::Compacted => MetadataError::Unavailable,
    }
}

/// Whose prefix it is, if it is not this cluster's. `None` when the guard held.
fn foreign(guard: &Guard, found: Option<Versioned>) -> Option<MetadataError> {
    // Without an id nobody made the cluster yet, or somebody emptied the prefix.
    let Some(found) = found else { return Some(MetadataError::Unavailable) };
    let server = std::str::from_utf8(&found.value).ok().and_then(|text| text.parse::<ClusterId>().ok());
    match server {
        Some(server) if server == guard.cluster => None,
        Some(server) => Some(MetadataError::OtherCluster { client: guard.cluster, server }),
        None => Some(MetadataError::Unavailable),
    }
}

pub(crate) fn demand(key: Vec<u8>, precondition: Precondition) -> Compare {
    let (result, target, value) = match precondition {
        Precondition::Absent => (CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(0)),
        // For etcd a key that is not there was written by revision 0; here no value has it, so nothing may hold.
        Precondition::Revision(0) => (CompareResult::Less, CompareTarget::Mod, TargetUnion::ModRevision(0)),
        Precondition::Revision(revision) => {
            (CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(answer::signed(revision)))
        }
    };
    compare(key, result, target, value)
}

fn compare(key: Vec<u8>, result: CompareResult, target: CompareTarget, value: TargetUnion) -> Compare {
    Compare { key, result: result.into(), target: target.into(), target_union: Some(value) }
}

fn write_op(key: Vec<u8>, write: Write) -> Op {
    match write {
        Write::Put(value) => Op::RequestPut(PutRequest { key, value: value.into(), lease: 0 }),
        Write::Delete => Op::RequestDeleteRange(DeleteRangeRequest { key }),
    }
}

fn endpoint(text: &str) -> Result<Endpoint, InvalidEtcdOptions> {
    let address = text.strip_prefix("http://").unwrap_or(text);
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|_| InvalidEtcdOptions::Endpoint { endpoint: text.to_owned() })?;
    let (interval, patience) = KEEP_ALIVE;
    let endpoint = endpoint.connect_timeout(ATTEMPT).tcp_nodelay(true);
    Ok(endpoint.http2_keep_alive_interval(interval).keep_alive_timeout(patience))
}

/// Says that only a member of etcd that knows a leader may answer: one that is cut off ends its streams, and answers nothing
/// that may be old.
pub(crate) fn led<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

impl MetadataStore for EtcdMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move {
            validate_key(&key)?;
            not_reserved(&key)?;
            let (_, responses) = self.read(|| vec![self.get_op(&key)]).await.map_err(read_error)?;
            let response = responses.into_iter().next().ok_or(MetadataError::Unavailable)?;
            answer::value(response).map_err(|_| MetadataError::Unavailable)
        })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move {
            validate_prefix(&prefix)?;
            validate_prefix(after.as_deref().unwrap_or_default())?;
            self.page(&prefix, after.as_deref(), limit).await
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(self.transact(txn))
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move {
            validate_prefix(&prefix)?;
            self.begin_watch(prefix, after).await
        })
    }
}

/// What begins so is etcd's side's own: it is neither listed nor watched.
fn not_reserved(key: &str) -> Result<(), MetadataError> {
    if key.starts_with(RESERVED) { Err(MetadataError::Invalid) } else { Ok(()) }
}

fn validate_prefix(prefix: &str) -> Result<(), MetadataError> {
    if prefix.len() > METADATA_KEY_BYTES_MAX { Err(MetadataError::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
