//! Keys and values of the stores on disk.

use bifrost_logserver::marker;
use bifrost_logserver::store::format::{
    BATCH_KEY_BYTES, FRAME_BYTES, LOGLET_KEY_BYTES, STATE_BYTES, decode_batch, decode_batch_key, decode_loglet_key,
    decode_state, encode_batch, encode_state,
};
use bifrost_metadata::Export;
use bifrost_metadata::format::{self, Record};

use crate::unhex;

/// Bytes of every checksum here.
const CRC: usize = 4;

/// A key of a batch, then a value.
pub(crate) fn batch(input: &[u8]) {
    let (key, value) = input.split_at(input.len().min(BATCH_KEY_BYTES));
    let _refused = decode_batch_key(key).is_err();
    let mut whole = value.to_vec();
    if let Some((covered, rest)) = whole.split_at_mut_checked(FRAME_BYTES - CRC)
        && let Some((crc, batch)) = rest.split_at_mut_checked(CRC)
    {
        let right = bifrost_checksum::crc32c_append(
            bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), covered),
            batch,
        );
        crc.copy_from_slice(&right.to_le_bytes());
    }
    for value in [value, whole.as_slice()] {
        if let Ok(placed) = decode_batch(key, value) {
            assert!(placed.first_offset < placed.end, "a batch takes an offset");
            let mut again = Vec::new();
            // Three bytes of the frame are reserved: they are written as zero and not looked at.
            if encode_batch(key, &placed, &mut again).is_ok() {
                assert_eq!(decode_batch(key, &again).as_ref(), Ok(&placed));
            }
        }
    }
}

/// A key of a loglet, then the state.
pub(crate) fn state(input: &[u8]) {
    let (key, value) = input.split_at(input.len().min(LOGLET_KEY_BYTES));
    let _refused = decode_loglet_key(key).is_err();
    let whole = with_last_checksum(key, value);
    for value in [value, whole.as_slice()] {
        if let Ok(state) = decode_state(key, value) {
            assert!(state.is_ordered(), "what is read back is in order");
            assert_eq!(decode_state(key, &encode_state(key, &state)), Ok(state));
        }
    }
}

/// The marker file, as it is and with its last line made right.
pub(crate) fn marker(input: &[u8]) {
    marker::survives(input);
    let mut whole = input.to_vec();
    if let Some(at) = input.windows(7).rposition(|window| window == b"crc32c ") {
        whole.truncate(at);
        let crc = bifrost_checksum::crc32c(&whole);
        whole.extend_from_slice(format!("crc32c {crc:08x}\n").as_bytes());
    }
    marker::survives(&whole);
}

/// The length of the key in one byte, the key, the value.
pub(crate) fn metadata_entry(input: &[u8]) {
    let Some((length, rest)) = input.split_first() else { return };
    let (key, value) = rest.split_at(rest.len().min(usize::from(*length)));
    let whole = with_last_checksum(key, value);
    for value in [value, whole.as_slice()] {
        match format::decode(key, value) {
            Ok(Record::Revision(revision)) => assert_eq!(format::revision_value(revision), value),
            Ok(Record::Entry(name, entry)) => {
                assert_eq!(format::entry_key(&name), key);
                assert_eq!(format::entry_value(key, entry.revision, &entry.value), value);
            }
            Err(_) => {}
        }
    }
}

/// The value with a checksum over key and value in its last bytes.
fn with_last_checksum(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut whole = value.to_vec();
    if let Some((covered, crc)) = whole.split_last_chunk_mut::<CRC>() {
        *crc = bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), covered).to_le_bytes();
    }
    whole
}

/// A file of `bifrost metadata export`: as it is, and with the checksum of the whole made right.
pub(crate) fn metadata_export(input: &[u8]) {
    let sealed = [input, bifrost_checksum::crc32c(input).to_le_bytes().as_slice()].concat();
    for bytes in [input, &sealed] {
        if let Ok(export) = Export::decode(bytes) {
            assert_eq!(export.encode(), bytes);
        }
    }
}

pub(crate) fn metadata_export_seeds() -> Vec<Vec<u8>> {
    let whole = unhex(include_str!("../../crates/metadata/testdata/export.hex"));
    let bare = whole.get(..whole.len().saturating_sub(CRC)).unwrap_or_default().to_vec();
    vec![whole, bare]
}

pub(crate) fn batch_seeds() -> Vec<Vec<u8>> {
    vec![golden(include_str!("../../crates/logserver/testdata/batch.golden"))]
}

pub(crate) fn state_seeds() -> Vec<Vec<u8>> {
    let golden = golden(include_str!("../../crates/logserver/testdata/state.golden"));
    golden.chunks(LOGLET_KEY_BYTES + STATE_BYTES).map(<[u8]>::to_vec).collect()
}

pub(crate) fn marker_seeds() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../crates/logserver/testdata/marker.golden").to_vec()]
}

pub(crate) fn metadata_entry_seeds() -> Vec<Vec<u8>> {
    let files = [
        include_str!("../../crates/metadata/testdata/format/entry.hex"),
        include_str!("../../crates/metadata/testdata/format/revision.hex"),
    ];
    let pairs = files.iter().flat_map(|file| file.lines()).filter_map(|line| line.split_once(' '));
    pairs
        .map(|(key, value)| {
            let (key, value) = (unhex(key), unhex(value));
            [&[u8::try_from(key.len()).unwrap_or(u8::MAX)], key.as_slice(), &value].concat()
        })
        .collect()
}

/// The bytes of a golden file of the log server: its indented lines, keys and values in turn.
fn golden(text: &str) -> Vec<u8> {
    text.lines().filter(|line| line.starts_with(' ')).flat_map(unhex).collect()
}
