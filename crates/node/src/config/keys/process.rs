//! Keys of `bifrost server`: the node, and its part in metadata.

use std::path::PathBuf;

use bifrost::catalog::validate_name;

use crate::config::Config;
use crate::config::key::{Access, Key, KeyName};
use crate::config::value::Rejected;

/// What a node may be for. Every node holds copies and numbers appends.
const METADATA: &str = "metadata";
const LOG_SERVER: &str = "log-server";
const SEQUENCER: &str = "sequencer";

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
        |config| config.node.location.region.clone(),
        |config, text| set_place(text, &mut config.node.location.region)
    }
    "The region in which the node stands: a domain that fails as one. Empty means that there is only one."

    node.zone Text {
        |config| config.node.location.zone.clone(),
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
        |config| {
            let metadata = config.node.metadata.then_some(METADATA);
            metadata.into_iter().chain([LOG_SERVER, SEQUENCER]).map(str::to_owned).collect()
        },
        set_roles
    }
    "What the node is for. Every node has the roles \"log-server\" (it holds copies) and \"sequencer\" (it numbers \
     appends); \"metadata\" (it takes part in the group that decides) may be left out. Three or five nodes with it are \
     enough for a cluster of any size."

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

fn set_place(text: &str, field: &mut String) -> Result<(), Rejected> {
    if !text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')) {
        return Err(Rejected::Range("letters, digits, - and _".to_owned()));
    }
    text.clone_into(field);
    Ok(())
}

fn set_roles(config: &mut Config, roles: Vec<String>) -> Result<(), Rejected> {
    let has = |role: &str| roles.iter().any(|named| named == role);
    let known = roles.iter().all(|role| [METADATA, LOG_SERVER, SEQUENCER].contains(&role.as_str()));
    if !known || !has(LOG_SERVER) || !has(SEQUENCER) {
        return Err(Rejected::Range("\"log-server\" and \"sequencer\", with or without \"metadata\"".to_owned()));
    }
    config.node.metadata = has(METADATA);
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
