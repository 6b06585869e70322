//! The links between hosts: what overlapping faults make of each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turmoil::Sim;

use crate::plan::{Fault, Kind};

/// What a link between two hosts does. The worst of what the present faults want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Open,
    /// Messages wait.
    Held,
    /// Messages from the first to the second are dropped.
    Forth,
    /// Messages from the second to the first are dropped.
    Back,
    /// All messages are dropped.
    Cut,
}

/// The links as the simulation has them now.
#[derive(Debug)]
pub struct Links {
    hosts: Vec<String>,
    states: BTreeMap<(String, String), Link>,
    slow: BTreeMap<String, u32>,
    latency_max_ms: u32,
}

impl Links {
    /// All open.
    pub const fn new(hosts: Vec<String>, latency_max_ms: u32) -> Self {
        Self { hosts, states: BTreeMap::new(), slow: BTreeMap::new(), latency_max_ms }
    }

    /// Brings the simulation to what the present faults want. `isolated` are hosts that nobody reaches.
    pub fn apply<'a>(
        &mut self,
        sim: &mut Sim<'_>,
        faults: impl Iterator<Item = &'a Fault> + Clone,
        isolated: &BTreeSet<String>,
    ) {
        for (place, first) in self.hosts.iter().enumerate() {
            for second in self.hosts.iter().skip(place + 1) {
                let wanted = link(first, second, faults.clone(), isolated);
                let key = (first.clone(), second.clone());
                let before = self.states.get(&key).copied().unwrap_or(Link::Open);
                if wanted != before {
                    change(sim, first, second, before, wanted);
                    self.states.insert(key, wanted);
                }
            }
        }
        let slow: BTreeMap<String, u32> = faults
            .filter_map(|fault| match &fault.kind {
                Kind::Slow { host, up_to_ms } => Some((host.clone(), *up_to_ms)),
                _ => None,
            })
            .collect();
        if slow != self.slow {
            for (place, first) in self.hosts.iter().enumerate() {
                for second in self.hosts.iter().skip(place + 1) {
                    let worst = [first, second].iter().filter_map(|host| slow.get(*host)).max().copied();
                    let millis = worst.unwrap_or(0).max(self.latency_max_ms);
                    sim.set_link_max_message_latency(
                        first.as_str(),
                        second.as_str(),
                        Duration::from_millis(u64::from(millis)),
                    );
                }
            }
            self.slow = slow;
        }
    }
}

fn link<'a>(first: &str, second: &str, faults: impl Iterator<Item = &'a Fault>, isolated: &BTreeSet<String>) -> Link {
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    let across = |a: &[String], b: &[String]| (has(a, first) && has(b, second)) || (has(a, second) && has(b, first));
    let mut wanted = Link::Open;
    if isolated.contains(first) || isolated.contains(second) {
        wanted = Link::Cut;
    }
    for fault in faults {
        let one = match &fault.kind {
            Kind::Partition { a, b } if across(a, b) => Link::Cut,
            Kind::OneWay { from, to } if has(from, first) && has(to, second) => Link::Forth,
            Kind::OneWay { from, to } if has(from, second) && has(to, first) => Link::Back,
            Kind::Hold { a, b } if across(a, b) => Link::Held,
            Kind::Pause { host } if host == first || host == second => Link::Held,
            Kind::NoLeader if is_member(first) && is_member(second) => Link::Cut,
            _ => Link::Open,
        };
        wanted = match (wanted, one) {
            (Link::Forth, Link::Back) | (Link::Back, Link::Forth) => Link::Cut,
            (known, one) => known.max(one),
        };
    }
    wanted
}

/// Whether it is one of the metadata servers. What leads there is no majority when they do not reach each other; the doors to
/// one keyspace never talk to each other.
fn is_member(host: &str) -> bool {
    host.starts_with('m')
}

/// Every change goes through the open state: what the simulation keeps of a link then is what is wanted now.
fn change(sim: &mut Sim<'_>, first: &str, second: &str, before: Link, wanted: Link) {
    match before {
        Link::Open => {}
        Link::Held => sim.release(first, second),
        Link::Forth | Link::Back | Link::Cut => sim.repair(first, second),
    }
    match wanted {
        Link::Open => {}
        Link::Held => sim.hold(first, second),
        Link::Forth => sim.partition_oneway(first, second),
        Link::Back => sim.partition_oneway(second, first),
        Link::Cut => sim.partition(first, second),
    }
}
