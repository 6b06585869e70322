//! Long random schedules of three members: crashes, cut and lossy ways, snapshots, under writes and reads. The clock is
//! virtual.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::mesh::Way;

/// Keys that are written.
const KEYS: u64 = 4;

/// What happens next. Members are 1 to 3.
#[derive(Debug, Clone)]
enum Action {
    Write(u64),
    Read(u64),
    /// Power is lost; so many unsynced writes survive. The member stays away.
    Crash(u64, usize),
    /// The member stops in the middle of the write after so many.
    StopIn(u64, u64),
    Restart(u64),
    /// Power is lost everywhere at once.
    CrashAll(usize),
    Isolate(u64, bool),
    Way(u64, u64, Way),
    Snapshot(u64),
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let id = 1..4_u64;
    let way = (any::<bool>(), 0..80_u64, 0..4_u64).prop_map(|(cut, delay, lose_every)| Way {
        cut,
        delay: Duration::from_millis(delay),
        lose_every,
        ..Way::default()
    });
    prop_oneof![
        12 => (0..KEYS).prop_map(Action::Write),
        4 => (0..KEYS).prop_map(Action::Read),
        2 => (id.clone(), 0..3_usize).prop_map(|(id, kept)| Action::Crash(id, kept)),
        2 => (id.clone(), 0..5_u64).prop_map(|(id, writes)| Action::StopIn(id, writes)),
        4 => id.clone().prop_map(Action::Restart),
        1 => (0..3_usize).prop_map(Action::CrashAll),
        3 => (id.clone(), prop::bool::weighted(0.4)).prop_map(|(id, cut)| Action::Isolate(id, cut)),
        2 => (id.clone(), id.clone(), way).prop_map(|(from, to, way)| Action::Way(from, to, way)),
        1 => id.clone().prop_map(Action::Snapshot),
        4 => (1..1500_u64).prop_map(Action::Wait),
    ]
}

struct World {
    group: Group,
    /// Of each key, the last revision that somebody was told of.
    told: BTreeMap<u64, u64>,
    revisions: BTreeSet<u64>,
    writes: u64,
}

impl World {
    async fn act(&mut self, action: &Action) {
        match *action {
            Action::Write(key) => self.write(key).await,
            Action::Read(key) => self.read(key).await,
            Action::Crash(id, kept) => self.crash(id, kept).await,
            Action::StopIn(id, writes) => self.group.disks[&id].stop_after(writes),
            Action::Restart(id) => self.restart(id).await,
            Action::CrashAll(kept) => {
                (1..=3).for_each(|id| self.group.disks[&id].stop());
                for id in 1..=3 {
                    self.crash(id, kept).await;
                    self.restart(id).await;
                }
            }
            Action::Isolate(id, cut) => self.group.isolate(id, cut),
            Action::Way(from, to, way) => self.group.mesh.set(m(from), m(to), way),
            Action::Snapshot(id) => {
                if let Some(member) = self.group.members.get(&id) {
                    // One that has stopped makes none.
                    let _ = member.snapshot().await;
                }
            }
            Action::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
    }

    async fn crash(&mut self, id: u64, kept: usize) {
        if self.group.members.contains_key(&id) {
            self.group.stop(id).await;
        }
        self.group.disks[&id].crash(kept);
    }

    /// Starts a member that is away or has stopped.
    async fn restart(&mut self, id: u64) {
        if self.group.members.get(&id).is_some_and(|member| member.status().role == Role::Stopped) {
            self.crash(id, 0).await;
        }
        if !self.group.members.contains_key(&id) {
            self.group.start(id).await;
        }
    }

    async fn write(&mut self, key: u64) {
        for member in self.group.members.values() {
            self.writes += 1;
            match member.txn(Txn::new().put(format!("k{key}"), self.writes.to_string())).await {
                Ok(TxnOutcome::Committed(revision)) => {
                    assert!(self.revisions.insert(revision), "revision {revision} was given twice");
                    let told = self.told.insert(key, revision);
                    assert!(told < Some(revision), "revision {revision} was told after {told:?}");
                    return;
                }
                Ok(TxnOutcome::Conflict(_)) => panic!("no preconditions"),
                Err(MetadataError::Unknown | MetadataError::Unavailable) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn read(&self, key: u64) {
        for member in self.group.members.values() {
            if let Ok(found) = member.get(format!("k{key}")).await {
                let revision = found.map(|found| found.revision);
                let told = self.told.get(&key).copied();
                assert!(revision >= told, "{revision:?} was read after {told:?} was told");
            }
        }
    }

    async fn heal(mut self) {
        for (from, to) in (1..=3).flat_map(|from| (1..=3).map(move |to| (from, to))) {
            self.group.mesh.set(m(from), m(to), Way::default());
        }
        for id in 1..=3 {
            // Also one whose disk is about to stop.
            self.crash(id, 0).await;
            self.restart(id).await;
        }
        self.group.put("healed", "1").await;
        let agreed = self.group.agree(&[1, 2, 3]).await;
        for (key, told) in self.told {
            let found = agreed.get(&format!("k{key}")).map(|found| found.revision);
            assert!(found >= Some(told), "k{key} has revision {found:?}, but {told} was told");
        }
        self.group.end().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_was_told_is_lost_and_no_read_goes_back(actions in prop::collection::vec(action(), 1..80)) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let group = Group::of(&[1, 2, 3]).await;
            let (told, revisions) = (BTreeMap::new(), BTreeSet::new());
            let mut world = World { group, told, revisions, writes: 0 };
            for action in &actions {
                world.act(action).await;
            }
            world.heal().await;
        });
    }
}
