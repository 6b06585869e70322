//! What is on a disk: batches by loglet and offset, and the state of each loglet.

use std::collections::BTreeMap;

use bifrost_logserver::copy::DurableState;
use bifrost_logserver::store::{Change, Chunk, Group, PlacedBatch, Recovered, Stored};
use bifrost_types::{LogletId, LogletOffset};

/// What a state, and the frame of a batch, take besides the bytes of batches.
pub(super) const ENTRY_BYTES: u64 = 128;

/// Where a batch lies.
pub(super) type Place = (LogletId, LogletOffset);

/// Batches and states. A clone is cheap enough for a simulation: payloads are shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Platter {
    batches: BTreeMap<Place, Stored>,
    states: BTreeMap<LogletId, DurableState>,
    /// Bytes that all of it takes.
    used: u64,
}

/// What a group left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// The batches that it wrote and did not drop again, in the order of their places.
    pub(super) batches: Vec<(LogletId, PlacedBatch)>,
    /// The states that it wrote, in the order of the loglets.
    pub(super) states: Vec<(LogletId, DurableState)>,
}

/// Bytes that a group takes on the disk before anything that it drops is given back.
pub(super) fn group_bytes(group: &Group) -> u64 {
    (group.bytes() as u64).saturating_add((group.changes().len() as u64).saturating_mul(ENTRY_BYTES))
}

impl Platter {
    /// Carries a whole group out, later changes on top of earlier ones.
    pub(super) fn apply(&mut self, group: Group) -> Written {
        let mut batches = BTreeMap::new();
        let mut states = BTreeMap::new();
        for change in group.into_changes() {
            match change {
                Change::Append { loglet, batch } => {
                    batches.insert((loglet, batch.first_offset), batch.clone());
                    self.insert((loglet, batch.first_offset), Stored::Batch(batch));
                }
                Change::Put { loglet, state } => {
                    states.insert(loglet, state);
                    if self.states.insert(loglet, state).is_none() {
                        self.used = self.used.saturating_add(ENTRY_BYTES);
                    }
                }
                Change::DropBelow { loglet, offset } => {
                    let range = (loglet, LogletOffset::FIRST)..(loglet, offset);
                    self.remove(range, |stored| stored.end() <= offset);
                }
                Change::DropFrom { loglet, offset } => {
                    self.remove((loglet, offset)..=(loglet, LogletOffset::MAX), |_| true);
                }
            }
        }
        let batches = batches.into_iter().filter(|(place, _)| self.batches.contains_key(place));
        Written {
            batches: batches.map(|((loglet, _), batch)| (loglet, batch)).collect(),
            states: states.into_iter().collect(),
        }
    }

    fn insert(&mut self, place: Place, stored: Stored) {
        let before = self.batches.get(&place).map_or(0, used_by);
        self.used = self.used.saturating_sub(before).saturating_add(used_by(&stored));
        self.batches.insert(place, stored);
    }

    fn remove(&mut self, range: impl std::ops::RangeBounds<Place>, goes: impl Fn(&Stored) -> bool) {
        let places: Vec<Place> =
            self.batches.range(range).filter(|(_, stored)| goes(stored)).map(|(place, _)| *place).collect();
        for place in places {
            if let Some(stored) = self.batches.remove(&place) {
                self.used = self.used.saturating_sub(used_by(&stored));
            }
        }
    }

    /// Every loglet that has a state.
    pub(super) fn recover(&self) -> Vec<Recovered> {
        self.states.iter().map(|(&loglet, &state)| Recovered { loglet, state }).collect()
    }

    /// What overlaps `[from, until)`, about `max_bytes` of it and at least one batch.
    pub(super) fn read(&self, loglet: LogletId, from: LogletOffset, until: LogletOffset, max_bytes: usize) -> Chunk {
        if from >= until {
            return Chunk { parts: Vec::new(), covered_until: until };
        }
        let before = self.batches.range((loglet, LogletOffset::FIRST)..(loglet, from)).next_back();
        let reaching = before.filter(|(_, stored)| stored.end() > from).map(|(_, stored)| stored);
        let inside = self.batches.range((loglet, from)..(loglet, until)).map(|(_, stored)| stored);
        let mut chunk = Chunk { parts: Vec::new(), covered_until: until };
        let mut bytes = 0_usize;
        for stored in reaching.into_iter().chain(inside) {
            if bytes >= max_bytes && !chunk.parts.is_empty() {
                chunk.covered_until = stored.first_offset();
                break;
            }
            bytes = bytes.saturating_add(bytes_of(stored));
            chunk.parts.push(stored.clone());
        }
        chunk
    }

    /// Bytes that all of it takes.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// Where batches lie, damaged ones too, in order.
    pub(super) fn places(&self) -> Vec<Place> {
        self.batches.keys().copied().collect()
    }

    /// Where intact batches lie, in order.
    pub(super) fn intact(&self) -> Vec<Place> {
        let intact = self.batches.iter().filter(|(_, stored)| matches!(stored, Stored::Batch(_)));
        intact.map(|(place, _)| *place).collect()
    }

    /// Bytes of the intact batch at a place; 0 if there is none.
    pub(super) fn batch_bytes(&self, place: Place) -> usize {
        self.batches.get(&place).map_or(0, bytes_of)
    }

    /// Makes the frame of a batch unreadable. Returns whether there was an intact one.
    pub(super) fn damage(&mut self, place: Place) -> bool {
        match self.batches.get(&place) {
            Some(Stored::Batch(batch)) => {
                self.insert(place, Stored::Damaged { first_offset: batch.first_offset, end: batch.end });
                true
            }
            Some(Stored::Damaged { .. }) | None => false,
        }
    }

    /// Flips the lowest bit of a byte of a batch, behind a frame that stays intact. Returns whether there is such a byte.
    pub(super) fn flip_bit(&mut self, place: Place, byte: usize) -> bool {
        let Some(Stored::Batch(batch)) = self.batches.get_mut(&place) else { return false };
        let mut bytes = batch.bytes().to_vec();
        let flipped = bytes.get_mut(byte).map(|byte| *byte ^= 1).is_some();
        *batch = PlacedBatch::new(batch.first_offset, batch.end, bytes.into());
        flipped
    }
}

fn used_by(stored: &Stored) -> u64 {
    (bytes_of(stored) as u64).saturating_add(ENTRY_BYTES)
}

fn bytes_of(stored: &Stored) -> usize {
    match stored {
        Stored::Batch(batch) => batch.bytes().len(),
        Stored::Damaged { .. } => 0,
    }
}
