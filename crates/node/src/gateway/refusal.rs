//! What the errors of a log are called outside.

use bifrost::catalog::CatalogError;
use bifrost::chain::ChainError;
use bifrost::reconfigure::ReconfigureError;
use bifrost::{LogError, ReadError, ResolveError};
use bifrost_wire::RpcError;
use bifrost_wire::logs::{LogRefusal, LogsError};
use bifrost_wire::metadata::MetadataError;

const fn catalog(error: CatalogError) -> LogRefusal {
    match error {
        CatalogError::Metadata(MetadataError::Unknown | MetadataError::Unavailable)
        | CatalogError::Conflict
        | CatalogError::NodesChanged => LogRefusal::MetadataUnavailable,
        CatalogError::Metadata(
            MetadataError::TooLarge
            | MetadataError::Invalid
            | MetadataError::Compacted { .. }
            | MetadataError::OtherCluster { .. },
        )
        | CatalogError::Damaged => LogRefusal::Damaged,
        CatalogError::UnknownLog | CatalogError::Deleted { .. } => LogRefusal::UnknownLog,
        CatalogError::NameTaken { log } => LogRefusal::NameTaken { log },
        CatalogError::InvalidName => LogRefusal::InvalidName,
        CatalogError::Exhausted => LogRefusal::Exhausted,
    }
}

const fn chain(error: ChainError) -> LogRefusal {
    match error {
        ChainError::Closed | ChainError::Left => LogRefusal::Closed,
        ChainError::Exhausted => LogRefusal::Exhausted,
        ChainError::Damaged => LogRefusal::Damaged,
    }
}

pub(super) fn of_catalog(error: CatalogError) -> LogsError {
    catalog(error).into()
}

pub(super) fn of_log(error: LogError) -> LogsError {
    let refusal = match error {
        LogError::Catalog(error) | LogError::Reconfigure(ReconfigureError::Catalog(error)) => catalog(error),
        LogError::Chain(error) | LogError::Reconfigure(ReconfigureError::Chain(error)) => chain(error),
        LogError::Reconfigure(ReconfigureError::Close(_)) => LogRefusal::Damaged,
        LogError::NoPlacement
        | LogError::Plan(_)
        | LogError::Reconfigure(ReconfigureError::NoPlacement | ReconfigureError::NotAdmitted(_)) => {
            LogRefusal::NoPlacement
        }
        LogError::Deleted { .. } => LogRefusal::UnknownLog,
        LogError::BeyondTail { tail, .. } => LogRefusal::BeyondTail { tail },
        // The node stops while it carries the request out: how far it came is not known.
        LogError::ShutDown => return RpcError::Unreachable.into(),
    };
    refusal.into()
}

pub(super) fn of_read(error: ReadError) -> LogsError {
    match error {
        ReadError::Broken { .. } => LogRefusal::Damaged.into(),
        ReadError::Chain(error) => chain(error).into(),
        ReadError::Deleted { .. } => LogRefusal::UnknownLog.into(),
    }
}

pub(super) fn of_resolve(error: ResolveError) -> LogsError {
    match error {
        ResolveError::Log(error) => of_log(error),
        ResolveError::Read(error) => of_read(error),
    }
}
