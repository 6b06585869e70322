//! The configuration of the binary: defaults, then one TOML file, then the environment, then flags; the later wins.
//!
//! ```text
//!  each part's Default ─► file ─► BIFROST__SECTION__KEY, BIFROST_ADDRESS ─► flags ─► checked as a whole ─► Config
//! ```
//! [`keys()`] is the one list of what can be set: reading, `bifrost config example` and `bifrost config show` all go by
//! it. A key that is not in it is refused, with the nearest one that is.
//!
//! Reading order: this file, `key` (what a key is), `keys` (all of them), `value` (texts to values and back), `load`,
//! `error`, `example`.

mod error;
mod example;
mod key;
mod keys;
mod load;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use bifrost::catch_up::CatchUpOptions;
use bifrost::{AppenderOptions, Options, ReadOptions, ReplicationProperty};
use bifrost_etcd::EtcdOptions;
use bifrost_logserver::RocksOptions;
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, Role, Roles};
use bifrost_wire::grpc::{ClientOptions, ServerLimits};

use crate::failover::FailoverOptions;
use crate::gateway::GatewayOptions;
use crate::local_cluster::LocalClusterOptions;
use crate::process::state::Engine;
use crate::process::{MemberAddresses, ProcessOptions};

pub use self::error::ConfigError;
pub use self::example::example;
pub use self::key::{Key, KeyName};
pub use self::keys::{ADDRESSES, DATA_DIR, JOIN, NODE_NAME, SECTIONS, TIMEOUT, keys};
pub use self::load::{FILE, Source};
pub use self::value::{parse_bytes, parse_duration};

/// Where `bifrost dev` listens by default: the letters B, I, F, R on a telephone.
pub const PORT: u16 = 2437;
/// Where a metadata member of `bifrost server` listens by default.
pub const METADATA_PORT: u16 = 2438;

/// Everything that can be configured, and where each value came from.
#[derive(Debug, Clone)]
pub struct Config {
    /// How the tool reaches a cluster.
    pub client: ClientConfig,
    /// Connections to nodes, of clients and from node to node.
    pub connection: ClientOptions,
    /// Appenders of the tool.
    pub appender: AppenderOptions,
    /// Bytes that a reader of the tool asks for ahead.
    pub reader_credit_bytes: NonZeroU64,
    /// The cluster of `bifrost dev`.
    pub dev: DevConfig,
    /// The node of `bifrost server`.
    pub node: NodeConfig,
    /// Its part in metadata.
    pub metadata: MetadataConfig,
    /// The listener of each node.
    pub server: ServerLimits,
    /// The door of each node for thin clients.
    pub gateway: GatewayOptions,
    /// How logs go on when nodes fail or stop.
    pub failover: FailoverOptions,
    /// RocksDB of each log server.
    pub storage: RocksOptions,
    /// When a sequencer counts a segment as full.
    pub segments: SegmentLimits,
    /// How the disk of a node gets what it misses.
    pub catch_up: CatchUpOptions,
    /// What `bifrost server` tells monitoring.
    pub metrics: MetricsConfig,
    origins: BTreeMap<KeyName, Origin>,
}

/// How the tool reaches a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Addresses of nodes that serve metadata, `host:port`; at least one. They are tried in order.
    pub addresses: Vec<String>,
    /// How long a command waits without any progress.
    pub timeout: Duration,
    /// What one handle does.
    pub options: Options,
}

/// The cluster of `bifrost dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevConfig {
    /// How many nodes; `None` for as many as the data directory has, or three.
    pub nodes: Option<u16>,
    /// Where the data is; `None` for a temporary directory.
    pub data_dir: Option<PathBuf>,
    /// Where the first node listens; 0 for any free ports.
    pub port: u16,
    /// The replication of logs that are made without one; `None` for the cluster's own.
    pub replication: Option<ReplicationProperty>,
}

/// The node of `bifrost server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name; empty if nobody gave it one.
    pub name: String,
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Where others reach it; `None` for where it listens.
    pub advertise: Option<String>,
    /// Where it stands.
    pub location: Location,
    /// Where everything is kept; `None` if nobody said.
    pub data_dir: Option<PathBuf>,
    /// What it does.
    pub roles: Roles,
    /// Threads that serve the network; 0 for [`NodeConfig::threads`] to find out.
    pub threads: usize,
}

impl NodeConfig {
    /// How many threads serve the network. By default all cores but one have one: that core is for the thread of the log server
    /// that writes and waits for the disk, which would otherwise wait for a slice of the others' time before each of its turns.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1)),
            threads => threads,
        }
    }
}

/// What keeps the metadata of the cluster, the metadata member of a node, and where those of the cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataConfig {
    /// Raft, or an etcd that somebody runs.
    pub engine: Engine,
    /// Members of etcd.
    pub etcd_endpoints: Vec<String>,
    /// What the cluster's keys in etcd begin with.
    pub etcd_prefix: String,
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Where others reach it; `None` for where it listens.
    pub advertise: Option<String>,
    /// Metadata members of the cluster to join.
    pub join: Vec<String>,
}

/// What `bifrost server` tells monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsConfig {
    /// Where `/metrics`, `/livez` and `/readyz` are, `host:port`; `None` for nowhere.
    pub listen: Option<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// The configuration file.
    File {
        /// Which file.
        path: PathBuf,
        /// The line of the value, from 1.
        line: usize,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
    },
    /// A flag.
    Flag {
        /// Its name, with its dashes.
        name: &'static str,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client: ClientConfig {
                addresses: vec![format!("127.0.0.1:{PORT}")],
                timeout: Duration::from_secs(30),
                options: Options::default(),
            },
            connection: ClientOptions::default(),
            appender: AppenderOptions::default(),
            reader_credit_bytes: ReadOptions::default().credit_bytes,
            dev: DevConfig { nodes: None, data_dir: None, port: PORT, replication: None },
            node: NodeConfig {
                name: String::new(),
                listen: format!("127.0.0.1:{PORT}"),
                advertise: None,
                location: Location::default(),
                data_dir: None,
                roles: Roles::ALL,
                threads: 0,
            },
            metadata: MetadataConfig {
                engine: Engine::Raft,
                etcd_endpoints: vec!["127.0.0.1:2379".to_owned()],
                etcd_prefix: EtcdOptions::new(Vec::new()).prefix,
                listen: format!("127.0.0.1:{METADATA_PORT}"),
                advertise: None,
                join: Vec::new(),
            },
            server: ServerLimits::default(),
            gateway: GatewayOptions::default(),
            failover: FailoverOptions::default(),
            storage: RocksOptions::default(),
            segments: SegmentLimits::default(),
            catch_up: CatchUpOptions::default(),
            metrics: MetricsConfig::default(),
            origins: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Where the value of a key came from.
    pub fn origin(&self, key: &Key) -> Origin {
        self.origins.get(&key.name).cloned().unwrap_or_default()
    }

    /// The value of a key, in the form of the file.
    pub fn value(&self, key: &Key) -> String {
        key.access.show(self)
    }

    /// What applies to nodes in this process.
    pub fn local_cluster(&self) -> LocalClusterOptions {
        LocalClusterOptions {
            rocks: self.storage.clone(),
            segments: self.segments,
            server: self.server.clone(),
            client: self.connection.clone(),
            gateway: self.gateway.clone(),
            ..LocalClusterOptions::default()
        }
    }

    /// The process of `bifrost server`.
    ///
    /// # Errors
    /// The key that has no default and was not set.
    pub fn process(&self, bootstrap: bool) -> Result<ProcessOptions, KeyName> {
        let (node, metadata) = (&self.node, &self.metadata);
        if node.name.is_empty() {
            return Err(NODE_NAME);
        }
        let addresses = || MemberAddresses { listen: metadata.listen.clone(), advertise: metadata.advertise.clone() };
        let etcd = metadata.engine == Engine::Etcd;
        Ok(ProcessOptions {
            name: node.name.clone(),
            location: node.location.clone(),
            listen: node.listen.clone(),
            advertise: node.advertise.clone(),
            data_dir: node.data_dir.clone().ok_or(DATA_DIR)?,
            roles: node.roles,
            member: (node.roles.has(Role::Metadata) && !etcd).then(addresses),
            etcd: etcd.then(|| self.etcd()),
            join: metadata.join.clone(),
            bootstrap,
            rocks: self.storage.clone(),
            segments: self.segments,
            catch_up: self.catch_up.clone(),
            server: self.server.clone(),
            client: self.connection.clone(),
            gateway: self.gateway.clone(),
            failover: self.failover.clone(),
        })
    }

    /// The store in etcd, whether or not it is the cluster's.
    pub fn etcd(&self) -> EtcdOptions {
        let (endpoints, prefix) = (self.metadata.etcd_endpoints.clone(), self.metadata.etcd_prefix.clone());
        EtcdOptions { prefix, ..EtcdOptions::new(endpoints) }
    }

    /// Notes that a flag set a key.
    pub fn set_by_flag(&mut self, key: KeyName, flag: &'static str) {
        self.origins.insert(key, Origin::Flag { name: flag });
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env { name } => write!(f, "environment variable {name}"),
            Self::Flag { name } => f.write_str(name),
        }
    }
}
