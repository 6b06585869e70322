//! Keys of `bifrost server`: the node, its part in metadata, and what it tells monitoring.

use std::path::PathBuf;
use std::sync::Arc;

use bifrost::catalog::validate_name;
use bifrost_etcd::InvalidEtcdOptions;
use bifrost_etcd::options::{ENDPOINTS_MAX, PREFIX_BYTES_MAX};
use bifrost_types::{Role, Roles};

use super::{between, number};
use crate::config::Config;
use crate::config::key::{Access, Key, KeyName};
use crate::config::value::Rejected;
use crate::process::state::Engine;

/// What keeps the metadata.
const RAFT: &str = "raft";
const ETCD: &str = "etcd";

/// More than any machine has cores.
const THREADS_MAX: u64 = 1024;

pub(super) const KEYS: &[Key] = keys! {
    node.name Text {
        |config| config.node.name.clone(),
        |config, text| {
            let valid = text.is_empty() || validate_name(text).is_ok();
            let allowed = || Rejected::Range("1 to 255 letters, digits, -, _ and ., at least one of them a letter".to_owned());
            config.node.name = valid.then(|| text.to_owned()).ok_or_else(allowed)?;
            Ok(())
        }
    }
    "The node's name, unique in the cluster. The same name on the same data is the same node. There is no default: it \
     must be set."

    node.listen Text { |config| config.node.listen.clone(), |config, text| set_address(text, &mut config.node.listen) }
    "Where the node listens, HOST:PORT. The default is this machine only; 0.0.0.0:2437 is every interface, and needs \
     node.advertise."

    node.advertise Text {
        |config| config.node.advertise.clone().unwrap_or_default(),
        |config, text| set_optional(text, &mut config.node.advertise)
    }
    "Where clients and other nodes reach the node, HOST:PORT. Empty means where it listens."

    node.region Text {
        |config| config.node.location.region.to_string(),
        |config, text| set_place(text, &mut config.node.location.region)
    }
    "The region in which the node stands: a domain that fails as one. Empty means that there is only one."

    node.zone Text {
        |config| config.node.location.zone.to_string(),
        |config, text| set_place(text, &mut config.node.location.zone)
    }
    "The zone of its region in which the node stands. Empty means that there is only one."

    node.data_dir Text {
        |config| config.node.data_dir.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        |config, text| {
            config.node.data_dir = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        }
    }
    "Where the node keeps everything. It serves one process at a time. There is no default: it must be set."

    node.roles Texts {
        |config| config.node.roles.iter().map(|role| role.to_string()).collect(),
        set_roles
    }
    "What the node does, one or more of \"metadata\" (it takes part in the group that decides), \"log-server\" (it has a \
     disk and holds copies) and \"sequencer\" (it numbers appends). Three or five nodes with \"metadata\" are enough for a \
     cluster of any size. A node whose disk is in service keeps the role \"log-server\"."

    node.threads Count {
        |config| number(config.node.threads),
        |config, count| between(count, 0, THREADS_MAX, &mut config.node.threads)
    }
    "Threads of `bifrost server` that serve the network, up to 1024. 0 means one less than the machine has cores, and at least \
     one: the log server writes from a thread of its own. Metadata has its own threads, too."

    metadata.engine Text {
        |config| match config.metadata.engine {
            Engine::Raft => RAFT.to_owned(),
            Engine::Etcd => ETCD.to_owned(),
        },
        |config, text| {
            config.metadata.engine = match text {
                RAFT => Engine::Raft,
                ETCD => Engine::Etcd,
                _ => return Err(Rejected::Range(format!("\"{RAFT}\" or \"{ETCD}\""))),
            };
            Ok(())
        }
    }
    "What keeps the metadata of the cluster: \"raft\", the group of its own members, or \"etcd\", one that you run already. \
     All nodes of a cluster have the same. `bifrost metadata export` and `import` move between them."

    metadata.etcd_endpoints Texts { |config| config.metadata.etcd_endpoints.clone(), set_etcd_endpoints }
    "Members of etcd, HOST:PORT, for the engine \"etcd\". A node needs one of them to answer."

    metadata.etcd_prefix Text {
        |config| config.metadata.etcd_prefix.clone(),
        |config, text| {
            config.metadata.etcd_prefix = text.to_owned();
            checked_etcd(config)
        }
    }
    "What every key of this cluster in etcd begins with. Clusters that share an etcd need different prefixes, and none may \
     begin with another one."

    metadata.listen Text {
        |config| config.metadata.listen.clone(),
        |config, text| set_address(text, &mut config.metadata.listen)
    }
    "Where the metadata member listens, HOST:PORT. It has a port of its own, so that no load of data holds up an \
     election. The default is this machine only."

    metadata.advertise Text {
        |config| config.metadata.advertise.clone().unwrap_or_default(),
        |config, text| set_optional(text, &mut config.metadata.advertise)
    }
    "Where other nodes reach the metadata member, HOST:PORT. Empty means where it listens. A member keeps this address \
     for its life."

    metadata.join Texts { |config| config.metadata.join.clone(), set_join }
    "Metadata members of the cluster that a new node joins, HOST:PORT. Once it has joined, the node remembers where they \
     are. --join says the same."

    metrics.listen Text {
        |config| config.metrics.listen.clone().unwrap_or_default(),
        |config, text| set_optional(text, &mut config.metrics.listen)
    }
    "Where the node answers GET /metrics (for Prometheus), /livez and /readyz as plain HTTP, HOST:PORT. Empty means \
     nowhere. Whoever reaches it may read it."
};

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn not_an_address() -> Rejected {
    Rejected::Range("HOST:PORT, such as \"127.0.0.1:2437\"".to_owned())
}

fn set_address(text: &str, field: &mut String) -> Result<(), Rejected> {
    if !is_address(text) {
        return Err(not_an_address());
    }
    text.clone_into(field);
    Ok(())
}

fn set_optional(text: &str, field: &mut Option<String>) -> Result<(), Rejected> {
    if !text.is_empty() && !is_address(text) {
        return Err(not_an_address());
    }
    *field = (!text.is_empty()).then(|| text.to_owned());
    Ok(())
}

fn set_place(text: &str, field: &mut Arc<str>) -> Result<(), Rejected> {
    if !text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')) {
        return Err(Rejected::Range("letters, digits, - and _".to_owned()));
    }
    *field = text.into();
    Ok(())
}

fn set_roles(config: &mut Config, roles: Vec<String>) -> Result<(), Rejected> {
    let wrong = || Rejected::Range("one or more of \"metadata\", \"log-server\" and \"sequencer\"".to_owned());
    let roles: Vec<Role> = roles.iter().map(|role| role.parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
    config.node.roles = Roles::new(roles).map_err(|_| wrong())?;
    Ok(())
}

fn set_join(config: &mut Config, addresses: Vec<String>) -> Result<(), Rejected> {
    // An empty variable of the environment names nobody.
    let addresses: Vec<String> = addresses.into_iter().filter(|address| !address.is_empty()).collect();
    if !addresses.iter().all(|address| is_address(address)) {
        return Err(not_an_address());
    }
    config.metadata.join = addresses;
    Ok(())
}

fn set_etcd_endpoints(config: &mut Config, endpoints: Vec<String>) -> Result<(), Rejected> {
    config.metadata.etcd_endpoints = endpoints.into_iter().filter(|endpoint| !endpoint.is_empty()).collect();
    checked_etcd(config)
}

fn checked_etcd(config: &Config) -> Result<(), Rejected> {
    config.etcd().validate().map_err(|error| {
        Rejected::Range(match error {
            InvalidEtcdOptions::Endpoints { .. } => format!("1 to {ENDPOINTS_MAX} endpoints"),
            InvalidEtcdOptions::Endpoint { .. } => "HOST:PORT, such as \"127.0.0.1:2379\"".to_owned(),
            InvalidEtcdOptions::Prefix { .. } => format!("1 to {PREFIX_BYTES_MAX} bytes"),
        })
    })
}
