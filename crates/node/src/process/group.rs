//! What a starting node asks of the metadata group. Each wait has a deadline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bifrost::catalog::{Catalog, CatalogError};
use bifrost::local_node::{NodeError, reserve};
use bifrost::membership::Identity;
use bifrost::metadata_pool::MetadataPool;
use bifrost_logserver::Marker;
use bifrost_raft::{AdminError, Role};
use bifrost_types::{ClusterId, NodeId};
use bifrost_wire::RpcError;
use bifrost_wire::grpc::{ClientOptions, GrpcMetadataAdmin, GrpcNode};
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::metadata_admin::{MemberStatus, MetadataAdmin, MetadataAdminError, MetadataMember as WireMember};
use bifrost_wire::node::NodeService;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::blocking;
use super::error::ProcessError;
use super::order::{FIRST, Found, Namesake, Refused};
use crate::metadata_member::MetadataMember;

/// For somebody to answer where the cluster to join should be.
const FIND_DEADLINE: Duration = Duration::from_secs(15);
/// For one answer.
pub(super) const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// For one without which the start goes on as well.
pub(super) const GLANCE_DEADLINE: Duration = Duration::from_millis(300);
/// For a leader: members that start together wait for each other.
pub(super) const LEADER_DEADLINE: Duration = Duration::from_secs(60);
/// For this member to have what the others have, and to vote.
const ADD_DEADLINE: Duration = Duration::from_secs(120);
/// For a node of the same name to answer.
const ALIVE_DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// The cluster behind these addresses, and where its metadata is. Waits for somebody to answer.
pub(super) async fn find(join: &[String], client: &ClientOptions) -> Result<Found, ProcessError> {
    let options = ClientOptions { cluster: None, ..client.clone() };
    let mut members = Vec::new();
    for address in join {
        let admin = GrpcMetadataAdmin::connect_lazy(address, &options);
        members.push((address, admin.map_err(|_| ProcessError::WrongAddress { address: address.clone() })?));
    }
    let finding = async {
        loop {
            for (address, admin) in &members {
                match timeout(STATUS_DEADLINE, admin.status()).await {
                    // A member that was never told of a group is about to join one itself.
                    Ok(Ok(status)) if !status.members.is_empty() => {
                        let mut found = found(status);
                        let asked = join.iter().filter(|asked| !found.metadata.contains(asked));
                        let asked: Vec<String> = asked.cloned().collect();
                        found.metadata.extend(asked);
                        return Ok(found);
                    }
                    Ok(Err(RpcError::NotOffered)) => {
                        return Err(ProcessError::NotAMember { address: (*address).clone() });
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            sleep(PAUSE).await;
        }
    };
    let nobody = ProcessError::NobodyToJoin { addresses: join.to_vec(), waited: FIND_DEADLINE };
    timeout(FIND_DEADLINE, finding).await.unwrap_or(Err(nobody))
}

/// What the members at these addresses say of their group, with the addresses. Nobody has to answer.
pub(super) async fn ask(
    addresses: &[String],
    cluster: Option<ClusterId>,
    client: &ClientOptions,
    deadline: Duration,
) -> Vec<(String, MemberStatus)> {
    let options = ClientOptions { cluster, ..client.clone() };
    let options = &options;
    let asked = addresses.iter().map(|address| async move {
        let admin = GrpcMetadataAdmin::connect_lazy(address, options).ok()?;
        let status = timeout(deadline, admin.status()).await.ok()?.ok()?;
        Some((address.clone(), status))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Whose cluster is at these addresses; another one than `own` if there is one. Nobody has to answer.
pub(super) async fn whose(join: &[String], own: ClusterId, client: &ClientOptions) -> Option<Found> {
    let answers = ask(join, None, client, STATUS_DEADLINE).await;
    let (_, status) = answers.into_iter().max_by_key(|(_, status)| status.cluster != own)?;
    Some(found(status))
}

fn found(status: MemberStatus) -> Found {
    let metadata = status.members.into_iter().map(|known| known.member.address).collect();
    Found { cluster: status.cluster, metadata }
}

/// Makes the group of a new cluster with this one member, and writes down what everybody else relies on: the cluster's id
/// and the first node's record, so that nobody who joins gets its number. Nobody reaches the member meanwhile.
pub(super) async fn make(member: &MetadataMember, cluster: ClusterId, identity: &Identity) -> Result<(), ProcessError> {
    let raft = member.raft();
    match raft.initialize([member.member()].into()).await {
        Ok(()) | Err(AdminError::Initialized) => {}
        Err(error) => return Err(ProcessError::Bootstrap(error)),
    }
    let addresses = vec![member.member().1.address];
    let late = || ProcessError::NoLeader { addresses: addresses.clone(), waited: LEADER_DEADLINE };
    let mut status = raft.watch_status();
    let leading = status.wait_for(|status| status.role == Role::Leader);
    timeout(LEADER_DEADLINE, leading).await.map_err(|_| late())?.map_err(|_| late())?;
    let catalog = Catalog::new(Arc::new(raft.clone()));
    let found = until(LEADER_DEADLINE, || catalog.cluster_id(cluster)).await?.ok_or_else(late)?;
    if found != cluster {
        return Err(Refused::OtherCluster { own: cluster, found }.into());
    }
    let (record, _) = until(LEADER_DEADLINE, || reserve(&catalog, identity)).await?.ok_or_else(late)?;
    match record.id.node {
        FIRST => Ok(()),
        found => Err(Refused::OtherNode { known: FIRST, found }.into()),
    }
}

/// Waits until metadata answers whose it is; `None` if no node has been there yet.
pub(super) async fn ready(catalog: &Catalog, addresses: &[String]) -> Result<Option<ClusterId>, ProcessError> {
    let known = until(LEADER_DEADLINE, || catalog.known_cluster_id()).await;
    match known {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(ProcessError::NoLeader { addresses: addresses.to_vec(), waited: LEADER_DEADLINE }),
        Err(ProcessError::Catalog(CatalogError::Metadata(MetadataError::OtherCluster { server, .. }))) => {
            Ok(Some(server))
        }
        Err(error) => Err(error),
    }
}

/// Repeats what may be repeated until it is done; `None` when the time is over.
pub(super) async fn until<T, F>(deadline: Duration, mut attempt: impl FnMut() -> F) -> Result<Option<T>, ProcessError>
where
    F: Future<Output = Result<T, CatalogError>>,
{
    let trying = async {
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(CatalogError::Conflict) => {}
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(ProcessError::from(error)),
            }
            sleep(PAUSE).await;
        }
    };
    timeout(deadline, trying).await.ok().transpose()
}

/// What the cluster knows under this name, beside the disk in `directory`.
pub(super) async fn namesake(
    catalog: &Catalog,
    name: &str,
    directory: PathBuf,
) -> Result<Option<Namesake>, ProcessError> {
    let Some(Some((record, _))) = until(LEADER_DEADLINE, || catalog.node_by_name(name)).await? else { return Ok(None) };
    let marker = blocking(move || Marker::read(&directory)).await;
    let marker = marker.map_err(|error| ProcessError::Node(NodeError::from(error).into()))?;
    Ok(Some(Namesake { record, here: marker.map(|marker| marker.disk) }))
}

/// Whether this node answers at its address, and not another one that has the address by now.
pub(super) async fn answers(node: NodeId, address: &str, client: &ClientOptions) -> bool {
    let Ok(asked) = GrpcNode::connect_lazy(address, client) else { return false };
    matches!(timeout(ALIVE_DEADLINE, asked.status()).await, Ok(Ok(status)) if status.id.node == node)
}

/// Has the leader add this member. Interrupted or refused for the moment, it goes on where it was.
pub(super) async fn add(pool: &MetadataPool, member: WireMember) -> Result<(), ProcessError> {
    let mut last = MetadataAdminError::NotLeader { leader: None };
    let adding = async {
        loop {
            last = match pool.change(|admin| admin.add_member(member.clone())).await {
                Ok(()) => return Ok(()),
                Err(error @ MetadataAdminError::TooLarge) => return Err(error),
                Err(error) => error,
            };
            sleep(PAUSE).await;
        }
    };
    let added = timeout(ADD_DEADLINE, adding).await;
    let refused = match added {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => last,
    };
    Err(ProcessError::NotAdded { waited: ADD_DEADLINE, source: refused })
}
