//! Who and what: identities. All are newtypes over non-zero integers; "none yet" is an `Option`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64, NonZeroU128};
use std::str::FromStr;

use thiserror::Error;

use crate::position::Lsn;

/// A number or a text that names nothing of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a valid {kind}")]
pub struct InvalidId {
    /// The kind that was wanted, in the words of the glossary.
    pub kind: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $repr:ty, $non_zero:ty, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($non_zero);

        impl $name {
            /// Makes the id from a non-zero number.
            pub const fn new(value: $non_zero) -> Self {
                Self(value)
            }

            /// The number behind the id.
            pub const fn get(self) -> $repr {
                self.0.get()
            }
        }

        impl TryFrom<$repr> for $name {
            type Error = InvalidId;

            fn try_from(value: $repr) -> Result<Self, InvalidId> {
                <$non_zero>::new(value).map(Self).ok_or(InvalidId { kind: $kind })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Ids that print as plain numbers.
macro_rules! plain {
    ($name:ident, $repr:ty, $kind:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.get())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let value = text.parse::<$repr>().map_err(|_| InvalidId { kind: $kind })?;
                Self::try_from(value)
            }
        }
    };
}

/// Random 128-bit ids that print as 26 characters of Crockford's base 32 (the text form of a ULID).
macro_rules! base32 {
    ($name:ident, $kind:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                ulid::Ulid(self.get()).fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let value = ulid::Ulid::from_string(text).map_err(|_| InvalidId { kind: $kind })?;
                Self::try_from(value.0)
            }
        }
    };
}

id! {
    /// A log: what a user appends to and reads from. Never used again, also after the log is deleted.
    LogId, u64, NonZeroU64, "log id"
}
plain!(LogId, u64, "log id");

id! {
    /// A process identity, printed `N3`. See [`NodeGeneration`] for one life of it.
    NodeId, u32, NonZeroU32, "node id"
}

id! {
    /// One life of a node; grows at each start.
    Generation, u32, NonZeroU32, "generation"
}
plain!(Generation, u32, "generation");

id! {
    /// Identity of one log server's storage. A wiped disk is another disk (W2).
    DiskId, u128, NonZeroU128, "disk id"
}
base32!(DiskId, "disk id");

id! {
    /// Identity of one cluster, written on every disk.
    ClusterId, u128, NonZeroU128, "cluster id"
}
base32!(ClusterId, "cluster id");

id! {
    /// One intended change of a chain, from its announcement to its outcome. Doing the same `OpId` again ends in the
    /// same result (C4).
    OpId, u128, NonZeroU128, "operation id"
}
base32!(OpId, "operation id");

id! {
    /// One appender. Together with a [`Sequence`] it names an append (A7).
    WriterId, u128, NonZeroU128, "writer id"
}
base32!(WriterId, "writer id");

id! {
    /// Number of a record within its writer, from 1, without holes in the order of `send`.
    Sequence, u64, NonZeroU64, "sequence number"
}
plain!(Sequence, u64, "sequence number");

impl Sequence {
    /// The first one.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The number `records` further on, or `None` at the end of the range.
    pub const fn checked_add(self, records: u64) -> Option<Self> {
        match self.0.checked_add(records) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl Generation {
    /// The first life of a node.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The following life, or `None` at the end of the range.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "N{}", self.get())
    }
}

impl FromStr for NodeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix(['N', 'n']).unwrap_or(text);
        let value = digits.parse::<u32>().map_err(|_| InvalidId { kind: "node id" })?;
        Self::try_from(value)
    }
}

/// Position of a segment in the chain of its log, from 0. Never reused within a log (C2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentIndex(u32);

impl SegmentIndex {
    /// The first segment of a log.
    pub const FIRST: Self = Self(0);

    /// The segment with this number.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The number of the segment.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The following index, or `None` at the end of the range.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl fmt::Display for SegmentIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for SegmentIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One segment's replicated storage, printed `7_3`. Its parameters never change and the id is never used twice (C2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogletId {
    /// The log.
    pub log: LogId,
    /// The segment of that log.
    pub segment: SegmentIndex,
}

impl LogletId {
    /// The loglet of a segment of a log.
    pub const fn new(log: LogId, segment: SegmentIndex) -> Self {
        Self { log, segment }
    }
}

impl fmt::Display for LogletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.log, self.segment)
    }
}

impl fmt::Debug for LogletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogletId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { kind: "loglet id" };
        let (log, segment) = text.split_once('_').ok_or(invalid)?;
        let log = log.parse::<LogId>().map_err(|_| invalid)?;
        let segment = segment.parse::<u32>().map_err(|_| invalid)?;
        Ok(Self::new(log, SegmentIndex::new(segment)))
    }
}

/// One life of a node, printed `N3:7`. A sequencer is bound to it (A6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeGeneration {
    /// The node.
    pub node: NodeId,
    /// Which life of it.
    pub generation: Generation,
}

impl NodeGeneration {
    /// This life of this node.
    pub const fn new(node: NodeId, generation: Generation) -> Self {
        Self { node, generation }
    }
}

impl fmt::Display for NodeGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.generation)
    }
}

impl fmt::Debug for NodeGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one append, so that its outcome can be asked for later. Prints as
/// `log/writer/sequence+records/segment/from`, and parses back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AppendId {
    /// The log that was appended to.
    pub log: LogId,
    /// The appender.
    pub writer: WriterId,
    /// Sequence number of the first record.
    pub sequence: Sequence,
    /// Number of records, at least 1; they land together or not at all.
    pub records: NonZeroU32,
    /// The segment of the only attempt whose outcome is open.
    pub segment: SegmentIndex,
    /// No record of the append lies below.
    pub from: Lsn,
    /// The life of the append stream that carried the attempt.
    pub incarnation: u64,
}

impl fmt::Display for AppendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, writer, sequence, records, segment, from, incarnation } = self;
        write!(f, "{log}/{writer}/{sequence}+{records}/{segment}/{from}/{incarnation}")
    }
}

impl FromStr for AppendId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { kind: "append id" };
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or(invalid);
        let log = part()?.parse()?;
        let writer = part()?.parse()?;
        let (sequence, records) = part()?.split_once('+').ok_or(invalid)?;
        let sequence = sequence.parse()?;
        let records = records.parse().map_err(|_| invalid)?;
        let segment = SegmentIndex::new(part()?.parse().map_err(|_| invalid)?);
        let from = part()?.parse().map_err(|_| invalid)?;
        let incarnation = part()?.parse().map_err(|_| invalid)?;
        match parts.next() {
            None => Ok(Self { log, writer, sequence, records, segment, from, incarnation }),
            Some(_) => Err(invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_the_glossary_says() {
        let node: NodeId = "N3".parse().expect("a node id");
        let loglet: LogletId = "7_3".parse().expect("a loglet id");
        assert_eq!(node.to_string(), "N3");
        assert_eq!(NodeGeneration::new(node, Generation::FIRST).to_string(), "N3:1");
        assert_eq!(loglet.to_string(), "7_3");
    }

    #[test]
    fn zero_is_no_id() {
        assert!(LogId::try_from(0).is_err());
        assert!("0".parse::<LogId>().is_err());
        assert!("N0".parse::<NodeId>().is_err());
        assert!("0_0".parse::<LogletId>().is_err());
    }

    #[test]
    fn an_append_id_survives_its_text_form() {
        let id = AppendId {
            log: LogId::try_from(7).expect("non-zero"),
            writer: WriterId::try_from(0xfeed_beef).expect("non-zero"),
            sequence: Sequence::FIRST,
            records: NonZeroU32::MIN,
            segment: SegmentIndex::new(4),
            from: Lsn::FIRST,
            incarnation: 2,
        };
        assert_eq!(id.to_string().parse::<AppendId>(), Ok(id));
        assert!("7/x".parse::<AppendId>().is_err());
    }
}
