//! Everything that outlives a process: its disk, the metadata of the cluster, etcd. Steps change it in parts, in the order in
//! which a process that dies leaves them behind.

use super::*;

/// What is true, whoever runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct World {
    pub(super) file: Option<NodeState>,
    /// The group that the log of the metadata member is of.
    log: Option<Lineage>,
    /// Whose votes count, or will: where each member of the group is, and whether it votes.
    members: Vec<(NodeId, String, bool)>,
    /// The cluster that the metadata group is of.
    cluster: Option<ClusterId>,
    etcd: Option<ClusterId>,
    record: Option<NodeRecord>,
    /// The disk in the directory of the log server.
    here: Option<DiskId>,
    /// Its own member is reached by others, in this life.
    reached: bool,
    pub(super) serves: bool,
}

impl World {
    /// A cluster of one other node.
    pub(super) fn with_group() -> Self {
        Self { cluster: Some(cluster(7)), ..Self::default() }.member(1, FIRST_MEMBER)
    }

    pub(super) fn member(mut self, number: u32, address: &str) -> Self {
        self.cluster = Some(cluster(7));
        self.members.push((node(number), address.to_owned(), true));
        self
    }

    /// This node has been there before.
    pub(super) fn of(mut self, state: NodeState) -> Self {
        self.record = state.node.map(|known| record(known.get(), disk(5)));
        self.here = disk(5);
        self.file = Some(state);
        self
    }

    pub(super) fn with_log(mut self) -> Self {
        self.log = Some(Lineage::default());
        self
    }

    /// Somebody has put the cluster into etcd.
    pub(super) fn with_etcd(mut self) -> Self {
        self.etcd = Some(cluster(7));
        self
    }

    /// A process starts. Nothing of the one before runs.
    pub(super) fn new_life(&mut self) {
        self.reached = false;
        self.serves = false;
    }

    /// How many parts a step changes the world in.
    pub(super) fn parts(step: &Step) -> usize {
        match step {
            Step::MakeGroup | Step::StartNode => 3,
            Step::AddMember { .. } => 2,
            Step::Write(_) | Step::SetMemberAside | Step::StartMember(_) | Step::MakeClusterInEtcd => 1,
            Step::LookThere { .. }
            | Step::LookInEtcd
            | Step::LookAtLog
            | Step::AskGroup { .. }
            | Step::ServeMember
            | Step::AwaitMetadata
            | Step::LookUpName
            | Step::CallNamesake { .. } => 0,
        }
    }

    /// The first parts of a step are carried out, and nobody hears of it.
    pub(super) fn take_parts(&mut self, step: &Step, wanted: &Wanted, parts: usize) {
        for part in 0..parts {
            self.change(step, wanted, part);
        }
    }

    pub(super) fn take(&mut self, step: &Step, wanted: &Wanted) -> Outcome {
        self.take_parts(step, wanted, Self::parts(step));
        self.outcome(step)
    }

    fn change(&mut self, step: &Step, wanted: &Wanted, part: usize) {
        match (step, part) {
            (Step::Write(state), _) => self.file = Some(state.clone()),
            (Step::SetMemberAside, _) => {
                assert_eq!(self.state().engine, Engine::Etcd, "node.json says so first");
                self.log = None;
            }
            (Step::StartMember(start), _) => {
                assert!(!start.returning || self.log.is_some(), "a member that lost its log never votes again");
                let votes = self.members.iter().any(|(known, _, votes)| *known == start.node && *votes);
                assert!(self.log.is_some() || !votes, "what it voted and acknowledged is gone");
                self.log.get_or_insert(start.lineage.clone());
            }
            (Step::MakeGroup, 0) => {
                assert!(!self.reached, "nobody may join before the first node has its number");
                if self.members.is_empty() {
                    self.members.push((FIRST, OWN.to_owned(), true));
                }
            }
            (Step::MakeGroup, 1) => self.cluster = self.cluster.or(Some(self.state().cluster)),
            (Step::MakeGroup | Step::StartNode, 0 | 2) if self.record.is_none() => {
                // Whoever was there first has the first number.
                let others = self.members.iter().filter(|(_, address, _)| address != OWN).count();
                self.record =
                    Some(NodeRecord { name: wanted.name.clone(), ..record(if others > 0 { 3 } else { 1 }, None) });
            }
            (Step::StartNode, 1) => self.here = self.here.or(disk(5)),
            (Step::StartNode, 2) => {
                self.record.as_mut().unwrap().disk = self.here;
                self.record.as_mut().unwrap().storage = StorageState::ReadWrite;
                self.serves = true;
            }
            (Step::AddMember { node, address }, part) => {
                assert!(self.reached && self.log.is_some(), "the leader fills it before it votes");
                let votes = part > 0;
                match self.members.iter_mut().find(|(known, ..)| known == node) {
                    Some((_, known, voter)) => {
                        known.clone_from(address);
                        *voter |= votes;
                    }
                    None => self.members.push((*node, address.clone(), votes)),
                }
            }
            (Step::MakeClusterInEtcd, _) => self.etcd = self.etcd.or(Some(self.state().cluster)),
            _ => {}
        }
    }

    fn outcome(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Write(state) => Outcome::Written(state.clone()),
            Step::LookThere { .. } => Outcome::FoundThere(self.cluster.map(|cluster| Found {
                cluster,
                metadata: self.members.iter().map(|known| known.1.clone()).collect(),
            })),
            Step::LookInEtcd | Step::MakeClusterInEtcd => Outcome::FoundInEtcd(self.etcd),
            Step::SetMemberAside => Outcome::SetAside,
            Step::LookAtLog => Outcome::FoundLog(self.log.clone()),
            Step::AskGroup { .. } => Outcome::GroupSays(self.view()),
            Step::StartMember(_) => Outcome::MemberStarted,
            Step::MakeGroup => Outcome::GroupMade,
            Step::ServeMember => {
                self.reached = true;
                Outcome::MemberServes
            }
            Step::AwaitMetadata => {
                let own = self.state().engine == Engine::Raft;
                assert!(!own || self.others().next().is_some() || self.reached, "there is no majority without it");
                Outcome::MetadataAnswers(if own { self.cluster } else { self.etcd })
            }
            Step::LookUpName => {
                Outcome::FoundName(self.record.clone().map(|record| Namesake { record, here: self.here }))
            }
            Step::CallNamesake { .. } => panic!("nobody else has the name"),
            Step::StartNode => Outcome::NodeServes(self.record.as_ref().unwrap().id.node),
            Step::AddMember { .. } => Outcome::MemberAdded,
        }
    }

    fn state(&self) -> &NodeState {
        self.file.as_ref().expect("node.json is written first")
    }

    fn others(&self) -> impl Iterator<Item = &(NodeId, String, bool)> {
        self.members.iter().filter(|(_, address, _)| address == FIRST_MEMBER)
    }

    fn view(&self) -> View {
        let known: Vec<(u32, &str)> =
            self.members.iter().map(|(node, address, _)| (node.get(), address.as_str())).collect();
        View::new(self.others().map(|(_, address, _)| (address.clone(), says(&known, 0, &[]))))
    }
}
