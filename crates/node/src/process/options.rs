//! What the process of a node is told at its start.

use std::path::PathBuf;

use bifrost::catch_up::CatchUpOptions;
use bifrost_etcd::EtcdOptions;
use bifrost_logserver::RocksOptions;
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, Role, Roles};
use bifrost_wire::grpc::{ClientOptions, ServerLimits};

use super::error::ProcessError;
use crate::failover::FailoverOptions;
use crate::gateway::GatewayOptions;

/// What a process is told at its start.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The name of the node: the same one again is the same node.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Where others reach it; `None` for where it listens.
    pub advertise: Option<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What it does.
    pub roles: Roles,
    /// Where its metadata member is: exactly if it has that role, and metadata is not in etcd.
    pub member: Option<MemberAddresses>,
    /// Where etcd keeps the metadata, if it does.
    pub etcd: Option<EtcdOptions>,
    /// Metadata members of the cluster to join.
    pub join: Vec<String>,
    /// Make a cluster.
    pub bootstrap: bool,
    /// Settings of RocksDB of the log server.
    pub rocks: RocksOptions,
    /// When a segment counts as full.
    pub segments: SegmentLimits,
    /// How its disk gets what it misses.
    pub catch_up: CatchUpOptions,
    /// Limits of both listeners.
    pub server: ServerLimits,
    /// Options of connections to other nodes.
    pub client: ClientOptions,
    /// Limits of the door for thin clients.
    pub gateway: GatewayOptions,
    /// What it does so that logs go on without it, and without others.
    pub failover: FailoverOptions,
}

impl ProcessOptions {
    /// A node that keeps copies and numbers appends, listens at `listen` (`host:port`; port 0 for any that is free) and has
    /// its data in `data_dir`. Everything else has its default; say where its cluster is with `join`.
    pub fn new(name: impl Into<String>, listen: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            location: Location::default(),
            listen: listen.into(),
            advertise: None,
            data_dir: data_dir.into(),
            roles: Roles::DATA,
            member: None,
            etcd: None,
            join: Vec::new(),
            bootstrap: false,
            rocks: RocksOptions::default(),
            segments: SegmentLimits::default(),
            server: ServerLimits::default(),
            client: ClientOptions::default(),
            gateway: GatewayOptions::default(),
            failover: FailoverOptions::default(),
            catch_up: CatchUpOptions::default(),
        }
    }

    /// Whether they contradict each other.
    pub(super) fn check(&self) -> Result<(), ProcessError> {
        let fits = self.etcd.is_some() || self.roles.has(Role::Metadata) == self.member.is_some();
        if fits { Ok(()) } else { Err(ProcessError::MemberWithoutRole) }
    }
}

/// Where a metadata member listens.
#[derive(Debug, Clone)]
pub struct MemberAddresses {
    /// `host:port`.
    pub listen: String,
    /// Where others reach it; `None` for where it listens.
    pub advertise: Option<String>,
}
