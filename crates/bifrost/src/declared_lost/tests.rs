#![allow(clippy::unwrap_used, clippy::panic)]

use std::num::NonZeroU32;
use std::time::Duration;

use bifrost_types::{AppendId, Generation, LogId, LogletOffset, NodeGeneration, NodeId, Roles, Sequence, WriterId};
use tokio::time::timeout;

use super::*;
use crate::test_world::{PATIENCE, World};
use crate::{Bifrost, GapKind, LogOptions, Lsn, ReadEvent, ReadOptions, Reader, ReconfigureOptions, Resolved};

/// On the paused clock: whoever is silent for so long waits for something that does not come by itself.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn only_the_word_of_an_operator_gives_a_disk_up() {
    use StorageState::{DataLoss, Provisioning, ReadOnly, ReadWrite, Retired};
    let disk = |number: u128| bifrost_types::DiskId::try_from(number).unwrap();
    let member = Member { node: node(1), disk: disk(1), location: bifrost_types::Location::default() };
    let nodeset = Nodeset::new(vec![member]).unwrap();
    let record = |of: u128, storage, declared_lost| NodeRecord {
        id: NodeGeneration::new(node(1), Generation::FIRST),
        name: "one".to_owned(),
        address: String::new(),
        location: bifrost_types::Location::default(),
        disk: Some(disk(of)),
        storage,
        declared_lost,
        roles: Roles::DATA,
    };
    for storage in [Provisioning, ReadWrite, ReadOnly, DataLoss] {
        assert!(!given_up(&nodeset, Known::Record(&record(1, storage, false))), "{storage}: nobody said so");
    }
    assert!(given_up(&nodeset, Known::Record(&record(1, DataLoss, true))));
    assert!(given_up(&nodeset, Known::Record(&record(1, Retired, false))), "never served again, by an operator's word");
    assert!(!given_up(&nodeset, Known::Record(&record(2, DataLoss, true))), "that was said of another disk");
    assert!(given_up(&nodeset, Known::Removed));
    assert!(!given_up(&nodeset, Known::Unheard), "what was not read yet is no word");
}

fn given_up(nodeset: &Nodeset, known: Known<'_>) -> bool {
    !declared_lost(nodeset, |_| known).is_empty()
}

fn node(number: u32) -> NodeId {
    NodeId::try_from(number).unwrap()
}

/// A log whose record is in a closed segment on the first two nodes, which stop then. The third serves.
async fn log_on_two_that_stop(world: &World, operator: &Bifrost) -> (LogId, Lsn) {
    let log = operator.create_log("orders", LogOptions::default()).await.unwrap();
    for nodes in [[1, 2], [2, 3]] {
        let nodes = Some(nodes.map(node).to_vec());
        log.reconfigure(ReconfigureOptions { nodes, ..ReconfigureOptions::default() }).await.unwrap();
        if log.chain().segments.len() == 2 {
            log.appender().append("one").await.unwrap();
        }
    }
    for place in [0, 1] {
        world.nodes[place].shutdown().await;
    }
    let chain = world.chain(log.id()).await;
    (log.id(), chain.last().unwrap().base_lsn)
}

async fn reader(client: &Bifrost, log: LogId, until: Lsn) -> Reader {
    let options = ReadOptions { until: Some(until), ..ReadOptions::default() };
    client.log_by_id(log).await.unwrap().read(options)
}

/// What a reader says in the end.
async fn to_the_end(reader: &mut Reader) -> Vec<ReadEvent> {
    let reading = async {
        let mut events = Vec::new();
        while let Some(event) = reader.next().await {
            events.push(event.unwrap());
        }
        events
    };
    timeout(PATIENCE, reading).await.expect("the reader ends")
}

fn lost(until: Lsn) -> Vec<ReadEvent> {
    vec![ReadEvent::Gap { from: Lsn::FIRST, end: until, kind: GapKind::Lost }]
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_every_disk_until_an_operator_gave_it_up() {
    let world = World::new().await;
    let (operator, client) = (world.client().await, world.client().await);
    let (log, until) = log_on_two_that_stop(&world, &operator).await;
    let mut reader = reader(&client, log, until).await;
    assert!(timeout(LONG, reader.next()).await.is_err());
    let waits_for = reader.waits_for().borrow().clone().expect("it says whom it waits for");
    let missing: Vec<NodeId> = waits_for.missing.iter().map(|missing| missing.node).collect();
    assert_eq!((waits_for.from, missing), (Lsn::FIRST, vec![node(1), node(2)]));

    // What a node writes when it finds its disk gone: no word of an operator.
    let (record, revision) = world.catalog().node_by_name("n1").await.unwrap().unwrap();
    let gone = NodeRecord { storage: StorageState::DataLoss, ..record };
    world.catalog().change_storage(revision, &gone).await.unwrap();
    operator.set_storage_state(node(2), StorageState::DataLoss).await.unwrap();
    assert!(timeout(LONG, reader.next()).await.is_err(), "a person may still find the first disk");
    let waits_for = reader.waits_for().borrow().clone().unwrap();
    assert_eq!(waits_for.missing.iter().map(|missing| missing.node).collect::<Vec<_>>(), [node(1)]);
    assert!(waits_for.to_string().starts_with("LSN 1 is on no copy that can be reached; waiting for N1"));

    operator.set_storage_state(node(1), StorageState::DataLoss).await.unwrap();
    assert_eq!(to_the_end(&mut reader).await, lost(until));
    assert_eq!(*reader.waits_for().borrow(), None);
    // Whoever comes later need not wait for anything.
    assert_eq!(to_the_end(&mut self::reader(&operator, log, until).await).await, lost(until));
    for client in [operator, client] {
        client.shutdown().await;
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_append_on_lost_disks_is_unknowable_once_an_operator_gave_them_up() {
    let world = World::new().await;
    let operator = world.client().await;
    let (log, _) = log_on_two_that_stop(&world, &operator).await;
    let log = operator.log_by_id(log).await.unwrap();
    let segment =
        log.chain().segments.iter().find(|segment| segment.decided_tail() > Some(LogletOffset::FIRST)).cloned();
    let segment = segment.unwrap();
    let append = AppendId {
        log: log.id(),
        writer: WriterId::try_from(7).unwrap(),
        sequence: Sequence::FIRST,
        records: NonZeroU32::MIN,
        segment: segment.index(),
        from: segment.base_lsn,
        incarnation: 1,
    };
    let resolving = log.resolve(append);
    tokio::pin!(resolving);
    assert!(timeout(LONG, &mut resolving).await.is_err(), "somebody may still find the disks");
    for number in [1, 2] {
        operator.set_storage_state(node(number), StorageState::DataLoss).await.unwrap();
    }
    assert_eq!(timeout(PATIENCE, resolving).await.unwrap().unwrap(), Resolved::Unknowable);
    operator.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_were_removed_by_force_are_not_waited_for() {
    let world = World::new().await;
    let operator = world.client().await;
    let (log, until) = log_on_two_that_stop(&world, &operator).await;
    let mut waiting = reader(&operator, log, until).await;
    assert!(timeout(LONG, waiting.next()).await.is_err());
    for number in [1, 2] {
        operator.remove_node(node(number), true).await.unwrap();
    }
    assert_eq!(to_the_end(&mut waiting).await, lost(until));
    // A client that never heard of them reads the records again before it takes them for removed.
    let later = world.client().await;
    assert_eq!(to_the_end(&mut reader(&later, log, until).await).await, lost(until));
    for client in [operator, later] {
        client.shutdown().await;
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_an_open_segment_is_given_up() {
    let world = World::new().await;
    let operator = world.client().await;
    let log = operator.create_log("orders", LogOptions::default()).await.unwrap();
    let nodes = Some(vec![node(1), node(2)]);
    log.reconfigure(ReconfigureOptions { nodes, ..ReconfigureOptions::default() }).await.unwrap();
    let last = log.appender().append("one").await.unwrap();
    for place in [0, 1] {
        world.nodes[place].shutdown().await;
        operator.set_storage_state(node(u32::try_from(place + 1).unwrap()), StorageState::DataLoss).await.unwrap();
    }
    let mut reader = reader(&operator, log.id(), last.advance(1).unwrap()).await;
    assert!(timeout(LONG, reader.next()).await.is_err(), "its sequencer may have what it will give to others");
    operator.shutdown().await;
    world.shutdown().await;
}
