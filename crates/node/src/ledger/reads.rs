//! What one reader was given, in order.

use bifrost::{GapKind, Lsn, ReadEvent};

use super::payload::Identity;

/// Records at contiguous LSNs: 20 bytes each.
#[derive(Debug)]
pub(super) struct Stretch {
    first: Lsn,
    seen: Vec<Option<Identity>>,
}

/// A part of what a reader was given.
#[derive(Debug)]
pub(super) enum Piece {
    /// Records, one after the other. `None` where the bytes were not what their header says.
    Records(Stretch),
    /// A gap `[from, end)`.
    Gap { from: Lsn, end: Lsn, kind: GapKind },
    /// Told that everything below is there. Kept only where the reader was somewhere else.
    CaughtUp(Lsn),
}

/// Everything that one reader was given, in order.
#[derive(Debug)]
pub struct ReaderLedger {
    name: String,
    from: Lsn,
    next: Lsn,
    pieces: Vec<Piece>,
    records: u64,
    bytes: u64,
}

impl ReaderLedger {
    pub(crate) fn new(name: impl Into<String>, from: Lsn) -> Self {
        Self { name: name.into(), from, next: from, pieces: Vec::new(), records: 0, bytes: 0 }
    }

    /// Its name, for sentences.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it began.
    pub const fn from(&self) -> Lsn {
        self.from
    }

    /// Everything below was delivered, or is a gap.
    pub const fn next(&self) -> Lsn {
        self.next
    }

    /// How many records it was given.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Payload bytes of them.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes note of what the reader delivered.
    pub fn observe(&mut self, event: &ReadEvent) {
        match event {
            ReadEvent::Record(record) => self.record(record.lsn, &record.payload),
            ReadEvent::Gap { from, end, kind } => {
                self.pieces.push(Piece::Gap { from: *from, end: *end, kind: *kind });
                self.next = self.next.max(*end);
            }
            // It comes behind each record of a quiet log, and mostly says what is known.
            ReadEvent::CaughtUp { tail } if *tail == self.next => {}
            ReadEvent::CaughtUp { tail } => self.pieces.push(Piece::CaughtUp(*tail)),
        }
    }

    fn record(&mut self, lsn: Lsn, payload: &[u8]) {
        let identity = Identity::verify(payload);
        self.records += 1;
        self.bytes += u64::try_from(payload.len()).unwrap_or(u64::MAX);
        match self.pieces.last_mut() {
            Some(Piece::Records(stretch)) if stretch.end() == Some(lsn) => stretch.seen.push(identity),
            _ => self.pieces.push(Piece::Records(Stretch { first: lsn, seen: vec![identity] })),
        }
        // The last LSN that there is has none after it.
        self.next = self.next.max(lsn.advance(1).unwrap_or(lsn));
    }

    /// Everything, in order.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Every record that was delivered, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Lsn, Option<Identity>)> {
        let stretches = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Records(stretch) => Some(stretch),
            Piece::Gap { .. } | Piece::CaughtUp(_) => None,
        });
        stretches.flat_map(Stretch::all)
    }
}

impl Stretch {
    fn end(&self) -> Option<Lsn> {
        self.first.advance(u64::try_from(self.seen.len()).ok()?).ok()
    }

    /// Its records, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Lsn, Option<Identity>)> {
        let places = self.seen.iter().zip(0_u64..);
        places.filter_map(|(seen, place)| Some((self.first.advance(place).ok()?, *seen)))
    }
}
