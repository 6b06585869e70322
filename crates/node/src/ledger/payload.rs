//! Payloads that say who made them, so that whoever reads one can recompute every byte of it.
//!
//! ```text
//!  0        4        8         12        16        20            bytes
//!  ├────────┼────────┼─────────┼─────────┼─────────┼───────────────
//!  │ magic  │ bytes  │ run     │ appender│ number  │ filler, from a generator seeded with all of the header
//! ```
//! Little endian. A record with a damaged header has the wrong filler, and the other way round.

use std::fmt;

use bifrost_checker::event::Value;
use bytes::{Buf, Bytes};

const MAGIC: u32 = 0x4c54_4642;

/// The smallest payload: a header and no filler.
pub const PAYLOAD_BYTES_MIN: usize = 20;

/// Which record this is. Never repeats: `run` is drawn anew for each run, `number` counts an appender's records from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The run that made it.
    pub run: u32,
    /// The appender within the run.
    pub appender: u32,
    /// The record within the appender, in order of sending.
    pub number: u32,
    /// Bytes of the payload, header included.
    pub bytes: u32,
}

impl Identity {
    /// The payload: the same bytes every time. Shorter sizes than [`PAYLOAD_BYTES_MIN`] give the header alone, which then
    /// does not verify.
    pub fn payload(self) -> Bytes {
        let size = usize::try_from(self.bytes).unwrap_or(PAYLOAD_BYTES_MIN).max(PAYLOAD_BYTES_MIN);
        let mut payload = Vec::with_capacity(size + 8);
        for field in [MAGIC, self.bytes, self.run, self.appender, self.number] {
            payload.extend_from_slice(&field.to_le_bytes());
        }
        let mut filler = Filler::new(self);
        while payload.len() < size {
            payload.extend_from_slice(&filler.next());
        }
        payload.truncate(size);
        payload.into()
    }

    /// What the record is called in a history: another number for each identity.
    pub fn value(self) -> Value {
        Value(Filler::new(self).state)
    }

    /// Who made these bytes, or `None` if any of them is not what that maker would have written.
    pub fn verify(payload: &[u8]) -> Option<Self> {
        let mut header = payload;
        let magic = header.try_get_u32_le().ok()?;
        let bytes = header.try_get_u32_le().ok()?;
        let run = header.try_get_u32_le().ok()?;
        let appender = header.try_get_u32_le().ok()?;
        let number = header.try_get_u32_le().ok()?;
        let identity = Self { run, appender, number, bytes };
        let complete = magic == MAGIC && u32::try_from(payload.len()) == Ok(bytes);
        let mut filler = Filler::new(identity);
        let mut intact = || {
            header.chunks(8).all(|chunk| {
                let expected = filler.next();
                expected.get(..chunk.len()) == Some(chunk)
            })
        };
        (complete && intact()).then_some(identity)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, appender, number, bytes } = self;
        write!(f, "record {number} of appender {appender} ({bytes} bytes, run {run:08x})")
    }
}

/// The generator splitmix64: fast, and each seed gives other bytes.
struct Filler {
    state: u64,
}

impl Filler {
    fn new(identity: Identity) -> Self {
        let Identity { run, appender, number, bytes } = identity;
        let one = mix(u64::from(run) << 32 | u64::from(appender));
        Self { state: mix(one ^ (u64::from(number) << 32 | u64::from(bytes))) }
    }

    fn next(&mut self) -> [u8; 8] {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state).to_le_bytes()
    }
}

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_payload_matters() {
        for bytes in [20, 21, 27, 28, 29, 1024] {
            let identity = Identity { run: 7, appender: 3, number: 9, bytes };
            let payload = identity.payload();
            assert_eq!(payload.len(), usize::try_from(bytes).expect("small"));
            assert_eq!(Identity::verify(&payload), Some(identity));
            for place in 0..payload.len() {
                let mut damaged = payload.to_vec();
                damaged[place] ^= 1;
                // The shortest payload is all header: a change there may name another record, never the same.
                assert_ne!(Identity::verify(&damaged), Some(identity), "byte {place} of {bytes}");
                assert!(bytes < 28 || Identity::verify(&damaged).is_none(), "byte {place} of {bytes}");
            }
            assert_eq!(Identity::verify(&payload[..payload.len() - 1]), None);
        }
        assert_eq!(Identity::verify(b""), None);
    }
}
