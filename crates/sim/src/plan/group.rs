//! A metadata group, and what goes wrong with it.

use std::ops::RangeInclusive;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::{Apart, Fault, Kind, Plan};

/// Metadata that a group of members keeps by Raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many, named `m1`, `m2`, and so on.
    pub members: u8,
    /// Entries after which a member makes a snapshot.
    pub snapshot_entries: u64,
    /// Entries that stay in the log though a snapshot covers them.
    pub kept_entries: usize,
    /// Entries that a member sends in one request.
    pub request_entries: u64,
    /// The member that does not come back at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stays_dead: Option<String>,
}

impl Group {
    /// Whether it can serve when the one that stays dead is gone.
    pub(super) fn is_sound(&self, hosts: &[String]) -> bool {
        let known = self.stays_dead.as_ref().is_none_or(|dead| hosts.contains(dead));
        (3..=9).contains(&self.members) && self.snapshot_entries > 0 && self.request_entries > 0 && known
    }
}

/// Stories of one run at most.
const STORIES_MAX: u32 = 5;
/// The numbers of the story in which an old leader's entries are overwritten.
const OVERWRITTEN: RangeInclusive<u32> = 3..=5;

impl Plan {
    /// Gives half of the plans a metadata group, and most of these some stories. Draws from a stream of its own: everything
    /// else of a plan is the same with a group and without.
    pub(super) fn draw_group(&mut self) {
        let mut random = SmallRng::seed_from_u64(self.seed ^ 0x6a09_e667_f3bc_c908);
        if random.random_bool(0.5) {
            return;
        }
        let members = if random.random_ratio(1, 5) { 5 } else { 3 };
        let group = Group {
            members,
            snapshot_entries: random.random_range(5..=30),
            kept_entries: random.random_range(0..=4),
            request_entries: *[1, 2, 300].choose(&mut random).unwrap_or(&300),
            stays_dead: random.random_bool(0.5).then(|| format!("m{}", random.random_range(1..=members))),
        };
        self.cluster.group = Some(group);
        // What is quiet stays quiet.
        if self.faults.is_empty() {
            return;
        }
        // Their members have something to do.
        if random.random_bool(0.6) {
            self.work.reconfigure_every_ms = random.random_range(150..=600);
        }
        let stories = random.random_range(1..=STORIES_MAX);
        for _ in 0..stories {
            self.tell_story(&mut random);
        }
    }

    /// Faults that follow each other.
    fn tell_story(&mut self, random: &mut SmallRng) {
        let story = random.random_range(0..14);
        if OVERWRITTEN.contains(&story) {
            // Several are writing at any moment.
            self.work.reconfigure_every_ms = random.random_range(15..=100);
            self.work.operators = self.work.operators.max(3);
        }
        let hosts = self.metadata_hosts();
        let host = hosts.choose(random).cloned().unwrap_or_default();
        let others: Vec<String> = self.hosts().into_iter().filter(|other| *other != host).collect();
        let users: Vec<String> = self.hosts().into_iter().filter(|other| !hosts.contains(other)).collect();
        let at_ms = random.random_range(0..self.work.lasts_ms);
        let silent = random.random_bool(0.3);
        let mut tell = |at_ms: u32, for_ms: u32, kind: Kind| {
            self.faults.push(Fault { at_ms, for_ms, kind });
            at_ms.saturating_add(for_ms)
        };
        match story {
            0 | 1 => {
                tell(at_ms, random.random_range(300..=6_000), Kind::Crash { host, silent });
            }
            // What was acknowledged is on more disks than one may think.
            2 => {
                tell(at_ms, random.random_range(100..=3_000), Kind::PowerLoss);
            }
            // What only its writer has is overwritten, nobody writes more, and all are read again from their disks.
            story if OVERWRITTEN.contains(&story) => {
                let kind = Kind::LeaderApart { from: Apart::MembersWithUsers, held: silent };
                let healed = tell(at_ms / 2, random.random_range(1_500..=5_000), kind);
                tell(healed - 100, random.random_range(1_500..=3_000), Kind::Partition { a: hosts, b: users });
                match random.random_bool(0.5) {
                    true => tell(healed - 100, random.random_range(2_000..=4_000), Kind::CrashInOverwrite),
                    false => {
                        let lost_ms = healed + random.random_range(50..=1_300);
                        tell(lost_ms, random.random_range(100..=1_000), Kind::PowerLoss)
                    }
                };
            }
            6 => {
                let from = *[Apart::Members, Apart::Users, Apart::All].choose(random).unwrap_or(&Apart::All);
                let kind = Kind::LeaderApart { from, held: random.random_bool(0.5) };
                tell(at_ms, random.random_range(500..=8_000), kind);
            }
            // Who was away for long gets a snapshot, and dies while it is written, or later with all others.
            story @ 7..=9 => {
                let kind = match random.random_range(0..3) {
                    0 => Kind::Crash { host: host.clone(), silent },
                    1 => Kind::Hold { a: vec![host.clone()], b: others },
                    _ => Kind::Partition { a: vec![host.clone()], b: others },
                };
                let (begins_ms, for_ms) = (at_ms / 2, random.random_range(3_000..=9_000));
                let back = tell(begins_ms, for_ms, kind);
                if story == 9 {
                    let after = random.random_range(0..=3);
                    tell(begins_ms, for_ms + 5_000, Kind::CrashInSnapshot { host, after });
                } else {
                    tell(back + random.random_range(300..=1_800), random.random_range(100..=1_000), Kind::PowerLoss);
                }
            }
            // It asks for votes while it is alone, and dies.
            10 => {
                let for_ms = random.random_range(3_000..=9_000);
                tell(at_ms / 2, for_ms, Kind::Partition { a: vec![host.clone()], b: others });
                let kind = Kind::Crash { host, silent: true };
                tell(at_ms / 2 + for_ms / 2, random.random_range(100..=for_ms), kind);
            }
            11 => {
                let from_ms = random.random_range(0..=100);
                let kind = match random.random_bool(0.5) {
                    true => Kind::SlowDisk { node: host, from_ms, up_to_ms: from_ms + random.random_range(1..=1_000) },
                    false => Kind::FailingDisk { node: host },
                };
                tell(at_ms, random.random_range(1_000..=6_000), kind);
            }
            12 => {
                let to = hosts.choose(random).cloned().unwrap_or_default();
                let percent = random.random_range(1..=60);
                let kind = match random.random_range(0..3) {
                    0 => Kind::LoseReplies { from: host, to, percent },
                    1 => Kind::Duplicate { from: host, to, percent },
                    _ => Kind::Late { from: host, to, percent, up_to_ms: random.random_range(100..=5_000) },
                };
                tell(at_ms, random.random_range(1_000..=10_000), kind);
            }
            _ => {
                tell(at_ms, random.random_range(500..=10_000), Kind::NoLeader);
            }
        }
    }
}
