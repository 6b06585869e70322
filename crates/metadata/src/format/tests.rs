#![allow(clippy::unwrap_used)]

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file of one key kind: lines of `key value` in hex.
fn golden(name: &str, records: &[(Vec<u8>, Vec<u8>)]) {
    let path = format!("{}/testdata/format/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text: String = records.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "the format changed: {path}");
}

#[test]
fn the_revision_has_its_golden_bytes() {
    let records: Vec<_> =
        [1, 0x0102_0304_0506_0708].map(|revision| (REVISION_KEY.to_vec(), revision_value(revision))).into();
    golden("revision", &records);
    for ((key, value), revision) in records.iter().zip([1, 0x0102_0304_0506_0708]) {
        assert_eq!(decode(key, value), Ok(Record::Revision(revision)));
    }
}

#[test]
fn an_entry_has_its_golden_bytes() {
    let entries = [("log/7", 3, "chain"), ("ä/\u{10FFFF}", u64::MAX, ""), ("r", 1, "\0")];
    let records: Vec<_> = entries
        .map(|(key, revision, value)| {
            let key = entry_key(key);
            let value = entry_value(&key, revision, value.as_bytes());
            (key, value)
        })
        .into();
    golden("entry", &records);
    for ((database_key, value), (key, revision, bytes)) in records.iter().zip(entries) {
        let versioned = Versioned { revision, value: Bytes::from(bytes) };
        assert_eq!(decode(database_key, value), Ok(Record::Entry(key.to_owned(), versioned)));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let key = entry_key("a");
    let value = entry_value(&key, 5, b"value");
    for bit in 0..value.len() * 8 {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&key, &flipped), Err(FormatError::Damaged { key: key.clone() }), "bit {bit}");
    }
    for length in 0..value.len() {
        assert_eq!(decode(&key, &value[..length]), Err(FormatError::Damaged { key: key.clone() }), "{length} bytes");
    }
    assert_eq!(decode(b"kb", &value), Err(FormatError::Damaged { key: b"kb".to_vec() }), "under another key");
}

#[test]
fn another_version_and_an_unknown_key_are_refused() {
    let sealed = |key: &[u8], version: u8| {
        let mut value = vec![version];
        value.extend_from_slice(&7_u64.to_le_bytes());
        let crc = checksum(key, &value);
        value.extend_from_slice(&crc.to_le_bytes());
        value
    };
    assert_eq!(decode(b"ka", &sealed(b"ka", 2)), Err(FormatError::UnknownVersion { key: b"ka".to_vec(), version: 2 }));
    for key in [&b"x"[..], b"", b"rr", b"k\xff"] {
        assert_eq!(decode(key, &sealed(key, VERSION)), Err(FormatError::UnknownKey { key: key.to_vec() }));
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(key: Vec<u8>, value: Vec<u8>) {
        let _ = decode(&key, &value);
    }
}
