//! The journal itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::blocks::Blocks;
use crate::directory::{Directory, Fill, JournalFile};
use crate::error::{JournalError, OpenError};
use crate::frame::{BLOCK, FRAME_HEADER, FileId, GROUP_BYTES_MAX, frame_bytes};
use crate::helper::{Done, Full, Helper, Prepared, Work};
use crate::pace::Pace;
use crate::recovery::{Found, Position, Replay, ScanError, Scanned, scan};

/// Memory that is kept between groups: at least, and at most.
const BUFFER_BYTES: RangeInclusive<usize> = 2 << 20..=16 << 20;
/// Memory for so many average groups is kept. It would have to grow again, from one piece of memory to the next.
const BUFFER_GROUPS: u64 = 8;
/// So many groups the average is about.
const AVERAGED_GROUPS: u64 = 16;
/// Bytes of the first file, and of one that is made while an append waits for it.
const SMALL_FILE_BYTES: u64 = 256 << 10;

/// How a journal keeps its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalOptions {
    /// Bytes of a file at most. Each is twice as long as the one before until then; two or three are there at any time, and
    /// a larger group gets a file of its own. Default 8 MiB.
    pub file_bytes: u64,
    /// Whether a thread prepares files. Without it an append that needs the next one waits for that, and all have the same
    /// size. Default true.
    pub prepares_ahead: bool,
    /// Whether released files stay until they are [discarded](Journal::discard): whoever wrote the groups reads them there.
    /// Default false.
    pub keeps_files: bool,
    /// Of the files that are not needed any more, so many bytes stay at most, to be used again: in a file that was written
    /// before an fsync is cheap, and nobody has to fill it with zeros. One stays in any case. Default 0.
    pub reused_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { file_bytes: 8 << 20, prepares_ahead: true, keeps_files: false, reused_bytes: 0 }
    }
}

/// Draws a number that nobody can guess, for each use of a file.
pub type Salts = Box<dyn FnMut() -> u64 + Send>;

/// A journal, for one writer. Whoever opens it sees to it that nobody else has the directory open.
pub struct Journal<D: Directory> {
    directory: D,
    options: JournalOptions,
    salts: Salts,
    helper: Option<Helper<D::File>>,
    /// What the helper works on.
    under_way: Option<Work>,
    /// The file that is written; `None` before the first group.
    active: Option<Active<D::File>>,
    /// Full ones that may go once their groups are released, in their order.
    full: VecDeque<Full>,
    /// Full ones that stay until they are discarded, by their numbers.
    kept: BTreeMap<u64, Full>,
    /// Ready to be written, in their order.
    prepared: VecDeque<Prepared<D::File>>,
    /// See [`spare`](Self::spare).
    reused_bytes: u64,
    /// The number of the next file that is prepared. Numbers of files that were not discarded have no holes.
    next_number: u64,
    last: u64,
    released: u64,
    zeroed: u64,
    buffer: Blocks,
    /// Bytes of a group on average, of late.
    average_bytes: u64,
    /// A file could not be made, and nothing was released since. On a full disk another attempt would take what is left from
    /// everybody else, so the next one is made when an append needs it, and small.
    no_room: bool,
    failed: bool,
}

struct Active<F> {
    prepared: Prepared<F>,
    /// Where the next frame begins.
    at: u64,
    /// The last group in it.
    last: Option<u64>,
}

/// Where a group went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its number: one more than that of the group before, from 1.
    pub sequence: u64,
    /// The number of its file.
    pub file: u64,
    /// Where in the file the bytes of the group begin, behind the header of its frame.
    pub at: u64,
    /// What was written for it: header, checksum and padding included.
    pub written: u64,
    /// It is the first of its file. Now is the time to make what is in older files durable elsewhere, and to release them.
    pub begins_file: bool,
}

impl<D: Directory> Journal<D> {
    /// Opens a journal, or begins one, and replays the groups that `position` asks for, in order and without a hole. `path` is
    /// what errors and the helper's thread are called by. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]. It may be opened again, and groups that were replayed are replayed again.
    pub fn open(
        directory: D,
        path: &Path,
        options: JournalOptions,
        salts: Salts,
        position: Position,
        replay: &mut Replay<'_>,
    ) -> Result<Self, OpenError> {
        let named = path.to_owned();
        let scanned = scan(&directory, position, replay).map_err(|error| match error {
            ScanError::Io(source) => OpenError::Io { directory: named.clone(), source },
            ScanError::Foreign(name) => OpenError::Foreign { directory: named.clone(), name },
            ScanError::NewerFormat(found) => OpenError::NewerFormat { directory: named.clone(), found },
            ScanError::Damaged(damage) => OpenError::Damaged { directory: named.clone(), damage },
            ScanError::Replay(sequence, source) => OpenError::Replay { directory: named.clone(), sequence, source },
        })?;
        let opened = Self::begin(directory, path, options, salts, scanned);
        opened.map_err(|source| OpenError::Io { directory: named, source })
    }

    fn begin(
        directory: D,
        path: &Path,
        options: JournalOptions,
        salts: Salts,
        scanned: Scanned<D::File>,
    ) -> io::Result<Self> {
        let Scanned { before, files, last, leftovers } = scanned;
        for name in leftovers {
            directory.remove(&name)?;
        }
        let helper = match options.prepares_ahead {
            true => Some(Helper::start(directory.clone(), path)?),
            false => None,
        };
        let mut journal = Self {
            directory,
            options,
            salts,
            helper,
            under_way: None,
            active: None,
            full: VecDeque::new(),
            kept: before.iter().map(|full| (full.number, *full)).collect(),
            prepared: VecDeque::new(),
            reused_bytes: options.reused_bytes,
            next_number: files
                .last()
                .map(|found| found.id.number)
                .or_else(|| before.last().map(|full| full.number))
                .map_or(1, |number| number + 1),
            last: last.unwrap_or(0),
            released: 0,
            zeroed: 0,
            buffer: Blocks::default(),
            average_bytes: 0,
            no_room: false,
            failed: false,
        };
        let written = files.iter().rposition(|found| found.last.is_some());
        for (place, Found { id, file, bytes, end, last }) in files.into_iter().enumerate() {
            let prepared = Prepared { id, file, bytes };
            if written.is_some_and(|written| place <= written) {
                journal.fill_active();
                journal.active = Some(Active { prepared, at: end, last });
            } else {
                // Nothing in it was ever acknowledged.
                journal.prepared.push_back(prepared);
            }
        }
        Ok(journal)
    }

    /// The last group; 0 before the first.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The file of the last group, and where in it the next one begins if it has room there; `None` before the first.
    pub fn end(&self) -> Option<(u64, u64)> {
        self.active.as_ref().map(|active| (active.prepared.id.number, active.at))
    }

    /// Appends a group: what `encode` puts into the blocks. It is durable, whole, when this returns. Blocks for one write and
    /// one fsync, and for the making of a file if none is ready.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn append(&mut self, encode: impl FnOnce(&mut Blocks)) -> Result<Appended, JournalError> {
        if self.failed {
            return Err(JournalError::Failed(io::ErrorKind::BrokenPipe.into()));
        }
        let wanted = usize::try_from(self.average_bytes.saturating_mul(BUFFER_GROUPS)).unwrap_or(usize::MAX);
        self.buffer.clear(wanted.clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end()));
        self.buffer.begin_frame();
        encode(&mut self.buffer);
        let bytes = self.buffer.group_bytes();
        if bytes > GROUP_BYTES_MAX {
            return Err(JournalError::TooLarge { bytes });
        }
        let needed = frame_bytes(bytes) as u64;
        let fits = |active: &Active<D::File>| active.prepared.bytes.saturating_sub(active.at) >= needed;
        if !self.active.as_ref().is_some_and(fits) {
            self.next_file(needed)?;
        }
        let Some(active) = &mut self.active else { return Err(JournalError::Full) };
        let begins_file = active.last.is_none();
        let sequence = self.last + 1;
        let Prepared { id, file: written, .. } = &active.prepared;
        let (file, at) = (id.number, active.at + FRAME_HEADER);
        self.buffer.end_frame(*id, active.at, sequence);
        if let Err(error) = written.write(&self.buffer, active.at).and_then(|()| written.sync()) {
            self.failed = true;
            return Err(JournalError::Failed(error));
        }
        active.at += needed;
        self.average_bytes = self.average_bytes - self.average_bytes / AVERAGED_GROUPS + needed / AVERAGED_GROUPS;
        active.last = Some(sequence);
        self.last = sequence;
        self.look_ahead();
        Ok(Appended { sequence, file, at, written: needed, begins_file })
    }

    /// Bytes of zeros that files were filled with since this was opened.
    pub const fn zeroed(&self) -> u64 {
        self.zeroed
    }

    /// Refuses every group from now on: whoever takes the groups could not take one.
    pub const fn fail(&mut self) {
        self.failed = true;
    }

    /// Groups up to this one are not needed here any more.
    pub fn release(&mut self, sequence: u64) {
        if sequence > self.released {
            self.released = sequence;
            // What they were needed for was written elsewhere, so there is room again.
            self.no_room = false;
        }
    }

    /// The files that take no more groups and were not discarded, with their sizes, in their order.
    pub fn kept(&self) -> impl Iterator<Item = (u64, u64)> {
        self.kept.values().map(|full| (full.number, full.bytes))
    }

    /// Nobody reads what is in a file that was kept, nor will: it may be used again or removed once its groups are released.
    /// It must be one that the next [`open`](Self::open) counts among those that are [not read](Position::first_file).
    pub fn discard(&mut self, file: u64) {
        if let Some(full) = self.kept.remove(&file) {
            self.full.push_back(full);
            self.no_room = false;
        }
    }

    /// So many bytes are there to spare for files that wait to be used again, whatever the options allow.
    pub fn spare(&mut self, bytes: u64) {
        self.reused_bytes = bytes.min(self.options.reused_bytes);
    }

    /// Takes a discarded file that does not stay to be used again: the caller [removes](remove_file) it.
    pub fn pop_discarded(&mut self) -> Option<u64> {
        self.pop_surplus().map(|full| full.number)
    }

    fn fill_active(&mut self) {
        if let Some(Active { prepared, last, .. }) = self.active.take() {
            let full = Full { number: prepared.id.number, bytes: prepared.bytes, last };
            if self.options.keeps_files {
                self.kept.insert(full.number, full);
            } else {
                self.full.push_back(full);
            }
        }
    }

    /// Goes on to a file with room for a frame. Smaller ones on the way stay empty.
    fn next_file(&mut self, needed: u64) -> Result<(), JournalError> {
        let needed = needed + BLOCK;
        loop {
            if self.prepared.is_empty() {
                self.prepare_now(needed)?;
            }
            let Some(prepared) = self.prepared.pop_front() else { continue };
            let enough = prepared.bytes >= needed;
            self.fill_active();
            self.active = Some(Active { prepared, at: BLOCK, last: None });
            if enough {
                return Ok(());
            }
        }
    }

    fn small_bytes(&self) -> u64 {
        SMALL_FILE_BYTES.min(self.options.file_bytes)
    }

    /// Waits for the file that is being prepared, or makes one in a hurry.
    fn prepare_now(&mut self, needed: u64) -> Result<(), JournalError> {
        if let (Some(work), Some(helper)) = (self.under_way, &self.helper) {
            let done = helper.wait();
            self.take(work, done);
            if !self.prepared.is_empty() {
                return Ok(());
            }
        }
        // The helper makes the ordinary ones.
        let small = self.no_room || self.helper.is_some();
        let wanted = if small { self.small_bytes() } else { self.options.file_bytes };
        let work = self.preparation(needed.max(wanted));
        match self.take(work, work.run(&self.directory, &Pace::unlimited())) {
            None => Ok(()),
            Some(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                if small { Err(JournalError::Full) } else { self.prepare_now(needed) }
            }
            Some(error) => {
                self.failed = true;
                Err(JournalError::Failed(error))
            }
        }
    }

    /// Lets the helper do what the next appends would wait for.
    fn look_ahead(&mut self) {
        let Some(helper) = &self.helper else { return };
        if let Some(work) = self.under_way {
            let Some(done) = helper.poll() else { return self.keep_pace() };
            // An append that needs the file tries again, and says what is wrong.
            let _failed = self.take(work, done);
        }
        let work = if self.prepared.is_empty() && !self.no_room {
            let doubled = self.active.as_ref().map_or(0, |active| active.prepared.bytes.saturating_mul(2));
            self.preparation(doubled.clamp(self.small_bytes(), self.options.file_bytes))
        } else if let Some(old) = self.pop_surplus() {
            Work::Remove(old)
        } else {
            return;
        };
        if self.helper.as_ref().is_some_and(|helper| helper.begin(work)) {
            self.under_way = Some(work);
            self.keep_pace();
        } else {
            let _failed = self.take(work, Err(io::ErrorKind::BrokenPipe.into()));
        }
    }

    /// The next file is there when three quarters of this one are written.
    fn keep_pace(&self) {
        if let (Some(Work::Prepare { bytes, .. }), Some(helper), Some(active)) =
            (self.under_way, &self.helper, &self.active)
        {
            let soon = active.prepared.bytes - active.prepared.bytes / 4;
            let share = bytes.saturating_mul(active.at) / soon.max(1);
            helper.allow(if active.at >= soon { u64::MAX } else { share });
        }
    }

    /// Bytes of memory that are kept for the next group.
    #[cfg(test)]
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Returns when the helper has nothing to do.
    #[cfg(test)]
    pub(crate) fn wait_for_helper(&mut self) {
        if let (Some(work), Some(helper)) = (self.under_way, &self.helper) {
            let done = helper.wait();
            self.take(work, done);
        }
    }

    fn take(&mut self, work: Work, done: Done<D::File>) -> Option<io::Error> {
        self.under_way = None;
        match done {
            Ok(prepared) => {
                if let Work::Prepare { bytes, old: None, fill: Fill::Zeros { .. }, .. } = work {
                    self.zeroed += bytes;
                }
                self.prepared.extend(prepared);
                None
            }
            Err(error) => {
                // The same number and the same old file again: neither row of numbers may get a hole.
                let old = match work {
                    Work::Prepare { id, old, .. } => {
                        self.no_room = true;
                        self.next_number = id.number;
                        old
                    }
                    Work::Remove(old) => Some(old),
                };
                if let Some(old) = old {
                    self.full.push_front(old);
                }
                Some(error)
            }
        }
    }

    /// The next file, out of the oldest one if that may go and is long enough.
    fn preparation(&mut self, bytes: u64) -> Work {
        let id = FileId { number: self.next_number, salt: (self.salts)() };
        self.next_number += 1;
        let longest = bytes.max(self.options.file_bytes);
        let fits = |full: &Full| self.is_free(full) && (bytes..=longest).contains(&full.bytes);
        let old = if self.full.front().is_some_and(fits) { self.full.pop_front() } else { None };
        Work::Prepare { id, bytes: old.map_or(bytes, |old| old.bytes), old, fill: Fill::for_groups(self.average_bytes) }
    }

    /// Whether nothing in a full file is needed.
    fn is_free(&self, full: &Full) -> bool {
        // The file of the last group stays: it says where the journal ends.
        full.last.is_none_or(|last| last <= self.released && last != self.last)
    }

    /// Takes the oldest file if nothing in it is needed, and enough others stay. One of another size than the next ones have
    /// is not worth waiting for its turn.
    fn pop_surplus(&mut self) -> Option<Full> {
        let mut free = self.full.iter().take_while(|full| self.is_free(full));
        let oldest = free.next()?;
        let mut others = free.map(|full| full.bytes).peekable();
        others.peek()?;
        let surplus = oldest.bytes != self.options.file_bytes || others.sum::<u64>() >= self.reused_bytes;
        if surplus { self.full.pop_front() } else { None }
    }
}

impl<D: Directory> fmt::Debug for Journal<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, last, released, failed, .. } = self;
        let mut shown = f.debug_struct("Journal");
        shown.field("directory", directory).field("last", last).field("released", released).field("failed", failed);
        shown.finish_non_exhaustive()
    }
}
