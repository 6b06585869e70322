//! When two states are one: servers of a zone differ by name only, so a state is told by what its servers are, not by
//! their order. This is what makes four and five servers explorable.
//!
//! A server is told by its copy and disk, by what the sequencer and each finder know of it, and by the calls that are
//! kept there. What can decide nothing any more is left out: what a finder knew that steps no more, what was told to
//! whoever asked for the tail and has the answer. Where one server refers to another (a read for one from another), it refers to that one's digest. Of
//! several servers that could give the same records a finder asks the first; states that differ in that choice among
//! otherwise equal servers count as one.

use std::hash::{Hash, Hasher};

use bifrost_types::{LogletOffset, NodeIndex};

use super::call::{Call, What};
use super::sequencing::connection_of;
use super::server::{Server, Waiting};
use super::{Finder, Life, State};
use crate::digest::{Digest, digest_of};

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Two finders of one operation differ by name only, too.
        let alike = !self.by_name && matches!(self.finders.as_slice(), [one, other] if one.op == other.op);
        let digest = self.digest(&[0, 1]);
        let digest = if alike { digest.min(self.digest(&[1, 0])) } else { digest };
        hasher.write_u64(digest);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        digest_of(self) == digest_of(other)
    }
}

impl State {
    /// The digest with the finders in this order.
    fn digest(&self, order: &[usize]) -> u64 {
        let mut servers: Vec<(u64, u64)> =
            self.servers.iter().map(|server| (self.server(server, order, &|_| 0), 0)).collect();
        let reads = |call: &Call| matches!(call.what, What::Read { .. });
        if self.servers.iter().any(|server| server.calls.iter().any(reads)) {
            let alone: Vec<u64> = servers.iter().map(|(digest, _)| *digest).collect();
            let source = |index: NodeIndex| alone.get(index.get()).copied().unwrap_or(0);
            let told = |server: &Server| (self.server(server, order, &source), self.asked(server.index, &alone));
            servers = self.servers.iter().map(told).collect();
        }
        if !self.by_name {
            servers.sort_unstable();
        }
        let mut digest = Digest::new();
        servers.hash(&mut digest);
        for finder in self.in_order(order) {
            if finder.life == Life::Working {
                finder.core.hash_rest(&mut digest);
            }
            (finder.op, finder.retry, finder.life).hash(&mut digest);
        }
        match &self.sequencer {
            Some(sequencer) => sequencer.hash_rest(&mut digest),
            None => 0_u8.hash(&mut digest),
        }
        match &self.probe {
            Some(probe) => probe.hash_rest(self.committed_tail(), &mut digest),
            // Whether the successor acknowledged is asked once, when the question begins.
            None => (self.left.tails > 0 && self.successor_acknowledged).hash(&mut digest),
        }
        // What was shown below the decided tail is fixed by the decision (R1).
        let shown = self.decided.map_or(self.shown, |decided| self.shown.max(decided.tail));
        let writer = self.sequencer.is_some().then_some(self.writer);
        (writer, self.appended, self.decided, self.acknowledged, shown).hash(&mut digest);
        (self.left, self.broken.is_some()).hash(&mut digest);
        digest.finish()
    }

    /// What the sequencer would answer to whoever asks for the tail.
    fn committed_tail(&self) -> Option<LogletOffset> {
        self.sequencer.as_ref().map(|sequencer| sequencer.tails().committed_tail)
    }

    fn in_order<'a>(&'a self, order: &'a [usize]) -> impl Iterator<Item = &'a Finder> {
        order.iter().filter_map(|place| self.finders.get(*place))
    }

    /// One server, with what refers to other servers told by `source`.
    fn server(&self, server: &Server, order: &[usize], source: &impl Fn(NodeIndex) -> u64) -> u64 {
        let index = server.index;
        // A connection is told by whether it is the one in use: a broken one never comes back.
        let in_use = self.sequencer.as_ref().map_or(0, |sequencer| connection_of(sequencer, index));
        let is_current = |connection: u8| connection == in_use;
        let mut digest = Digest::new();
        (server.zone, server.disk == server.named, server.core, server.durable).hash(&mut digest);
        (server.records, server.staged, server.gone, server.dirty, server.settled).hash(&mut digest);
        for waiting in &server.group {
            match waiting {
                Waiting::Sequencer { connection, outcome } => {
                    (0_u8, is_current(*connection), outcome).hash(&mut digest)
                }
                Waiting::Finder { finder, outcome } => (1_u8, place(*finder, order), outcome).hash(&mut digest),
            }
        }
        for (connection, outcome) in &server.answers {
            (is_current(*connection), outcome).hash(&mut digest);
        }
        server.answers.len().hash(&mut digest);
        let late = server.late.iter();
        let mut late: Vec<u64> =
            late.map(|store| digest_of(&(is_current(store.connection), store.facts, &store.records))).collect();
        late.sort_unstable();
        late.hash(&mut digest);
        let mut calls: Vec<u64> = server.calls.iter().map(|call| told(call, order, source)).collect();
        calls.sort_unstable();
        calls.hash(&mut digest);
        if let Some(sequencer) = &self.sequencer {
            sequencer.hash_copy(index, &mut digest);
        }
        for finder in self.in_order(order).filter(|finder| finder.life == Life::Working) {
            finder.core.hash_member(index, server.disk != server.named, source, &mut digest);
        }
        if let Some(probe) = self.probe.as_ref().filter(|probe| probe.wants_states()) {
            probe.core.hash_member(index, &mut digest);
            probe.asked.get(index.get()).hash(&mut digest);
        }
        digest.finish()
    }

    /// Who reads from this server.
    fn asked(&self, index: NodeIndex, alone: &[u64]) -> u64 {
        let reads = self.servers.iter().zip(alone).flat_map(|(server, digest)| {
            let reads =
                server.calls.iter().filter(|call| matches!(call.what, What::Read { source, .. } if source == index));
            reads.map(|_| *digest)
        });
        let mut reads: Vec<u64> = reads.collect();
        reads.sort_unstable();
        digest_of(&reads)
    }
}

/// A finder by its place in this order.
fn place(finder: u8, order: &[usize]) -> Option<usize> {
    order.iter().position(|place| *place == usize::from(finder))
}

fn told(call: &Call, order: &[usize], source: &impl Fn(NodeIndex) -> u64) -> u64 {
    let mut digest = Digest::new();
    (call.finder.map(|finder| place(finder, order)), call.op, &call.stage).hash(&mut digest);
    match &call.what {
        What::Seal => 0_u8.hash(&mut digest),
        What::Read { source: from_whom, from, until } => (1_u8, source(*from_whom), from, until).hash(&mut digest),
        What::Repair { committed_tail, records } => (2_u8, committed_tail, records).hash(&mut digest),
    }
    digest.finish()
}
