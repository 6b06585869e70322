//! Notes what a test does with one log, one thing after the other, and has the checker judge it.

use std::hash::{DefaultHasher, Hash, Hasher};

use bifrost::{LogId, Lsn, Reconfigured};
use bifrost_checker::event::{AppendOutcome, AppenderId, CallId, Event, ReaderId, ReconfigureOutcome, Value};
use bifrost_checker::{Checker, End};
use bifrost_types::{Chain, OpId};
use bytes::Bytes;

/// The history of one log. No payload may be appended twice.
#[derive(Debug)]
pub struct Judge {
    checker: Checker,
    log: LogId,
    at: u64,
    names: u64,
}

/// What a payload is called in a history.
fn value(payload: &Bytes) -> Value {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    Value(hasher.finish())
}

impl Judge {
    pub fn new(log: LogId) -> Self {
        Self { checker: Checker::new(), log, at: 0, names: 0 }
    }

    fn see(&mut self, event: &Event) {
        self.at += 1;
        self.checker.observe(self.at, event);
    }

    /// Never used before.
    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// The append of an atomic batch begins.
    pub fn begun(&mut self, payloads: &[Bytes]) -> Vec<CallId> {
        let appender = AppenderId(self.name());
        let mut calls = Vec::new();
        for payload in payloads {
            let (call, log, value) = (CallId(self.name()), self.log, value(payload));
            self.see(&Event::AppendInvoked { call, appender, log, value });
            calls.push(call);
        }
        calls
    }

    /// It ends, or is found out about later: its first LSN.
    pub fn committed(&mut self, calls: &[CallId], first: Lsn) {
        for (call, distance) in calls.iter().zip(0..) {
            let outcome = AppendOutcome::Committed(first.advance(distance).expect("far from the end"));
            self.see(&Event::AppendEnded { call: *call, outcome });
        }
    }

    /// It ends otherwise.
    pub fn ended(&mut self, calls: &[CallId], outcome: AppendOutcome) {
        for call in calls {
            self.see(&Event::AppendEnded { call: *call, outcome });
        }
    }

    /// One record is appended, and lies here.
    pub fn appended(&mut self, payload: &Bytes, lsn: Lsn) {
        let calls = self.begun(std::slice::from_ref(payload));
        self.committed(&calls, lsn);
    }

    /// A reader begins.
    pub fn reader(&mut self, from: Lsn) -> ReaderId {
        let (reader, log) = (ReaderId(self.name()), self.log);
        self.see(&Event::ReaderOpened { reader, log, from });
        reader
    }

    /// A reader is given records.
    pub fn read(&mut self, reader: ReaderId, records: &[(Lsn, Bytes)]) {
        for (lsn, payload) in records {
            self.see(&Event::Delivered { reader, lsn: *lsn, value: value(payload) });
        }
    }

    /// Somebody asked for a linearizable tail, after everything that was noted before.
    pub fn tail(&mut self, tail: Lsn) {
        let (call, log) = (CallId(self.name()), self.log);
        self.see(&Event::TailInvoked { call, log });
        self.see(&Event::TailEnded { call, tail: Some(tail) });
    }

    /// Somebody read the chain.
    pub fn chain(&mut self, chain: &Chain) {
        self.see(&Event::ChainRead { chain: chain.clone() });
    }

    /// Whoever asked for an operation was told how it ended.
    pub fn reconfigured(&mut self, op: OpId, outcome: &Reconfigured) {
        let (call, log) = (CallId(self.name()), self.log);
        let outcome = match outcome {
            Reconfigured::Done(finished) => ReconfigureOutcome::Done(finished.clone()),
            Reconfigured::Superseded { by, .. } => ReconfigureOutcome::Superseded(by.clone()),
        };
        self.see(&Event::ReconfigureInvoked { call, log, op });
        self.see(&Event::ReconfigureEnded { call, outcome });
    }

    /// That was all, and the last reader has read all of it.
    pub fn finish(mut self) {
        self.checker.finish(&End { at: self.at, scanned: true, ..End::default() });
        assert_eq!(self.checker.breach_count(), 0, "{:#?}", self.checker.breaches());
    }
}
