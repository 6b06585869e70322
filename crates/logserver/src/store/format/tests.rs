#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::testing::*;

fn full_state() -> DurableState {
    DurableState {
        bound: Some(sequencer(3)),
        local_tail: at(40),
        committed_tail: at(30),
        seal: Some(Seal { first: op(0x11), repair: op(0x22) }),
        decided_tail: Some(at(50)),
        trim_point: Some(at(20)),
        whole_tail: at(25),
    }
}

/// As a build before whole tails wrote it.
fn without_whole_tail(key: &[u8], state: &DurableState) -> Vec<u8> {
    let mut value = encode_state(key, state)[..STATE_CRC_AT - WHOLE_TAIL_BYTES].to_vec();
    value[0] = STATE_VERSION_WITHOUT_WHOLE;
    value.put_u32_le(bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), &value));
    value
}

#[test]
fn the_bytes_of_a_batch_are_pinned() {
    let batch = placed(10, 2);
    let key = batch_key(loglet(7, 3), at(10));
    let mut value = Vec::new();
    encode_batch(&key, &batch, &mut value).unwrap();
    golden("batch.golden", &[("key", &key), ("value", &value)]);
    assert_eq!(decode_batch(&key, &value), Ok(batch));
    assert_eq!(decode_batch_key(&key), Ok((loglet(7, 3), at(10))));
}

#[test]
fn the_bytes_of_a_state_are_pinned() {
    let key = loglet_key(loglet(7, 3));
    let full = encode_state(&key, &full_state());
    let empty = encode_state(&key, &DurableState::EMPTY);
    golden("state.golden", &[("key", &key), ("value", &full), ("value of an empty loglet", &empty)]);
    assert_eq!(decode_state(&key, &full), Ok(full_state()));
    assert_eq!(decode_state(&key, &empty), Ok(DurableState::EMPTY));
    assert_eq!(decode_loglet_key(&key), Ok(loglet(7, 3)));
}

#[test]
fn a_state_of_the_format_without_whole_tail_is_read_as_one_that_may_have_holes() {
    let key = loglet_key(loglet(7, 3));
    let old = without_whole_tail(&key, &full_state());
    golden("state-1.golden", &[("key", &key), ("value", &old)]);
    assert_eq!(decode_state(&key, &old), Ok(DurableState { whole_tail: LogletOffset::FIRST, ..full_state() }));
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let key = loglet_key(loglet(7, 3));
    let mut value = encode_state(&key, &full_state());
    value[0] = 3;
    assert_eq!(decode_state(&key, &value), Err(FormatError::Checksum));
    let (covered, mut crc) = value.split_at_mut(STATE_CRC_AT);
    crc.put_u32_le(bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(&key), covered));
    assert_eq!(decode_state(&key, &value), Err(FormatError::Version { found: 3 }));
}

#[test]
fn pointers_out_of_order_are_refused_although_their_checksum_matches() {
    let key = loglet_key(loglet(7, 3));
    for state in [
        DurableState { trim_point: Some(at(30)), ..full_state() },
        DurableState { decided_tail: Some(at(39)), ..full_state() },
        DurableState { committed_tail: at(51), ..full_state() },
        DurableState { seal: None, ..full_state() },
        DurableState { whole_tail: at(41), ..full_state() },
    ] {
        assert_eq!(decode_state(&key, &encode_state(&key, &state)), Err(FormatError::Field), "{state:?}");
    }
}

#[test]
fn keys_sort_by_position() {
    let places = [(1, 0, 1), (1, 0, 2), (1, 0, 256), (1, 1, 1), (2, 0, 1), (256, 0, 1)];
    let keys = places.map(|(log, segment, offset)| batch_key(loglet(log, segment), at(offset)));
    assert!(keys.is_sorted());
}

proptest! {
    #[test]
    fn no_bytes_panic_a_decoder(key in prop::collection::vec(any::<u8>(), 0..32), value in prop::collection::vec(any::<u8>(), 0..128)) {
        let _ = decode_batch_key(&key);
        let _ = decode_loglet_key(&key);
        prop_assert!(decode_batch(&key, &value).is_err());
        prop_assert!(decode_state(&key, &value).is_err());
    }
}
