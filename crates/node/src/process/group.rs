//! What a starting node asks of the metadata group. Each wait has a deadline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bifrost::catalog::{Catalog, CatalogError};
use bifrost::local_node::NodeError;
use bifrost::membership::Identity;
use bifrost::metadata_pool::MetadataPool;
use bifrost_logserver::Marker;
use bifrost_raft::{AdminError, GroupId, Lineage, Role};
use bifrost_types::{ClusterId, NodeId, NodeRecord};
use bifrost_wire::RpcError;
use bifrost_wire::grpc::{ClientOptions, GrpcMetadataAdmin, GrpcNode};
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::metadata_admin::{MemberStatus, MetadataAdmin, MetadataAdminError, MetadataMember as WireMember};
use bifrost_wire::node::NodeService;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::error::ProcessError;
use super::{FIRST, blocking};
use crate::metadata_member::MetadataMember;

/// For somebody to answer where the cluster to join should be.
const FIND_DEADLINE: Duration = Duration::from_secs(15);
/// For one answer.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// For a leader: members that start together wait for each other.
pub(super) const LEADER_DEADLINE: Duration = Duration::from_secs(60);
/// For this member to have what the others have, and to vote.
const ADD_DEADLINE: Duration = Duration::from_secs(120);
/// For a node of the same name to answer.
const ALIVE_DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// The cluster behind these addresses, and where its metadata is.
pub(super) async fn find(join: &[String], client: &ClientOptions) -> Result<(ClusterId, Vec<String>), ProcessError> {
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
                        let mut found: Vec<String> =
                            status.members.into_iter().map(|known| known.member.address).collect();
                        found.extend(join.iter().filter(|asked| !found.contains(asked)).cloned().collect::<Vec<_>>());
                        return Ok((status.cluster, found));
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

/// What the members at some addresses say of their group.
pub(super) struct View {
    found: Vec<(String, MemberStatus)>,
}

impl View {
    /// Asks them. Nobody has to answer.
    pub(super) async fn of(addresses: &[String], cluster: ClusterId, client: &ClientOptions) -> Self {
        let options = ClientOptions { cluster: Some(cluster), ..client.clone() };
        let options = &options;
        let asked = addresses.iter().map(|address| async move {
            let admin = GrpcMetadataAdmin::connect_lazy(address, options).ok()?;
            let status = timeout(STATUS_DEADLINE, admin.status()).await.ok()?.ok()?;
            // A member that was never told of a group knows nothing of it.
            (status.cluster == cluster && !status.members.is_empty()).then(|| (address.clone(), status))
        });
        Self { found: join_all(asked).await.into_iter().flatten().collect() }
    }

    pub(super) fn answers(&self) -> bool {
        !self.found.is_empty()
    }

    /// Where somebody is whose group goes on in place of this one.
    pub(super) fn replaces(&self, group: GroupId) -> Option<String> {
        let replaces = |(_, status): &&(String, MemberStatus)| status.replaced_groups.contains(&group.get());
        self.found.iter().find(replaces).map(|(address, _)| address.clone())
    }

    /// Those of the group that replaces all others that are known of.
    fn newest(&self) -> impl Iterator<Item = &MemberStatus> {
        let replaced = |group| self.found.iter().any(|(_, status)| status.replaced_groups.contains(&group));
        self.found.iter().map(|(_, status)| status).filter(move |status| !replaced(status.group))
    }

    /// Whether the group is known, and this node is no member of it.
    pub(super) fn is_without(&self, node: NodeId) -> bool {
        let newest = self.newest().max_by_key(|status| (status.term, status.applied));
        newest.is_some_and(|status| status.members.iter().all(|known| known.member.node != node))
    }

    /// The group to join, if somebody knows it.
    pub(super) fn lineage(&self) -> Option<Lineage> {
        let status = self.newest().max_by_key(|status| (status.term, status.applied))?;
        let before = status.replaced_groups.iter().copied().map(GroupId::from).collect();
        Some(Lineage { group: GroupId::from(status.group), before })
    }
}

/// The cluster of whoever answers at these addresses, if it is another one. Nobody has to answer.
pub(super) async fn other_cluster(join: &[String], own: ClusterId, client: &ClientOptions) -> Option<ClusterId> {
    let options = ClientOptions { cluster: None, ..client.clone() };
    let options = &options;
    let asked = join.iter().map(|address| async move {
        let admin = GrpcMetadataAdmin::connect_lazy(address, options).ok()?;
        let status = timeout(STATUS_DEADLINE, admin.status()).await.ok()?.ok()?;
        (status.cluster != own).then_some(status.cluster)
    });
    join_all(asked).await.into_iter().flatten().next()
}

/// Makes the group of a new cluster with this one member, and writes down what everybody else relies on: the cluster's id
/// and the first node's record, so that nobody who joins gets its number. Nobody reaches the member meanwhile.
pub(super) async fn bootstrap(
    member: &MetadataMember,
    cluster: ClusterId,
    identity: &Identity,
) -> Result<(), ProcessError> {
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
        return Err(ProcessError::OtherCluster { own: cluster, found });
    }
    let record = until(LEADER_DEADLINE, || reserve(&catalog, identity)).await?.ok_or_else(late)?;
    match record.id.node {
        FIRST => Ok(()),
        found => Err(ProcessError::OtherNode { known: FIRST, found }),
    }
}

/// The record of this name; made if there is none.
async fn reserve(catalog: &Catalog, identity: &Identity) -> Result<NodeRecord, CatalogError> {
    if let Some((record, _)) = catalog.node_by_name(&identity.name).await? {
        return Ok(record);
    }
    Ok(catalog.create_node(&identity.name, |node| identity.first_record(node)).await?.0)
}

/// Waits until metadata answers, and checks whose it is.
pub(super) async fn ready(catalog: &Catalog, own: ClusterId, addresses: &[String]) -> Result<(), ProcessError> {
    let known = until(LEADER_DEADLINE, || catalog.known_cluster_id()).await;
    match known {
        Ok(Some(Some(found))) if found != own => Err(ProcessError::OtherCluster { own, found }),
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(ProcessError::NoLeader { addresses: addresses.to_vec(), waited: LEADER_DEADLINE }),
        Err(ProcessError::Catalog(CatalogError::Metadata(MetadataError::OtherCluster { server, .. }))) => {
            Err(ProcessError::OtherCluster { own, found: server })
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

/// Whether a directory that knows of no node yet may begin the life of this name. It must not take the place of a node
/// that has its disk elsewhere: to begin its next life would fence it if it lives, and declare its disk lost in any case.
pub(super) async fn check_name(
    catalog: &Catalog,
    name: &str,
    disk: PathBuf,
    client: &ClientOptions,
) -> Result<(), ProcessError> {
    let Some(Some((record, _))) = until(LEADER_DEADLINE, || catalog.node_by_name(name)).await? else { return Ok(()) };
    let Some(known) = record.disk else {
        // Without a disk it is a start that was interrupted, here or elsewhere, and whoever is first goes on with it; or a
        // node that needs none.
        let NodeRecord { id, name, address, .. } = record;
        return if answers(id.node, &address, client).await {
            Err(ProcessError::NameLives { name, node: id.node, address })
        } else {
            Ok(())
        };
    };
    let marker = blocking(move || Marker::read(&disk))
        .await
        .map_err(|error| ProcessError::Node(NodeError::from(error).into()))?;
    if marker.is_some_and(|marker| marker.disk == known) {
        return Ok(());
    }
    let NodeRecord { id, name, address, .. } = record;
    let node = id.node;
    let lives = answers(node, &address, client).await;
    Err(if lives { ProcessError::NameLives { name, node, address } } else { ProcessError::NameKnown { name, node } })
}

/// Whether this node answers at its address, and not another one that has the address by now.
async fn answers(node: NodeId, address: &str, client: &ClientOptions) -> bool {
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
