//! What goes wrong with a metadata group: whom its leader reaches, and when its members die.

use turmoil::Sim;

use super::{Course, Faulty};
use crate::members::{Ambush, MemberDisk};
use crate::plan::{Apart, Fault, Kind};

impl Faulty {
    /// Takes down the members that are in the middle of a snapshot, and takes its place from a leader that was sent the
    /// write of a chain at which it is to lose it.
    pub(super) fn strike_members(&mut self, sim: &mut Sim<'_>) {
        let Some(members) = self.ground.members.clone() else { return };
        for place in 0..self.faults.len() {
            let Some((Fault { kind, .. }, Course::Lasts)) = self.faults.get(place).cloned() else { continue };
            match kind {
                Kind::CrashInSnapshot { host, .. }
                    if members.disk(&host).is_some_and(MemberDisk::struck) && self.struck.insert(place) =>
                {
                    self.ground.history.note(format!("{host} dies in the middle of a snapshot"));
                    self.take_down(sim, &host);
                }
                Kind::CrashInOverwrite => {
                    let struck = |host: &String| members.disk(host).is_some_and(MemberDisk::struck);
                    let Some(host) = self.member_hosts().into_iter().find(struck) else { continue };
                    self.ambush_all(Ambush::None);
                    self.ground.history.note(format!("{host} dies when it has overwritten entries"));
                    self.take_down(sim, &host);
                    if let Some((fault, _)) = self.faults.get_mut(place) {
                        fault.kind = Kind::Crash { host, silent: false };
                    }
                }
                Kind::LeaderChangeAt { after } => {
                    if self.ground.truth.take_deposed() {
                        // The entry may get out to the others, or not, and their answers back.
                        self.fuse_ms = Some(after.saturating_mul(7) % (2 * self.latency_max_ms + 2));
                    }
                    match self.fuse_ms {
                        Some(0) => {
                            self.fuse_ms = None;
                            self.depose(place, after);
                            self.apply(sim);
                        }
                        Some(left) => self.fuse_ms = Some(left - 1),
                        None => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// From here on the leader of the group does not reach the others, does not hear them, or neither.
    fn depose(&mut self, place: usize, after: u32) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        self.ground.history.note(format!("metadata: {leader} steps down"));
        let kind = match (self.seed + u64::from(after)) % 3 {
            0 => Kind::Partition { a: vec![leader], b: others },
            1 => Kind::OneWay { from: vec![leader], to: others },
            _ => Kind::OneWay { from: others, to: vec![leader] },
        };
        if let Some((fault, _)) = self.faults.get_mut(place) {
            fault.kind = kind;
        }
    }

    /// The member that leads the group, and the other ones.
    pub(super) fn leader_and_others(&self) -> Option<(String, Vec<String>)> {
        let members = self.ground.members.as_ref()?;
        let leader = members.leader()?;
        let others = members.hosts().iter().filter(|host| **host != leader).cloned().collect();
        Some((leader, others))
    }

    /// The leader of the group on one side, with whom it is to reach, and those whom it is not to reach on the other.
    pub(super) fn apart(&self, from: Apart) -> Option<(Vec<String>, Vec<String>)> {
        let (leader, others) = self.leader_and_others()?;
        let is_user = |host: &&String| !host.starts_with('m');
        let users = || self.hosts.iter().filter(is_user).cloned();
        Some(match from {
            Apart::Members => (vec![leader], others),
            Apart::Users => (vec![leader], users().collect()),
            Apart::All => (vec![leader], others.into_iter().chain(users()).collect()),
            Apart::MembersWithUsers => (std::iter::once(leader).chain(users()).collect(), others),
        })
    }

    /// When the machines of members are to die.
    pub(super) fn ambush_all(&self, ambush: Ambush) {
        for disk in self.member_hosts().iter().filter_map(|host| self.member_disk(host)) {
            disk.ambush(ambush);
        }
    }

    pub(super) fn member_hosts(&self) -> Vec<String> {
        self.ground.members.as_ref().map_or_else(Vec::new, |members| members.hosts().to_vec())
    }

    pub(super) fn member_disk(&self, host: &str) -> Option<MemberDisk> {
        self.ground.members.as_ref()?.disk(host).cloned()
    }
}
