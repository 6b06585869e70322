#![allow(clippy::unwrap_used, clippy::panic)]

mod machine;

use super::*;

fn cluster(value: u128) -> ClusterId {
    ClusterId::try_from(value).unwrap()
}

fn disk(value: u128) -> DiskId {
    DiskId::try_from(value).unwrap()
}

fn generation(value: u32) -> Generation {
    Generation::try_from(value).unwrap()
}

fn node() -> NodeId {
    NodeId::try_from(3).unwrap()
}

/// In its fourth life.
fn record(storage: StorageState, disk: Option<DiskId>) -> NodeRecord {
    NodeRecord {
        id: NodeGeneration::new(node(), generation(4)),
        name: "three".to_owned(),
        address: String::new(),
        location: Location::default(),
        disk,
        storage,
        declared_lost: false,
        roles: Roles::DATA,
    }
}

fn of_life(record: &NodeRecord, life: u32) -> NodeRecord {
    NodeRecord { id: NodeGeneration::new(node(), generation(life)), ..record.clone() }
}

fn marker(disk_id: u128, life: u32) -> Marker {
    Marker { cluster: cluster(1), node: node(), disk: disk(disk_id), generation: Some(generation(life)) }
}

fn before(record: Option<&NodeRecord>, marker: Option<Marker>) -> Option<BootStep> {
    before_boot(record, marker, cluster(1))
}

/// What a start does next that found record and marker first as they are now.
fn step(record: &NodeRecord, marker: Option<Marker>) -> BootStep {
    boot_step(record, marker, cluster(1), disk(77), next_life(Some(record), marker).unwrap())
}

#[test]
fn first_boot_writes_the_marker_the_life_and_the_state_and_each_may_be_interrupted() {
    let new = record(StorageState::Provisioning, None);
    let life = generation(5);
    let go_on = |record: &NodeRecord, marker| boot_step(record, marker, cluster(1), disk(77), life);
    assert_eq!(go_on(&new, None), BootStep::WriteMarker(marker(77, 5)));
    assert_eq!(go_on(&new, Some(marker(77, 5))), BootStep::BeginLife(life));
    let begun = of_life(&new, 5);
    assert_eq!(go_on(&begun, Some(marker(77, 5))), BootStep::Desire(StorageState::ReadWrite, disk(77)));
    let desired = NodeRecord { storage: StorageState::ReadWrite, disk: Some(disk(77)), ..begun.clone() };
    assert_eq!(go_on(&desired, Some(marker(77, 5))), BootStep::Serve(disk(77)));
    // Killed before each of these steps, the next start goes on with the same disk, in a life of its own.
    for found in [&new, &begun, &desired] {
        assert_eq!(step(found, Some(marker(77, 5))), BootStep::WriteMarker(marker(77, 6)));
    }
}

#[test]
fn a_node_that_nobody_knew_begins_its_first_life() {
    assert_eq!(next_life(None, None), Some(Generation::FIRST));
}

#[test]
fn the_marker_is_ahead_of_the_record_before_the_record_is_raised() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    let life = generation(5);
    let go_on = |record: &NodeRecord, marker| boot_step(record, Some(marker), cluster(1), disk(77), life);
    assert_eq!(go_on(&known, marker(7, 4)), BootStep::WriteMarker(marker(7, 5)));
    assert_eq!(go_on(&known, marker(7, 5)), BootStep::BeginLife(life));
    assert_eq!(go_on(&of_life(&known, 5), marker(7, 5)), BootStep::Serve(disk(7)));
    // An operator may change the state in between.
    let closed = NodeRecord { storage: StorageState::ReadOnly, ..known.clone() };
    assert_eq!(go_on(&closed, marker(7, 5)), BootStep::BeginLife(life));
    let retired = NodeRecord { storage: StorageState::Retired, ..known };
    let refusal = Refusal::OutOfService { state: StorageState::Retired };
    assert_eq!(go_on(&retired, marker(7, 5)), BootStep::Refuse(refusal));
}

#[test]
fn a_start_that_died_between_marker_and_record_has_used_its_life_up() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    assert_eq!(next_life(Some(&known), Some(marker(7, 4))), Some(generation(5)));
    assert_eq!(next_life(Some(&known), Some(marker(7, 6))), Some(generation(7)));
    // Its write of the record arrives late, or its reply was lost.
    assert_eq!(step(&of_life(&known, 5), Some(marker(7, 5))), BootStep::WriteMarker(marker(7, 6)));
    // A copy from before it is behind whatever comes after.
    let refusal = Refusal::OldCopy { disk: disk(7), found: generation(5), expected: generation(6) };
    assert_eq!(step(&of_life(&known, 6), Some(marker(7, 5))), BootStep::Refuse(refusal));
}

#[test]
fn an_old_copy_of_the_disk_is_refused_in_service_and_marks_nothing() {
    for storage in [StorageState::ReadWrite, StorageState::ReadOnly] {
        let known = record(storage, Some(disk(7)));
        let refusal = Refusal::OldCopy { disk: disk(7), found: generation(3), expected: generation(4) };
        assert_eq!(step(&known, Some(marker(7, 3))), BootStep::Refuse(refusal));
        assert_eq!(before(Some(&known), Some(marker(7, 3))), Some(BootStep::Refuse(refusal)));
        assert_eq!(before(Some(&known), Some(marker(7, 4))), None);
    }
}

#[test]
fn a_marker_from_before_there_were_generations_is_taken_and_gets_one() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    let old = Marker { generation: None, ..marker(7, 1) };
    assert_eq!(before(Some(&known), Some(old)), None);
    assert_eq!(step(&known, Some(old)), BootStep::WriteMarker(marker(7, 5)));
}

#[test]
fn what_was_never_in_service_is_no_old_copy() {
    // Two directories were tried in turn, and each start died before the state was written.
    let new = record(StorageState::Provisioning, None);
    assert_eq!(step(&new, Some(marker(77, 2))), BootStep::WriteMarker(marker(77, 5)));
}

#[test]
fn a_lost_disk_is_never_served_as_empty_and_another_one_not_at_all() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    assert_eq!(step(&known, None), BootStep::LoseDisk(disk(7)));
    let other = Refusal::OtherDisk { found: disk(8), expected: disk(7) };
    assert_eq!(step(&known, Some(marker(8, 4))), BootStep::Refuse(other));
}

#[test]
fn somebody_elses_disk_is_refused_in_every_state() {
    let foreign = Marker { cluster: cluster(2), ..marker(7, 9) };
    for storage in [StorageState::Provisioning, StorageState::ReadWrite, StorageState::DataLoss] {
        let step = step(&record(storage, Some(disk(7))), Some(foreign));
        assert!(matches!(step, BootStep::Refuse(Refusal::OthersDisk { .. })), "{storage}");
    }
}

#[test]
fn a_node_that_nobody_knows_takes_no_disk_that_somebody_marked() {
    assert_eq!(before(None, None), None);
    let refusal = Refusal::OthersDisk { cluster: cluster(1), node: node() };
    assert_eq!(before(None, Some(marker(7, 1))), Some(BootStep::Refuse(refusal)));
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    assert_eq!(before(Some(&known), Some(marker(7, 4))), None, "the table decides once the directory is locked");
    assert_eq!(before(Some(&known), None), Some(BootStep::LoseDisk(disk(7))));
}

#[test]
fn a_disk_out_of_service_stays_out() {
    for state in [StorageState::DataLoss, StorageState::Retired] {
        for marker in [None, Some(marker(7, 4))] {
            let step = step(&record(state, Some(disk(7))), marker);
            assert_eq!(step, BootStep::Refuse(Refusal::OutOfService { state }));
        }
    }
}

#[test]
fn a_node_without_a_disk_begins_its_life_once_and_not_while_it_has_copies() {
    let step = |record: &NodeRecord, life| boot_step_without_disk(record, generation(life), "here:1");
    let there = |record: &NodeRecord| NodeRecord { address: "there:1".to_owned(), ..record.clone() };
    let here = |record: &NodeRecord| NodeRecord { address: "here:1".to_owned(), ..record.clone() };
    let before = there(&record(StorageState::Provisioning, None));
    assert_eq!(step(&before, 5), DisklessStep::BeginLife);
    // Killed here, or the reply lost: the record says who wrote it.
    let begun = of_life(&before, 5);
    assert_eq!(step(&here(&begun), 5), DisklessStep::Serve);
    assert_eq!(step(&begun, 5), DisklessStep::Superseded, "another process began the same life");
    assert_eq!(step(&here(&of_life(&before, 6)), 5), DisklessStep::Superseded);
    for storage in [StorageState::ReadWrite, StorageState::ReadOnly] {
        let refused = DisklessStep::Refuse(Refusal::HoldsCopies { disk: disk(7) });
        assert_eq!(step(&record(storage, Some(disk(7))), 5), refused);
    }
    for storage in [StorageState::DataLoss, StorageState::Retired] {
        assert_eq!(step(&record(storage, Some(disk(7))), 5), DisklessStep::BeginLife, "it has nothing that counts");
    }
}
