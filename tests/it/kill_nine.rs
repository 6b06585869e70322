//! `Bifrost::embedded` in a process that is killed with SIGKILL in the middle of appends, again and again on one
//! directory. Nothing acknowledged is lost or moves, nothing lands twice, and every restart is clean.
//!
//! The test binary runs itself as the process to be killed. It first reads the whole log back and prints it, so each
//! life checks what all lives before it left, without a single orderly shutdown in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use bifrost::{Bifrost, Log, LogId, LogOptions, Lsn, ReadEvent, ReadOptions, TailKind};
use bifrost_checker::event::{AppendOutcome, AppenderId, CallId, Event, ReaderId, Value};
use bifrost_checker::{Checker, End};
use bytes::{Buf, BufMut, Bytes};
use futures_util::StreamExt;
use rand::RngExt;

use crate::faults::{rng_of, seed_of};

const KILLS: u64 = 50;
const APPENDERS: u64 = 4;
const IN_FLIGHT: usize = 64;
/// Far above what a life takes: only a process that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names the directory to the process that is to be killed, and which life it is.
const DIRECTORY: &str = "BIFROST_TEST_KILL_DIRECTORY";
const LIFE: &str = "BIFROST_TEST_KILL_LIFE";
const SIGKILL: i32 = 9;
/// Bytes of a line that tells an acknowledgement.
const TOLD_BYTES: usize = 1024;

/// Which append: life of the process, appender of that life, number of that appender from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    life: u64,
    appender: u64,
    number: u64,
}

impl Id {
    /// The id, then 0 to 1,600 bytes that follow from it.
    fn payload(self) -> Bytes {
        let filler = usize::try_from((self.life * 31 + self.appender * 17 + self.number * 97) % 1601).unwrap();
        let mut payload = Vec::with_capacity(24 + filler);
        payload.put_u64(self.life);
        payload.put_u64(self.appender);
        payload.put_u64(self.number);
        payload.extend((0..filler).map(|at| (at as u64 * 7 + self.number * 13 + self.life) as u8));
        payload.into()
    }

    fn value(self) -> Value {
        Value(self.life << 48 | self.appender << 40 | self.number)
    }

    /// Lives have calls of their own: small numbers.
    fn call(self) -> CallId {
        CallId(self.value().0)
    }

    fn of(payload: &Bytes) -> Self {
        let mut fields = &payload[..];
        let id = Self { life: fields.get_u64(), appender: fields.get_u64(), number: fields.get_u64() };
        assert_eq!(*payload, id.payload(), "the bytes of {id:?} changed");
        id
    }
}

/// What a life tells about itself, a line each.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// This is in the log.
    Read { lsn: u64, id: Id },
    /// That was all; appends begin.
    Ready,
    /// This was acknowledged.
    Acknowledged { lsn: u64, id: Id },
}

impl Line {
    fn write(self, out: &mut String) {
        let (word, lsn, id) = match self {
            Self::Ready => return out.push_str("\u{1}ready\n"),
            Self::Read { lsn, id } => ("read", lsn, id),
            Self::Acknowledged { lsn, id } => ("ack", lsn, id),
        };
        let start = out.len();
        write!(out, "\u{1}{word} {lsn} {} {} {}", id.life, id.appender, id.number).unwrap();
        if matches!(self, Self::Acknowledged { .. }) {
            // The pipe to the parent holds few such lines, so that the process waits for it and dies in time.
            out.extend(std::iter::repeat_n(' ', TOLD_BYTES.saturating_sub(out.len() - start)));
        }
        out.push('\n');
    }

    /// `None` for what the test harness prints, and for a line that the kill cut.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split_once('\u{1}')?.1.split(' ');
        let word = words.next()?;
        if word == "ready" {
            return Some(Self::Ready);
        }
        let mut number = || words.next()?.parse::<u64>().ok();
        let (lsn, life, appender, number) = (number()?, number()?, number()?, number()?);
        let id = Id { life, appender, number };
        match word {
            "read" => Some(Self::Read { lsn, id }),
            "ack" => Some(Self::Acknowledged { lsn, id }),
            _ => None,
        }
    }
}

/// When to kill.
#[derive(Debug)]
enum Moment {
    /// This long after the start, whatever it does.
    Starting(Duration),
    /// After so many records were read back.
    Reading(u64),
    /// After so many acknowledgements.
    Appending(u64),
}

/// What one life has told.
#[derive(Debug, Default)]
struct Told {
    read: Vec<(u64, Id)>,
    /// Whether that was everything that it found.
    read_all: bool,
    acknowledged: Vec<(u64, Id)>,
}

/// Judges all lives together. Which appends a life began is known only from what later lives found: they count as begun
/// when it had read everything.
fn judge(lives: &[Told]) {
    let log = LogId::try_from(1).unwrap();
    let mut begun: BTreeMap<u64, BTreeSet<Id>> = BTreeMap::new();
    for (_, id) in lives.iter().flat_map(|life| life.read.iter().chain(&life.acknowledged)) {
        begun.entry(id.life).or_default().insert(*id);
    }
    let mut checker = Checker::new();
    let mut at = 0;
    let mut see = |event: Event| {
        at += 1;
        checker.observe(at, &event);
    };
    for (life, number) in lives.iter().zip(1..) {
        let (reader, tail) = (ReaderId(number), CallId(number));
        see(Event::TailInvoked { call: tail, log });
        see(Event::ReaderOpened { reader, log, from: Lsn::FIRST });
        for (at, id) in &life.read {
            see(Event::Delivered { reader, lsn: lsn(*at), value: id.value() });
        }
        // It reads up to a linearizable tail.
        let end = life.read.last().map_or(1, |(last, _)| last + 1);
        see(Event::TailEnded { call: tail, tail: life.read_all.then(|| lsn(end)) });
        for id in begun.remove(&number).unwrap_or_default() {
            let appender = AppenderId(id.life << 8 | id.appender);
            see(Event::AppendInvoked { call: id.call(), appender, log, value: id.value() });
        }
        for (at, id) in &life.acknowledged {
            see(Event::AppendEnded { call: id.call(), outcome: AppendOutcome::Committed(lsn(*at)) });
        }
    }
    checker.finish(&End { at, scanned: true, ..End::default() });
    assert_eq!(checker.breach_count(), 0, "{:#?}", checker.breaches());
}

fn lsn(at: u64) -> Lsn {
    Lsn::new(at).expect("no LSN is 0")
}

/// A process that dies loses the end of what an appender sent, never something before it.
fn require_no_holes(records: &[(u64, Id)]) {
    let ids: BTreeSet<Id> = records.iter().map(|(_, id)| *id).collect();
    for id in &ids {
        assert!(id.number == 1 || ids.contains(&Id { number: id.number - 1, ..*id }), "what was before {id:?} is lost");
    }
}

/// One life, from its start to its death.
struct Life {
    process: Child,
    lines: Receiver<String>,
    moment: Moment,
}

impl Life {
    fn start(directory: &Path, life: u64, moment: Moment) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_nine::a_process_to_be_killed", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory)
            .env(LIFE, life.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = sync_channel(16);
        std::thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|length| length > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Self { process, lines, moment }
    }

    /// Lets it live up to the moment, kills it, and takes note of everything that it told before.
    fn live(mut self) -> Told {
        let mut told = Told::default();
        let mut killed = false;
        let started = Instant::now();
        loop {
            let (read, acknowledged) = (told.read.len() as u64, told.acknowledged.len() as u64);
            let due = match self.moment {
                Moment::Starting(time) => started.elapsed() >= time,
                Moment::Reading(records) => read >= records,
                Moment::Appending(acknowledgements) => acknowledged >= acknowledgements,
            };
            if due && !killed {
                killed = true;
                self.process.kill().unwrap();
            }
            // What it told before it died is still on its way.
            let patience = match self.moment {
                Moment::Starting(time) if !killed => time.saturating_sub(started.elapsed()),
                _ => PATIENCE,
            };
            match self.lines.recv_timeout(patience) {
                Ok(line) => match Line::parse(&line) {
                    Some(Line::Read { lsn, id }) => told.read.push((lsn, id)),
                    Some(Line::Ready) => told.read_all = true,
                    Some(Line::Acknowledged { lsn, id }) => told.acknowledged.push((lsn, id)),
                    None => {}
                },
                Err(RecvTimeoutError::Timeout) => {
                    self.process.kill().unwrap();
                    let starting = matches!(self.moment, Moment::Starting(_)) && !killed;
                    assert!(
                        starting,
                        "hangs after {read} reads and {acknowledged} acknowledgements: {:?}",
                        self.moment
                    );
                    killed = true;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.process.wait().unwrap();
        assert!(killed && status.signal() == Some(SIGKILL), "it died by itself: {status}");
        told
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_fifty_kills() {
    let mut random = rng_of(seed_of("kill_nine"), 1);
    let directory = tempfile::tempdir().unwrap();
    let mut lives: Vec<Told> = Vec::new();
    let (mut written, mut acknowledged) = (0, 0);
    for life in 1..=KILLS {
        let moment = match random.random_range(0..10) {
            0 => Moment::Starting(Duration::from_millis(random.random_range(0..200))),
            1 if written > 0 => Moment::Reading(random.random_range(1..=written)),
            _ => Moment::Appending(random.random_range(1..=400)),
        };
        let told = Life::start(directory.path(), life, moment).live();
        written = written.max(told.read.len() as u64);
        acknowledged += told.acknowledged.len() as u64;
        lives.push(told);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bifrost = Bifrost::embedded(directory.path()).await.expect("a clean restart");
        let log = bifrost.open_log("killed", LogOptions::default()).await.unwrap();
        lives.push(Told { read: read_all(&log).await, read_all: true, acknowledged: Vec::new() });
        bifrost.shutdown().await;
    });
    judge(&lives);
    let left = lives.last().map_or(&[][..], |last| &last.read);
    require_no_holes(left);
    assert!(acknowledged >= KILLS, "only {acknowledged} acknowledgements: the kills met no appends");
    println!("kill_nine: {KILLS} kills, {acknowledged} acknowledged, {} in the log", left.len());
}

/// Not a test of its own: what the other one starts and kills.
#[test]
fn a_process_to_be_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let life = std::env::var(LIFE).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bifrost = Bifrost::embedded(Path::new(&directory)).await.expect("a clean restart");
        let log = bifrost.open_log("killed", LogOptions::default()).await.unwrap();
        let mut told = String::new();
        for (lsn, id) in read_all(&log).await {
            Line::Read { lsn, id }.write(&mut told);
        }
        Line::Ready.write(&mut told);
        tell(&told);
        let appenders = (1..=APPENDERS).map(|appender| append(log.clone(), life, appender));
        futures_util::future::join_all(appenders).await;
    });
}

/// Everything below the linearizable tail.
async fn read_all(log: &Log) -> Vec<(u64, Id)> {
    let tail = log.find_tail(TailKind::Linearizable).await.unwrap().lsn;
    let mut reader = log.read(ReadOptions { from: Lsn::FIRST, until: Some(tail), ..ReadOptions::default() });
    let mut records = Vec::new();
    while let Some(event) = reader.next().await {
        match event.unwrap() {
            ReadEvent::Record(record) => records.push((record.lsn.get(), Id::of(&record.payload))),
            ReadEvent::Gap { from, end, kind } => panic!("a gap of kind {kind:?} in [{from}, {end})"),
            ReadEvent::CaughtUp { .. } => {}
        }
    }
    records
}

/// Appends until it is killed.
async fn append(log: Log, life: u64, appender: u64) {
    let handle = log.appender();
    let mut in_flight = VecDeque::new();
    for number in 1.. {
        let id = Id { life, appender, number };
        let payload = id.payload();
        in_flight.push_back((id, handle.reserve(payload.len()).await.unwrap().send(payload)));
        if in_flight.len() >= IN_FLIGHT
            && let Some((id, ticket)) = in_flight.pop_front()
        {
            let lsn = ticket.await.expect("an append with an outcome").get();
            let mut line = String::new();
            Line::Acknowledged { lsn, id }.write(&mut line);
            tell(&line);
        }
    }
}

fn tell(lines: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()).expect("the parent reads");
}
