//! Where etcd is, and what of it belongs to this cluster.

use std::time::Duration;

use bifrost_types::ClusterId;
use bifrost_types::limits::METADATA_KEY_BYTES_MAX;
use thiserror::Error;

/// Longest prefix. With the longest key etcd still has room for a value in a request of its default size.
pub const PREFIX_BYTES_MAX: usize = 256;
/// Most endpoints.
pub const ENDPOINTS_MAX: usize = 64;

const _: () = assert!(PREFIX_BYTES_MAX < METADATA_KEY_BYTES_MAX, "a prefix is short beside a key");

/// How a store in etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Members of etcd, `host:port` or `http://host:port`; at least one. Each call goes to one that is connected.
    pub endpoints: Vec<String>,
    /// What every key begins with. Default `bifrost/`.
    pub prefix: String,
    /// What every call demands; `None` only as long as nobody knows the cluster.
    pub guard: Option<Guard>,
    /// For a call, repetitions of a read included. Default 5 s.
    pub request_timeout: Duration,
}

/// The id of the cluster as it is stored under a key, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key, without the prefix.
    pub key: String,
    /// The cluster.
    pub cluster: ClusterId,
}

/// Options that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidEtcdOptions {
    /// No endpoint, or too many.
    #[error("{count} endpoints of etcd are given, and 1 to {ENDPOINTS_MAX} are wanted")]
    Endpoints {
        /// How many there are.
        count: usize,
    },
    /// An endpoint that is no address.
    #[error("{endpoint:?} is not an endpoint of etcd of the form host:port or http://host:port")]
    Endpoint {
        /// The text.
        endpoint: String,
    },
    /// An empty prefix, or one that is too long.
    #[error("a prefix in etcd has 1 to {PREFIX_BYTES_MAX} bytes, and this one has {bytes}")]
    Prefix {
        /// Its bytes.
        bytes: usize,
    },
}

impl EtcdOptions {
    /// The default prefix and deadline at these endpoints, without a guard.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, prefix: "bifrost/".to_owned(), guard: None, request_timeout: Duration::from_secs(5) }
    }

    /// Checks them.
    ///
    /// # Errors
    /// [`InvalidEtcdOptions`].
    pub fn validate(&self) -> Result<(), InvalidEtcdOptions> {
        let (count, bytes) = (self.endpoints.len(), self.prefix.len());
        if count == 0 || count > ENDPOINTS_MAX {
            return Err(InvalidEtcdOptions::Endpoints { count });
        }
        if bytes == 0 || bytes > PREFIX_BYTES_MAX {
            return Err(InvalidEtcdOptions::Prefix { bytes });
        }
        match self.endpoints.iter().find(|endpoint| !is_endpoint(endpoint)) {
            Some(endpoint) => Err(InvalidEtcdOptions::Endpoint { endpoint: endpoint.clone() }),
            None => Ok(()),
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let address = text.strip_prefix("http://").unwrap_or(text);
    let known = |host: &str| !host.is_empty() && !host.contains('/');
    address.rsplit_once(':').is_some_and(|(host, port)| known(host) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_be_used_are_refused() {
        let good = EtcdOptions::new(vec!["127.0.0.1:2379".to_owned(), "http://etcd:2379".to_owned()]);
        assert_eq!(good.validate(), Ok(()));
        let none = EtcdOptions { endpoints: Vec::new(), ..good.clone() };
        assert_eq!(none.validate(), Err(InvalidEtcdOptions::Endpoints { count: 0 }));
        let bare = EtcdOptions { prefix: String::new(), ..good.clone() };
        assert_eq!(bare.validate(), Err(InvalidEtcdOptions::Prefix { bytes: 0 }));
        for endpoint in ["etcd", "etcd:", ":2379", "https://etcd:2379", "etcd:99999", ""] {
            let wrong = EtcdOptions { endpoints: vec![endpoint.to_owned()], ..good.clone() };
            assert_eq!(wrong.validate(), Err(InvalidEtcdOptions::Endpoint { endpoint: endpoint.to_owned() }));
        }
    }
}
