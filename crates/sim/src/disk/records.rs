//! The engine `files` on a disk: production's store, and what a crash may leave of its files and of its index.
//!
//! ```text
//!  commit ─► production's `files` ─► files in memory: blocks that are not synced     index in memory: rows not flushed
//!                  │                        │ crash: in the middle of any change,         │ crash: the last flush
//!                  │                        ▼ each block is there or not                  ▼
//!                  │                 opened on a copy at once: what of it is durable? ─► Stored, CopyWritten
//!                  └─ now and then, as drawn: checkpoints, compaction, files that go
//! ```
//! The platter of the disk says what must be there. The two are compared at every opening, and at the end of a run.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error as _;

use bifrost_logserver::store::{Cause, Chunk, Group, MemoryFiles, OpenFiles, Recovered, StoreError};
use bifrost_types::{LogletId, LogletOffset};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::platter::Platter;

/// Calls until files are kept in order, after there is something to do, at most.
const WAKES_WITHIN: u32 = 30;
/// A file goes when less than one of so many bytes in it is needed: production's shares, and one that moves more.
const SHARES: [u64; 3] = [4, 2, 1];
/// Changes of files that a crash lets through, at most: a commit that needs another file makes six.
const CHANGES_BEFORE_CRASH: u64 = 8;
/// The same for an opening, and for whoever keeps files in order.
const CHANGES_BEFORE_CRASH_OF_MANY: u64 = 24;

/// How the files of a disk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesOptions {
    /// Bytes of each file, whole blocks of 4 KiB.
    pub file_bytes: u64,
    /// Bytes of what was stored last that stay in memory for readers.
    pub recent_bytes: usize,
}

pub(super) struct Records {
    pub(super) options: FilesOptions,
    rng: SmallRng,
    files: MemoryFiles,
    /// The one of the present life.
    store: Option<OpenFiles>,
    /// Why it did not open.
    refusal: Option<StoreError>,
    /// Something failed: this life writes no more.
    broken: bool,
    /// The group in whose commit that was, and the last one before it. It is there in the next life, or not.
    doubtful: Option<(u64, Group)>,
    /// Calls until files are kept in order, if there is something to do.
    wakes_in: Option<u32>,
    /// What the store has not kept of what it was told to keep.
    failures: Vec<String>,
}

/// What was done to keep files in order.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Groups that were committed meanwhile.
    pub(super) committed: Vec<Group>,
    /// What happened, if anything did.
    pub(super) note: Option<String>,
}

impl Records {
    pub(super) fn new(options: FilesOptions, seed: u64) -> Self {
        Self {
            options,
            rng: SmallRng::seed_from_u64(seed ^ 0x3c6e_f372_fe94_f82b),
            files: MemoryFiles::default(),
            store: None,
            refusal: None,
            broken: false,
            doubtful: None,
            wakes_in: None,
            failures: Vec::new(),
        }
    }

    /// Begins a life. What is there is what must be there.
    pub(super) fn open(&mut self, platter: &Platter) {
        match self.open_files(&self.files.clone()) {
            Ok(store) => {
                self.store = Some(store);
                // What a crash left to be done.
                self.wake();
                self.compare(platter);
            }
            Err(refusal) => self.refusal = Some(refusal),
        }
    }

    fn open_files(&mut self, files: &MemoryFiles) -> Result<OpenFiles, StoreError> {
        let mut salts = SmallRng::seed_from_u64(self.rng.random());
        files.open(self.options.file_bytes, Box::new(move || salts.random()))
    }

    fn store(&self) -> Result<&OpenFiles, StoreError> {
        self.store.as_ref().ok_or(StoreError::Failed { cause: Cause::Abandoned })
    }

    /// Every state; or why the store did not open.
    pub(super) fn recover(&mut self) -> Result<Vec<Recovered>, StoreError> {
        match self.refusal.take() {
            Some(refusal) => Err(refusal),
            None => self.store()?.recover(),
        }
    }

    pub(super) fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        self.store()?.read(loglet, from, until, max_bytes)
    }

    /// Makes a group durable, and gives it back then.
    pub(super) fn commit(&mut self, group: Group) -> Result<Group, StoreError> {
        if self.broken {
            return Err(StoreError::Failed { cause: Cause::Abandoned });
        }
        let store = self.store()?;
        let before = store.last();
        match store.commit(&group) {
            Ok(wants) => {
                if wants {
                    self.wake();
                }
                if self.rng.random_ratio(1, 50) {
                    self.files.flush()?;
                }
                Ok(group)
            }
            Err(StoreError::Full) => Err(StoreError::Full),
            Err(error) => {
                self.broken = true;
                self.doubtful = Some((before, group));
                Err(error)
            }
        }
    }

    /// Files are to be kept in order soon.
    fn wake(&mut self) {
        if self.wakes_in.is_none() {
            self.wakes_in = Some(self.rng.random_range(0..=WAKES_WITHIN));
        }
    }

    /// Files are to be kept in order now: there is little room.
    pub(super) const fn reclaim(&mut self) {
        self.wakes_in = Some(0);
    }

    /// Time passes: somebody calls. Keeps files in order when it is time for that; what waits for its fsync may be committed
    /// in between.
    pub(super) fn pass(&mut self, pending: &mut VecDeque<(u64, Group)>) -> Kept {
        match self.wakes_in {
            Some(0) => self.wakes_in = None,
            Some(calls) => {
                self.wakes_in = Some(calls.saturating_sub(1));
                return Kept::default();
            }
            None => return Kept::default(),
        }
        let Self { store: Some(store), rng, doubtful, broken, .. } = self else { return Kept::default() };
        let before = (store.last(), names(store));
        let share = *SHARES.choose(rng).unwrap_or(&1);
        let mut committed = Vec::new();
        let kept = store.keep(share, |_| {
            if let Some((_, group)) = pending.front().filter(|_| !*broken)
                && rng.random_ratio(1, 4)
            {
                let last = store.last();
                match store.commit(group) {
                    Ok(_) => committed.extend(pending.pop_front().map(|(_, group)| group)),
                    Err(StoreError::Full) => {}
                    Err(_) => {
                        *broken = true;
                        *doubtful = Some((last, group.clone()));
                        return false;
                    }
                }
            }
            !rng.random_ratio(1, 40)
        });
        *broken |= matches!(kept, Err(StoreError::Failed { .. }));
        let (last, names) = (store.last(), names(store));
        let (moved, gone) = (last - before.0 - committed.len() as u64, before.1.difference(&names).count());
        let note = match (moved, gone, kept) {
            (_, _, Err(error)) => Some(format!("files cannot be kept in order: {error}")),
            (0, 0, Ok(())) => None,
            (moved, gone, Ok(())) => Some(format!("{gone} files go, and {moved} groups are moved out of others")),
        };
        Kept { committed, note }
    }

    /// A life ends, in a crash of the machine or of the process alone. Returns the groups that are durable of those that were
    /// not synced.
    pub(super) fn end_life(&mut self, pending: Vec<Group>, crash: bool) -> Vec<Group> {
        let mut durable = Vec::new();
        if let Some(store) = self.store.take() {
            if crash && self.wakes_in.is_some() && self.rng.random_bool(0.5) {
                self.stop_within(CHANGES_BEFORE_CRASH_OF_MANY);
                self.broken |= store.keep(1, |_| true).is_err();
            }
            if crash && !self.broken {
                self.stop_within(CHANGES_BEFORE_CRASH);
            }
            for group in pending {
                if self.broken {
                    break;
                }
                let last = store.last();
                match store.commit(&group) {
                    Ok(_) => durable.push(group),
                    Err(StoreError::Full) => {}
                    Err(_) => {
                        self.broken = true;
                        self.doubtful = Some((last, group));
                    }
                }
            }
        }
        self.end_process(crash);
        if crash && self.rng.random_ratio(1, 4) {
            // It dies once more, in the middle of an opening.
            self.stop_within(CHANGES_BEFORE_CRASH_OF_MANY);
            drop(self.open_files(&self.files.clone()));
            self.end_process(crash);
        }
        (self.broken, self.wakes_in, self.refusal) = (false, None, None);
        let doubtful = self.doubtful.take();
        match (self.open_files(&self.files.copy()), doubtful) {
            (Ok(found), Some((before, group))) if found.last() > before => durable.push(group),
            (Ok(_), _) => {}
            (Err(error), _) => self.fail(format!("after a crash it does not open: {}", chain(&error))),
        }
        durable
    }

    fn stop_within(&mut self, changes: u64) {
        self.files.directory().stop_after(self.rng.random_range(0..=changes));
    }

    /// The process ends, and the machine with it or not.
    fn end_process(&mut self, crash: bool) {
        let Self { files, rng, .. } = self;
        match if crash { rng.random_range(0..4) } else { 0 } {
            0 => files.kill(),
            1 => files.crash(|| false),
            _ => files.crash(|| rng.random_bool(0.5)),
        }
    }

    /// Looks whether the store has what it must have, and nothing else.
    pub(super) fn compare(&mut self, platter: &Platter) {
        let Ok(store) = self.store() else { return };
        let mut differing = Vec::new();
        match store.recover() {
            Ok(states) if states == platter.recover() => {}
            Ok(_) => differing.push("other promises are there than were made".to_owned()),
            Err(error) => differing.push(format!("promises cannot be read: {}", chain(&error))),
        }
        for Recovered { loglet, .. } in platter.recover() {
            let (from, until) = (LogletOffset::FIRST, LogletOffset::MAX);
            let must = platter.read(loglet, from, until, usize::MAX).parts;
            match store.read(loglet, from, until, usize::MAX) {
                Ok(found) if found.parts == must => {}
                Ok(found) => {
                    let differs = found.parts.iter().zip(&must).find(|(found, must)| found != must);
                    let at = differs.map_or_else(|| "the end".to_owned(), |(_, must)| must.first_offset().to_string());
                    let (found, must) = (found.parts.len(), must.len());
                    differing.push(format!("of {loglet} {found} batches for {must}, others from {at} on"));
                }
                Err(error) => differing.push(format!("{loglet} cannot be read: {}", chain(&error))),
            }
        }
        differing.into_iter().for_each(|what| self.fail(what));
    }

    fn fail(&mut self, what: String) {
        if !self.failures.contains(&what) {
            self.failures.push(what);
        }
    }

    /// What was found wrong so far.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Flips a bit of a batch, now or while the machine is down. Whether it was done.
    pub(super) fn damage(&mut self, loglet: LogletId, first_offset: LogletOffset, byte: u64) -> bool {
        if let Some(store) = &self.store {
            return store.damage(loglet, first_offset, byte).unwrap_or(false);
        }
        let opened = self.open_files(&self.files.clone());
        let damaged = opened.and_then(|store| store.damage(loglet, first_offset, byte));
        self.files.kill();
        damaged.unwrap_or(false)
    }

    /// Everything is gone, and what may still fail too.
    pub(super) fn wipe(&mut self) {
        self.files = MemoryFiles::default();
        (self.store, self.refusal, self.doubtful, self.wakes_in, self.broken) = (None, None, None, None, false);
    }

    /// Bytes of the files.
    pub(super) fn used(&self) -> u64 {
        self.files.directory().bytes()
    }

    /// Files may take so much in all.
    pub(super) fn limit(&self, bytes: u64) {
        self.files.directory().limit(Some(usize::try_from(bytes / 4096).unwrap_or(usize::MAX)));
    }

    /// So many of the next fsyncs fail.
    pub(super) fn fail_fsyncs(&self, fsyncs: u32) {
        self.files.directory().fail_syncs(fsyncs);
    }
}

fn names(store: &OpenFiles) -> BTreeSet<String> {
    store.names().into_iter().flatten().collect()
}

/// What happened, with its causes.
fn chain(error: &StoreError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(": ");
        told.push_str(&error.to_string());
        cause = error.source();
    }
    told
}
