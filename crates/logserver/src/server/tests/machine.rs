//! Random requests to a whole server over a store that stalls, runs full, fails and crashes: whatever was answered is there
//! after the next start, and nothing is taken behind a seal.

use std::collections::BTreeMap;

use bifrost_wire::log_server::StoreStream;
use proptest::prelude::*;
use tokio::task::{JoinHandle, yield_now};

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Store { loglet: usize, records: u64, tells: bool },
    Seal(usize),
    Settle(usize),
    Trim(usize, u64),
    Pass,
    Hold,
    Release,
    RunFull,
    Fail,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let loglet = || 0..2_usize;
    prop_oneof![
        20 => (loglet(), 1..4_u64, any::<bool>())
            .prop_map(|(loglet, records, tells)| Action::Store { loglet, records, tells }),
        1 => loglet().prop_map(Action::Seal),
        1 => prop::bool::weighted(0.3).prop_flat_map(move |settle| {
            loglet().prop_map(move |of| if settle { Action::Settle(of) } else { Action::Seal(of) })
        }),
        2 => (loglet(), 1..20_u64).prop_map(|(of, point)| Action::Trim(of, point)),
        12 => Just(Action::Pass),
        3 => Just(Action::Hold),
        5 => Just(Action::Release),
        1 => Just(Action::RunFull),
        1 => Just(Action::Fail),
        2 => Just(Action::Crash),
    ]
}

/// What outsiders know of a copy.
struct Copy {
    of: LogletId,
    /// Batches by first offset, as they were sent; sent again they are the same.
    batches: BTreeMap<u64, u64>,
    sent: u64,
    /// The highest local tail that was answered.
    answered: u64,
    told_committed: u64,
    /// The local tail that a seal was answered with.
    sealed: Option<u64>,
    decided: Option<u64>,
    trim_point: Option<LogletOffset>,
}

struct World {
    store: Arc<FaultyStore>,
    server: LogServerHandle,
    stream: Option<StoreStream>,
    copies: Vec<Copy>,
    calls: Vec<(usize, JoinHandle<Result<CopyState, CallError>>)>,
    tasks: TaskTracker,
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(FaultyStore::new());
        let copy = |log| Copy {
            of: loglet(log, 0),
            batches: BTreeMap::new(),
            sent: 1,
            answered: 1,
            told_committed: 1,
            sealed: None,
            decided: None,
            trim_point: None,
        };
        Self {
            server: start(Arc::clone(&store)).await,
            store,
            stream: None,
            copies: vec![copy(1), copy(2)],
            calls: Vec::new(),
            tasks: TaskTracker::new(),
        }
    }

    async fn act(&mut self, action: &Action) {
        match *action {
            Action::Store { loglet, records, tells } => self.send(loglet, records, tells).await,
            Action::Seal(of) => {
                let (server, loglet) = (self.server.clone(), self.copies[of].of);
                self.calls.push((of, self.tasks.spawn(async move { seal(&server, loglet, 1).await })));
            }
            Action::Settle(of) => {
                let copy = &self.copies[of];
                let (server, loglet, tail) = (self.server.clone(), copy.of, copy.answered.max(copy.told_committed));
                self.calls.push((of, self.tasks.spawn(async move { settle(&server, loglet, tail).await })));
            }
            Action::Trim(of, point) => {
                let (server, loglet) = (self.server.clone(), self.copies[of].of);
                self.calls.push((of, self.tasks.spawn(async move { trim(&server, loglet, point).await })));
            }
            Action::Pass => self.pass().await,
            Action::Hold => self.store.hold(),
            Action::Release => {
                self.store.release();
                self.pass().await;
            }
            Action::RunFull => self.store.fail_after(0, StoreError::Full),
            Action::Fail => self.store.break_after(0),
            Action::Crash => {
                self.pass().await;
                self.restart().await;
            }
        }
    }

    async fn send(&mut self, of: usize, records: u64, tells: bool) {
        if self.stream.is_none() {
            self.stream = self.server.open_store().await.ok();
        }
        let Some(stream) = &self.stream else { return self.restart().await };
        let copy = &mut self.copies[of];
        let first = copy.sent;
        let records = *copy.batches.entry(first).or_insert(records);
        if tells {
            copy.told_committed = copy.told_committed.max(copy.answered);
        }
        copy.sent = first + records;
        if stream.requests.try_send(store_request(copy.of, copy.told_committed, first, &[records])).is_err() {
            copy.sent = first;
            self.pass().await;
        }
    }

    /// Lets the server work, and takes what it answered.
    async fn pass(&mut self) {
        for _ in 0..64 {
            yield_now().await;
        }
        let mut gone = false;
        while let Some(stream) = &mut self.stream {
            match stream.replies.try_recv() {
                Ok(reply) => {
                    let of = self.copies.iter().position(|copy| copy.of == reply.loglet).unwrap();
                    self.copies[of].stored(said(reply));
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    gone = true;
                    break;
                }
            }
        }
        for (of, call) in std::mem::take(&mut self.calls) {
            if !call.is_finished() {
                self.calls.push((of, call));
            } else if let Ok(state) = call.await.unwrap() {
                self.copies[of].told(&state);
            }
        }
        if gone {
            self.restart().await;
        }
    }

    /// Loses what is not synced, and compares what comes back with what was promised.
    async fn restart(&mut self) {
        self.store.crash();
        self.server.shutdown().await;
        // What was on its way to us when it stopped was promised as well.
        while let Some(stream) = &mut self.stream
            && let Some(reply) = stream.replies.recv().await
        {
            let of = self.copies.iter().position(|copy| copy.of == reply.loglet).unwrap();
            self.copies[of].stored(said(reply));
        }
        for (of, call) in std::mem::take(&mut self.calls) {
            if let Ok(state) = call.await.unwrap() {
                self.copies[of].told(&state);
            }
        }
        self.stream = None;
        // A fault that did not come does not come in the next life.
        self.store.fail_after(u64::MAX, StoreError::Full);
        self.server = start(Arc::clone(&self.store)).await;
        for copy in &mut self.copies {
            copy.judge(&self.server).await;
            copy.sent = copy.answered;
        }
    }
}

impl Copy {
    fn stored(&mut self, outcome: Result<CopyState, CopyError>) {
        match outcome {
            Ok(state) => self.told(&state),
            Err(CopyError::Conflict { offset }) => panic!("the same bytes are a conflict at {offset}"),
            Err(_) => self.sent = self.answered,
        }
    }

    fn told(&mut self, state: &CopyState) {
        assert!(
            state.local_tail.get() <= self.batches.iter().map(|(first, records)| first + records).max().unwrap_or(1)
        );
        if let Some(tail) = self.sealed {
            assert!(state.local_tail.get() <= tail, "L3: something was taken behind the seal");
        }
        if state.sealed.is_some() {
            self.sealed.get_or_insert(state.local_tail.get());
        }
        if let Some(decided) = state.decided_tail {
            self.decided = Some(decided.get());
        }
        self.answered = self.answered.max(state.local_tail.get());
        self.trim_point = self.trim_point.max(state.trim_point);
    }

    async fn judge(&mut self, server: &LogServerHandle) {
        let now = state(server, self.of).await;
        assert!(self.sealed.is_none() || now.sealed.is_some(), "L3: an answered seal is gone");
        assert!(self.decided.is_none_or(|tail| now.decided_tail == Some(at(tail))), "an answered end is gone");
        assert!(now.trim_point >= self.trim_point, "an answered trim is gone");
        let until = now.decided_tail.map_or(self.answered, |decided| self.answered.min(decided.get()));
        assert!(now.local_tail.get() >= until, "L2: answered up to {until}, and {now:?} is there");
        let mut at_offset = now.trim_point.map_or(1, |point| point.get() + 1);
        if at_offset >= until {
            return;
        }
        let request = ReadRequest { readable_tail: at(until), ..read_request(self.of, at_offset, Some(until)) };
        for found in read_all(server, request).await {
            let ReadReply::Batch { first_offset, end, .. } = &found else { panic!("L2: {found:?} was answered") };
            let (first, records) = (first_offset.get(), end.get() - first_offset.get());
            assert_eq!(found, part(first, records), "other bytes came back");
            assert!(first <= at_offset && at_offset < end.get());
            at_offset = end.get();
        }
        assert_eq!(at_offset, until, "L2: what was answered is not all there");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_answered_survives(actions in prop::collection::vec(action(), 1..200)) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for action in &actions {
                world.act(action).await;
            }
            world.store.release();
            world.pass().await;
            world.restart().await;
        });
    }
}
