//! In which order a process becomes a node: a table. What the options want, what `node.json` says and what was learned since
//! this start began give the next step, or the sentence why there is none.
//!
//! ```text
//!  node.json ─► whose cluster ─► a member that the group knows ─► metadata answers ─► the name is free ─► the node serves
//!                                                                     └─► its number is written down ─► a new member
//! ```
//! Each step may be taken twice, and what it needs is written down before it is taken. So a process that dies before a
//! step, or after it and before it knew, ends in the same place when it is started again: the tests try every such place.
//! What happens to the node's record and its disk within [`Step::StartNode`] is a table of its own:
//! `bifrost::membership`.

mod refused;
#[cfg(test)]
mod tests;
mod view;

use std::path::PathBuf;

use bifrost_raft::Lineage;
use bifrost_types::{ClusterId, DiskId, NodeId, NodeRecord};

pub use self::refused::Refused;
pub(super) use self::view::View;
use super::METADATA;
use super::state::{Begun, Engine, MemberState, NodeState};

/// Whoever makes a cluster is its first node.
pub(super) const FIRST: NodeId = NodeId::new(std::num::NonZeroU32::MIN);

/// What the options of a start say, as far as the order depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The name of the node.
    pub(super) name: String,
    /// Where others reach it. Nobody else listens there.
    pub(super) address: String,
    /// Where others reach its metadata member; `None` if it is to have none.
    pub(super) member: Option<String>,
    /// The id of the cluster to make, if it is to make one.
    pub(super) make: Option<ClusterId>,
    /// Whether members of a cluster to join are named.
    pub(super) join: bool,
    /// The prefix in etcd, if metadata is to be there.
    pub(super) etcd: Option<String>,
    /// Where it keeps its data.
    pub(super) directory: PathBuf,
}

/// A cluster that was found, and where its metadata is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cluster: ClusterId,
    pub(super) metadata: Vec<String>,
}

/// What the cluster knows under the name of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namesake {
    pub(super) record: NodeRecord,
    /// The disk that is in the data directory.
    pub(super) here: Option<DiskId>,
}

/// How a metadata member is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberStart {
    pub(super) node: NodeId,
    pub(super) address: String,
    /// The group to join, if its directory is empty.
    pub(super) lineage: Lineage,
    /// It has had a log: without one it must not start.
    pub(super) returning: bool,
}

/// What to do next. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Replace what `node.json` says, durably.
    Write(NodeState),
    /// Ask where the options say to join whose cluster is there. Somebody must answer if `wait`.
    LookThere { wait: bool },
    /// Look which cluster is in etcd.
    LookInEtcd,
    /// Put the log of a metadata member out of the way: the cluster has moved into etcd.
    SetMemberAside,
    /// Look whose log is in the directory of the metadata member.
    LookAtLog,
    /// Ask the other members that are known what they say of the group. Whether no answer `decides` anything: else somebody who
    /// is there tells at once, and nobody is waited for.
    AskGroup { decides: bool },
    /// Start the metadata member. Nobody reaches it yet.
    StartMember(MemberStart),
    /// Make a group of this member alone, and write the cluster's id and the record of its first node there.
    MakeGroup,
    /// Let the others reach the metadata member.
    ServeMember,
    /// Write the cluster's id into etcd.
    MakeClusterInEtcd,
    /// Wait until metadata answers.
    AwaitMetadata,
    /// Look what the cluster knows under this name.
    LookUpName,
    /// Ask whether the node that has the name answers.
    CallNamesake { node: NodeId, address: String },
    /// Begin the next life of the node: its disk, its record, its services.
    StartNode,
    /// Have the leader add the metadata member, and wait until it votes.
    AddMember { node: NodeId, address: String },
}

/// What a step led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Written(NodeState),
    /// `None`: nobody answered.
    FoundThere(Option<Found>),
    /// Also of [`Step::MakeClusterInEtcd`].
    FoundInEtcd(Option<ClusterId>),
    SetAside,
    /// The group that the log is of; `None` if there is none.
    FoundLog(Option<Lineage>),
    GroupSays(View),
    MemberStarted,
    GroupMade,
    MemberServes,
    /// The cluster that metadata is of; `None` if no node has been there yet.
    MetadataAnswers(Option<ClusterId>),
    FoundName(Option<Namesake>),
    NamesakeAnswers(bool),
    NodeServes(NodeId),
    MemberAdded,
}

/// How far the metadata member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberRuns {
    No,
    Unreached,
    Served,
}

/// One start of a process. Each `Option` below is `None` until it was looked.
#[derive(Debug)]
pub(super) struct Order {
    wanted: Wanted,
    /// What `node.json` says; `None` for an empty directory.
    state: Option<NodeState>,
    there: Option<Option<Found>>,
    in_etcd: Option<Option<ClusterId>>,
    set_aside: bool,
    log: Option<Option<Lineage>>,
    group: Option<View>,
    member: MemberRuns,
    group_made: bool,
    metadata: Option<Option<ClusterId>>,
    namesake: Option<Option<Namesake>>,
    namesake_answers: Option<bool>,
    node: Option<NodeId>,
    added: bool,
}

impl Order {
    pub(super) const fn new(wanted: Wanted, state: Option<NodeState>) -> Self {
        Self {
            wanted,
            state,
            there: None,
            in_etcd: None,
            set_aside: false,
            log: None,
            group: None,
            member: MemberRuns::No,
            group_made: false,
            metadata: None,
            namesake: None,
            namesake_answers: None,
            node: None,
            added: false,
        }
    }

    /// What `node.json` says, once it says something.
    pub(super) const fn state(&self) -> Option<&NodeState> {
        self.state.as_ref()
    }

    /// Takes in what the last step led to.
    pub(super) fn learn(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Written(state) => self.state = Some(state),
            Outcome::FoundThere(found) => self.there = Some(found),
            Outcome::FoundInEtcd(found) => self.in_etcd = Some(found),
            Outcome::SetAside => self.set_aside = true,
            Outcome::FoundLog(lineage) => self.log = Some(lineage),
            Outcome::GroupSays(view) => self.group = Some(view),
            Outcome::MemberStarted => self.member = MemberRuns::Unreached,
            Outcome::GroupMade => self.group_made = true,
            Outcome::MemberServes => self.member = MemberRuns::Served,
            Outcome::MetadataAnswers(cluster) => {
                self.metadata = Some(cluster);
                // Perhaps nobody answered before. Which group a new member joins is asked when somebody does.
                self.group = None;
            }
            Outcome::FoundName(namesake) => self.namesake = Some(namesake),
            Outcome::NamesakeAnswers(answers) => self.namesake_answers = Some(answers),
            Outcome::NodeServes(node) => self.node = Some(node),
            Outcome::MemberAdded => self.added = true,
        }
    }

    /// What to do next; `None` when everything runs.
    ///
    /// # Errors
    /// [`Refused`]: the node must not start.
    pub(super) fn next(&self) -> Result<Option<Step>, Refused> {
        let Some(state) = &self.state else { return self.begin().map(Some) };
        if let Some(node) = self.node {
            return self.join_group(state, node);
        }
        if self.member == MemberRuns::No
            && self.metadata.is_none()
            && let Some(step) = self.go_on(state)?
        {
            return Ok(Some(step));
        }
        // A member that the group knows must be there before metadata is asked for: without it there may be no majority.
        if let Some(step) = self.return_member(state)? {
            return Ok(Some(step));
        }
        if let Some(step) = self.find_metadata(state)? {
            return Ok(Some(step));
        }
        Ok(Some(self.take_name(state)?.unwrap_or(Step::StartNode)))
    }

    /// An empty directory: makes a cluster, or finds the one to join.
    fn begin(&self) -> Result<Step, Refused> {
        let new = |cluster, begun, engine| NodeState {
            cluster,
            begun,
            name: self.wanted.name.clone(),
            node: None,
            engine,
            member: None,
            metadata: Vec::new(),
        };
        if let Some(prefix) = &self.wanted.etcd {
            if self.wanted.join {
                return Err(Refused::JoinWithEtcd);
            }
            let Some(found) = self.in_etcd else { return Ok(Step::LookInEtcd) };
            return match (found, self.wanted.make) {
                (None, Some(cluster)) => Ok(Step::Write(new(cluster, Begun::Bootstrap, Engine::Etcd))),
                (None, None) => Err(Refused::NoClusterInEtcd { prefix: prefix.clone() }),
                (Some(cluster), Some(_)) => Err(Refused::ClusterInEtcd { prefix: prefix.clone(), cluster }),
                (Some(cluster), None) => Ok(Step::Write(new(cluster, Begun::Join, Engine::Etcd))),
            };
        }
        if let Some(cluster) = self.wanted.make {
            let address = self.wanted.member.clone().ok_or(Refused::BootstrapWithoutMetadata)?;
            return Ok(Step::Write(NodeState {
                node: Some(FIRST),
                member: Some(MemberState { address: address.clone(), voter: false, moved: false }),
                metadata: vec![address],
                ..new(cluster, Begun::Bootstrap, Engine::Raft)
            }));
        }
        if !self.wanted.join {
            return Err(Refused::NoCluster { directory: self.wanted.directory.clone() });
        }
        let Some(Some(found)) = &self.there else { return Ok(Step::LookThere { wait: true }) };
        let metadata = found.metadata.clone();
        Ok(Step::Write(NodeState { metadata, ..new(found.cluster, Begun::Join, Engine::Raft) }))
    }

    /// A directory of a node that goes on: whether it is this one, and of the cluster that is meant.
    fn go_on(&self, state: &NodeState) -> Result<Option<Step>, Refused> {
        let mut next = state.clone();
        if state.node.is_none() {
            // It never became a node: its name may have been refused.
            next.name.clone_from(&self.wanted.name);
        }
        if next.name != self.wanted.name {
            return Err(Refused::OtherName { found: next.name, wanted: self.wanted.name.clone() });
        }
        if self.wanted.make.is_some() && state.begun == Begun::Join {
            return Err(Refused::BelongsToCluster { cluster: state.cluster });
        }
        let asked = match (&self.wanted.etcd, state.engine) {
            (Some(prefix), _) => self.follow_into_etcd(prefix, &mut next)?,
            (None, Engine::Etcd) => self.follow_out_of_etcd(&mut next)?,
            (None, Engine::Raft) => self.stay_in_group(&mut next)?,
        };
        if asked.is_some() {
            return Ok(asked);
        }
        if next != *state {
            return Ok(Some(Step::Write(next)));
        }
        let aside = state.engine == Engine::Raft || self.set_aside;
        Ok((!aside).then_some(Step::SetMemberAside))
    }

    /// Its cluster must be the one under the prefix, unless this node was stopped before it made it.
    fn follow_into_etcd(&self, prefix: &str, next: &mut NodeState) -> Result<Option<Step>, Refused> {
        let Some(found) = self.in_etcd else { return Ok(Some(Step::LookInEtcd)) };
        match found {
            Some(found) => same_cluster(next.cluster, found)?,
            None if next.is_to_make_cluster_in_etcd() => {}
            None => return Err(Refused::NoClusterInEtcd { prefix: prefix.to_owned() }),
        }
        next.engine = Engine::Etcd;
        next.member = None;
        next.metadata = Vec::new();
        Ok(None)
    }

    /// The cluster had its metadata in etcd when this node ran last. It follows into a metadata group if it is told where that is.
    fn follow_out_of_etcd(&self, next: &mut NodeState) -> Result<Option<Step>, Refused> {
        if !self.wanted.join {
            return Err(Refused::IsInEtcd);
        }
        let Some(Some(found)) = &self.there else { return Ok(Some(Step::LookThere { wait: true })) };
        same_cluster(next.cluster, found.cluster)?;
        next.engine = Engine::Raft;
        next.member = None;
        next.metadata.clone_from(&found.metadata);
        Ok(None)
    }

    fn stay_in_group(&self, next: &mut NodeState) -> Result<Option<Step>, Refused> {
        match (&mut next.member, &self.wanted.member) {
            (Some(_), None) => return Err(Refused::StillMember),
            (Some(member), Some(own)) if member.address != *own => {
                // The others are told once metadata answers.
                let known = next.metadata.iter_mut().filter(|address| **address == member.address);
                known.for_each(|address| address.clone_from(own));
                member.address.clone_from(own);
                member.moved = true;
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
        if !self.wanted.join || next.is_to_make_group() {
            return Ok(None);
        }
        match &self.there {
            None => Ok(Some(Step::LookThere { wait: false })),
            Some(Some(found)) => same_cluster(next.cluster, found.cluster).map(|()| None),
            Some(None) => Ok(None),
        }
    }

    /// Starts a member that may have run before, unless its group has gone on without it; or the first one of a new group.
    fn return_member(&self, state: &NodeState) -> Result<Option<Step>, Refused> {
        let (Some(member), Some(node)) = (&state.member, state.node) else { return Ok(None) };
        let start = |lineage: Lineage, returning| {
            let address = member.address.clone();
            Some(Step::StartMember(MemberStart { node, address, lineage, returning }))
        };
        match self.member {
            MemberRuns::No => {}
            MemberRuns::Unreached if state.is_to_make_group() && !self.group_made => return Ok(Some(Step::MakeGroup)),
            MemberRuns::Unreached if state.is_to_make_group() => {
                let member = Some(MemberState { voter: true, ..member.clone() });
                return Ok(Some(Step::Write(NodeState { member, ..state.clone() })));
            }
            MemberRuns::Unreached => return Ok(Some(Step::ServeMember)),
            MemberRuns::Served => return Ok(None),
        }
        let Some(log) = &self.log else { return Ok(Some(Step::LookAtLog)) };
        if log.is_none() && state.is_to_make_group() {
            return Ok(start(Lineage::default(), false));
        }
        let Some(group) = &self.group else { return Ok(Some(Step::AskGroup { decides: log.is_none() })) };
        let directory = self.wanted.directory.join(METADATA);
        match log {
            Some(lineage) => match group.replaces(lineage.group) {
                Some(address) => Err(Refused::MemberReplaced { address, directory }),
                None => Ok(start(lineage.clone(), true)),
            },
            // It begins anew, when metadata has answered.
            None if group.is_without(node) || !(member.voter || group.answers()) => {
                Ok(Some(Step::Write(NodeState { member: None, ..state.clone() })))
            }
            None => Err(Refused::MemberLost { node, directory }),
        }
    }

    /// Where metadata is, and whose it is. A cluster in etcd is made here if this node is to make it.
    fn find_metadata(&self, state: &NodeState) -> Result<Option<Step>, Refused> {
        if let Some(found) = self.in_etcd {
            match found {
                // Somebody else may have made another one there meanwhile.
                Some(found) => same_cluster(state.cluster, found)?,
                None => return Ok(Some(Step::MakeClusterInEtcd)),
            }
        }
        match self.metadata {
            None => Ok(Some(Step::AwaitMetadata)),
            Some(Some(found)) => same_cluster(state.cluster, found).map(|()| None),
            Some(None) => Ok(None),
        }
    }

    /// Whether a directory that knows of no node yet may begin the life of this name. It must not take the place of a node
    /// that has its disk elsewhere: to begin its next life would fence it if it lives, and declare its disk lost in any case.
    fn take_name(&self, state: &NodeState) -> Result<Option<Step>, Refused> {
        if state.node.is_some() {
            return Ok(None);
        }
        let Some(namesake) = &self.namesake else { return Ok(Some(Step::LookUpName)) };
        let Some(Namesake { record, here }) = namesake else { return Ok(None) };
        if record.disk.is_some() && record.disk == *here {
            return Ok(None);
        }
        let (node, name, address) = (record.id.node, record.name.clone(), record.address.clone());
        match self.namesake_answers {
            // Whoever listened at our own address is gone, because we do.
            None if address != self.wanted.address => return Ok(Some(Step::CallNamesake { node, address })),
            Some(true) => return Err(Refused::NameLives { name, node, address }),
            None | Some(false) => {}
        }
        // Without a disk it is a start that was interrupted, here or elsewhere, and whoever is first goes on with it; or a
        // node that needs none.
        if record.disk.is_some() { Err(Refused::NameKnown { name, node }) } else { Ok(None) }
    }

    /// The node serves. Its number is written down, and its member becomes a voter if it is none.
    fn join_group(&self, state: &NodeState, node: NodeId) -> Result<Option<Step>, Refused> {
        match state.node {
            Some(known) if known != node => return Err(Refused::OtherNode { known, found: node }),
            None => return Ok(Some(Step::Write(NodeState { node: Some(node), ..state.clone() }))),
            Some(_) => {}
        }
        if self.wanted.etcd.is_some() {
            return Ok(None);
        }
        let member = match (&state.member, &self.wanted.member) {
            (Some(member), _) if member.voter && !member.moved => return Ok(None),
            (Some(member), _) => member,
            (None, Some(own)) => {
                let member = Some(MemberState { address: own.clone(), voter: false, moved: false });
                return Ok(Some(Step::Write(NodeState { member, ..state.clone() })));
            }
            (None, None) => return Ok(None),
        };
        let address = member.address.clone();
        let step = match (self.member, &self.group) {
            (MemberRuns::No, None) => Step::AskGroup { decides: true },
            (MemberRuns::No, Some(group)) => {
                let lineage = group.lineage().unwrap_or_default();
                Step::StartMember(MemberStart { node, address, lineage, returning: false })
            }
            (MemberRuns::Unreached, _) => Step::ServeMember,
            (MemberRuns::Served, _) if !self.added => Step::AddMember { node, address },
            (MemberRuns::Served, _) => {
                let member = Some(MemberState { voter: true, moved: false, ..member.clone() });
                Step::Write(NodeState { member, ..state.clone() })
            }
        };
        Ok(Some(step))
    }
}

impl NodeState {
    /// Whether its node was stopped before it had made the group of its cluster.
    fn is_to_make_group(&self) -> bool {
        self.begun == Begun::Bootstrap && self.member.as_ref().is_some_and(|member| !member.voter)
    }

    /// Whether its node was stopped before it had made its cluster in etcd.
    fn is_to_make_cluster_in_etcd(&self) -> bool {
        self.begun == Begun::Bootstrap && self.engine == Engine::Etcd && self.node.is_none()
    }
}

fn same_cluster(own: ClusterId, found: ClusterId) -> Result<(), Refused> {
    if found == own { Ok(()) } else { Err(Refused::OtherCluster { own, found }) }
}
