//! What a gRPC status means here.
//!
//! | status | means | may have happened |
//! |---|---|---|
//! | UNAVAILABLE with trailer `bifrost-refusal: shutting-down` | [`RpcError::ShuttingDown`] | no |
//! | FAILED_PRECONDITION with trailer `bifrost-refusal: other-cluster` | [`RpcError::OtherCluster`] | no |
//! | UNAVAILABLE, CANCELLED, UNKNOWN, ABORTED, INTERNAL and all not named here | [`RpcError::Unreachable`] | yes |
//! | DEADLINE_EXCEEDED | [`RpcError::DeadlinePassed`] | yes |
//! | RESOURCE_EXHAUSTED | [`RpcError::Overloaded`] | no |
//! | INVALID_ARGUMENT, OUT_OF_RANGE | [`RpcError::Malformed`] | no |
//! | UNIMPLEMENTED | [`RpcError::NotOffered`] | no |
//!
//! INTERNAL is unknown and not malformed because HTTP/2 reports a connection that breaks after the request was carried out
//! in the same way; promise 4 asks for the weaker claim. For the same reason an answer that cannot be understood is
//! [`RpcError::Unreachable`]: it says nothing about what the peer did.

use std::error::Error as _;

use tonic::{Code, Status};

use super::cluster;
use crate::codec::DecodeError;
use crate::error::RpcError;

/// The trailer that tells a refusal before anything was done from a status that somebody else made.
const REFUSAL: &str = "bifrost-refusal";
const SHUTTING_DOWN: &str = "shutting-down";
const OTHER_CLUSTER: &str = "other-cluster";

/// What a status of a peer means.
pub(super) fn rpc_error(status: &Status) -> RpcError {
    let refusal = status.metadata().get(REFUSAL).and_then(|value| value.to_str().ok());
    match status.code() {
        Code::Unavailable if refusal == Some(SHUTTING_DOWN) => RpcError::ShuttingDown,
        Code::FailedPrecondition if refusal == Some(OTHER_CLUSTER) => {
            cluster::refusal(status.metadata()).unwrap_or(RpcError::Unreachable)
        }
        Code::DeadlineExceeded => RpcError::DeadlinePassed,
        Code::ResourceExhausted => RpcError::Overloaded,
        // Made by this side about an answer: the peer did what was asked.
        Code::InvalidArgument if status.source().is_some() => RpcError::Unreachable,
        Code::InvalidArgument | Code::OutOfRange => RpcError::Malformed,
        Code::Unimplemented => RpcError::NotOffered,
        Code::Ok
        | Code::Cancelled
        | Code::Unavailable
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => RpcError::Unreachable,
    }
}

/// How a server says it; the inverse of [`rpc_error`].
pub(super) fn status(error: RpcError) -> Status {
    let text = error.to_string();
    match error {
        RpcError::Unreachable => Status::unavailable(text),
        RpcError::DeadlinePassed => Status::deadline_exceeded(text),
        RpcError::Overloaded => Status::resource_exhausted(text),
        RpcError::ShuttingDown => {
            let mut status = Status::unavailable(text);
            status.metadata_mut().insert(REFUSAL, tonic::metadata::MetadataValue::from_static(SHUTTING_DOWN));
            status
        }
        RpcError::OtherCluster { client, server } => {
            let mut status = Status::failed_precondition(text);
            status.metadata_mut().insert(REFUSAL, tonic::metadata::MetadataValue::from_static(OTHER_CLUSTER));
            cluster::name_both(client, server, status.metadata_mut());
            status
        }
        RpcError::Malformed => Status::invalid_argument(text),
        RpcError::NotOffered => Status::unimplemented(text),
    }
}

/// A request that cannot be understood; nothing was done.
pub(super) fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The server stopped while the request was being carried out.
pub(super) fn stopped() -> Status {
    Status::unavailable("the server stopped before the request ended")
}

#[cfg(test)]
mod tests {
    use bifrost_types::ClusterId;

    use super::*;

    #[test]
    fn every_error_survives_the_way_through_a_status() {
        for error in [
            RpcError::Unreachable,
            RpcError::DeadlinePassed,
            RpcError::Overloaded,
            RpcError::ShuttingDown,
            RpcError::OtherCluster {
                client: ClusterId::try_from(1).expect("non-zero"),
                server: ClusterId::try_from(u128::MAX).expect("non-zero"),
            },
            RpcError::Malformed,
            RpcError::NotOffered,
        ] {
            assert_eq!(rpc_error(&status(error)), error);
        }
    }

    #[test]
    fn a_status_that_may_hide_an_effect_is_an_unknown_outcome() {
        for status in [stopped(), Status::internal(""), Status::unknown(""), Status::cancelled(""), Status::aborted("")]
        {
            assert!(rpc_error(&status).may_have_happened(), "{status:?}");
        }
    }
}
