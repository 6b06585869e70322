//! The books: which file has what of which loglet, so that whole files go when nothing in them is needed.
//!
//! What the groups since the last checkpoint have is in memory; the rest is in rows. Both are changed by the entries of groups,
//! in their order, and by nothing else: reading those groups once more makes the same books.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletId, LogletOffset};

use super::format::{self, Indexed, Need, Place, Span, Spot};
use super::index::{Index, Table, Writes};
use crate::store::StoreError;
use crate::store::format::{FormatError, LOGLET_KEY_BYTES, batch_key};
use crate::store::scan::{BatchRow, RowError, Rows};

/// What a file has beyond what its rows say.
#[derive(Debug, Default)]
struct Tally {
    spans: BTreeMap<LogletId, Span>,
    written: u64,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    /// The last group that is in them.
    pub(super) group: u64,
    /// The file of that group.
    pub(super) active: u64,
    tallies: BTreeMap<u64, Tally>,
    /// What the rows of each file say.
    needs: BTreeMap<u64, Need>,
    /// Up to where the rows go.
    booked: Indexed,
}

/// Changes of rows on the way to the index.
pub(super) struct Pages<'a, I: Index> {
    pub(super) index: &'a I,
    pub(super) writes: I::Writes<'a>,
    /// Spans whose rows were changed already, `None` for those that are gone: later entries see earlier ones.
    changed: BTreeMap<(LogletId, u64), Option<Span>>,
    /// Whether the rows know the group: only what is in memory is made anew.
    known: bool,
    /// Whether nothing of some file is needed any more.
    pub(super) frees: bool,
}

impl<'a, I: Index> Pages<'a, I> {
    pub(super) fn new(index: &'a I, bytes: usize, known: bool) -> Self {
        Self { index, writes: index.writes(bytes), changed: BTreeMap::new(), known, frees: false }
    }
}

impl Books {
    /// As the rows say.
    pub(super) fn open<I: Index>(index: &I) -> Result<(Self, Indexed), StoreError> {
        let corrupt = |cause| StoreError::Corrupt { cause };
        let indexed = match index.get(Table::Position, Indexed::KEY)? {
            Some(value) => Indexed::decode(&value).map_err(corrupt)?,
            None => Indexed::default(),
        };
        let mut needs = BTreeMap::new();
        let mut rows = index.rows(Table::Files, &[], &[u8::MAX; 9]);
        rows.seek(&[]);
        while let Some((key, value)) = rows.item() {
            let (file, need) = Need::decode(key, value).map_err(corrupt)?;
            needs.insert(file, need);
            rows.next();
        }
        ended(&rows)?;
        let books = Self { group: indexed.booked, active: indexed.end.file, needs, booked: indexed, ..Self::default() };
        Ok((books, indexed))
    }

    /// Enters a group, in its order.
    pub(super) fn enter<I: Index>(
        &mut self,
        pages: &mut Pages<'_, I>,
        file: u64,
        group: u64,
        entries: impl IntoIterator<Item = format::Entry>,
    ) -> Result<(), StoreError> {
        (self.active, self.group) = (file, group);
        for entry in entries {
            match entry {
                format::Entry::Batch(place) => self.place(pages, place),
                format::Entry::State { key, value } => {
                    if !pages.known {
                        pages.writes.put(Table::States, &key, &value);
                    }
                }
                format::Entry::DropBelow { loglet, offset } => {
                    if !pages.known {
                        let from = batch_key(loglet, LogletOffset::FIRST);
                        pages.writes.delete_range(Table::Batches, &from, &batch_key(loglet, offset));
                    }
                    let early = plant::is(Plant::NeededFileGivenBack);
                    let goes = |span: &Span| span.end <= offset || (early && span.first < offset);
                    self.forget(pages, loglet, |span| if goes(span) { None } else { Some(*span) })?;
                }
                format::Entry::DropFrom { loglet, offset } => {
                    if !pages.known {
                        let until = batch_key(loglet, LogletOffset::MAX);
                        pages.writes.delete_range(Table::Batches, &batch_key(loglet, offset), &until);
                    }
                    // A batch that reaches over the offset stays, and so does its span: it keeps what is dropped below at or
                    // under its own start.
                    self.forget(pages, loglet, |span| {
                        (span.first < offset).then(|| Span { end: span.end.min(offset), ..*span })
                    })?;
                }
            }
        }
        if !pages.known {
            pages.writes.put(Table::Position, Indexed::KEY, &self.indexed().value());
        }
        Ok(())
    }

    const fn indexed(&self) -> Indexed {
        Indexed { group: self.group, ..self.booked }
    }

    fn place<I: Index>(&mut self, pages: &mut Pages<'_, I>, place: Place) {
        if !pages.known {
            pages.writes.put(Table::Batches, &place.key(), &place.value());
        }
        let bytes = u64::from(place.length);
        let tally = self.tallies.entry(place.spot.file).or_default();
        tally.written = tally.written.saturating_add(bytes);
        let span = Span { first: place.first_offset, end: place.end, bytes: 0 };
        let span = tally.spans.entry(place.loglet).or_insert(span);
        span.first = span.first.min(place.first_offset);
        span.end = span.end.max(place.end);
        span.bytes = span.bytes.saturating_add(bytes);
    }

    /// Changes every span of a loglet, or drops it.
    fn forget<I: Index>(
        &mut self,
        pages: &mut Pages<'_, I>,
        loglet: LogletId,
        keep: impl Fn(&Span) -> Option<Span>,
    ) -> Result<(), StoreError> {
        for tally in self.tallies.values_mut() {
            match tally.spans.get(&loglet).map(&keep) {
                Some(Some(span)) => drop(tally.spans.insert(loglet, span)),
                Some(None) => drop(tally.spans.remove(&loglet)),
                None => {}
            }
        }
        if pages.known {
            return Ok(());
        }
        let corrupt = |cause| StoreError::Corrupt { cause };
        let (from, until) = (Span::key(loglet, 0), Span::key(loglet, u64::MAX));
        let mut rows = pages.index.rows(Table::Spans, &from, &until);
        rows.seek(&from);
        while let Some((key, value)) = rows.item() {
            let (file, stored) = (Span::file(key).map_err(corrupt)?, Span::decode(value).map_err(corrupt)?);
            let span = pages.changed.get(&(loglet, file)).copied().unwrap_or(Some(stored));
            rows.next();
            let Some(span) = span else { continue };
            let kept = keep(&span);
            if kept == Some(span) {
                continue;
            }
            pages.changed.insert((loglet, file), kept);
            let key = Span::key(loglet, file);
            match kept {
                Some(kept) => pages.writes.put(Table::Spans, &key, &kept.value()),
                None => {
                    pages.writes.delete(Table::Spans, &key);
                    let need = self.needs.entry(file).or_default();
                    need.spans = need.spans.saturating_sub(1);
                    need.bytes = need.bytes.saturating_sub(span.bytes);
                    pages.frees |= need.spans == 0;
                    pages.writes.put(Table::Files, &file.to_be_bytes(), &need.value());
                }
            }
        }
        ended(&rows)
    }

    /// Puts everything into rows. `kept` are the files that take no more groups, and the last group ends at `end`.
    pub(super) fn book<I: Index>(
        &mut self,
        pages: &mut Pages<'_, I>,
        kept: impl Iterator<Item = u64>,
        end: Spot,
    ) -> Result<(), StoreError> {
        let corrupt = |cause| StoreError::Corrupt { cause };
        for (file, Tally { spans, written }) in std::mem::take(&mut self.tallies) {
            let need = self.needs.entry(file).or_default();
            need.written = need.written.saturating_add(written);
            for (loglet, span) in spans {
                let key = Span::key(loglet, file);
                need.bytes = need.bytes.saturating_add(span.bytes);
                let span = match pages.index.get(Table::Spans, &key)? {
                    Some(row) => span.joined(&Span::decode(&row).map_err(corrupt)?),
                    None => {
                        need.spans += 1;
                        span
                    }
                };
                pages.writes.put(Table::Spans, &key, &span.value());
            }
            pages.writes.put(Table::Files, &file.to_be_bytes(), &need.value());
        }
        for file in kept.filter(|file| *file < self.active) {
            if let Entry::Vacant(unused) = self.needs.entry(file) {
                pages.writes.put(Table::Files, &file.to_be_bytes(), &unused.insert(Need::default()).value());
            }
        }
        self.booked = Indexed { group: self.group, booked: self.group, end };
        pages.writes.put(Table::Position, Indexed::KEY, &self.indexed().value());
        Ok(())
    }

    /// How much of each file is needed, as the rows say: of those that take no more groups.
    pub(super) fn needs(&self) -> impl Iterator<Item = (u64, &Need)> {
        let full = self.needs.range(..self.active);
        full.filter(|(file, _)| !self.tallies.contains_key(file)).map(|(file, need)| (*file, need))
    }

    /// How much of a file is needed, as its row says.
    pub(super) fn need(&self, file: u64) -> Option<Need> {
        self.needs.get(&file).copied()
    }

    /// Whether the rows know all groups.
    pub(super) const fn is_booked(&self) -> bool {
        self.booked.booked == self.group
    }

    /// Files of which nothing is needed.
    pub(super) fn dead(&self) -> Vec<u64> {
        self.needs().filter(|(_, need)| need.spans == 0).map(|(file, _)| file).collect()
    }

    /// A file that is not read when the store is opened, and that has no row: nothing in it is needed.
    pub(super) fn unknown(&mut self, file: u64) {
        if file < self.booked.end.file {
            self.needs.entry(file).or_default();
        }
    }

    /// Nothing in a file is needed any more: what was needed of these loglets was moved.
    pub(super) fn empty<I: Index>(
        &mut self,
        pages: &mut Pages<'_, I>,
        file: u64,
        loglets: impl IntoIterator<Item = LogletId>,
    ) {
        loglets.into_iter().for_each(|loglet| pages.writes.delete(Table::Spans, &Span::key(loglet, file)));
        let need = self.needs.entry(file).or_default();
        (need.spans, need.bytes) = (0, 0);
        pages.frees = true;
        pages.writes.put(Table::Files, &file.to_be_bytes(), &need.value());
    }

    /// A file is gone.
    pub(super) fn remove<I: Index>(&mut self, pages: &mut Pages<'_, I>, file: u64) {
        self.needs.remove(&file);
        pages.writes.delete(Table::Files, &file.to_be_bytes());
    }
}

/// Where the batch at the place of this one lies.
pub(super) fn spot_of(index: &impl Index, place: &Place) -> Result<Option<Spot>, StoreError> {
    let key = place.key();
    let value = index.get(Table::Batches, &key)?;
    // One that cannot be read has no place that anything could be compared with.
    Ok(value.and_then(|value| Place::decode(&key, &value).ok()).map(|place| place.spot))
}

/// The last batch that starts below an offset, if it can be read.
pub(super) fn last_below(
    index: &impl Index,
    loglet: LogletId,
    offset: LogletOffset,
) -> Result<Option<Place>, StoreError> {
    let (from, until) = (batch_key(loglet, LogletOffset::FIRST), batch_key(loglet, offset));
    let mut rows = index.rows(Table::Batches, &from, &until);
    rows.seek_for_prev(&until);
    Ok(rows.item().and_then(|(key, value)| Place::decode(key, value).ok()))
}

/// Every state.
pub(super) fn states<T>(
    index: &impl Index,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut rows = index.rows(Table::States, &[], &[u8::MAX; LOGLET_KEY_BYTES + 1]);
    let mut found = Vec::new();
    rows.seek(&[]);
    while let Some((key, value)) = rows.item() {
        found.push(take(key, value)?);
        rows.next();
    }
    ended(&rows)?;
    Ok(found)
}

/// Whether rows ended because there are no more.
fn ended(rows: &impl Rows) -> Result<(), StoreError> {
    match rows.status() {
        Ok(()) => Ok(()),
        Err(RowError::Failed(error)) => Err(error),
        Err(RowError::Damaged) => Err(StoreError::Corrupt { cause: FormatError::Checksum }),
    }
}
