//! Why a local cluster did not start, for a person.

use std::io;
use std::path::Path;

use bifrost::local_node::NodeError;

use super::super::error::{CliError, ErrorCode};
use super::super::failures::plain;
use crate::local_cluster::LocalClusterError;
use crate::server::ServerError;

pub(super) fn not_started(directory: &Path, error: &LocalClusterError) -> CliError {
    match error {
        LocalClusterError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            let port = address.rsplit(':').next().unwrap_or(address);
            CliError::new(ErrorCode::InUse, format!("port {port} is in use"))
                .with_cause(format!("something listens at {address} already, perhaps another `bifrost dev`"))
                .with_advice("stop it, or choose another port with --port; --port 0 takes free ones")
        }
        LocalClusterError::Listen { source, .. } => CliError::new(ErrorCode::Failed, error.to_string())
            .with_cause(plain(source))
            .with_advice("choose another port with --port; --port 0 takes free ones"),
        LocalClusterError::Ports { .. } => {
            CliError::new(ErrorCode::InvalidArgument, error.to_string()).with_advice("choose a lower --port")
        }
        LocalClusterError::Metadata(bifrost_metadata::OpenError::InUse { .. }) => in_use(directory),
        LocalClusterError::Node {
            source: ServerError::Node(NodeError::Open(bifrost_logserver::OpenError::InUse { .. })),
            ..
        } => in_use(directory),
        LocalClusterError::NoSuchNode { .. }
        | LocalClusterError::Metadata(_)
        | LocalClusterError::Catalog(_)
        | LocalClusterError::Node { .. } => {
            CliError::new(ErrorCode::Failed, format!("the cluster on {} did not start", directory.display()))
                .because(error)
                .with_advice("a fresh --data-dir starts from nothing and leaves this one as it is")
        }
    }
}

fn in_use(directory: &Path) -> CliError {
    CliError::new(ErrorCode::InUse, format!("{} is in use by another process", directory.display()))
        .with_cause("a directory serves one process at a time")
        .with_advice("stop that one, or choose another directory with --data-dir")
}
