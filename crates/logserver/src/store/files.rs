//! Batches in the files that make them durable, and an index that says where.
//!
//! ```text
//!  commit(group) ─► journal: one write, one fsync ─► rows of the index, not durable yet
//!                      │ a file is full
//!                      ▼
//!            checkpoint: what the file has becomes rows, the index is flushed ─► only groups after that are read again
//!
//!  open: the index as it was flushed last ─► the groups after its position, from the files
//!
//!  trim ─► spans of the loglet go ─► a file without any is used again or removed
//!          a file of which little is needed: what is needed is written once more, to the newest file
//! ```
//! A payload is written once. What a read finds in a file is checked against the index: a file that went away meanwhile, or
//! was used again, is never taken for what it was.

mod books;
mod format;
pub(in crate::store) mod index;
#[cfg(any(test, feature = "test-util"))]
pub(in crate::store) mod memory;
mod metrics;
mod readers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use bifrost_checksum::Sum;
use bifrost_journal::directory::ReadFile;
use bifrost_journal::{
    Appended, Blocks, Directory, Journal, JournalError, JournalOptions, OpenError, Position, Replayed, Salts,
    read_groups, remove_file,
};
use bifrost_types::{LogletId, LogletOffset};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use thiserror::Error;

use self::books::{Books, Pages, last_below, spot_of};
use self::format::{Entry, Indexed, Place, Sink, Spot, decode_group};
use self::index::{Index, Table};
use self::metrics::FileMetrics;
use self::readers::Readers;
use crate::store::format::{FormatError, batch_key, decode_loglet_key, decode_state, encode_state, loglet_key};
use crate::store::scan::{Found, Scanned, scan};
use crate::store::{Cause, Change, Chunk, Group, PlacedBatch, Recovered, StoreError, Stored};

/// Read at once from a file, if that much lies together.
const RUN_BYTES: u64 = 1 << 20;
/// So much that nobody asked for is read rather than skipped.
const SKIP_BYTES: u64 = 16 << 10;
/// A file may go between a look at the index and a look at the file. So often the index is looked at again.
const LOOKS: usize = 8;
/// Moved at once, under the lock of the writer.
const MOVE_BYTES: usize = 256 << 10;
/// Files that wait to be used again take no more than this part of what is free.
const REUSED_SHARE: u64 = 16;

/// The store. Dropping it closes everything; whoever wants checkpoints carries them out.
#[derive(Debug)]
pub(in crate::store) struct FileStore<D: Directory, I: Index> {
    index: I,
    directory: D,
    readers: Readers<D>,
    writer: Mutex<Writer<D>>,
}

#[derive(Debug)]
struct Writer<D: Directory> {
    journal: Journal<D>,
    books: Books,
    metrics: FileMetrics,
    /// Of zeros so much was counted.
    zeroed: u64,
    /// Files that could not be read to their end: what is needed of them stays there.
    unreadable: BTreeSet<u64>,
    /// Why nothing is taken any more, and no file goes: books and index are not one. Only what is opened anew goes on.
    stopped: Option<Stopped>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The index had no room for what is in the files already.
    Full,
    Failed,
}

impl<D: Directory> Writer<D> {
    /// Enters changes into the index. What it has of the files must not have a hole.
    fn write<I: Index>(&mut self, pages: Pages<'_, I>) -> Result<(), StoreError> {
        pages.index.write(pages.writes).inspect_err(|error| self.stop(error))
    }

    fn stop(&mut self, error: &StoreError) {
        self.stopped = Some(match error {
            StoreError::Full => Stopped::Full,
            _ => Stopped::Failed,
        });
    }
}

/// First offset and end of each batch that a group appends before some change of it.
type Staged = BTreeMap<LogletId, Vec<(LogletOffset, LogletOffset)>>;

/// What a commit leaves to be done in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Wants {
    /// [`FileStore::checkpoint`].
    pub(in crate::store) checkpoint: bool,
}

struct GroupBytes<'a> {
    blocks: &'a mut Blocks,
    start: usize,
}

impl Sink for GroupBytes<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.blocks.put(bytes);
    }

    fn put_summed(&mut self, bytes: &[u8], sum: Sum) {
        self.blocks.put_summed(bytes, sum);
    }

    fn len(&self) -> u64 {
        (self.blocks.len() - self.start) as u64
    }
}

impl<D: Directory, I: Index> FileStore<D, I> {
    /// Opens the store, or makes an empty one. `path` is what errors call the directory by. Blocks.
    pub(in crate::store) fn open(
        index: I,
        directory: D,
        path: &Path,
        options: JournalOptions,
        salts: Salts,
    ) -> Result<Self, FileStoreError> {
        let (mut books, indexed) = Books::open(&index)?;
        let options = JournalOptions { keeps_files: true, ..options };
        let Indexed { group, booked, end } = indexed;
        let position = Position { applied: group, replayed_after: booked, first_file: end.file, at: end.at };
        let mut replay = |group: Replayed<'_>| Ok(enter_again(&index, &mut books, indexed.group, group)?);
        let journal = Journal::open(directory.clone(), path, options, salts, position, &mut replay)?;
        let kept: BTreeSet<u64> = journal.kept().map(|(file, _)| file).collect();
        if let Some((file, _)) = books.needs().find(|(file, need)| need.spans > 0 && !kept.contains(file)) {
            return Err(FileStoreError::Missing { file });
        }
        kept.iter().for_each(|file| books.unknown(*file));
        let mut readable = kept;
        readable.insert(books.active);
        let readers = Readers::new(directory.clone(), readable);
        let writer = Mutex::new(Writer {
            journal,
            books,
            metrics: FileMetrics::new(),
            zeroed: 0,
            unreadable: BTreeSet::new(),
            stopped: None,
        });
        Ok(Self { index, directory, readers, writer })
    }

    /// The rows.
    pub(in crate::store) const fn index(&self) -> &I {
        &self.index
    }

    /// See [`LogStore::recover`](crate::store::LogStore::recover).
    pub(in crate::store) fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        books::states(&self.index, |key, value| {
            let corrupt = |cause| StoreError::Corrupt { cause };
            let loglet = decode_loglet_key(key).map_err(corrupt)?;
            let state = decode_state(key, value).map_err(|cause| match cause {
                FormatError::Version { found } => StoreError::NewerFormat { found },
                cause => corrupt(cause),
            })?;
            Ok(Recovered { loglet, state })
        })
    }

    /// See [`LogStore::commit`](crate::store::LogStore::commit).
    pub(in crate::store) fn commit(&self, group: &Group) -> Result<Wants, StoreError> {
        if group.is_empty() {
            return Ok(Wants::default());
        }
        let mut entries = Vec::with_capacity(group.changes().len());
        // Only what drops asks what the group appends. A start drops what is trimmed of every loglet, in one group.
        let asked = group.changes().iter().any(|change| matches!(change, Change::DropBelow { .. }));
        let mut staged = BTreeMap::new();
        for change in group.changes() {
            entries.push(self.entry(change, &staged)?);
            if let (true, Change::Append { loglet, batch }) = (asked, change) {
                staged.entry(*loglet).or_insert_with(Vec::new).push((batch.first_offset, batch.end));
            }
        }
        let mut writer = self.writer.lock();
        let (wants, written) = self.append(&mut writer, entries)?;
        writer.metrics.records.increment(written);
        Ok(wants)
    }

    /// A change as it is written.
    fn entry<'a>(&self, change: &'a Change, staged: &Staged) -> Result<(Entry, Option<&'a PlacedBatch>), StoreError> {
        Ok(match change {
            Change::Append { loglet, batch } => {
                let place = Place::new(*loglet, batch).map_err(|cause| StoreError::Corrupt { cause })?;
                (Entry::Batch(place), Some(batch))
            }
            Change::Put { loglet, state } => {
                let key = loglet_key(*loglet);
                (Entry::State { key, value: encode_state(&key, state) }, None)
            }
            Change::DropBelow { loglet, offset } => {
                let offset = self.lowest_kept(*loglet, *offset, staged.get(loglet))?;
                (Entry::DropBelow { loglet: *loglet, offset }, None)
            }
            Change::DropFrom { loglet, offset } => (Entry::DropFrom { loglet: *loglet, offset: *offset }, None),
        })
    }

    /// The first offset of what must stay when everything below `offset` goes: a batch that reaches over it starts lower.
    fn lowest_kept(
        &self,
        loglet: LogletId,
        offset: LogletOffset,
        staged: Option<&Vec<(LogletOffset, LogletOffset)>>,
    ) -> Result<LogletOffset, StoreError> {
        let stored = last_below(&self.index, loglet, offset)?;
        let stored = stored.filter(|place| place.end > offset).map(|place| place.first_offset);
        let staged = staged.into_iter().flatten().filter(|(_, end)| *end > offset).map(|(first, _)| *first);
        Ok(staged.chain(stored).fold(offset, LogletOffset::min))
    }

    /// Makes entries durable and then visible; with the bytes that were written for them.
    fn append(
        &self,
        writer: &mut Writer<D>,
        mut entries: Vec<(Entry, Option<&PlacedBatch>)>,
    ) -> Result<(Wants, u64), StoreError> {
        match writer.stopped {
            None => {}
            Some(Stopped::Full) => return Err(StoreError::Full),
            Some(Stopped::Failed) => return Err(StoreError::Failed { cause: Cause::Abandoned }),
        }
        let appended = writer.journal.append(|blocks| {
            let start = blocks.len();
            let mut out = GroupBytes { blocks, start };
            entries.iter_mut().for_each(|(entry, batch)| entry.encode(*batch, &mut out));
        });
        let Appended { sequence, file, at, written, begins_file } = appended.map_err(refused)?;
        let zeroed = writer.journal.zeroed();
        writer.metrics.zeros.increment(zeroed - std::mem::replace(&mut writer.zeroed, zeroed));
        if begins_file {
            self.readers.add(file);
        }
        let entries = entries.into_iter().map(|(mut entry, _)| {
            entry.settle(Spot { file, at });
            entry
        });
        let mut pages = Pages::new(&self.index, entries.len() * 64, false);
        writer.books.enter(&mut pages, file, sequence, entries).inspect_err(|error| writer.stop(error))?;
        let frees = pages.frees;
        writer.write(pages)?;
        Ok((Wants { checkpoint: begins_file || frees }, written))
    }

    /// Makes the index durable, and gives back the files that nobody needs; nothing of that after a failure. Blocks for a
    /// flush.
    pub(in crate::store) fn checkpoint(&self) -> Result<(), StoreError> {
        let (group, dead) = {
            let mut writer = self.writer.lock();
            if writer.stopped.is_some() {
                return Ok(());
            }
            let Writer { journal, books, .. } = &mut *writer;
            let mut pages = Pages::new(&self.index, 0, false);
            let (file, at) = journal.end().unwrap_or_default();
            let booked = books.book(&mut pages, journal.kept().map(|(file, _)| file), Spot { file, at });
            booked.inspect_err(|error| writer.stop(error))?;
            writer.write(pages)?;
            (writer.books.group, writer.books.dead())
        };
        self.index.flush()?;
        let spare = self.directory.free_bytes().map_or(0, |free| free / REUSED_SHARE);
        let removed = {
            let mut writer = self.writer.lock();
            if writer.stopped.is_some() {
                return Ok(());
            }
            let Writer { journal, books, .. } = &mut *writer;
            journal.release(group);
            let mut pages = Pages::new(&self.index, 0, false);
            // One that somebody still reads stays until the next time.
            for file in dead.into_iter().filter(|file| self.readers.retire(*file)) {
                books.remove(&mut pages, file);
                journal.discard(file);
            }
            writer.write(pages)?;
            writer.journal.spare(spare);
            std::iter::from_fn(|| writer.journal.pop_discarded()).collect::<Vec<_>>()
        };
        for file in removed {
            if let Err(error) = remove_file(&self.directory, file) {
                tracing::warn!(%error, file, "a file that nobody needs is not removed before the next start");
            }
        }
        Ok(())
    }

    /// What there is to do in the background: a checkpoint, and [compaction](Self::compact) of every file of which less than
    /// a `share`-th is needed. Blocks.
    pub(in crate::store) fn keep(&self, share: u64, pause: &mut impl FnMut(u64) -> bool) -> Result<(), StoreError> {
        self.checkpoint()?;
        while let Some(file) = self.sparsest(share) {
            if !self.compact(file, &mut *pause)? {
                return Ok(());
            }
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Whether [`keep`](Self::keep) has nothing to do.
    pub(in crate::store) fn is_in_order(&self, share: u64) -> bool {
        let writer = self.writer.lock();
        let booked = writer.books.is_booked() && writer.books.dead().is_empty();
        drop(writer);
        booked && self.sparsest(share).is_none()
    }

    /// The file of which the least is needed, if that is less than a `share`-th of what was written to it.
    pub(in crate::store) fn sparsest(&self, share: u64) -> Option<u64> {
        let writer = self.writer.lock();
        let sparse = writer.books.needs().filter(|(file, need)| {
            need.spans > 0 && need.bytes.saturating_mul(share) < need.written && !writer.unreadable.contains(file)
        });
        sparse.min_by_key(|(_, need)| need.bytes).map(|(file, _)| file)
    }

    /// Writes what is needed of a file once more, so that the file can go. `pause` is called with the bytes that were read
    /// and written in between, and says whether to go on; `false` if it did not. Blocks. Stopped or failed anywhere, it leaves
    /// what can be done again.
    pub(in crate::store) fn compact(&self, file: u64, mut pause: impl FnMut(u64) -> bool) -> Result<bool, StoreError> {
        let Some(need) = self.writer.lock().books.need(file) else { return Ok(true) };
        let mut loglets = BTreeSet::new();
        let (mut seen, mut moving, mut bytes) = (0_u64, Vec::new(), 0_usize);
        let read = read_groups(&self.directory, file, &mut |group| {
            let spot = Spot { file, at: group.at };
            let mut found = Vec::new();
            decode_group(group.bytes, spot, |entry, batch| {
                if let Entry::Batch(place) = entry {
                    found.push((place, batch));
                }
                Ok(())
            })
            .map_err(|cause| Some(StoreError::Corrupt { cause }))?;
            for (place, batch) in found {
                seen = seen.saturating_add(u64::from(place.length));
                loglets.insert(place.loglet);
                if spot_of(&self.index, &place).map_err(Some)? == Some(place.spot)
                    // One that rotted stays where another copy finds it missing.
                    && let Some(batch) = place.batch(Bytes::copy_from_slice(batch))
                {
                    bytes += batch.bytes().len();
                    moving.push((place, batch));
                }
            }
            let mut worked = group.bytes.len();
            if bytes >= MOVE_BYTES {
                self.move_batches(&mut moving).map_err(Some)?;
                worked += std::mem::take(&mut bytes);
            }
            if pause(worked as u64) { Ok(()) } else { Err(None) }
        });
        match read.map_err(|error| StoreError::Failed { cause: error.into() })? {
            Ok(()) => {}
            Err(Some(error)) => return Err(error),
            Err(None) => return Ok(false),
        }
        self.move_batches(&mut moving)?;
        let mut writer = self.writer.lock();
        if writer.stopped.is_some() {
            return Ok(false);
        }
        if seen < need.written {
            tracing::error!(
                file,
                seen,
                written = need.written,
                "a file cannot be read to its end; it is left as it is"
            );
            writer.unreadable.insert(file);
            return Ok(true);
        }
        let mut pages = Pages::new(&self.index, 0, false);
        writer.books.empty(&mut pages, file, loglets);
        writer.write(pages).map(|()| true)
    }

    fn move_batches(&self, moving: &mut Vec<(Place, PlacedBatch)>) -> Result<(), StoreError> {
        let moving = std::mem::take(moving);
        let mut writer = self.writer.lock();
        let mut entries = Vec::with_capacity(moving.len());
        for (place, batch) in &moving {
            if spot_of(&self.index, place)? == Some(place.spot) {
                entries.push((Entry::Batch(*place), Some(batch)));
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let (_, written) = self.append(&mut writer, entries)?;
        writer.metrics.moved.increment(written);
        Ok(())
    }

    /// See [`LogStore::read`](crate::store::LogStore::read). Blocks.
    pub(in crate::store) fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        if from >= until {
            return Ok(Chunk { parts: Vec::new(), covered_until: until });
        }
        let (first, end) = (batch_key(loglet, LogletOffset::FIRST), batch_key(loglet, until));
        let mut looks = 0;
        loop {
            looks += 1;
            let rows = self.index.rows(Table::Batches, &first, &end);
            let Scanned { parts, covered_until } = scan::<Place>(rows, loglet, from, until, max_bytes)?;
            if let Some(parts) = self.fetch(parts, looks >= LOOKS) {
                return Ok(Chunk { parts, covered_until });
            }
        }
    }

    /// Reads batches from their files; `None` if a file is gone and this is not the last look.
    fn fetch(&self, parts: Vec<Found<Place>>, last_look: bool) -> Option<Vec<Stored>> {
        let mut stored = Vec::with_capacity(parts.len());
        let mut parts = parts.into_iter().peekable();
        while let Some(part) = parts.next() {
            let first = match part {
                Found::Damaged { first_offset, end } => {
                    stored.push(Stored::Damaged { first_offset, end });
                    continue;
                }
                Found::Batch(place) => place,
            };
            let (mut run, mut end) = (vec![first], first.spot.at.saturating_add(first.length.into()));
            while let Some(Found::Batch(next)) = parts.peek()
                && next.spot.file == first.spot.file
                && (end..=end.saturating_add(SKIP_BYTES)).contains(&next.spot.at)
                && next.spot.at.saturating_add(next.length.into()) - first.spot.at <= RUN_BYTES
            {
                end = next.spot.at + u64::from(next.length);
                run.push(*next);
                parts.next();
            }
            let bytes = match self.read_run(first.spot, end) {
                Some(bytes) => bytes,
                None if last_look => Bytes::new(),
                None => return None,
            };
            stored.extend(run.into_iter().map(|place| cut(&place, first.spot.at, &bytes)));
        }
        Some(stored)
    }

    /// Some bytes of a file, none if they cannot be read; `None` if the file is gone.
    fn read_run(&self, from: Spot, end: u64) -> Option<Bytes> {
        let read = self.readers.get(from.file).and_then(|reader| {
            let Some(reader) = reader else { return Ok(None) };
            let mut bytes = BytesMut::zeroed(usize::try_from(end.saturating_sub(from.at)).unwrap_or(usize::MAX));
            let read = reader.read(&mut bytes, from.at)?;
            bytes.truncate(read);
            Ok(Some(bytes.freeze()))
        });
        read.unwrap_or_else(|error| {
            tracing::warn!(%error, file = from.file, "a file cannot be read");
            Some(Bytes::new())
        })
    }
}

/// The batch of a place, from bytes that begin at `start` in its file.
fn cut(place: &Place, start: u64, bytes: &Bytes) -> Stored {
    let from = usize::try_from(place.spot.at - start).unwrap_or(usize::MAX);
    let until = from.saturating_add(place.length as usize);
    let found = (until <= bytes.len()).then(|| bytes.slice(from..until));
    match found.and_then(|found| place.batch(found)) {
        Some(batch) => Stored::Batch(batch),
        None => Stored::Damaged { first_offset: place.first_offset, end: place.end },
    }
}

/// Enters a group that is in a file. Rows that know it stay as they are.
fn enter_again<I: Index>(
    index: &I,
    books: &mut Books,
    known_until: u64,
    group: Replayed<'_>,
) -> Result<(), StoreError> {
    let known = group.sequence <= known_until;
    let mut entries = Vec::new();
    let decoded = decode_group(group.bytes, Spot { file: group.file, at: group.at }, |entry, _| {
        entries.push(entry);
        Ok(())
    });
    decoded.map_err(|cause| StoreError::Corrupt { cause })?;
    let mut pages = Pages::new(index, entries.len() * 64, known);
    books.enter(&mut pages, group.file, group.sequence, entries)?;
    if known { Ok(()) } else { index.write(pages.writes) }
}

/// Why the store cannot be opened.
#[derive(Debug, Error)]
pub(in crate::store) enum FileStoreError {
    /// The files do not open.
    #[error(transparent)]
    Files(#[from] OpenError),
    /// The rows that say what is in the files cannot be read.
    #[error("the index cannot be read")]
    Index(#[from] StoreError),
    /// A file is gone.
    #[error("file {file} is missing, and there is something in it that is needed")]
    Missing {
        /// Its number.
        file: u64,
    },
}

impl FileStoreError {
    /// What went wrong when a group was entered once more, or the index was read.
    fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Index(error) => Some(error),
            Self::Files(OpenError::Replay { source, .. }) => source.downcast_ref(),
            Self::Files(_) | Self::Missing { .. } => None,
        }
    }

    /// Whether what is stored is not what was stored.
    pub(in crate::store) fn is_damage(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Files(OpenError::Damaged { .. }) => true,
            other => matches!(other.store(), Some(StoreError::Corrupt { .. })),
        }
    }

    /// Whether there is too little room to open it.
    pub(in crate::store) fn is_full(&self) -> bool {
        let no_room =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Files(OpenError::Io { source, .. }) => no_room(source),
            other => matches!(other.store(), Some(StoreError::Full)),
        }
    }
}

fn refused(error: JournalError) -> StoreError {
    match error {
        JournalError::Full => StoreError::Full,
        error => StoreError::Failed { cause: error.into() },
    }
}
