//! The named scopes of one segment.

use super::Segment;
use super::scope::{Budget, Scope};
use crate::witness::Witness::{
    Acknowledged, AcknowledgedLate, Confirmed, Disagreed, Dropped, Fenced, FencedAsked, ForeignRefused, Full,
    GroupLost, Hole, Kept, LastWord, LateAppend, LateRequest, LateStore, OtherBytesRefused, Repaired, StoreAfterSeal,
    StoreRacedSeal, Superseded, TrimRefused, Trimmed, WrongDisk,
};

const NOTHING: Budget = Scope::PLAIN.budget;
const FOUR: &[u8] = &[0; 4];
const FIVE: &[u8] = &[0, 0, 0, 1, 1];

/// All of them, cheap ones first.
pub(crate) fn scopes() -> Vec<Segment> {
    let scopes = [
        Scope {
            name: "trim: 3 servers, R=2, 2 records, 2 trims, a crash",
            finders: &[],
            groups: true,
            budget: Budget { trims: 2, crashes: 1, ..NOTHING },
            witnesses: &[Acknowledged, Trimmed, TrimRefused],
            ..Scope::PLAIN
        },
        Scope {
            name: "copies: 2 servers, R=1, 2 records, groups, a crash, a store lost, nobody closes",
            zones: &[0, 0],
            replication: "1",
            finders: &[],
            groups: true,
            budget: Budget { crashes: 1, stores_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, GroupLost, LateStore],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records",
            witnesses: &[Acknowledged, AcknowledgedLate, Dropped, Kept, Repaired, StoreAfterSeal],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, servers told apart by name",
            by_name: true,
            witnesses: &[Acknowledged, AcknowledgedLate, Dropped, Kept, Repaired, StoreAfterSeal],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, a call lost",
            late_requests: true,
            budget: Budget { calls_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, AcknowledgedLate, Dropped, Kept, Repaired, StoreAfterSeal, LateRequest],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 1 record, a call lost and one doubled, told the end",
            appends: 1,
            late_requests: true,
            settles: true,
            budget: Budget { calls_lost: 1, calls_doubled: 1, ..NOTHING },
            witnesses: &[Acknowledged, AcknowledgedLate, Dropped, Kept, Repaired, StoreAfterSeal, LateRequest],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, strangers store",
            budget: Budget { foreign_stores: 1, other_bytes: 1, ..NOTHING },
            witnesses: &[Acknowledged, ForeignRefused, OtherBytesRefused],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, copies with holes",
            retained: false,
            witnesses: &[Acknowledged, Hole, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "tail: 3 servers, R=2, 1 record, one question",
            appends: 1,
            budget: Budget { tails: 1, ..NOTHING },
            witnesses: &[Acknowledged, Confirmed, Fenced, FencedAsked],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, a stream of the writer breaks",
            budget: Budget { streams_broken: 1, ..NOTHING },
            witnesses: &[Acknowledged, LateAppend, Dropped, Kept],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, the sequencer's last word",
            budget: Budget { last_words: 1, ..NOTHING },
            witnesses: &[Acknowledged, LastWord, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=3, 1 record, two finders of one operation, the sequencer's last word, told the end",
            replication: "3",
            appends: 1,
            finders: &[0, 0],
            settles: true,
            budget: Budget { last_words: 1, ..NOTHING },
            // One sealed copy is an f-majority, so nothing is ever repaired.
            witnesses: &[Acknowledged, LastWord, Dropped, Kept, Disagreed],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 1 record, groups, a full disk",
            appends: 1,
            groups: true,
            budget: Budget { full: 1, ..NOTHING },
            witnesses: &[Acknowledged, Full, StoreRacedSeal],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 1 record, groups, a crash",
            appends: 1,
            groups: true,
            budget: Budget { crashes: 1, ..NOTHING },
            witnesses: &[Acknowledged, GroupLost, StoreRacedSeal],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 1 record, two finders of one operation, told the end",
            appends: 1,
            finders: &[0, 0],
            settles: true,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, Disagreed],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 1 record, two operations, told the end",
            appends: 1,
            finders: &[0, 1],
            settles: true,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, Disagreed, Superseded],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 4 servers, R=3, 1 record, a disk lost",
            zones: FOUR,
            replication: "3",
            appends: 1,
            budget: Budget { disks_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2}, 1 record",
            zones: FIVE,
            replication: "{zone: 2}",
            appends: 1,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 3 records",
            quick: false,
            appends: 3,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, a disk lost",
            quick: false,
            budget: Budget { disks_lost: 1, sequencer_dies: 1, ..NOTHING },
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, a store lost, copies with holes",
            quick: false,
            retained: false,
            budget: Budget { stores_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, LateStore, Hole, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 1 record, late answers and reads, a call lost",
            appends: 1,
            late_answers: true,
            late_reads: true,
            late_requests: true,
            budget: Budget { calls_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, LateRequest],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, two finders of one operation",
            quick: false,
            finders: &[0, 0],
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, Disagreed],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, two operations",
            quick: false,
            finders: &[0, 1],
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, Disagreed, Superseded],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 4 servers, R=3, 2 records",
            quick: false,
            zones: FOUR,
            replication: "3",
            witnesses: &[Acknowledged, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 4 servers, R=3, 1 record, two operations",
            quick: false,
            zones: FOUR,
            replication: "3",
            appends: 1,
            finders: &[0, 1],
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, Disagreed, Superseded],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 1 record, two finders of one operation, a call lost, told the end",
            quick: false,
            appends: 1,
            finders: &[0, 0],
            settles: true,
            budget: Budget { calls_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, Disagreed],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2, node: 3}, 1 record",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2, node: 3}",
            appends: 1,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers, R=2, 2 records, late answers and reads",
            quick: false,
            late_answers: true,
            late_reads: true,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 3 servers in 2 zones, {zone: 2}, 2 records, a disk of the larger zone lost",
            quick: false,
            zones: &[0, 0, 1],
            replication: "{zone: 2}",
            budget: Budget { disks_lost: 1, ..NOTHING },
            lost_in: Some(0),
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
        Scope {
            name: "tail: 3 servers, R=2, 2 records, one question",
            quick: false,
            budget: Budget { tails: 1, ..NOTHING },
            witnesses: &[Acknowledged, Confirmed, Fenced, FencedAsked],
            ..Scope::PLAIN
        },
        Scope {
            name: "tail: 4 servers, R=3, 1 record, one question",
            quick: false,
            zones: FOUR,
            replication: "3",
            appends: 1,
            budget: Budget { tails: 1, ..NOTHING },
            witnesses: &[Acknowledged, Confirmed, Fenced, FencedAsked],
            ..Scope::PLAIN
        },
        Scope {
            name: "tail: 4 servers, R=3, 2 records, one question, answers at once",
            quick: false,
            zones: FOUR,
            replication: "3",
            answers: false,
            budget: Budget { tails: 1, ..NOTHING },
            witnesses: &[Acknowledged, Confirmed, Fenced, FencedAsked],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 4 servers, R=3, 2 records, a disk lost",
            quick: false,
            zones: FOUR,
            replication: "3",
            budget: Budget { disks_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 4 servers, R=3, 2 records, a call lost",
            quick: false,
            zones: FOUR,
            replication: "3",
            late_requests: true,
            budget: Budget { calls_lost: 1, ..NOTHING },
            witnesses: &[Acknowledged, AcknowledgedLate, Dropped, Kept, Repaired, StoreAfterSeal, LateRequest],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 4 servers, R=3, 1 record, groups, a crash",
            quick: false,
            zones: FOUR,
            replication: "3",
            appends: 1,
            groups: true,
            budget: Budget { crashes: 1, ..NOTHING },
            witnesses: &[Acknowledged, GroupLost, StoreRacedSeal],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2, node: 3}, 2 records, answers at once",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2, node: 3}",
            answers: false,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2}, 2 records, answers at once",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2}",
            answers: false,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2}, 1 record, two operations, answers at once",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2}",
            appends: 1,
            finders: &[0, 1],
            answers: false,
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, Disagreed, Superseded],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2}, 2 records, a disk of the larger zone lost, answers at once",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2}",
            answers: false,
            budget: Budget { disks_lost: 1, ..NOTHING },
            lost_in: Some(0),
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2}, 2 records, a disk of the smaller zone lost, answers at once",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2}",
            answers: false,
            budget: Budget { disks_lost: 1, ..NOTHING },
            lost_in: Some(1),
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2}, 1 record, a disk of the larger zone lost",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2}",
            appends: 1,
            budget: Budget { disks_lost: 1, ..NOTHING },
            lost_in: Some(0),
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
        Scope {
            name: "segment: 5 servers in 2 zones, {zone: 2}, 1 record, a disk of the smaller zone lost",
            quick: false,
            zones: FIVE,
            replication: "{zone: 2}",
            appends: 1,
            budget: Budget { disks_lost: 1, ..NOTHING },
            lost_in: Some(1),
            witnesses: &[Acknowledged, Dropped, Kept, Repaired, WrongDisk],
            ..Scope::PLAIN
        },
    ];
    scopes.into_iter().map(Segment::new).collect()
}
