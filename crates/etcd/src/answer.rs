//! What etcd says, checked: an answer that no etcd gives is an error here and a panic nowhere.

use bifrost_metadata::{MetadataError, Revision, Versioned};
use bytes::Bytes;
use thiserror::Error;
use tonic::{Code, Status};

use crate::pb::response_op::Response;
use crate::pb::{KeyValue, RangeResponse, ResponseHeader, ResponseOp};

/// An answer that does not fit its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the answer of etcd does not fit the question")]
pub(crate) struct Malformed;

/// The revision of the store when it answered.
pub(crate) fn revision(header: Option<&ResponseHeader>) -> Result<Revision, Malformed> {
    positive(header.ok_or(Malformed)?.revision)
}

/// A number of etcd that is above zero.
pub(crate) fn positive(revision: i64) -> Result<Revision, Malformed> {
    Revision::try_from(revision).ok().filter(|revision| *revision > 0).ok_or(Malformed)
}

/// A revision as etcd counts; the largest for one that it cannot have reached.
pub(crate) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The key in etcd, and its value.
pub(crate) fn versioned(pair: KeyValue) -> Result<(Vec<u8>, Versioned), Malformed> {
    let revision = positive(pair.mod_revision)?;
    Ok((pair.key, Versioned { revision, value: Bytes::from(pair.value) }))
}

/// The answer to a read within a transaction.
pub(crate) fn range(response: ResponseOp) -> Result<RangeResponse, Malformed> {
    match response.response {
        Some(Response::ResponseRange(range)) => Ok(range),
        None => Err(Malformed),
    }
}

/// The value of the one key that a read within a transaction asked for.
pub(crate) fn value(response: ResponseOp) -> Result<Option<Versioned>, Malformed> {
    let pair = range(response)?.kvs.into_iter().next();
    Ok(pair.map(versioned).transpose()?.map(|(_, versioned)| versioned))
}

/// Why a read was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    /// Another attempt may be answered.
    Passing,
    /// The revision that was asked for is gone.
    Compacted,
    /// Repeating it changes nothing.
    Refused(MetadataError),
}

/// What an error means for a read.
pub(crate) fn read_failure(status: &Status) -> ReadFailure {
    match status.code() {
        Code::OutOfRange if status.message().contains("compacted") => ReadFailure::Compacted,
        Code::InvalidArgument => ReadFailure::Refused(invalid(status.message())),
        Code::Unauthenticated | Code::PermissionDenied => ReadFailure::Refused(MetadataError::Unavailable),
        _ => ReadFailure::Passing,
    }
}

/// What an error means for a transaction. Only what etcd refuses before it proposes anything was surely not carried out.
/// That its space is exceeded is said after the fact too, as well as that a leader changed or a time is over (M2).
pub(crate) fn txn_failure(status: &Status) -> MetadataError {
    match status.code() {
        Code::InvalidArgument => invalid(status.message()),
        // The listener did not read it to its end.
        Code::ResourceExhausted if status.message().contains("larger than max") => MetadataError::TooLarge,
        Code::Unauthenticated | Code::PermissionDenied => MetadataError::Unavailable,
        _ => MetadataError::Unknown,
    }
}

fn invalid(message: &str) -> MetadataError {
    let too_large = message.contains("too large") || message.contains("too many operations");
    if too_large { MetadataError::TooLarge } else { MetadataError::Invalid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_refused_beforehand_did_not_happen() {
        for (code, message, failure) in [
            (Code::InvalidArgument, "etcdserver: request is too large", MetadataError::TooLarge),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request", MetadataError::TooLarge),
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request", MetadataError::Invalid),
            (Code::ResourceExhausted, "grpc: received message larger than max (9 vs. 8)", MetadataError::TooLarge),
            (Code::PermissionDenied, "etcdserver: permission denied", MetadataError::Unavailable),
            // etcd says so also when the transaction was applied.
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", MetadataError::Unknown),
            (Code::Unavailable, "etcdserver: leader changed", MetadataError::Unknown),
            (Code::Unavailable, "etcdserver: request timed out", MetadataError::Unknown),
            (Code::Unknown, "transport error", MetadataError::Unknown),
        ] {
            assert_eq!(txn_failure(&Status::new(code, message)), failure, "{message}");
        }
    }

    #[test]
    fn answers_that_no_etcd_gives_are_errors() {
        assert_eq!(revision(None), Err(Malformed));
        assert_eq!(revision(Some(&ResponseHeader { revision: 0 })), Err(Malformed));
        assert_eq!(positive(-1), Err(Malformed));
        assert!(versioned(KeyValue::default()).is_err(), "no value has revision 0");
        assert_eq!(value(ResponseOp { response: None }), Err(Malformed));
        assert_eq!(signed(u64::MAX), i64::MAX);
    }
}
