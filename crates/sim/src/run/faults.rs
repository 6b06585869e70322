//! Begins and ends the faults of a plan at their times.

mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bifrost::catalog::Catalog;
use bifrost_checker::event::Event;
use bifrost_types::{NodeGeneration, NodeId};
use futures_util::FutureExt as _;
use turmoil::Sim;

use crate::disk::{Damage, Disk, DiskLatency};
use crate::interpose;
use crate::links::Links;
use crate::members::Ambush;
use crate::node::{DiskSlot, Ground};
use crate::plan::{Cluster, Fault, Kind, Plan};

/// How far a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Waits,
    Lasts,
    Over,
}

/// What is wrong now.
pub(super) struct Faulty {
    ground: Ground,
    cluster: Cluster,
    faults: Vec<(Fault, Course)>,
    links: Links,
    /// Hosts that are down, and how many faults keep each there.
    down: BTreeMap<String, u32>,
    isolated: BTreeSet<String>,
    /// The faults whose host died at a call.
    struck: BTreeSet<usize>,
    /// Disks that were made after the first ones.
    new_disks: u64,
    hosts: Vec<String>,
    /// Metadata is away as a whole.
    dark: bool,
    /// Milliseconds until a group loses its leader, whose message may be on its way meanwhile.
    fuse_ms: Option<u32>,
    seed: u64,
    latency_max_ms: u32,
}

impl Faulty {
    pub(super) fn new(plan: &Plan, ground: &Ground) -> Self {
        let faults = plan.faults.iter().map(|fault| (fault.clone(), Course::Waits)).collect();
        Self {
            ground: ground.clone(),
            cluster: plan.cluster.clone(),
            faults,
            links: Links::new(plan.hosts(), plan.cluster.latency_ms.1),
            down: BTreeMap::new(),
            isolated: BTreeSet::new(),
            struck: BTreeSet::new(),
            new_disks: 0,
            hosts: plan.hosts(),
            dark: false,
            fuse_ms: None,
            seed: plan.seed,
            latency_max_ms: plan.cluster.latency_ms.1,
        }
    }

    /// Brings everything to where it is at this time since the work began.
    pub(super) fn advance(&mut self, sim: &mut Sim<'_>, at: Duration) {
        let at = u32::try_from(at.as_millis()).unwrap_or(u32::MAX);
        let mut changed = false;
        for place in 0..self.faults.len() {
            let Some((fault, course)) = self.faults.get(place).cloned() else { continue };
            let next = match course {
                Course::Waits if at >= fault.at_ms => Course::Lasts,
                Course::Lasts if at >= fault.at_ms.saturating_add(fault.for_ms) => Course::Over,
                _ => continue,
            };
            if let Some((_, course)) = self.faults.get_mut(place) {
                *course = next;
            }
            match next {
                Course::Lasts => self.begin(sim, place, &fault.kind),
                Course::Over => self.end(sim, place, &fault.kind),
                Course::Waits => {}
            }
            changed = true;
        }
        if changed {
            self.apply(sim);
        }
        self.strike(sim);
    }

    /// Takes down the hosts that reached the call at which they die, and gives metadata a leader when it lost one so.
    fn strike(&mut self, sim: &mut Sim<'_>) {
        for place in 0..self.faults.len() {
            let Some((Fault { kind, .. }, Course::Lasts)) = self.faults.get(place).cloned() else { continue };
            if let Kind::CrashAt { host, .. } = kind
                && self.ground.faults.struck(place as u64)
                && self.struck.insert(place)
            {
                self.ground.history.note(format!("{host} dies between two steps"));
                self.take_down(sim, &host);
            }
        }
        self.strike_members(sim);
        let absent = |(fault, course): &(Fault, Course)| *course == Course::Lasts && fault.kind == Kind::NoLeader;
        if !self.ground.leaders.values().any(|server| server.leads()) && !self.faults.iter().any(absent) {
            self.change_leader();
        }
    }

    /// Takes metadata away, or brings it back.
    pub(super) fn darken(&mut self, sim: &mut Sim<'_>, dark: bool) {
        self.dark = dark;
        self.apply(sim);
        match dark {
            true => self.ground.leaders.values().for_each(|server| server.step_down()),
            false => self.change_leader(),
        }
    }

    /// Ends every fault, and takes down for good what the plan does not heal. Returns the hosts that stay dead.
    pub(super) fn heal(&mut self, sim: &mut Sim<'_>, plan: &Plan) -> BTreeSet<String> {
        for place in 0..self.faults.len() {
            if let Some((fault, Course::Lasts)) = self.faults.get(place).cloned() {
                if let Some((_, course)) = self.faults.get_mut(place) {
                    *course = Course::Over;
                }
                self.end(sim, place, &fault.kind);
            }
        }
        let sacrificed = match plan.cluster.sacrificed.as_slice() {
            _ if plan.cluster.sacrificed_return => &[],
            sacrificed if self.are_needed(sacrificed) => {
                self.ground
                    .history
                    .note("who is sacrificed comes back: an open segment has no write quorum and no sequencer");
                &[]
            }
            sacrificed => sacrificed,
        };
        let member = plan.cluster.group.iter().filter_map(|group| group.stays_dead.clone());
        let dead: BTreeSet<String> = sacrificed.iter().cloned().chain(["c2".to_owned()]).chain(member).collect();
        for host in &dead {
            self.isolated.insert(host.clone());
            self.take_down(sim, host);
        }
        self.apply(sim);
        dead
    }

    /// Whether an open segment can end only with what these hosts have: it may have been on its way to them when they went,
    /// no write quorum is left, and so is no sequencer that could say how far it came. A nodeset is that small when the
    /// others had no room as it was made.
    fn are_needed(&self, sacrificed: &[String]) -> bool {
        let catalog = Catalog::new(Arc::new(self.ground.truth.keyspace()));
        // Memory answers at once.
        let (nodes, _) = catalog.nodes().now_or_never().and_then(Result::ok).unwrap_or_default();
        let chains = catalog.logs(None, usize::from(u8::MAX)).now_or_never().and_then(Result::ok).unwrap_or_default();
        // One that came back on another disk has another name.
        let host = |node: NodeId| {
            let record = nodes.iter().find(|record| record.id.node == node)?;
            record.name.split('-').next().filter(|host| sacrificed.iter().all(|gone| gone != host)).map(str::to_owned)
        };
        let alive = self.ground.control.alive();
        let lives = |life: NodeGeneration| host(life.node).is_some() && alive.values().any(|(known, _)| *known == life);
        chains.iter().filter_map(|stored| stored.chain.last()).any(|last| {
            let left: Vec<String> = last.params.nodeset.members().iter().filter_map(|one| host(one.node)).collect();
            last.decided_tail().is_none() && !lives(last.params.sequencer) && !self.cluster.is_write_quorum(&left)
        })
    }

    fn apply(&mut self, sim: &mut Sim<'_>) {
        let mut present: Vec<Fault> =
            self.faults.iter().filter(|(_, course)| *course == Course::Lasts).map(|(fault, _)| fault.clone()).collect();
        if self.dark {
            present.push(Fault { at_ms: 0, for_ms: 0, kind: Kind::NoLeader });
        }
        self.links.apply(sim, present.iter(), &self.isolated);
    }

    fn begin(&mut self, sim: &mut Sim<'_>, place: usize, kind: &Kind) {
        self.ground.history.note(format!("begins: {kind:?}"));
        match kind {
            Kind::Partition { .. }
            | Kind::OneWay { .. }
            | Kind::Hold { .. }
            | Kind::Pause { .. }
            | Kind::Slow { .. } => {}
            Kind::LeaderApart { from, held } => {
                if let (Some((a, b)), Some((fault, _))) = (self.apart(*from), self.faults.get_mut(place)) {
                    fault.kind = if *held { Kind::Hold { a, b } } else { Kind::Partition { a, b } };
                }
            }
            Kind::PowerLoss => {
                for host in self.member_hosts() {
                    self.take_down(sim, &host);
                }
            }
            Kind::CrashInSnapshot { host, after } => {
                if let Some(disk) = self.member_disk(host) {
                    disk.ambush(Ambush::InSnapshot(*after));
                }
            }
            Kind::CrashInOverwrite => self.ambush_all(Ambush::Overwritten),
            Kind::Island { client, held } => {
                let (a, b) = self.island(client);
                if let Some((fault, _)) = self.faults.get_mut(place) {
                    fault.kind = if *held { Kind::Hold { a, b } } else { Kind::Partition { a, b } };
                }
            }
            Kind::Crash { host, silent } => {
                if *silent {
                    self.isolated.insert(host.clone());
                    self.apply(sim);
                }
                self.take_down(sim, host);
            }
            Kind::CrashAt { host, call, after, executed } => {
                self.ground.faults.ambush(place as u64, host, call.name(), (*after, *executed));
            }
            Kind::Wipe { node, renamed } => {
                self.take_down(sim, node);
                if let Some(disk) = self.disk(node) {
                    disk.wipe();
                }
                if *renamed {
                    self.give_new_disk(node);
                }
            }
            Kind::SlowDisk { node, from_ms, up_to_ms } => {
                self.set_latency(
                    node,
                    DiskLatency {
                        fsync_min: Duration::from_millis(u64::from(*from_ms)),
                        fsync_max: Duration::from_millis(u64::from(*up_to_ms)),
                        ..DiskLatency::default()
                    },
                );
            }
            Kind::FailingDisk { node } => self.set_failing(node, true),
            Kind::FullDisk { node } => {
                if let Some(disk) = self.disk(node) {
                    disk.fill(0);
                }
            }
            Kind::Corrupt { node } => {
                if let Some(disk) = self.disk(node) {
                    let damaged = disk.damage_any(self.damage());
                    self.ground.history.note(format!("damaged on {node}: {damaged:?}"));
                }
            }
            Kind::Destroy => self.destroy(),
            Kind::ClockJump { by_ms } => interpose::jump_wall_clock(*by_ms),
            Kind::LoseReplies { .. } | Kind::Duplicate { .. } | Kind::Late { .. } => self.apply_to_calls(),
            Kind::LeaderChange => {
                self.change_leader();
                if let (Some((leader, others)), Some((fault, _))) =
                    (self.leader_and_others(), self.faults.get_mut(place))
                {
                    fault.kind = Kind::Partition { a: vec![leader], b: others };
                }
            }
            Kind::LeaderChangeAt { after } => self.depose_at(Some(*after)),
            // The members of a group do not reach each other meanwhile.
            Kind::NoLeader => self.ground.leaders.values().for_each(|server| server.step_down()),
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, place: usize, kind: &Kind) {
        self.ground.history.note(format!("ends: {kind:?}"));
        match kind {
            Kind::Partition { .. }
            | Kind::OneWay { .. }
            | Kind::Hold { .. }
            | Kind::Island { .. }
            | Kind::Pause { .. }
            | Kind::Slow { .. }
            | Kind::Corrupt { .. }
            | Kind::Destroy
            | Kind::LeaderApart { .. }
            | Kind::ClockJump { .. } => {}
            Kind::PowerLoss => {
                for host in self.member_hosts() {
                    self.bring_up(sim, &host);
                }
            }
            Kind::CrashInSnapshot { host, .. } => {
                if let Some(disk) = self.member_disk(host) {
                    disk.ambush(Ambush::None);
                }
                if self.struck.remove(&place) {
                    self.bring_up(sim, host);
                }
            }
            Kind::CrashInOverwrite => self.ambush_all(Ambush::None),
            Kind::CrashAt { host, .. } => {
                self.ground.faults.disarm(place as u64);
                if self.struck.remove(&place) {
                    self.bring_up(sim, host);
                }
            }
            Kind::Crash { host, .. } => {
                self.isolated.remove(host);
                self.bring_up(sim, host);
            }
            Kind::Wipe { node, .. } => self.bring_up(sim, node),
            Kind::SlowDisk { node, .. } => self.set_latency(node, DiskLatency::default()),
            Kind::FailingDisk { node } => {
                self.set_failing(node, false);
                // Its log server has stopped if it wrote anything: a supervisor starts the process again.
                self.take_down(sim, node);
                self.bring_up(sim, node);
            }
            Kind::FullDisk { node } => {
                if let Some(disk) = self.disk(node) {
                    disk.free_up();
                }
            }
            Kind::LoseReplies { .. } | Kind::Duplicate { .. } | Kind::Late { .. } => self.apply_to_calls(),
            Kind::LeaderChange => {}
            Kind::LeaderChangeAt { .. } => self.depose_at(None),
            Kind::NoLeader => self.change_leader(),
        }
    }

    fn set_latency(&self, host: &str, latency: DiskLatency) {
        if let Some(disk) = self.disk(host) {
            disk.set_latency(latency);
        }
        if let Some(disk) = self.member_disk(host) {
            disk.set_latency(latency);
        }
    }

    fn set_failing(&self, host: &str, fails: bool) {
        if let Some(disk) = self.disk(host) {
            disk.fail_fsyncs(u32::from(fails));
        }
        if let Some(disk) = self.member_disk(host) {
            disk.set_failing(fails);
        }
    }

    /// The client with the node that numbers the appends of the first log, and everybody else.
    fn island(&self, client: &str) -> (Vec<String>, Vec<String>) {
        let catalog = Catalog::new(Arc::new(self.ground.truth.keyspace()));
        // Memory answers at once.
        let logs = catalog.logs(None, 1).now_or_never().and_then(Result::ok).unwrap_or_default();
        let sequencer = logs.first().and_then(|stored| stored.chain.last()).map(|last| last.params.sequencer);
        let alive = self.ground.control.alive();
        let host = alive.iter().find(|(_, (node, _))| Some(*node) == sequencer).map(|(host, _)| host.as_str());
        self.hosts.iter().cloned().partition(|name| name == client || Some(name.as_str()) == host)
    }

    /// Whoever leads then loses it in the middle of a write of a chain.
    fn depose_at(&self, after: Option<u32>) {
        self.ground.leaders.values().for_each(|server| server.depose_at(after));
        if self.ground.members.is_some() {
            self.ground.truth.depose_at(after);
        }
    }

    fn damage(&self) -> Damage {
        if self.seed.is_multiple_of(2) { Damage::Frame } else { Damage::Bit }
    }

    /// Damages one batch wherever it is. The history tells which.
    fn destroy(&self) {
        let damage = self.damage();
        let disks: Vec<Disk> = self.ground.disks.lock().values().map(|slot| slot.disk.clone()).collect();
        let Some((loglet, first_offset)) = disks.first().and_then(|disk| disk.damage_any(damage)) else { return };
        for disk in disks.iter().skip(1) {
            disk.damage(loglet, first_offset, damage);
        }
        self.ground.history.note(format!("every copy of {loglet} {first_offset} is damaged"));
    }

    /// Another server leads from here on; one, if none did.
    fn change_leader(&self) {
        let before = self.ground.leaders.values().position(|server| server.leads());
        self.ground.leaders.values().for_each(|server| server.step_down());
        let next = before.map_or(0, |place| (place + 1) % self.ground.leaders.len());
        if let Some(server) = self.ground.leaders.values().nth(next) {
            server.lead();
        }
    }

    /// Sets the rates of calls to what the present faults want.
    fn apply_to_calls(&self) {
        let faults = &self.ground.faults;
        faults.clear();
        for (fault, _) in self.faults.iter().filter(|(_, course)| *course == Course::Lasts) {
            let (from, to) = match &fault.kind {
                Kind::LoseReplies { from, to, .. } | Kind::Duplicate { from, to, .. } | Kind::Late { from, to, .. } => {
                    (from, to)
                }
                _ => continue,
            };
            let mut rates = faults.rates(from, to);
            match &fault.kind {
                Kind::LoseReplies { percent, .. } => rates.lose_reply = *percent,
                Kind::Duplicate { percent, .. } => rates.duplicate = *percent,
                Kind::Late { percent, up_to_ms, .. } => {
                    rates.late = *percent;
                    rates.late_max = Duration::from_millis(u64::from(*up_to_ms));
                }
                _ => {}
            }
            faults.set(from, to, rates);
        }
    }

    fn disk(&self, host: &str) -> Option<Disk> {
        self.ground.disks.lock().get(host).map(|slot| slot.disk.clone())
    }

    fn give_new_disk(&mut self, host: &str) {
        self.new_disks += 1;
        let name = format!("{host}-{}", self.new_disks + 1);
        let seed = self.seed.wrapping_add(1000 + self.new_disks);
        let disk = super::disk(&self.cluster, host, &name, seed, &self.ground.history);
        let mut disks = self.ground.disks.lock();
        let zone = disks.get(host).map_or(0, |slot| slot.zone);
        let replaces = disks.get(host).map(|slot| slot.name.clone());
        disks.insert(host.to_owned(), DiskSlot { name, disk, zone, replaces });
    }

    fn take_down(&mut self, sim: &mut Sim<'_>, host: &str) {
        let reasons = self.down.entry(host.to_owned()).or_default();
        *reasons += 1;
        if *reasons > 1 {
            return;
        }
        sim.crash(host);
        if let Some(disk) = self.disk(host) {
            disk.crash();
        }
        if let Some(members) = &self.ground.members
            && let Some(disk) = members.disk(host)
        {
            disk.crash();
            members.died(host);
        }
        if let Some((node, _)) = self.ground.control.died(host) {
            self.ground.history.record(Event::NodeStopped { node });
        }
    }

    fn bring_up(&mut self, sim: &mut Sim<'_>, host: &str) {
        let reasons = self.down.entry(host.to_owned()).or_default();
        *reasons = reasons.saturating_sub(1);
        if *reasons == 0 {
            sim.bounce(host);
        }
    }
}
