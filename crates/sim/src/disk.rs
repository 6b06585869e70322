//! A disk that tells synced from written, and fails as disks do.
//!
//! ```text
//!  SimStore::commit(group) ─► pending ──── fsync: waits its latency ────► platter        Stored, CopyWritten
//!                                │                     │
//!                    crash: a random prefix            └── fails: pending is lost, and the life that goes on all the
//!                    reaches the platter                   same writes behind a hole, where no later life looks
//! ```
//!
//! A [`Disk`] outlives the processes that use it; a [`SimStore`] is one opening of it and cannot write once there was
//! another one, or a crash. Whoever drives the faults holds the disk; the log server holds the store.
//!
//! On some disks production's engine `files` keeps what is committed; the platter then says what must be there.
//!
//! Reading order: this file (the disk and what may befall it), `store` (what a log server sees), `platter`
//! (what is there), `records` (the engine `files`), `boot` (what a starting node asks).

mod boot;
mod platter;
mod records;
mod store;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bifrost_checker::event::{CopyFacts, Event};
use bifrost_logserver::copy::DurableState;
use bifrost_logserver::store::{Cause, Chunk, Group, Recovered, StoreError};
use bifrost_logserver::{Marker, SpaceOptions};
use bifrost_types::{LogletId, LogletOffset};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use self::platter::{Platter, group_bytes};
pub use self::records::FilesOptions;
use self::records::{Kept, Records};
pub use self::store::SimStore;
use crate::history::{History, value_of};

/// How long the operations of a disk take. Tokio's timer rounds up to whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLatency {
    /// The shortest fsync. 0 for one that does not wait at all, if `fsync_max` is 0 as well.
    pub fsync_min: Duration,
    /// The longest fsync that is no stall.
    pub fsync_max: Duration,
    /// How many fsyncs in a hundred stall.
    pub stall_percent: u8,
    /// The longest stall; the shortest is `fsync_max`.
    pub stall_max: Duration,
    /// The longest read.
    pub read_max: Duration,
}

impl DiskLatency {
    /// Nothing waits.
    pub const NONE: Self = Self {
        fsync_min: Duration::ZERO,
        fsync_max: Duration::ZERO,
        stall_percent: 0,
        stall_max: Duration::ZERO,
        read_max: Duration::ZERO,
    };
}

impl Default for DiskLatency {
    /// A disk that is well: an fsync takes up to 3 ms, one in a hundred up to 30 ms.
    fn default() -> Self {
        Self {
            fsync_min: Duration::from_micros(100),
            fsync_max: Duration::from_millis(3),
            stall_percent: 1,
            stall_max: Duration::from_millis(30),
            read_max: Duration::from_millis(1),
        }
    }
}

/// How bytes rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The store notices by itself.
    Frame,
    /// One bit, behind an intact frame: only the checksums of records tell. The engine `files` has a checksum of its own
    /// there, and notices.
    Bit,
}

/// One disk. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

struct State {
    name: String,
    history: History,
    rng: SmallRng,
    latency: DiskLatency,
    capacity_bytes: u64,
    /// What others wrote on the same file system.
    foreign_bytes: u64,
    ballast: bool,
    fsyncs_to_fail: u32,
    /// Grows with each opening and each crash; only a store of the present life may use the disk.
    life: u64,
    marker: Option<Marker>,
    /// The engine that keeps it; `None` for the platter itself.
    records: Option<Records>,
    /// What is durable.
    platter: Platter,
    /// What the present life sees once one of its fsyncs failed; a later life finds the platter.
    behind_hole: Option<Platter>,
    /// What is written and not synced, by the number of the group, in order.
    pending: VecDeque<(u64, Group)>,
    next_group: u64,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Disk").field("name", &state.name).field("life", &state.life).finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty disk of `capacity_bytes`. `name` is for the notes in the history; everything random comes from `seed`.
    pub fn new(name: impl Into<String>, seed: u64, capacity_bytes: u64, history: History) -> Self {
        let state = State {
            name: name.into(),
            history,
            rng: SmallRng::seed_from_u64(seed),
            latency: DiskLatency::default(),
            capacity_bytes,
            foreign_bytes: 0,
            ballast: false,
            fsyncs_to_fail: 0,
            life: 0,
            marker: None,
            records: None,
            platter: Platter::default(),
            behind_hole: None,
            pending: VecDeque::new(),
            next_group: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The same, where the engine `files` keeps what is stored.
    pub fn on_files(
        name: impl Into<String>,
        seed: u64,
        capacity_bytes: u64,
        history: History,
        options: FilesOptions,
    ) -> Self {
        let disk = Self::new(name, seed, capacity_bytes, history);
        let mut state = disk.state.lock();
        state.records = Some(Records::new(options, seed));
        state.share_room();
        drop(state);
        disk
    }

    /// Bytes of what was stored last that its log server keeps in memory, if it keeps files.
    pub fn recent_bytes(&self) -> Option<usize> {
        self.state.lock().records.as_ref().map(|records| records.options.recent_bytes)
    }

    /// Opens it: stores of earlier lives cannot use it any more. What an earlier life wrote and did not sync is there as a
    /// whole, because the machine went on; what it wrote behind a failed fsync is not.
    pub fn open(&self) -> SimStore {
        let mut state = self.state.lock();
        state.end_life(false);
        state.begin_life();
        SimStore::new(Arc::clone(&self.state), state.life)
    }

    /// The machine dies: a random prefix of what was not synced is durable all the same. The group behind the prefix may
    /// have been half written; recovery notices that and drops it whole.
    pub fn crash(&self) {
        self.state.lock().end_life(true);
    }

    /// The disk is replaced by an empty one, without a marker. Whoever uses it has lost it.
    pub fn wipe(&self) {
        let mut state = self.state.lock();
        state.note(format_args!("wiped"));
        state.life += 1;
        state.pending.clear();
        state.behind_hole = None;
        state.platter = Platter::default();
        state.ballast = false;
        state.records.iter_mut().for_each(Records::wipe);
        state.share_room();
        if let Some(marker) = state.marker.take() {
            state.history.record(Event::DiskLost { disk: marker.disk });
        }
    }

    /// How long its operations take from now on.
    pub fn set_latency(&self, latency: DiskLatency) {
        self.state.lock().latency = latency;
    }

    /// That many of the next fsyncs fail, and lose what they should have synced.
    pub fn fail_fsyncs(&self, fsyncs: u32) {
        let mut state = self.state.lock();
        match &state.records {
            Some(records) => records.fail_fsyncs(fsyncs),
            None => state.fsyncs_to_fail = fsyncs,
        }
    }

    /// Others fill the file system until only this much is free.
    pub fn fill(&self, free_bytes: u64) {
        let mut state = self.state.lock();
        state.foreign_bytes = 0;
        state.foreign_bytes = state.free_bytes().saturating_sub(free_bytes);
        state.share_room();
    }

    /// Others give back what they took.
    pub fn free_up(&self) {
        let mut state = self.state.lock();
        state.foreign_bytes = 0;
        state.share_room();
    }

    /// Damages an intact batch drawn at random. Returns which, or `None` if there is none.
    pub fn damage_any(&self, damage: Damage) -> Option<(LogletId, LogletOffset)> {
        let mut state = self.state.lock();
        let intact = state.platter.intact();
        let place = *intact.choose(&mut state.rng)?;
        state.damage(place, damage).then_some(place)
    }

    /// Damages the batch that starts at `first_offset`. Returns whether there was an intact one.
    pub fn damage(&self, loglet: LogletId, first_offset: LogletOffset, damage: Damage) -> bool {
        self.state.lock().damage((loglet, first_offset), damage)
    }

    /// Where intact batches lie, in order.
    pub fn batches(&self) -> Vec<(LogletId, LogletOffset)> {
        self.state.lock().platter.intact()
    }

    /// Where batches lie, damaged ones too, in order.
    pub fn places(&self) -> Vec<(LogletId, LogletOffset)> {
        self.state.lock().platter.places()
    }

    /// Whose disk it is.
    pub fn marker(&self) -> Option<Marker> {
        self.state.lock().marker
    }

    /// Says whose disk it is; durable at once.
    pub fn set_marker(&self, marker: Marker) {
        self.state.lock().marker = Some(marker);
    }

    /// What its engine has not kept of what it was told to keep, as far as that is known; asked while the engine is open, all
    /// of it is read once more.
    pub fn failures(&self) -> Vec<String> {
        let mut state = self.state.lock();
        let State { records, platter, .. } = &mut *state;
        let Some(records) = records else { return Vec::new() };
        records.compare(platter);
        records.failures().to_vec()
    }

    /// How many groups are written and not synced.
    pub fn unsynced(&self) -> usize {
        self.state.lock().pending.len()
    }
}

impl State {
    fn note(&self, what: fmt::Arguments<'_>) {
        self.history.note(format!("disk of {}: {what}", self.name));
    }

    /// Ends the present life; what is kept of the groups that it did not sync is durable.
    fn end_life(&mut self, crash: bool) {
        self.life += 1;
        let mut pending: Vec<Group> = std::mem::take(&mut self.pending).into_iter().map(|(_, group)| group).collect();
        let unsynced = pending.len();
        if let Some(records) = &mut self.records {
            pending = records.end_life(pending, crash);
        } else if crash && unsynced > 0 {
            pending.truncate(self.rng.random_range(0..=unsynced));
        }
        if crash && unsynced > 0 {
            let torn = if pending.len() < unsynced { ", the next one may be torn" } else { "" };
            self.note(format_args!("crash: {} of {unsynced} unsynced groups are kept{torn}", pending.len()));
        }
        // What was written behind a hole is not found by a recovery that reads up to the hole.
        if self.behind_hole.take().is_none() {
            pending.into_iter().for_each(|group| self.make_durable(group));
        }
    }

    fn begin_life(&mut self) {
        if let Some(records) = &mut self.records {
            records.open(&self.platter);
        }
    }

    /// Time passes for the engine: somebody calls.
    fn pass(&mut self) {
        let Some(records) = &mut self.records else { return };
        let Kept { committed, note } = records.pass(&mut self.pending);
        committed.into_iter().for_each(|group| self.make_durable(group));
        if let Some(note) = note {
            self.note(format_args!("{note}"));
        }
    }

    fn recover(&mut self) -> Result<Vec<Recovered>, StoreError> {
        match &mut self.records {
            Some(records) => records.recover(),
            None => Ok(self.view().recover()),
        }
    }

    fn read(
        &mut self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        self.pass();
        match &self.records {
            Some(records) => records.read(loglet, from, until, max_bytes),
            None => Ok(self.view().read(loglet, from, until, max_bytes)),
        }
    }

    /// What the present life sees.
    fn view(&self) -> &Platter {
        self.behind_hole.as_ref().unwrap_or(&self.platter)
    }

    fn free_bytes(&self) -> u64 {
        let unsynced = self.pending.iter().map(|(_, group)| group_bytes(group)).fold(0, u64::saturating_add);
        let taken = self.records.as_ref().map_or_else(|| self.view().used().saturating_add(unsynced), Records::used);
        self.room().saturating_sub(taken)
    }

    /// What the store may take in all.
    fn room(&self) -> u64 {
        let ballast = if self.ballast { self.marks().ballast_bytes } else { 0 };
        self.capacity_bytes.saturating_sub(ballast).saturating_sub(self.foreign_bytes)
    }

    /// Tells the engine what it may take.
    fn share_room(&self) {
        if let Some(records) = &self.records {
            records.limit(self.room());
        }
    }

    fn marks(&self) -> bifrost_logserver::space::Marks {
        SpaceOptions { reserve_bytes: Some(1 << 20), ballast_bytes: Some(1 << 16) }.marks(self.capacity_bytes, 1 << 20)
    }

    /// The fsync that was begun for everything up to the group `upto` is over.
    fn synced(&mut self, upto: u64) -> Result<(), StoreError> {
        if self.records.is_some() {
            return self.commit_to_files(upto);
        }
        if self.fsyncs_to_fail > 0 {
            self.fsyncs_to_fail -= 1;
            self.note(format_args!("an fsync fails, {} groups are lost", self.pending.len()));
            // The pages stay in memory, marked clean: this process goes on seeing them, and no fsync writes them again.
            let mut seen = self.view().clone();
            for (_, group) in std::mem::take(&mut self.pending) {
                seen.apply(group);
            }
            self.behind_hole = Some(seen);
            return Err(StoreError::Failed { cause: Cause::Injected });
        }
        while self.pending.front().is_some_and(|(number, _)| *number <= upto) {
            let Some((_, group)) = self.pending.pop_front() else { break };
            match &mut self.behind_hole {
                Some(seen) => drop(seen.apply(group)),
                None => self.make_durable(group),
            }
        }
        Ok(())
    }

    /// The engine makes everything up to the group `upto` durable; some may be already.
    fn commit_to_files(&mut self, upto: u64) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        while self.pending.front().is_some_and(|(number, _)| *number <= upto) {
            let (Some((number, group)), Some(records)) = (self.pending.pop_front(), &mut self.records) else { break };
            match records.commit(group) {
                Ok(group) => self.make_durable(group),
                Err(error) => {
                    self.note(format_args!("a commit fails: {error}"));
                    if number == upto {
                        outcome = Err(error);
                    }
                }
            }
        }
        self.pass();
        outcome
    }

    fn make_durable(&mut self, group: Group) {
        let written = self.platter.apply(group);
        let Some(marker) = self.marker else { return };
        let (node, disk) = (marker.node, marker.disk);
        for (loglet, batch) in written.batches {
            let (first_offset, end) = (batch.first_offset, batch.end);
            let bytes = value_of(batch.bytes());
            self.history.record(Event::Stored { node, disk, loglet, first_offset, end, bytes });
        }
        for (loglet, state) in written.states {
            self.history.record(Event::CopyWritten { node, disk, loglet, facts: facts(&state) });
        }
    }

    fn damage(&mut self, place: (LogletId, LogletOffset), damage: Damage) -> bool {
        let byte = match self.platter.batch_bytes(place) {
            0 => return false,
            bytes => self.rng.random_range(0..bytes),
        };
        let (loglet, first_offset) = place;
        let damage = match self.records.as_mut().map(|records| records.damage(loglet, first_offset, byte as u64)) {
            Some(true) => Damage::Frame,
            Some(false) => return false,
            None => damage,
        };
        let hit = |platter: &mut Platter| match damage {
            Damage::Frame => platter.damage(place),
            Damage::Bit => platter.flip_bit(place, byte),
        };
        let damaged = hit(&mut self.platter);
        if let Some(seen) = &mut self.behind_hole {
            hit(seen);
        }
        if let (true, Some(marker)) = (damaged, self.marker) {
            self.history.record(Event::BatchDamaged { disk: marker.disk, loglet, first_offset });
        }
        damaged
    }

    fn fsync_latency(&mut self) -> Duration {
        let DiskLatency { fsync_min, fsync_max, stall_percent, stall_max, .. } = self.latency;
        let stalls = stall_percent > 0 && self.rng.random_range(0..100) < stall_percent;
        if stalls { self.between(fsync_max, stall_max) } else { self.between(fsync_min, fsync_max) }
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        if least >= most { least } else { self.rng.random_range(least..=most) }
    }
}

fn facts(state: &DurableState) -> CopyFacts {
    CopyFacts {
        bound: state.bound,
        local_tail: state.local_tail,
        committed_tail: state.committed_tail,
        sealed: state.seal.map(|seal| seal.repair),
        decided_tail: state.decided_tail,
        trim_point: state.trim_point,
    }
}
