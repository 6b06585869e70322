//! Nodes that are taken out of service while somebody chooses them: both orders of every write, and lost replies.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifrost_metadata::{Call, CallKind, Fault, LossyMetadata, MemoryMetadata};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, LogId, Roles, StorageState};
use bifrost_wire::metadata::{MetadataError, MetadataStore};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::catalog::Catalog;
use crate::connect::LocalConnect;
use crate::directory::Directory;
use crate::local_node::{LocalNode, Storage};
use crate::membership::Identity;
use crate::{LogError, LogOptions, Options, PlanError, ReconfigureOptions};

struct World {
    metadata: MemoryMetadata,
    /// Of all nodes.
    directory: Directory,
    connect: LocalConnect,
    nodes: Vec<LocalNode>,
}

impl World {
    async fn new(size: usize) -> Self {
        let (metadata, connect) = (MemoryMetadata::new(), LocalConnect::default());
        let directory = Directory::new(Catalog::new(Arc::new(metadata.clone())), Arc::new(connect.clone()));
        let mut world = Self { metadata, directory, connect, nodes: Vec::new() };
        for place in 1..=size {
            world.start(&format!("n{place}")).await;
        }
        world
    }

    async fn start(&mut self, name: &str) -> NodeId {
        let directory = self.directory.clone();
        let identity = Identity {
            name: name.to_owned(),
            address: String::new(),
            location: Location::default(),
            roles: Roles::DATA,
        };
        let limits = SegmentLimits::default();
        let node = LocalNode::start(self.catalog(), directory, &identity, Storage::Memory, limits).await.unwrap();
        self.connect.insert(node.id().node, node.services());
        let id = node.id().node;
        self.nodes.push(node);
        self.directory.refresh().await.unwrap();
        id
    }

    fn catalog(&self) -> Catalog {
        Catalog::new(Arc::new(self.metadata.clone()))
    }

    async fn client(&self) -> Bifrost {
        self.client_over(Arc::new(self.metadata.clone())).await
    }

    async fn client_over(&self, metadata: Arc<dyn MetadataStore>) -> Bifrost {
        Bifrost::from_parts(metadata, Arc::new(self.connect.clone()), Options::default()).await.unwrap()
    }

    async fn storage(&self, node: NodeId) -> StorageState {
        let (records, _) = self.catalog().nodes().await.unwrap();
        records.into_iter().find(|record| record.id.node == node).unwrap().storage
    }

    /// A log whose first segment is on the first two nodes and has a record.
    async fn log_on_two(&self, operator: &Bifrost, name: &str) -> LogId {
        let log = operator.create_log(name, LogOptions::default()).await.unwrap();
        let two = ReconfigureOptions { nodes: Some(vec![node(1), node(2)]), ..ReconfigureOptions::default() };
        log.reconfigure(two).await.unwrap();
        log.appender().append("one").await.unwrap();
        log.id()
    }
}

fn node(number: u32) -> NodeId {
    NodeId::try_from(number).unwrap()
}

fn names(chain: &Chain, node: NodeId) -> bool {
    let last = &chain.last().unwrap().params;
    last.nodeset.index_of(node).is_some() || last.sequencer.node == node
}

/// Metadata that stops at the n-th transaction that writes a chain, before it or after it, until it is released; and that
/// tells nobody of changes, so that only what is written can stand in the way.
fn stopping(
    inner: MemoryMetadata,
    nth: u64,
    before: bool,
) -> (Arc<LossyMetadata<MemoryMetadata>>, CancellationToken, CancellationToken) {
    let (reached, released) = (CancellationToken::new(), CancellationToken::new());
    let (at, release, seen) = (reached.clone(), released.clone(), AtomicU64::new(0));
    let script = move |call: &Call| {
        if call.kind == CallKind::Watch {
            return Fault::FailBefore(MetadataError::Unavailable);
        }
        let writes_chain = call.kind == CallKind::Txn && call.keys.iter().any(|key| key.starts_with("logs/"));
        if !writes_chain || seen.fetch_add(1, Ordering::SeqCst) != nth {
            return Fault::None;
        }
        at.cancel();
        if before { Fault::HangBefore(release.clone()) } else { Fault::HangAfter(release.clone()) }
    };
    (Arc::new(LossyMetadata::new(inner, Arc::new(script))), reached, released)
}

/// What an operator does in the middle of a reconfiguration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    ReadOnly,
    DataLoss,
    /// Read-only, retired, removed, as far as it is allowed.
    Remove,
    RemoveByForce,
}

/// Whether the node is out for good.
async fn act(operator: &Bifrost, node: NodeId, act: Act) -> bool {
    match act {
        Act::ReadOnly => {
            operator.set_storage_state(node, StorageState::ReadOnly).await.unwrap();
            true
        }
        Act::DataLoss => {
            operator.set_storage_state(node, StorageState::DataLoss).await.unwrap();
            true
        }
        Act::Remove => {
            operator.set_storage_state(node, StorageState::ReadOnly).await.unwrap();
            match operator.set_storage_state(node, StorageState::Retired).await {
                Ok(_) => {}
                Err(SetStorageError::Needed { .. }) => return false,
                Err(error) => panic!("{error}"),
            }
            match operator.remove_node(node, false).await {
                Ok(_) => true,
                Err(RemoveNodeError::Needed { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        }
        Act::RemoveByForce => {
            operator.remove_node(node, true).await.unwrap();
            true
        }
    }
}

#[tokio::test]
async fn a_reconfiguration_that_chooses_a_node_and_an_operator_who_takes_it_out_do_not_pass_each_other() {
    // T1 and T2, and what replaces them, each with the operator before it and after it.
    for doing in [Act::ReadOnly, Act::DataLoss, Act::Remove, Act::RemoveByForce] {
        for (nth, before) in [(0, true), (0, false), (1, true), (1, false)] {
            let world = World::new(3).await;
            let operator = world.client().await;
            let log = world.log_on_two(&operator, "orders").await;
            let (metadata, reached, released) = stopping(world.metadata.clone(), nth, before);
            let client = world.client_over(metadata).await;
            let handle = client.log_by_id(log).await.unwrap();
            let moving = tokio::spawn(async move { handle.reconfigure(ReconfigureOptions::default()).await });
            reached.cancelled().await;
            let out = act(&operator, node(3), doing).await;
            released.cancel();
            moving.await.unwrap().unwrap_or_else(|error| panic!("{doing:?} {nth} {before}: {error}"));
            let chain = world.catalog().chain(log).await.unwrap().chain;
            assert_eq!(chain.segments.len(), 3, "{doing:?} {nth} {before}");
            // Opened before the operator came: that is seen, and not undone.
            let opened_before = (nth, before) == (1, false);
            if !opened_before {
                assert!(!names(&chain, node(3)), "{doing:?} {nth} {before}: {:?}", chain.last());
            } else {
                assert!(names(&chain, node(3)), "placement takes all three");
                assert_eq!(out, doing != Act::Remove, "a removal that was not forced sees the segment");
            }
            operator.shutdown().await;
            client.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_new_log_is_not_put_on_a_node_that_is_taken_out_at_the_same_time() {
    for doing in [Act::ReadOnly, Act::DataLoss, Act::Remove, Act::RemoveByForce] {
        let world = World::new(3).await;
        let operator = world.client().await;
        let (metadata, reached, released) = stopping(world.metadata.clone(), 0, true);
        let client = world.client_over(metadata).await;
        let making = client.clone();
        let making = tokio::spawn(async move { making.create_log("orders", LogOptions::default()).await });
        reached.cancelled().await;
        assert!(act(&operator, node(3), doing).await, "nothing names it yet");
        released.cancel();
        let log = making.await.unwrap().unwrap();
        assert!(!names(&world.catalog().chain(log.id()).await.unwrap().chain, node(3)), "{doing:?}");
        operator.shutdown().await;
        client.shutdown().await;
    }
}

#[tokio::test]
async fn a_node_that_was_asked_for_by_name_and_taken_out_meanwhile_is_refused_and_nothing_is_announced() {
    let world = World::new(3).await;
    let operator = world.client().await;
    let log = world.log_on_two(&operator, "orders").await;
    let version = world.catalog().chain(log).await.unwrap().chain.version;
    let (metadata, reached, released) = stopping(world.metadata.clone(), 0, true);
    let client = world.client_over(metadata).await;
    let handle = client.log_by_id(log).await.unwrap();
    let wish = ReconfigureOptions { nodes: Some(vec![node(2), node(3)]), ..ReconfigureOptions::default() };
    let moving = tokio::spawn(async move { handle.reconfigure(wish).await });
    reached.cancelled().await;
    assert!(act(&operator, node(3), Act::ReadOnly).await);
    released.cancel();
    let refused = moving.await.unwrap().unwrap_err();
    let expected = PlanError::NotWritable { node: node(3), storage: StorageState::ReadOnly };
    assert_eq!(refused, LogError::Plan(expected));
    assert_eq!(world.catalog().chain(log).await.unwrap().chain.version, version);
    operator.shutdown().await;
    client.shutdown().await;
}

#[tokio::test]
async fn a_node_that_starts_again_disturbs_no_reconfiguration() {
    let mut world = World::new(3).await;
    let operator = world.client().await;
    let log = world.log_on_two(&operator, "orders").await;
    let roster = world.catalog().roster().await.unwrap();
    world.start("n4").await;
    assert_eq!(world.catalog().roster().await.unwrap(), roster);
    operator.log_by_id(log).await.unwrap().reconfigure(ReconfigureOptions::default()).await.unwrap();
    operator.shutdown().await;
}

#[tokio::test]
async fn transitions_are_made_refused_and_repeated() {
    let world = World::new(3).await;
    let operator = world.client().await;
    let log = world.log_on_two(&operator, "orders").await;
    let set = async |number, state| operator.set_storage_state(node(number), state).await;
    let unknown = set(9, StorageState::ReadOnly).await.unwrap_err();
    assert_eq!(unknown, SetStorageError::UnknownNode { node: node(9) });
    let early = set(3, StorageState::Retired).await.unwrap_err();
    assert_eq!(early, TransitionRefused::TakesNewSegments { node: node(3) }.into());

    // Back and forth, and each twice.
    for state in [StorageState::ReadOnly, StorageState::ReadOnly, StorageState::ReadWrite, StorageState::ReadWrite] {
        assert_eq!(set(3, state).await.unwrap().now, state);
        assert_eq!(world.storage(node(3)).await, state);
    }
    // A node that a segment needs is not retired.
    set(2, StorageState::ReadOnly).await.unwrap();
    let SetStorageError::Needed { needs, .. } = set(2, StorageState::Retired).await.unwrap_err() else { panic!() };
    let segments: Vec<_> = needs.listed.iter().map(|need| (need.loglet.log, need.loglet.segment.get())).collect();
    assert!(segments.contains(&(log, 1)), "{needs:?}");
    assert_eq!(world.storage(node(2)).await, StorageState::ReadOnly, "nothing was changed");

    // The first segment of the log is empty: nothing needs the third node.
    let refused = operator.remove_node(node(3), false).await.unwrap_err();
    assert_eq!(refused, RemoveNodeError::InService { node: node(3), storage: StorageState::ReadWrite });
    set(3, StorageState::ReadOnly).await.unwrap();
    for _ in 0..2 {
        assert_eq!(set(3, StorageState::Retired).await.unwrap().now, StorageState::Retired);
    }
    let back = set(3, StorageState::ReadWrite).await.unwrap_err();
    let storage = StorageState::Retired;
    assert_eq!(back, TransitionRefused::OutOfService { node: node(3), storage }.into());

    // Removed, twice; its history knows it, its name is free and its number is not.
    assert_eq!(operator.remove_node(node(3), false).await.unwrap().record.unwrap().name, "n3");
    assert_eq!(operator.remove_node(node(3), false).await.unwrap().record, None);
    assert_eq!(operator.remove_node(node(9), false).await.unwrap_err(), RemoveNodeError::UnknownNode { node: node(9) });
    let views = operator.node_views().await.unwrap();
    let removed = views.iter().find(|view| view.node == node(3)).unwrap();
    assert_eq!((removed.record.is_none(), removed.answers(), removed.mentions.closed_segments), (true, false, 1));
    let mut world = world;
    assert_eq!(world.start("n3").await, node(4));
    operator.shutdown().await;
}

#[tokio::test]
async fn a_lost_reply_is_recognised_and_a_refused_call_is_made_again() {
    for fault in [Fault::LoseReply, Fault::FailBefore(MetadataError::Unavailable)] {
        let world = World::new(3).await;
        let seen = Arc::new(AtomicU64::new(0));
        let (count, disturbed) = (seen.clone(), fault.clone());
        // Every other transaction.
        let script = move |call: &Call| match call.kind {
            CallKind::Txn if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => disturbed.clone(),
            _ => Fault::None,
        };
        let lossy = LossyMetadata::new(world.metadata.clone(), Arc::new(script));
        let operator = world.client_over(Arc::new(lossy)).await;
        for state in [StorageState::ReadOnly, StorageState::ReadWrite, StorageState::ReadOnly, StorageState::Retired] {
            let before = world.storage(node(3)).await;
            let changed = operator.set_storage_state(node(3), state).await.unwrap();
            assert_eq!(changed, StorageChanged { node: node(3), before, now: state });
            assert_eq!(world.storage(node(3)).await, state);
            // So that the next one is disturbed as well.
            seen.store(0, Ordering::SeqCst);
        }
        let removed = operator.remove_node(node(3), false).await.unwrap();
        assert_eq!(removed.record.map(|record| record.name).as_deref(), Some("n3"), "it knows that it did it");
        let (records, _) = world.catalog().nodes().await.unwrap();
        assert!(records.iter().all(|record| record.id.node != node(3)));
        operator.shutdown().await;
    }
}
