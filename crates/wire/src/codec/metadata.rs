//! The metadata service: requests, answers, changes.

use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_TXN_ITEMS_MAX, METADATA_VALUE_BYTES_MAX};
use bytes::Bytes;

use super::{DecodeError, at_most, required};
use crate::metadata::{
    Change, Changes, MetadataError, Page, Precondition, Revision, Txn, TxnOutcome, Versioned, Write,
};
use crate::pb;
use pb::metadata_error::Error as Kind;
use pb::{get_response, list_response, txn_precondition, txn_response, txn_write, watch_response};

/// A key of 1 to [`METADATA_KEY_BYTES_MAX`] bytes.
fn key(field: &'static str, key: String) -> Result<String, DecodeError> {
    if key.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    at_most(field, key.len(), METADATA_KEY_BYTES_MAX)?;
    Ok(key)
}

fn value(field: &'static str, value: Bytes) -> Result<Bytes, DecodeError> {
    at_most(field, value.len(), METADATA_VALUE_BYTES_MAX)?;
    Ok(value)
}

/// No value has revision 0.
fn revision(field: &'static str, revision: Revision) -> Result<Revision, DecodeError> {
    if revision == 0 { Err(DecodeError::Zero { field }) } else { Ok(revision) }
}

/// A prefix may be empty, and is no longer than a key.
///
/// # Errors
/// [`DecodeError::TooLong`].
fn check_prefix(field: &'static str, prefix: &str) -> Result<(), DecodeError> {
    at_most(field, prefix.len(), METADATA_KEY_BYTES_MAX)
}

impl From<Versioned> for pb::Versioned {
    fn from(versioned: Versioned) -> Self {
        Self { revision: versioned.revision, value: versioned.value }
    }
}

impl TryFrom<pb::Versioned> for Versioned {
    type Error = DecodeError;

    fn try_from(versioned: pb::Versioned) -> Result<Self, DecodeError> {
        Ok(Self {
            revision: revision("Versioned.revision", versioned.revision)?,
            value: value("Versioned.value", versioned.value)?,
        })
    }
}

impl From<MetadataError> for pb::MetadataError {
    fn from(error: MetadataError) -> Self {
        use pb::metadata_error as e;
        let kind = match error {
            MetadataError::Unknown => Kind::Unknown(e::Unknown {}),
            // A store never says the latter: its listener does, before a request comes so far.
            MetadataError::Unavailable | MetadataError::OtherCluster { .. } => Kind::Unavailable(e::Unavailable {}),
            MetadataError::TooLarge => Kind::TooLarge(e::TooLarge {}),
            MetadataError::Invalid => Kind::Invalid(e::Invalid {}),
            MetadataError::Compacted { oldest } => Kind::Compacted(e::Compacted { oldest }),
        };
        Self { error: Some(kind) }
    }
}

impl TryFrom<pb::MetadataError> for MetadataError {
    type Error = DecodeError;

    fn try_from(error: pb::MetadataError) -> Result<Self, DecodeError> {
        Ok(match required("MetadataError.error", error.error)? {
            Kind::Unknown(_) => Self::Unknown,
            Kind::Unavailable(_) => Self::Unavailable,
            Kind::TooLarge(_) => Self::TooLarge,
            Kind::Invalid(_) => Self::Invalid,
            Kind::Compacted(error) => Self::Compacted { oldest: error.oldest },
        })
    }
}

/// Which key to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Get(pub(crate) String);

impl From<Get> for pb::GetRequest {
    fn from(Get(key): Get) -> Self {
        Self { key }
    }
}

impl TryFrom<pb::GetRequest> for Get {
    type Error = DecodeError;

    fn try_from(request: pb::GetRequest) -> Result<Self, DecodeError> {
        Ok(Self(key("GetRequest.key", request.key)?))
    }
}

impl From<Result<Option<Versioned>, MetadataError>> for pb::GetResponse {
    fn from(outcome: Result<Option<Versioned>, MetadataError>) -> Self {
        let outcome = match outcome {
            Ok(value) => get_response::Outcome::Found(get_response::Found { value: value.map(Into::into) }),
            Err(error) => get_response::Outcome::Refused(error.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::GetResponse> for Result<Option<Versioned>, MetadataError> {
    type Error = DecodeError;

    fn try_from(response: pb::GetResponse) -> Result<Self, DecodeError> {
        Ok(match required("GetResponse.outcome", response.outcome)? {
            get_response::Outcome::Found(found) => Ok(found.value.map(TryInto::try_into).transpose()?),
            get_response::Outcome::Refused(error) => Err(error.try_into()?),
        })
    }
}

/// Which page to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) prefix: String,
    pub(crate) after: Option<String>,
    /// Above what a message can name, the page is as long as it may be at most.
    pub(crate) limit: usize,
}

impl From<List> for pb::ListRequest {
    fn from(list: List) -> Self {
        let limit = u32::try_from(list.limit).unwrap_or(u32::MAX);
        Self { prefix: list.prefix, after: list.after, limit }
    }
}

impl TryFrom<pb::ListRequest> for List {
    type Error = DecodeError;

    fn try_from(request: pb::ListRequest) -> Result<Self, DecodeError> {
        check_prefix("ListRequest.prefix", &request.prefix)?;
        if let Some(after) = &request.after {
            check_prefix("ListRequest.after", after)?;
        }
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        Ok(Self { prefix: request.prefix, after: request.after, limit })
    }
}

impl From<Result<Page, MetadataError>> for pb::ListResponse {
    fn from(outcome: Result<Page, MetadataError>) -> Self {
        let outcome = match outcome {
            Ok(page) => list_response::Outcome::Page(pb::ListPage {
                revision: page.revision,
                entries: page
                    .entries
                    .into_iter()
                    .map(|(key, value)| pb::list_page::Entry { key, value: Some(value.into()) })
                    .collect(),
                more: page.more,
            }),
            Err(error) => list_response::Outcome::Refused(error.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::ListResponse> for Result<Page, MetadataError> {
    type Error = DecodeError;

    fn try_from(response: pb::ListResponse) -> Result<Self, DecodeError> {
        let page = match required("ListResponse.outcome", response.outcome)? {
            list_response::Outcome::Page(page) => page,
            list_response::Outcome::Refused(error) => return Ok(Err(error.try_into()?)),
        };
        let entries = page
            .entries
            .into_iter()
            .map(|entry| {
                let value = required("ListPage.Entry.value", entry.value)?;
                Ok((key("ListPage.Entry.key", entry.key)?, value.try_into()?))
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Ok(Page { revision: page.revision, entries, more: page.more }))
    }
}

impl From<Txn> for pb::TxnRequest {
    fn from(txn: Txn) -> Self {
        use pb::{txn_precondition as p, txn_write as w};
        let preconditions = txn.preconditions.into_iter().map(|(key, precondition)| {
            let demand = match precondition {
                Precondition::Absent => p::Demand::Absent(p::Absent {}),
                Precondition::Revision(revision) => p::Demand::Revision(revision),
            };
            pb::TxnPrecondition { key, demand: Some(demand) }
        });
        let writes = txn.writes.into_iter().map(|(key, write)| {
            let write = match write {
                Write::Put(value) => w::Write::Put(value),
                Write::Delete => w::Write::Delete(w::Delete {}),
            };
            pb::TxnWrite { key, write: Some(write) }
        });
        Self { preconditions: preconditions.collect(), writes: writes.collect() }
    }
}

impl TryFrom<pb::TxnRequest> for Txn {
    type Error = DecodeError;

    fn try_from(request: pb::TxnRequest) -> Result<Self, DecodeError> {
        let items = request.preconditions.len().saturating_add(request.writes.len());
        at_most("TxnRequest", items, METADATA_TXN_ITEMS_MAX)?;
        let mut txn = Self::new();
        for item in request.preconditions {
            let precondition = match required("TxnPrecondition.demand", item.demand)? {
                txn_precondition::Demand::Absent(_) => Precondition::Absent,
                txn_precondition::Demand::Revision(number) => {
                    Precondition::Revision(revision("TxnPrecondition.revision", number)?)
                }
            };
            txn.preconditions.push((key("TxnPrecondition.key", item.key)?, precondition));
        }
        for item in request.writes {
            let write = match required("TxnWrite.write", item.write)? {
                txn_write::Write::Put(bytes) => Write::Put(value("TxnWrite.put", bytes)?),
                txn_write::Write::Delete(_) => Write::Delete,
            };
            txn.writes.push((key("TxnWrite.key", item.key)?, write));
        }
        // What is left for `validate` to find is a key that is named twice.
        txn.validate().map_err(|_| DecodeError::Inconsistent { field: "TxnRequest" })?;
        Ok(txn)
    }
}

impl From<Result<TxnOutcome, MetadataError>> for pb::TxnResponse {
    fn from(outcome: Result<TxnOutcome, MetadataError>) -> Self {
        use pb::txn_response as t;
        let outcome = match outcome {
            Ok(TxnOutcome::Committed(revision)) => t::Outcome::Committed(t::Committed { revision }),
            Ok(TxnOutcome::Conflict(present)) => t::Outcome::Conflict(t::Conflict {
                present: present
                    .into_iter()
                    .map(|(key, value)| t::conflict::Present { key, value: value.map(Into::into) })
                    .collect(),
            }),
            Err(error) => t::Outcome::Refused(error.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::TxnResponse> for Result<TxnOutcome, MetadataError> {
    type Error = DecodeError;

    fn try_from(response: pb::TxnResponse) -> Result<Self, DecodeError> {
        let conflict = match required("TxnResponse.outcome", response.outcome)? {
            txn_response::Outcome::Committed(committed) => {
                // A transaction without writes commits at the revision that it found, which may be 0.
                return Ok(Ok(TxnOutcome::Committed(committed.revision)));
            }
            txn_response::Outcome::Refused(error) => return Ok(Err(error.try_into()?)),
            txn_response::Outcome::Conflict(conflict) => conflict,
        };
        at_most("TxnResponse.Conflict.present", conflict.present.len(), METADATA_TXN_ITEMS_MAX)?;
        let present = conflict
            .present
            .into_iter()
            .map(|present| {
                let found = present.value.map(TryInto::try_into).transpose()?;
                Ok((key("TxnResponse.Conflict.Present.key", present.key)?, found))
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Ok(TxnOutcome::Conflict(present)))
    }
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) prefix: String,
    pub(crate) after: Revision,
}

impl From<Watch> for pb::WatchRequest {
    fn from(watch: Watch) -> Self {
        Self { prefix: watch.prefix, after: watch.after }
    }
}

impl TryFrom<pb::WatchRequest> for Watch {
    type Error = DecodeError;

    fn try_from(request: pb::WatchRequest) -> Result<Self, DecodeError> {
        check_prefix("WatchRequest.prefix", &request.prefix)?;
        Ok(Self { prefix: request.prefix, after: request.after })
    }
}

/// A response of the watch stream, its opening included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WatchMessage {
    /// The watch is established.
    Opened,
    /// Changes, or why there will be no more.
    Item(Result<Changes, MetadataError>),
}

impl From<WatchMessage> for pb::WatchResponse {
    fn from(message: WatchMessage) -> Self {
        use pb::watch_response as w;
        let message = match message {
            WatchMessage::Opened => w::Message::Opened(w::Opened {}),
            WatchMessage::Item(Ok(changes)) => w::Message::Changes(w::Changes {
                revision: changes.revision,
                changes: changes
                    .changes
                    .into_iter()
                    .map(|Change { key, revision, value }| w::Change { key, revision, value })
                    .collect(),
            }),
            WatchMessage::Item(Err(error)) => w::Message::Refused(error.into()),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::WatchResponse> for WatchMessage {
    type Error = DecodeError;

    fn try_from(response: pb::WatchResponse) -> Result<Self, DecodeError> {
        let changes = match required("WatchResponse.message", response.message)? {
            watch_response::Message::Opened(_) => return Ok(Self::Opened),
            watch_response::Message::Refused(error) => return Ok(Self::Item(Err(error.try_into()?))),
            watch_response::Message::Changes(changes) => changes,
        };
        let number = changes.revision;
        let changes = changes
            .changes
            .into_iter()
            .map(|change| {
                Ok(Change {
                    key: key("WatchResponse.Change.key", change.key)?,
                    revision: revision("WatchResponse.Change.revision", change.revision)?,
                    value: change.value.map(|bytes| value("WatchResponse.Change.value", bytes)).transpose()?,
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Self::Item(Ok(Changes { revision: number, changes })))
    }
}
