#![allow(clippy::unwrap_used, clippy::panic)]

mod interrupted;
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
        address: "here:1".to_owned(),
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

fn identity() -> Identity {
    Identity {
        name: "three".to_owned(),
        address: "here:1".to_owned(),
        location: Location::default(),
        roles: Roles::DATA,
    }
}

fn boot() -> Boot {
    Boot::new(cluster(1), identity(), disk(77))
}

/// What a start says that has touched nothing yet.
fn before(record: Option<&NodeRecord>, marker: Option<Marker>) -> BootStep {
    boot().next(record, marker)
}

/// A start whose disk is open, and that found these first.
fn begun(record: Option<&NodeRecord>, marker: Option<Marker>) -> Boot {
    let mut boot = boot();
    boot.opened();
    boot.next(record, marker);
    boot
}

/// What a start does next whose disk is open, and that found record and marker first as they are now.
fn step(record: &NodeRecord, marker: Option<Marker>) -> BootStep {
    begun(Some(record), marker).next(Some(record), marker)
}

fn refuse(refusal: Refusal) -> BootStep {
    BootStep::Refuse(refusal)
}

fn with(record: &NodeRecord, storage: StorageState, disk: DiskId) -> NodeRecord {
    NodeRecord { storage, disk: Some(disk), ..record.clone() }
}

#[test]
fn first_boot_makes_the_record_the_marker_the_life_and_the_state_and_each_may_be_interrupted() {
    assert_eq!(before(None, None), BootStep::OpenDisk);
    let mut first = begun(None, None);
    assert_eq!(first.next(None, None), BootStep::Reserve);
    let reserved = first.identity().first_record(node());
    assert_eq!(first.next(Some(&reserved), None), BootStep::WriteMarker(marker(77, 1)));
    let desired = with(&reserved, StorageState::ReadWrite, disk(77));
    assert_eq!(first.next(Some(&reserved), Some(marker(77, 1))), BootStep::WriteRecord(desired.clone()));
    assert_eq!(first.next(Some(&desired), Some(marker(77, 1))), BootStep::Serve);

    let new = record(StorageState::Provisioning, None);
    let mut boot = begun(Some(&new), None);
    assert_eq!(boot.next(Some(&new), None), BootStep::WriteMarker(marker(77, 5)));
    let raised = of_life(&new, 5);
    assert_eq!(boot.next(Some(&new), Some(marker(77, 5))), BootStep::WriteRecord(raised.clone()));
    let desired = with(&raised, StorageState::ReadWrite, disk(77));
    assert_eq!(boot.next(Some(&raised), Some(marker(77, 5))), BootStep::WriteRecord(desired.clone()));
    assert_eq!(boot.next(Some(&desired), Some(marker(77, 5))), BootStep::Serve);
    // Killed before each of these steps, the next start goes on with the same disk, in a life of its own.
    for found in [&new, &raised, &desired] {
        assert_eq!(step(found, Some(marker(77, 5))), BootStep::WriteMarker(marker(77, 6)));
    }
}

#[test]
fn the_marker_is_ahead_of_the_record_before_the_record_is_raised() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    let mut boot = begun(Some(&known), Some(marker(7, 4)));
    let mut go_on = |record: &NodeRecord, marker| boot.next(Some(record), Some(marker));
    assert_eq!(go_on(&known, marker(7, 4)), BootStep::WriteMarker(marker(7, 5)));
    assert_eq!(go_on(&known, marker(7, 5)), BootStep::WriteRecord(of_life(&known, 5)));
    assert_eq!(go_on(&of_life(&known, 5), marker(7, 5)), BootStep::Serve);
    // An operator may change the state in between: the operator's state is what the life begins with.
    let closed = NodeRecord { storage: StorageState::ReadOnly, ..known.clone() };
    assert_eq!(go_on(&closed, marker(7, 5)), BootStep::WriteRecord(of_life(&closed, 5)));
    let retired = NodeRecord { storage: StorageState::Retired, ..known };
    let refusal = Refusal::OutOfService { state: StorageState::Retired };
    assert_eq!(go_on(&retired, marker(7, 5)), refuse(refusal));
}

#[test]
fn a_start_that_died_between_marker_and_record_has_used_its_life_up() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    assert_eq!(step(&known, Some(marker(7, 4))), BootStep::WriteMarker(marker(7, 5)));
    assert_eq!(step(&known, Some(marker(7, 6))), BootStep::WriteMarker(marker(7, 7)));
    // Its write of the record arrives late, or its reply was lost.
    assert_eq!(step(&of_life(&known, 5), Some(marker(7, 5))), BootStep::WriteMarker(marker(7, 6)));
    // A copy from before it is behind whatever comes after.
    let refusal = Refusal::OldCopy { disk: disk(7), found: generation(5), expected: generation(6) };
    assert_eq!(step(&of_life(&known, 6), Some(marker(7, 5))), refuse(refusal));
}

#[test]
fn there_is_no_life_after_the_last() {
    let last = of_life(&record(StorageState::ReadWrite, Some(disk(7))), u32::MAX);
    assert_eq!(step(&last, Some(marker(7, u32::MAX))), refuse(Refusal::LastLife { node: node() }));
}

#[test]
fn another_process_that_begins_this_life_or_a_later_one_has_the_node() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    let there = |life| NodeRecord { address: "there:1".to_owned(), ..of_life(&known, life) };
    let mut boot = begun(Some(&known), Some(marker(7, 4)));
    let marker = Some(marker(7, 5));
    assert_eq!(boot.next(Some(&there(4)), marker), BootStep::WriteRecord(of_life(&known, 5)), "an earlier one has not");
    assert_eq!(boot.next(Some(&there(5)), marker), BootStep::Superseded);
    assert_eq!(boot.next(Some(&of_life(&known, 6)), marker), BootStep::Superseded);
}

#[test]
fn an_old_copy_of_the_disk_is_refused_in_service_and_marks_nothing() {
    for storage in [StorageState::ReadWrite, StorageState::ReadOnly] {
        let known = record(storage, Some(disk(7)));
        let refusal = Refusal::OldCopy { disk: disk(7), found: generation(3), expected: generation(4) };
        assert_eq!(step(&known, Some(marker(7, 3))), refuse(refusal));
        assert_eq!(before(Some(&known), Some(marker(7, 3))), refuse(refusal));
        assert_eq!(before(Some(&known), Some(marker(7, 4))), BootStep::OpenDisk);
    }
}

#[test]
fn a_marker_from_before_there_were_generations_is_taken_and_gets_one() {
    let known = record(StorageState::ReadWrite, Some(disk(7)));
    let old = Marker { generation: None, ..marker(7, 1) };
    assert_eq!(before(Some(&known), Some(old)), BootStep::OpenDisk);
    assert_eq!(step(&known, Some(old)), BootStep::WriteMarker(marker(7, 5)));
}

#[test]
fn what_was_never_in_service_is_no_old_copy() {
    // Two directories were tried in turn, and each start died before the state was written.
    let new = record(StorageState::Provisioning, None);
    assert_eq!(step(&new, Some(marker(77, 2))), BootStep::WriteMarker(marker(77, 5)));
}

#[test]
fn a_lost_disk_is_marked_before_it_is_refused_and_another_one_is_not_served() {
    for storage in [StorageState::ReadWrite, StorageState::ReadOnly] {
        let known = record(storage, Some(disk(7)));
        let mut start = boot();
        let lost = with(&known, StorageState::DataLoss, disk(7));
        assert_eq!(start.next(Some(&known), None), BootStep::WriteRecord(lost.clone()));
        // The write lost to an operator's.
        let closed = NodeRecord { storage: StorageState::ReadOnly, ..known.clone() };
        assert_eq!(start.next(Some(&closed), None), BootStep::WriteRecord(lost.clone()));
        assert_eq!(start.next(Some(&lost), None), refuse(Refusal::DiskLost { lost: disk(7) }));
        assert_eq!(before(Some(&lost), None), refuse(Refusal::OutOfService { state: StorageState::DataLoss }));
        let other = Refusal::OtherDisk { found: disk(8), expected: disk(7) };
        assert_eq!(step(&known, Some(marker(8, 4))), refuse(other));
    }
}

#[test]
fn a_disk_that_may_be_at_another_address_is_asked_for_and_not_marked() {
    let there = NodeRecord { address: "there:1".to_owned(), ..record(StorageState::ReadWrite, Some(disk(7))) };
    let (node, disk) = (node(), disk(7));
    for (served, refusal) in [(true, Refusal::NameInUse { node, disk }), (false, Refusal::DiskElsewhere { node, disk })]
    {
        let mut start = boot();
        assert_eq!(start.next(Some(&there), None), BootStep::AskWhoServes(node, disk));
        start.heard(served);
        assert_eq!(start.next(Some(&there), None), refuse(refusal));
    }
    // A node that is reached inside its process only has no other address.
    let nowhere = NodeRecord { address: String::new(), ..there };
    let lost = with(&nowhere, StorageState::DataLoss, disk);
    assert_eq!(before(Some(&nowhere), None), BootStep::WriteRecord(lost));
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
    assert_eq!(before(None, None), BootStep::OpenDisk);
    let refusal = Refusal::OthersDisk { cluster: cluster(1), node: node() };
    assert_eq!(before(None, Some(marker(7, 1))), refuse(refusal));
}

#[test]
fn a_disk_out_of_service_stays_out() {
    for state in [StorageState::DataLoss, StorageState::Retired] {
        for marker in [None, Some(marker(7, 4))] {
            let step = step(&record(state, Some(disk(7))), marker);
            assert_eq!(step, refuse(Refusal::OutOfService { state }));
        }
    }
}

#[test]
fn a_node_without_a_disk_begins_its_life_once_and_not_while_it_has_copies() {
    let roles = Roles::new([Role::Sequencer]).unwrap();
    let start = || Boot::new(cluster(1), Identity { roles, ..identity() }, disk(77));
    let before = NodeRecord { address: "there:1".to_owned(), roles, ..record(StorageState::Provisioning, None) };
    let mut boot = start();
    let raised = NodeRecord { address: "here:1".to_owned(), ..of_life(&before, 5) };
    assert_eq!(boot.next(Some(&before), None), BootStep::WriteRecord(raised.clone()));
    // The reply was lost: the record says who wrote it.
    assert_eq!(boot.next(Some(&raised), None), BootStep::Serve);
    assert_eq!(
        boot.next(Some(&of_life(&before, 5)), None),
        BootStep::Superseded,
        "another process began the same life"
    );
    assert_eq!(boot.next(Some(&of_life(&raised, 6)), None), BootStep::Superseded);
    assert_eq!(start().next(None, None), BootStep::Reserve);
    for storage in [StorageState::ReadWrite, StorageState::ReadOnly] {
        let refused = refuse(Refusal::HoldsCopies { disk: disk(7) });
        assert_eq!(start().next(Some(&record(storage, Some(disk(7)))), None), refused);
    }
    for storage in [StorageState::DataLoss, StorageState::Retired] {
        let next = start().next(Some(&record(storage, Some(disk(7)))), None);
        assert!(matches!(next, BootStep::WriteRecord(_)), "it has nothing that counts: {next:?}");
    }
}
