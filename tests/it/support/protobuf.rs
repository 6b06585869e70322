//! Protobuf by hand: fields in any order, of any type, as often as one likes.

/// A number as protobuf writes it.
pub fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field with a number.
pub fn varint(field: u32, value: u64) -> Vec<u8> {
    [number(u64::from(field) << 3), number(value)].concat()
}

/// A field with bytes, a text or a message.
pub fn bytes(field: u32, value: &[u8]) -> Vec<u8> {
    [number(u64::from(field) << 3 | 2), number(value.len() as u64), value.to_vec()].concat()
}

/// A message of these fields.
pub fn message<const N: usize>(fields: [Vec<u8>; N]) -> Vec<u8> {
    fields.concat()
}
