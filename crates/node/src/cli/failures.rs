//! What the library's errors mean to a person at the command line.

use std::fmt;
use std::io;
use std::time::Duration;

use bifrost::catalog::CatalogError;
use bifrost::chain::ChainError;
use bifrost::reconfigure::ReconfigureError;
use bifrost::{Advice, LogError, ReadError, StartError};
use bifrost_types::NodeGeneration;
use bifrost_wire::grpc::{ClientOptions, GrpcNode};
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::node::NodeService;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::{CliError, ErrorCode};
use super::log_ref::LogRef;
use crate::config::ConfigError;

/// How long one address has to take a connection when the reason for a failure is looked for.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// A configuration that is refused.
pub(crate) fn config(error: &ConfigError) -> CliError {
    let told = CliError::new(ErrorCode::InvalidConfig, error.to_string()).with_advice(error.advice());
    match error {
        ConfigError::Unreadable { source, .. } => told.with_cause(plain(source)),
        _ => told,
    }
}

/// An error of an operation on a log.
pub(crate) fn log_error(log: &LogRef, error: LogError) -> CliError {
    match &error {
        LogError::Catalog(CatalogError::UnknownLog) => unknown_log(&log.to_string(), None),
        LogError::Deleted { .. } => deleted(log),
        LogError::Catalog(CatalogError::NameTaken { log: owner }) => {
            CliError::new(ErrorCode::NameTaken, format!("the name `{log}` belongs to log {owner}"))
                .with_advice("use that log, or choose another name")
        }
        LogError::Catalog(catalog) | LogError::Reconfigure(ReconfigureError::Catalog(catalog)) => {
            catalog_error(*catalog)
        }
        LogError::Chain(ChainError::Closed) => {
            CliError::new(ErrorCode::LogClosed, format!("log `{log}` is closed for good"))
                .with_advice("what is in it can still be read")
        }
        LogError::BeyondTail { tail, .. } => CliError::new(ErrorCode::BeyondTail, error.to_string())
            .with_advice(format!("trim up to LSN {} at most", tail.get() - 1)),
        LogError::NoPlacement | LogError::Reconfigure(ReconfigureError::NoPlacement) => {
            CliError::new(ErrorCode::NoPlacement, error.to_string())
                .with_advice("start more nodes, or ask for fewer copies with --replication")
        }
        LogError::Plan(plan) => CliError::new(ErrorCode::NoPlacement, format!("log `{log}` cannot be moved there"))
            .because(plan)
            .with_advice("`bifrost reconfigure --dry-run` shows what would be done"),
        LogError::Chain(_) | LogError::Reconfigure(_) | LogError::ShutDown => {
            let failed = CliError::new(ErrorCode::Failed, format!("log `{log}` cannot be changed")).because(&error);
            match error.advice() {
                Advice::Retry => failed.with_advice("try again"),
                Advice::Resolve | Advice::Fix | Advice::GiveUp => {
                    failed.with_advice(format!("`bifrost explain {log}` shows the evidence"))
                }
            }
        }
    }
}

/// An error of an operation that only looks: nothing can have been changed, so no answer is just that.
pub(crate) fn look_error(log: &LogRef, error: LogError) -> CliError {
    match error {
        LogError::Catalog(error @ CatalogError::Metadata(MetadataError::Unknown)) => look_catalog_error(error),
        error => log_error(log, error),
    }
}

/// The same of the catalog.
pub(crate) fn look_catalog_error(error: CatalogError) -> CliError {
    match error {
        CatalogError::Metadata(MetadataError::Unknown) => {
            catalog_error(CatalogError::Metadata(MetadataError::Unavailable))
        }
        error => catalog_error(error),
    }
}

/// There is no such log; `like` is the nearest name that there is.
pub(crate) fn unknown_log(name: &str, like: Option<&str>) -> CliError {
    let error = CliError::new(ErrorCode::UnknownLog, format!("there is no log `{name}`"));
    match like {
        Some(like) => error.with_advice(format!("did you mean `{like}`? `bifrost log list` shows all")),
        None => error.with_advice("`bifrost log list` shows all; `bifrost log create` makes one"),
    }
}

/// The log was there and is not.
fn deleted(log: &LogRef) -> CliError {
    CliError::new(ErrorCode::UnknownLog, format!("log `{log}` was deleted"))
        .with_advice("`bifrost log list` shows all; its name may be another log's by now")
}

/// An error of the catalog.
pub(crate) fn catalog_error(error: CatalogError) -> CliError {
    match error {
        CatalogError::Metadata(MetadataError::Unavailable) => {
            CliError::new(ErrorCode::Unreachable, "the cluster's metadata does not answer").with_advice("try again")
        }
        CatalogError::Metadata(MetadataError::Unknown) => {
            CliError::new(ErrorCode::OutcomeUnknown, "the change may have been made")
                .with_cause("the connection broke before the answer came")
                .with_advice("look first, then try again")
        }
        CatalogError::Conflict | CatalogError::NodesChanged => {
            CliError::new(ErrorCode::Refused, "somebody else changed it at the same time")
                .with_advice("look what is there now, then try again")
        }
        CatalogError::NameTaken { log } => {
            CliError::new(ErrorCode::NameTaken, format!("the name is taken by log {log}"))
                .with_advice("choose another one, or use that log")
        }
        CatalogError::UnknownLog => {
            CliError::new(ErrorCode::UnknownLog, error.to_string()).with_advice("`bifrost log list` shows all")
        }
        CatalogError::InvalidName => CliError::new(ErrorCode::InvalidArgument, error.to_string()),
        _ => CliError::new(ErrorCode::Failed, "metadata refused").because(&error),
    }
}

/// A reader ended early.
pub(crate) fn read_error(log: &LogRef, error: &ReadError) -> CliError {
    if let ReadError::Deleted { .. } = error {
        return deleted(log);
    }
    CliError::new(ErrorCode::Failed, format!("log `{log}` cannot be read on"))
        .because(error)
        .with_advice("a promise may be broken: keep the data and the servers' logs, and report it")
}

/// No connection to the cluster: finds out why, address by address.
pub(crate) async fn not_connected(addresses: &[String], error: &StartError) -> CliError {
    if let StartError::Address { address } = error {
        return CliError::new(ErrorCode::InvalidArgument, format!("`{address}` is not an address"))
            .with_advice("an address is HOST:PORT, such as 127.0.0.1:2437");
    }
    if let StartError::Catalog(error) = error
        && !error.is_passing()
    {
        return catalog_error(*error);
    }
    let tried = probe(addresses).await;
    let reasons: Vec<String> = tried.iter().map(|(address, found)| format!("{address}: {found}")).collect();
    let (message, advice) = match tried.iter().any(|(_, found)| matches!(found, Probed::Node(_))) {
        true => (
            "the cluster's metadata does not answer",
            "`bifrost metadata members --member HOST:PORT` says how its members are; where etcd has it, look there",
        ),
        false => (
            "the cluster cannot be reached",
            "start one with `bifrost dev`, or say where it is with --address or BIFROST_ADDRESS",
        ),
    };
    CliError::new(ErrorCode::Unreachable, message).with_cause(reasons.join("; ")).with_advice(advice)
}

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probed {
    /// A node, although its metadata gave no answer.
    Node(NodeGeneration),
    /// Nobody who could help, and why.
    Nobody(String),
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "{node} answers, its metadata does not"),
            Self::Nobody(reason) => f.write_str(reason),
        }
    }
}

/// What each address does when it is called.
pub(crate) async fn probe(addresses: &[String]) -> Vec<(String, Probed)> {
    let mut tried = Vec::new();
    for address in addresses {
        let found = match timeout(PROBE_DEADLINE, TcpStream::connect(address.as_str())).await {
            Ok(Ok(_)) => match node_at(address).await {
                Some(node) => Probed::Node(node),
                None => Probed::Nobody("takes connections and does not answer like a node".to_owned()),
            },
            Ok(Err(error)) => Probed::Nobody(plain(&error)),
            Err(_) => Probed::Nobody("no answer".to_owned()),
        };
        tried.push((address.clone(), found));
    }
    tried
}

/// The node at an address: it says who it is without asking anybody.
async fn node_at(address: &str) -> Option<NodeGeneration> {
    let client = ClientOptions { request_timeout: PROBE_DEADLINE, ..ClientOptions::default() };
    let node = GrpcNode::connect_lazy(address, &client).ok()?;
    Some(timeout(PROBE_DEADLINE, node.status()).await.ok()?.ok()?.id)
}

/// Connecting took too long.
pub(crate) fn no_answer(addresses: &[String], patience: Duration) -> CliError {
    CliError::new(ErrorCode::TimedOut, format!("no answer within {patience:?} from {}", addresses.join(", ")))
        .with_advice("wait longer with --timeout, or name other nodes with --address")
}

/// The cluster took too long.
pub(crate) fn timed_out(doing: &str, patience: Duration) -> CliError {
    CliError::new(ErrorCode::TimedOut, format!("timed out after {patience:?} while {doing}"))
        .with_advice("`bifrost explain` tells what a log waits for; --timeout sets how long to wait")
}

/// Stdout takes no more.
pub(crate) fn stdout(error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::new(ErrorCode::OutputClosed, "stdout was closed");
    }
    CliError::new(ErrorCode::Failed, "stdout cannot be written").because(error)
}

/// What the system says, without its numbers.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
