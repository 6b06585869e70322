#![allow(clippy::unwrap_used)]

use bifrost_wire::metadata::Txn;
use proptest::prelude::*;

use super::*;
use crate::MemoryMetadata;

fn export() -> Export {
    let mut keyspace = Keyspace::new();
    keyspace.apply(&Txn::new().put("cluster", "x").put("logs/1", vec![0; 3]));
    keyspace.apply(&Txn::new().put("logs/2", "").delete("cluster"));
    Export { cluster: ClusterId::try_from(7).ok(), keyspace }
}

fn same(one: &Export, other: &Export) -> bool {
    one.cluster == other.cluster
        && one.keyspace.revision() == other.keyspace.revision()
        && one.keyspace.entries().eq(other.keyspace.entries())
}

#[test]
fn the_file_has_its_golden_bytes() {
    let hex: String = export().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("{}/testdata/export.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{hex}\n")).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), hex, "the format changed: {path}");
}

#[test]
fn what_is_written_is_read_and_whatever_is_changed_is_refused() {
    let bytes = export().encode();
    assert!(same(&Export::decode(&bytes).unwrap(), &export()));
    for end in 0..bytes.len() {
        assert!(Export::decode(&bytes[..end]).is_err(), "cut off at {end}");
        let mut changed = bytes.clone();
        changed[end] ^= 1;
        assert!(Export::decode(&changed).is_err(), "changed at {end}");
    }
    assert!(Export::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "one byte more");
    assert_eq!(Export::decode(b"nonsense").err(), Some(ExportError::NotAnExport));
    let mut newer = bytes;
    newer[8] = 9;
    assert_eq!(Export::decode(&newer).err(), Some(ExportError::UnknownVersion { version: 9 }));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let framed = [&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat();
        for bytes in [bytes, framed] {
            let _refused = Export::decode(&bytes);
        }
    }
}

#[tokio::test]
async fn a_store_is_read_page_by_page_at_one_revision() {
    let store = MemoryMetadata::new();
    for key in 0..5 {
        store.txn(Txn::new().put(format!("k{key}"), vec![1; 600 << 10])).await.unwrap();
    }
    let read = Export::read(&store, None).await.unwrap();
    assert_eq!((read.keyspace.entries().len(), read.keyspace.revision()), (5, 5));
    assert!(same(&Export::decode(&read.encode()).unwrap(), &read));
}
