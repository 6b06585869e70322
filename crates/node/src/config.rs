//! The configuration of the binary.

use std::time::Duration;

use bifrost::{AppenderOptions, Options};
use bifrost_wire::grpc::ClientOptions;

/// Where `bifrost dev` listens by default: the letters B, I, F, R on a telephone.
pub const PORT: u16 = 2437;

/// Everything that can be configured, with the defaults of each part.
#[derive(Debug, Clone)]
pub struct Config {
    /// How the tool reaches a cluster.
    pub client: ClientConfig,
    /// Connections of clients.
    pub connection: ClientOptions,
    /// Appenders.
    pub appender: AppenderOptions,
}

/// How the tool reaches a cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Addresses of nodes that serve metadata, `host:port`; they are tried in order.
    pub addresses: Vec<String>,
    /// How long a command waits without any progress.
    pub timeout: Duration,
    /// What one handle does.
    pub options: Options,
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
        }
    }
}
