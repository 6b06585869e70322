//! What one reader was given, checked as it comes.

use bifrost::{GapKind, Lsn, ReadEvent};

use super::findings::Findings;
use super::payload::Identity;

/// Records at contiguous LSNs: 20 bytes each.
#[derive(Debug)]
struct Stretch {
    first: Lsn,
    seen: Vec<Option<Identity>>,
}

/// Everything that one reader was given, in order. The checks that need nobody else are made at once: LSNs go on
/// without a jump, and every byte is what the payload's own header says.
#[derive(Debug)]
pub struct ReaderLedger {
    name: String,
    from: Lsn,
    next: Lsn,
    stretches: Vec<Stretch>,
    records: u64,
    bytes: u64,
    /// The end of the last gap of trimmed records.
    trimmed_end: Option<Lsn>,
    pub(crate) damaged: Findings,
    pub(crate) lost: Findings,
    pub(crate) out_of_order: Findings,
}

impl ReaderLedger {
    pub(crate) fn new(name: impl Into<String>, from: Lsn) -> Self {
        Self {
            name: name.into(),
            from,
            next: from,
            stretches: Vec::new(),
            records: 0,
            bytes: 0,
            trimmed_end: None,
            damaged: Findings::default(),
            lost: Findings::default(),
            out_of_order: Findings::default(),
        }
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

    /// Takes note of what the reader delivered, and checks it.
    pub fn observe(&mut self, event: &ReadEvent) {
        match event {
            ReadEvent::Record(record) => self.record(record.lsn, &record.payload),
            ReadEvent::Gap { from, end, kind } => {
                self.expect(*from, "a gap");
                match kind {
                    GapKind::Trimmed => self.trimmed_end = Some(*end),
                    GapKind::Lost => self.lost.add(|| format!("{} was told that [{from}, {end}) is lost", self.name)),
                }
                self.next = self.next.max(*end);
            }
            ReadEvent::CaughtUp { tail } => self.expect(*tail, "the tail"),
        }
    }

    fn record(&mut self, lsn: Lsn, payload: &[u8]) {
        self.expect(lsn, "a record");
        if lsn < self.next {
            // Delivered again, or late: the sequence keeps what came first.
            return;
        }
        let identity = Identity::verify(payload);
        self.damaged.require(identity.is_some(), || {
            format!("{} got bytes at {lsn} that are not what their header says", self.name)
        });
        self.records += 1;
        self.bytes += u64::try_from(payload.len()).unwrap_or(u64::MAX);
        match self.stretches.last_mut().filter(|stretch| stretch.end() == Some(lsn)) {
            Some(stretch) => stretch.seen.push(identity),
            None => self.stretches.push(Stretch { first: lsn, seen: vec![identity] }),
        }
        match lsn.advance(1) {
            Ok(next) => self.next = next,
            Err(error) => self.out_of_order.add(|| error.to_string()),
        }
    }

    fn expect(&mut self, at: Lsn, what: &str) {
        let Self { name, next, .. } = self;
        if at < *next {
            self.out_of_order.add(|| format!("{name} got {what} at {at} again, everything below {next} was there"));
        } else if at > *next {
            self.out_of_order.add(|| format!("{name} got {what} at {at}, [{next}, {at}) was passed over"));
        }
    }

    /// The record that was delivered at `lsn`: `None` if there was none, `Some(None)` if its bytes were not its own.
    pub(crate) fn at(&self, lsn: Lsn) -> Option<Option<Identity>> {
        let following = self.stretches.partition_point(|stretch| stretch.first <= lsn);
        let stretch = self.stretches.get(following.checked_sub(1)?)?;
        let place = usize::try_from(lsn.distance_from(stretch.first)?).ok()?;
        stretch.seen.get(place).copied()
    }

    /// Everything that was delivered, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Lsn, Option<Identity>)> {
        self.stretches.iter().flat_map(|stretch| {
            let places = stretch.seen.iter().zip(0_u64..);
            places.filter_map(|(seen, place)| Some((stretch.first.advance(place).ok()?, *seen)))
        })
    }

    /// The first LSN that was not said to be trimmed, if any was.
    pub(crate) const fn trimmed_end(&self) -> Option<Lsn> {
        self.trimmed_end
    }
}

impl Stretch {
    fn end(&self) -> Option<Lsn> {
        self.first.advance(u64::try_from(self.seen.len()).ok()?).ok()
    }
}
