#![allow(clippy::unwrap_used, clippy::panic)]
//! Groups of members in one process. The clock is tokio's, paused: it goes on when everybody waits.

mod change;
mod conformance;
mod fault;
mod foreign;
mod machine;
mod recovered;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifrost_metadata::{Keyspace, MetadataError, MetadataStore, Txn, TxnOutcome, Versioned};
use bifrost_types::ClusterId;
use futures_util::future::select_all;
use tokio::time::timeout;

use crate::engine::memory::MemoryEngine;
use crate::mesh::Mesh;
use crate::{Member, MemberId, RaftMetadata, RaftOptions, Role, Status};

/// Longer than any election; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

fn m(id: u64) -> MemberId {
    MemberId::from(id)
}

fn member(id: u64) -> Member {
    Member { address: format!("member-{id}:1") }
}

fn options(id: u64) -> RaftOptions {
    RaftOptions::new(ClusterId::try_from(7).unwrap(), m(id))
}

/// Members with their disks, which outlive them.
struct Group {
    mesh: Mesh,
    disks: BTreeMap<u64, MemoryEngine>,
    members: BTreeMap<u64, RaftMetadata>,
}

impl Group {
    /// A group that has a leader, which is the first of them.
    async fn of(ids: &[u64]) -> Self {
        let mut group = Self { mesh: Mesh::new(), disks: BTreeMap::new(), members: BTreeMap::new() };
        for id in ids {
            group.start(*id).await;
        }
        let members = ids.iter().map(|id| (m(*id), member(*id))).collect();
        group.members[&ids[0]].initialize(members).await.unwrap();
        group.until(ids[0], |status| status.role == Role::Leader).await;
        group.put("first", "1").await;
        group
    }

    /// Starts a member from what its disk has.
    async fn start(&mut self, id: u64) {
        let disk = self.disks.entry(id).or_default().clone();
        let member = RaftMetadata::start_here(options(id), Arc::new(disk), self.mesh.peers_of(m(id))).await.unwrap();
        self.mesh.connect(m(id), Arc::new(member.clone()));
        self.members.insert(id, member);
    }

    /// Takes a member away; its disk stays.
    async fn stop(&mut self, id: u64) {
        self.mesh.disconnect(m(id));
        self.members.remove(&id).unwrap().shutdown().await;
    }

    fn isolate(&self, id: u64, cut: bool) {
        self.mesh.isolate(m(id), (1..=9).map(m), cut);
    }

    async fn until(&self, id: u64, is: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.members[&id].watch_status();
        let reached = timeout(PATIENCE, status.wait_for(is)).await;
        reached.unwrap_or_else(|_| panic!("{id} stays {:?}", self.members[&id].status())).unwrap().clone()
    }

    /// Waits for a leader among these that a majority answers.
    async fn leader_of(&self, ids: &[u64]) -> u64 {
        let wait = ids.iter().map(|id| Box::pin(self.until(*id, Status::serves)));
        select_all(wait).await.0.member.get()
    }

    /// Writes with whoever leads.
    async fn put(&self, key: &str, value: &str) {
        let mut tries = 0;
        loop {
            for member in self.members.values() {
                match member.txn(Txn::new().put(key, value.to_owned())).await {
                    Ok(TxnOutcome::Committed(_)) => return,
                    Ok(TxnOutcome::Conflict(_)) => panic!("no preconditions"),
                    Err(MetadataError::Unavailable | MetadataError::Unknown) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            tries += 1;
            assert!(tries < 600, "nobody leads: {:?}", self.members);
            // Time goes on, so that an election can come.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads with whoever leads.
    async fn get(&self, key: &str) -> Option<Versioned> {
        let leader = self.leader_of(&self.members.keys().copied().collect::<Vec<_>>()).await;
        self.members[&leader].get(key.to_owned()).await.unwrap()
    }

    /// Waits until these have applied the same entries; returns what they have.
    async fn agree(&self, ids: &[u64]) -> Keyspace {
        let leader = self.leader_of(ids).await;
        let last = self.members[&leader].status().last_log;
        let mut agreed: Option<Keyspace> = None;
        for id in ids {
            self.until(*id, |status| status.applied >= last).await;
            let keyspace = self.members[id].applied();
            if let Some(agreed) = &agreed {
                assert_eq!(agreed.revision(), keyspace.revision(), "{id} has another history");
                assert!(agreed.entries().eq(keyspace.entries()), "{id} has other values");
            }
            agreed = Some(keyspace);
        }
        agreed.unwrap()
    }

    /// Ends all members, and the circle of who holds whom.
    async fn end(mut self) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }
}
