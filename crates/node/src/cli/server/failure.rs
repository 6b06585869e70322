//! Why a node did not start, for a person.

use std::io;

use bifrost::local_node::NodeError;

use super::super::error::{CliError, ErrorCode};
use super::super::failures::plain;
use crate::config::KeyName;
use crate::metadata_member::MemberError;
use crate::process::state::DirectoryError;
use crate::process::{ProcessError, Refused};
use crate::server::ServerError;

/// A key without a default was not set.
pub(super) fn unset(key: KeyName) -> CliError {
    CliError::new(ErrorCode::InvalidConfig, format!("{key} is not set"))
        .with_cause("a node has a name and a data directory of its own")
        .with_advice(format!(
            "set it in the configuration file, or with BIFROST__{}__{}",
            key.section.to_uppercase(),
            key.key.to_uppercase()
        ))
}

/// The port of monitoring is not to be had.
pub(super) fn no_monitoring(address: &str, error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::AddrInUse {
        return CliError::new(ErrorCode::InUse, format!("{address} is in use"))
            .with_cause("another process listens there already")
            .with_advice("stop it, or choose another port with metrics.listen");
    }
    CliError::new(ErrorCode::Failed, format!("nobody can listen at {address}"))
        .with_cause(plain(error))
        .with_advice("choose an address of this machine with metrics.listen")
}

pub(super) fn not_started(error: &ProcessError) -> CliError {
    let told = |code| CliError::new(code, error.to_string());
    match error {
        ProcessError::Refused(refused) => told_refused(refused),
        ProcessError::Directory(DirectoryError::InUse { .. }) => told(ErrorCode::InUse)
            .with_cause("a directory serves one process at a time")
            .with_advice("stop that one, or give this node a node.data_dir of its own"),
        ProcessError::Directory(DirectoryError::Foreign { .. }) => {
            told(ErrorCode::Refused).with_advice("choose an empty or a new directory with node.data_dir")
        }
        ProcessError::Directory(DirectoryError::NoNode { .. }) => told(ErrorCode::Refused),
        ProcessError::Directory(DirectoryError::Damaged { .. }) => told(ErrorCode::Refused)
            .with_advice("keep the directory for a look; start a new node under another name, on an empty directory"),
        ProcessError::Directory(DirectoryError::Io { source, .. }) => told(ErrorCode::Failed)
            .with_cause(plain(source))
            .with_advice("choose a writable directory with node.data_dir"),
        ProcessError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            CliError::new(ErrorCode::InUse, format!("{address} is in use"))
                .with_cause("another process listens there already")
                .with_advice("stop it, or choose another port with node.listen or metadata.listen")
        }
        ProcessError::Listen { source, .. } => told(ErrorCode::Failed)
            .with_cause(plain(source))
            .with_advice("choose an address of this machine with node.listen or metadata.listen"),
        ProcessError::NoAdvertise { .. } => told(ErrorCode::InvalidConfig)
            .with_cause("it stands for every interface of this machine")
            .with_advice("say where others reach it with node.advertise and metadata.advertise"),
        ProcessError::WrongAddress { .. } => {
            told(ErrorCode::InvalidArgument).with_advice("an address is HOST:PORT, such as 127.0.0.1:2438")
        }
        ProcessError::NobodyToJoin { .. } => told(ErrorCode::Unreachable).with_advice(
            "start a member there, or name another one with --join; a member listens at port 2438 by default",
        ),
        ProcessError::NotAMember { .. } => {
            told(ErrorCode::Refused).with_advice("name the port of a metadata member with --join, 2438 by default")
        }
        ProcessError::NoEtcd { .. } => {
            told(ErrorCode::Unreachable).with_advice("start etcd, or say where it is with metadata.etcd_endpoints")
        }
        ProcessError::NoLeader { .. } => told(ErrorCode::TimedOut)
            .with_cause("a majority of the members must run and reach each other")
            .with_advice("start the others; this node goes on where it was when it is started again"),
        ProcessError::NotAdded { source, .. } => told(ErrorCode::TimedOut).with_cause(source.to_string()).with_advice(
            "see to it that the others reach metadata.advertise, and start it again: it goes on where it was",
        ),
        ProcessError::Node(ServerError::Node(NodeError::Refused(refusal))) => {
            CliError::new(ErrorCode::Refused, refusal.to_string())
        }
        ProcessError::Node(ServerError::Node(NodeError::Open(bifrost_logserver::OpenError::InUse { directory }))) => {
            CliError::new(ErrorCode::InUse, format!("{} is in use by another process", directory.display()))
                .with_advice("stop that one, or give this node a node.data_dir of its own")
        }
        ProcessError::Member(MemberError::Start(damaged)) if damaged.is_damage() => {
            CliError::new(ErrorCode::Refused, "the log of the metadata member is damaged").because(damaged).with_advice(
                "keep its directory `metadata` for a look. If the other members are a majority: `bifrost metadata \
                 remove-member NODE`, move that directory away, and start it again; it joins as a new member",
            )
        }
        ProcessError::NoId
        | ProcessError::Etcd(_)
        | ProcessError::MemberWithoutRole
        | ProcessError::Bootstrap(_)
        | ProcessError::Catalog(_)
        | ProcessError::Member(_)
        | ProcessError::Node(_) => CliError::new(ErrorCode::Failed, "the node did not start")
            .because(error)
            .with_advice("start it again: it goes on where it was"),
    }
}

fn told_refused(refused: &Refused) -> CliError {
    let told = |code| CliError::new(code, refused.to_string());
    match refused {
        Refused::NoCluster { .. } => told(ErrorCode::Refused)
            .with_advice("give --bootstrap to make a new cluster, or --join HOST:PORT to join one"),
        Refused::BootstrapWithoutMetadata => {
            told(ErrorCode::Refused).with_advice("add \"metadata\" to node.roles of the first node")
        }
        Refused::BelongsToCluster { .. } => told(ErrorCode::Refused)
            .with_advice("start it without --bootstrap, or make the new cluster on an empty directory"),
        Refused::OtherName { .. } | Refused::OtherNode { .. } => {
            told(ErrorCode::Refused).with_advice("give this node its own node.data_dir, or an empty one if it is new")
        }
        Refused::OtherCluster { .. } => told(ErrorCode::Refused)
            .with_advice("join the cluster of this data, or give the node an empty directory to join the other one"),
        Refused::NameLives { .. } => {
            told(ErrorCode::NameTaken).with_advice("choose another node.name, or stop that one and use its data")
        }
        Refused::NameKnown { name, .. } => told(ErrorCode::NameTaken)
            .with_cause("a node is its name and its disk; an empty one must not be taken for it")
            .with_advice(format!("start `{name}` on its own data, or choose another node.name")),
        Refused::MemberReplaced { directory, address } => told(ErrorCode::Refused)
            .with_cause("what it knows is of the group that lost its majority, and may contradict the one that goes on")
            .with_advice(format!(
                "move {} away, and start it again with --join {address}: it joins as a new member, and keeps its records",
                directory.display()
            )),
        Refused::MemberLost { node, .. } => told(ErrorCode::Refused)
            .with_cause("a member that forgot its votes could help to decide two different things")
            .with_advice(format!(
                "put its directory back, or `bifrost metadata remove-member {node}` and start it again: it joins as a \
                 new member"
            )),
        Refused::StillMember => told(ErrorCode::Refused).with_advice("add \"metadata\" to node.roles"),
        Refused::NoClusterInEtcd { .. } => told(ErrorCode::Refused).with_advice(
            "give --bootstrap to make a new cluster, `bifrost metadata import` to move one here, or another \
             metadata.etcd_prefix",
        ),
        Refused::ClusterInEtcd { .. } => told(ErrorCode::Refused)
            .with_advice("start it without --bootstrap to join that one, or choose another metadata.etcd_prefix"),
        Refused::JoinWithEtcd => told(ErrorCode::InvalidArgument)
            .with_cause("its cluster is the one under metadata.etcd_prefix")
            .with_advice("leave --join and metadata.join out"),
        Refused::IsInEtcd => told(ErrorCode::Refused).with_advice(
            "set metadata.engine to \"etcd\"; if the cluster moved back, name a member of its group with --join",
        ),
    }
}
