//! Protobuf messages of every service, and the values in metadata. The first byte of an input chooses the message.

use bifrost_wire::codec::every_message::EVERY_MESSAGE;

use crate::{chain, unhex};

pub(crate) fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    if let Some((_, survives)) = EVERY_MESSAGE.get(usize::from(*choice) % EVERY_MESSAGE.len()) {
        survives(bytes);
    }
}

/// Each legal value as every message: a fuzzer drops those that teach it nothing.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let values = [chain::golden(), unhex(include_str!("../../crates/wire/testdata/node-v2.hex"))];
    let choices = 0..u8::try_from(EVERY_MESSAGE.len()).unwrap_or(u8::MAX);
    choices.flat_map(|choice| values.iter().map(move |value| [&[choice], value.as_slice()].concat())).collect()
}
