//! Which disks hold the copies.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bifrost_loglet::quorum::Quorum;
use bifrost_types::{Location, Member, NodeRecord, Nodeset, ReplicationProperty};
use bifrost_wire::node::NodeStatus;

use super::weight::{Fitness, fitness, is_busy_disk, is_tight, turn};
use super::{Situation, is_usable, member};

/// A node that may hold copies, as it is weighed. The derived order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    fitness: Fitness,
    tight: bool,
    /// Those that have copies of the log stay together with the others of the same worth.
    stranger: bool,
    busy: bool,
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    record: &'a NodeRecord,
    weight: Weight,
}

/// How good a nodeset is; less is better.
type Quality = (Reverse<usize>, usize, Reverse<usize>, Reverse<usize>, Reverse<usize>);

/// Chooses a nodeset that meets the property, or `None` when there is none.
pub(super) fn choose(situation: Situation<'_>, replication: &ReplicationProperty) -> Option<Nodeset> {
    let candidates = candidates(situation);
    let size = situation.nodeset_max.max(usize::from(replication.copies().get()));
    let holds = |chosen: &[Candidate<'_>]| nodeset(chosen).filter(|found| Quorum::new(found, replication).is_ok());
    let mut chosen = [Fitness::Well, Fitness::Absent, Fitness::Low].into_iter().find_map(|worst| {
        let fit: Vec<_> = candidates.iter().copied().filter(|candidate| candidate.weight.fitness <= worst).collect();
        let chosen = spread(&fit, size);
        holds(&chosen).is_some().then_some(chosen)
    })?;
    // Whoever is away is expected back, and its place costs nothing until then.
    let mut absent: Vec<_> = candidates.iter().copied().filter(|one| one.weight.fitness == Fitness::Absent).collect();
    absent.retain(|one| chosen.iter().all(|taken| taken.record.id.node != one.record.id.node));
    let room = size.saturating_sub(chosen.len());
    chosen.extend(spread(&absent, room));
    if let Some(kept) = present(situation, &candidates)
        && kept.len() <= size
        && quality(&kept) <= quality(&chosen)
        && let Some(kept) = holds(&kept)
    {
        return Some(kept);
    }
    nodeset(&chosen)
}

/// All nodes that may hold copies, the best one first.
fn candidates(situation: Situation<'_>) -> Vec<Candidate<'_>> {
    let status = |record: &NodeRecord| situation.answers.iter().find(|status| status.id.node == record.id.node);
    let usable = || situation.nodes.iter().filter(|record| is_usable(record));
    let loglets = |status: &NodeStatus| status.load.loglets;
    let least = usable().filter_map(status).map(loglets).min().unwrap_or(0);
    let known = |record: &NodeRecord| {
        let members = situation.present.map(|present| &present.nodeset);
        members.is_some_and(|members| members.index_of(record.id.node).is_some())
    };
    let mut candidates: Vec<Candidate<'_>> = usable()
        .map(|record| {
            let status = status(record);
            let weight = Weight {
                fitness: fitness(status),
                tight: is_tight(status),
                stranger: !known(record),
                busy: status.is_some_and(|status| is_busy_disk(loglets(status), least)),
                turn: turn(situation.seed, record.id.node),
            };
            Candidate { record, weight }
        })
        .collect();
    candidates.sort_by_key(|candidate| (candidate.weight, candidate.record.id.node));
    candidates
}

/// Takes one of each zone in turn, so that a nodeset smaller than the cluster covers as many zones as it can.
fn spread<'a>(candidates: &[Candidate<'a>], size: usize) -> Vec<Candidate<'a>> {
    let mut taken: Vec<Candidate<'a>> = Vec::new();
    let mut rest = candidates.to_vec();
    while taken.len() < size && !rest.is_empty() {
        let mut zones: Vec<&Location> = Vec::new();
        let mut later = Vec::new();
        for candidate in rest {
            if zones.contains(&&candidate.record.location) || taken.len() == size {
                later.push(candidate);
            } else {
                zones.push(&candidate.record.location);
                taken.push(candidate);
            }
        }
        rest = later;
    }
    taken
}

/// The members of the present nodeset, if all of them may still hold copies.
fn present<'a>(situation: Situation<'_>, candidates: &[Candidate<'a>]) -> Option<Vec<Candidate<'a>>> {
    let still = |wanted: &Member| {
        let found = candidates.iter().find(|candidate| candidate.record.id.node == wanted.node)?;
        let same = found.record.disk == Some(wanted.disk) && found.record.location == wanted.location;
        same.then_some(*found)
    };
    situation.present?.nodeset.members().iter().map(still).collect()
}

/// Domains first, no disk that is low, then how many members are well, with room and without, and how many there are. It counts
/// what is good: a set is not better for being smaller.
fn quality(chosen: &[Candidate<'_>]) -> Quality {
    let zones: BTreeSet<(&str, &str)> =
        chosen.iter().map(|one| (&*one.record.location.region, &*one.record.location.zone)).collect();
    let count = |fits: fn(&Weight) -> bool| chosen.iter().filter(|one| fits(&one.weight)).count();
    let low = count(|weight| weight.fitness == Fitness::Low);
    let well = count(|weight| weight.fitness == Fitness::Well);
    let roomy = count(|weight| weight.fitness == Fitness::Well && !weight.tight);
    (Reverse(zones.len()), low, Reverse(roomy), Reverse(well), Reverse(chosen.len()))
}

/// In the order of numbers: the same nodes are the same nodeset.
fn nodeset(chosen: &[Candidate<'_>]) -> Option<Nodeset> {
    let mut members: Vec<Member> = chosen.iter().filter_map(|one| member(one.record)).collect();
    members.sort_by_key(|member| member.node);
    Nodeset::new(members).ok()
}
