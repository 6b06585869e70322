#![allow(clippy::unwrap_used, clippy::panic)]

use tempfile::TempDir;

use super::*;

fn marker() -> Marker {
    Marker {
        cluster: ClusterId::try_from(0xc1).unwrap(),
        node: NodeId::try_from(3).unwrap(),
        disk: DiskId::try_from(0xd15c).unwrap(),
        generation: Generation::try_from(7).ok(),
    }
}

fn without_generation() -> Marker {
    Marker { generation: None, ..marker() }
}

#[test]
fn what_is_written_is_read_and_can_be_replaced() {
    let directory = TempDir::new().unwrap();
    let inner = directory.path().join("deeper");
    assert_eq!(Marker::read(&inner).unwrap(), None);
    marker().write(&inner).unwrap();
    assert_eq!(Marker::read(&inner).unwrap(), Some(marker()));
    let other = Marker { disk: DiskId::try_from(9).unwrap(), ..marker() };
    other.write(&inner).unwrap();
    assert_eq!(Marker::read(&inner).unwrap(), Some(other));
}

#[test]
fn the_bytes_are_pinned() {
    for (name, marker) in [("marker-1.golden", without_generation()), ("marker.golden", marker())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, marker.encode()).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap_or_default(), marker.encode(), "{name}");
    }
}

#[test]
fn a_marker_of_the_format_without_generation_is_read_and_replaced_by_the_present_one() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(Marker::FILE), include_bytes!("../../testdata/marker-1.golden")).unwrap();
    assert_eq!(Marker::read(directory.path()).unwrap(), Some(without_generation()));
    marker().write(directory.path()).unwrap();
    assert_eq!(Marker::read(directory.path()).unwrap(), Some(marker()));
}

#[test]
fn a_foreign_disk_is_refused_by_what_is_foreign() {
    let Marker { cluster, node, disk, .. } = marker();
    assert!(marker().check_owner(cluster, node).is_ok());
    let other = ClusterId::try_from(1).unwrap();
    assert!(matches!(marker().check_owner(other, node), Err(MarkerError::OtherCluster { .. })));
    let other = NodeId::try_from(4).unwrap();
    assert!(matches!(marker().check_owner(cluster, other), Err(MarkerError::OtherNode { .. })));
    assert!(marker().check_disk(disk).is_ok());
    let other = DiskId::try_from(1).unwrap();
    assert!(matches!(marker().check_disk(other), Err(MarkerError::OtherDisk { .. })));
}

#[test]
fn every_damaged_byte_is_noticed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(Marker::FILE);
    let good = marker().encode().into_bytes();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        assert!(matches!(Marker::read(directory.path()), Err(MarkerError::Damaged { .. })), "bit {bit}");
    }
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(Marker::read(directory.path()), Err(MarkerError::Damaged { .. })), "length {length}");
    }
    fs::write(&path, good.repeat(100)).unwrap();
    assert!(matches!(Marker::read(directory.path()), Err(MarkerError::Damaged { .. })));
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let directory = TempDir::new().unwrap();
    let text = "bifrost-disk 3\nsomething new\n";
    let text = format!("{text}crc32c {:08x}\n", bifrost_checksum::crc32c(text.as_bytes()));
    fs::write(directory.path().join(Marker::FILE), text).unwrap();
    assert!(matches!(Marker::read(directory.path()), Err(MarkerError::NewerFormat { found: 3 })));
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_marker() {
    let directory = TempDir::new().unwrap();
    marker().write(directory.path()).unwrap();
    fs::write(directory.path().join(Marker::TEMPORARY), b"half a mark").unwrap();
    assert_eq!(Marker::read(directory.path()).unwrap(), Some(marker()));
    marker().write(directory.path()).unwrap();
    assert!(!directory.path().join(Marker::TEMPORARY).exists());
}
