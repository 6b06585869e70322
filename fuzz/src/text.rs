//! What people and metadata values write as text: ids, positions, replication properties.

use std::fmt::Display;
use std::str::FromStr;

use bifrost_types::{
    AppendId, ClusterId, DiskId, LogId, LogletId, LogletOffset, Lsn, NodeId, OpId, ReplicationProperty, WriterId,
};

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    round::<LogId>(text);
    round::<NodeId>(text);
    round::<LogletId>(text);
    round::<Lsn>(text);
    round::<LogletOffset>(text);
    round::<OpId>(text);
    round::<DiskId>(text);
    round::<ClusterId>(text);
    round::<WriterId>(text);
    round::<AppendId>(text);
    round::<ReplicationProperty>(text);
}

/// What is understood prints as something that is understood as the same.
fn round<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{text:?} reads back otherwise");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    ["7", "N3", "7_3", "18446744073709551615", "{zone: 2, node: 3}", "00000000000000000000001MAW"]
        .map(|text| text.as_bytes().to_vec())
        .into()
}
