//! Long random schedules of what openraft asks of a disk, with crashes between the steps and in the middle of them.

use openraft::storage::RaftStateMachine;
use proptest::prelude::*;

use super::crash::{Kept, Step, step};
use super::*;

/// What happens next; the numbers are picks among what is possible.
#[derive(Debug, Clone)]
enum Action {
    /// The leader of this term sends entries.
    Append(u64),
    /// A leader of a later term overwrites a part of what is not committed.
    Overwrite(usize),
    /// Entries become committed, and are applied.
    Commit(usize),
    Snapshot,
    Purge(usize),
    /// A leader of a later term sends a snapshot that goes so far beyond the log.
    Install(u64),
    /// Power is lost; so many unsynced writes survive.
    Crash(usize),
    /// Power is lost in the middle of the write after so many.
    CrashIn(u64, usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1..5_u64).prop_map(Action::Append),
        2 => (0..8_usize).prop_map(Action::Overwrite),
        4 => (0..8_usize).prop_map(Action::Commit),
        1 => Just(Action::Snapshot),
        2 => (0..20_usize).prop_map(Action::Purge),
        1 => (1..4_u64).prop_map(Action::Install),
        2 => (0..4_usize).prop_map(Action::Crash),
        2 => (0..6_u64, 0..4_usize).prop_map(|(writes, kept)| Action::CrashIn(writes, kept)),
    ]
}

struct World {
    engine: MemoryEngine,
    log: LogStore,
    machine: StateMachine,
    term: u64,
    committed: Option<LogId>,
    kept: Kept,
    /// How many unsynced writes survive the crash that comes in the middle of a step.
    pending: Option<usize>,
}

impl World {
    fn new() -> Self {
        let engine = MemoryEngine::new();
        let (log, machine) = open(&engine).unwrap();
        Self { engine, log, machine, term: 1, committed: None, kept: Kept::default(), pending: None }
    }

    fn last(&self) -> Option<LogId> {
        self.kept.ids.last().copied().max(self.kept.covered)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn entries(&self, count: u64) -> Vec<Entry> {
        (self.next()..self.next() + count).map(|index| write(self.term, index, &format!("k{}", index % 5))).collect()
    }

    /// Entries that are not committed.
    fn open(&self) -> Vec<LogId> {
        self.kept.ids.iter().copied().filter(|id| Some(*id) > self.committed).collect()
    }

    async fn act(&mut self, action: &Action) {
        match action {
            Action::Append(count) => self.step(Step::Append(self.entries(*count))).await,
            Action::Overwrite(pick) => {
                self.term += 1;
                let open = self.open();
                let first = open.get(pick % (open.len() + 1)).copied();
                self.step(Step::Vote(self.term)).await;
                if let Some(first) = first {
                    self.step(Step::Truncate(first)).await;
                }
                self.step(Step::Append(self.entries(1))).await;
            }
            Action::Commit(pick) => {
                let open = self.open();
                if let Some(id) = open.get(*pick) {
                    self.committed = Some(*id);
                    self.step(Step::Committed(*id)).await;
                }
                self.apply().await;
            }
            Action::Snapshot => self.step(Step::Snapshot).await,
            Action::Purge(pick) => {
                let ids = ids(&mut self.log).await;
                let covered = ids.into_iter().filter(|id| Some(*id) <= self.kept.covered);
                if let Some(upto) = covered.take(pick + 1).last() {
                    self.step(Step::Purge(upto)).await;
                }
            }
            Action::Install(beyond) => {
                self.term += 1;
                let upto = id(self.term, self.next() + beyond);
                self.step(Step::Vote(self.term)).await;
                if let Some(first) = self.open().first().copied() {
                    self.step(Step::Truncate(first)).await;
                }
                // In this order, as openraft does: what the snapshot stands for goes before it is there. After a crash in
                // the middle the leader sends it again.
                self.step(Step::Purge(upto)).await;
                self.step(Step::Install(upto, 10)).await;
                self.committed = self.committed.max(self.kept.covered);
            }
            Action::Crash(kept) => self.crash(*kept, None).await,
            Action::CrashIn(writes, kept) => {
                self.engine.stop_after(*writes);
                self.pending = Some(*kept);
            }
        }
    }

    async fn step(&mut self, next: Step) {
        let after = self.kept.clone().after(&next);
        if step(&mut self.log, &mut self.machine, &next).await {
            self.kept = after;
        } else {
            let kept = self.pending.take().expect("a disk fails only when it is told to");
            self.crash(kept, Some(after)).await;
        }
    }

    async fn apply(&mut self) {
        let applied = self.machine.applied_state().await.unwrap().0;
        let Some(committed) = self.committed.filter(|committed| Some(*committed) > applied) else { return };
        let start = applied.map_or(0, |applied| applied.index + 1);
        let entries = self.log.try_get_log_entries(start..=committed.index).await;
        let Ok(entries) = entries else { return };
        assert_eq!(entries.last().map(|entry| entry.log_id), Some(committed), "what is committed is there");
        self.step(Step::Apply(entries)).await;
    }

    /// The process is gone and comes back: what was answered is there, and `half` may be there.
    async fn crash(&mut self, kept: usize, half: Option<Kept>) {
        self.engine.crash(kept);
        self.pending = None;
        let (log, machine) = open(&self.engine).unwrap_or_else(|error| panic!("it does not open: {error:?}"));
        (self.log, self.machine) = (log, machine);
        let found = Kept::found(&mut self.log, &mut self.machine).await;
        let bare = |state: &Kept| Kept { applied: None, ..state.clone() };
        let state = [Some(self.kept.clone()), half].into_iter().flatten().find(|state| bare(state) == found);
        self.kept = state.unwrap_or_else(|| panic!("{found:?} is left of {:?}", self.kept));
        // Applied is what the snapshot covers; the log has the rest.
        self.kept.applied = self.kept.covered;
        self.committed = self.committed.max(self.kept.covered);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_takes_back_what_was_answered(actions in prop::collection::vec(action(), 1..150)) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for action in &actions {
                world.act(action).await;
            }
            world.crash(0, None).await;
        });
    }
}
