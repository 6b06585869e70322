//! Catching up over nodes in memory, on the paused clock: it moves only when nothing else is left to do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod away;

use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{KeyFilter, LogId, LogletId, LogletOffset, SegmentIndex, StorageState};
use bifrost_wire::log_server::{LogServer, ReadReply, ReadRequest};
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::catalog::Catalog;
use crate::log::ReconfigureOptions;
use crate::reader::ReadEvent;
use crate::test_world::World;
use crate::{Bifrost, Lsn, ReadOptions, fresh_op};

/// Only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(3600);
const KIB: usize = 1024;

/// The disk of one node catches up until this is dropped.
struct Running {
    catch_up: CatchUp,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    async fn until(&self, what: &str, is_so: impl Fn(&Progress) -> bool) -> Progress {
        let mut watch = self.catch_up.watch();
        let found = timeout(PATIENCE, watch.wait_for(is_so)).await;
        *found.unwrap_or_else(|_| panic!("{what}: {:?}", self.catch_up.progress())).unwrap()
    }

    async fn until_done(&self) -> Progress {
        self.until("it is never done", |progress| progress.state == CatchUpState::Idle && progress.records_done > 0)
            .await
    }

    async fn cancel(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What these tests do with the nodes.
trait Tests {
    async fn stop(&self, place: usize);
    async fn start(&mut self, place: usize);
    async fn log(&self, place: usize) -> LogId;
    async fn append(&self, client: &Bifrost, log: LogId, records: std::ops::Range<u32>);
    async fn move_to(&self, client: &Bifrost, log: LogId, place: usize);
    fn catch_up(&self, place: usize, bytes_per_second: u64) -> Running;
    fn catch_up_over(&self, catalog: Catalog, place: usize, bytes_per_second: u64) -> Running;
    async fn has(&self, place: usize, loglet: LogletId, until: u64) -> u64;
}

impl Tests for World {
    async fn stop(&self, place: usize) {
        self.nodes[place].shutdown().await;
    }

    async fn start(&mut self, place: usize) {
        self.nodes[place] = self.begin_life(place).await;
    }

    async fn log(&self, place: usize) -> LogId {
        self.catalog().create_log(Some("orders"), fresh_op(), &self.successor(place)).await.unwrap().chain.log
    }

    async fn append(&self, client: &Bifrost, log: LogId, records: std::ops::Range<u32>) {
        let appender = client.log_by_id(log).await.unwrap().appender();
        for number in records {
            let appended = appender.append(payload(number));
            timeout(PATIENCE, appended).await.expect("it is appended").unwrap();
        }
    }

    async fn move_to(&self, client: &Bifrost, log: LogId, place: usize) {
        let options = ReconfigureOptions { successor: Some(self.successor(place)), ..ReconfigureOptions::default() };
        let moved = client.log_by_id(log).await.unwrap();
        timeout(PATIENCE, moved.reconfigure(options)).await.expect("it is moved").unwrap();
    }

    fn catch_up(&self, place: usize, bytes_per_second: u64) -> Running {
        self.catch_up_over(self.catalog(), place, bytes_per_second)
    }

    fn catch_up_over(&self, catalog: Catalog, place: usize, bytes_per_second: u64) -> Running {
        let node = &self.nodes[place];
        let place = Place {
            node: node.id(),
            log_server: node.log_server().unwrap().clone(),
            directory: self.directory.clone(),
            catalog,
        };
        let options = CatchUpOptions {
            bytes_per_second: bytes_per_second.try_into().unwrap(),
            chunk_bytes: (8 * KIB).try_into().unwrap(),
            ..CatchUpOptions::default()
        };
        let (catch_up, running) = CatchUp::new(place, options);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.run_until_cancelled_owned(running).await });
        Running { catch_up, stop, tasks }
    }

    /// How many records of a loglet the disk at this place has, by what its log server gives out.
    async fn has(&self, place: usize, loglet: LogletId, until: u64) -> u64 {
        let server = self.nodes[place].log_server().unwrap();
        let tail = LogletOffset::new(until).unwrap();
        let request = ReadRequest {
            loglet,
            disk: server.disk(),
            from: LogletOffset::FIRST,
            until: Some(tail),
            filter: KeyFilter::Any,
            credit_bytes: u64::MAX,
            readable_tail: tail,
        };
        let mut stream = server.read(request).await.unwrap();
        let mut has = 0;
        while let Some(part) = stream.replies.recv().await {
            if let ReadReply::Batch { first_offset, end, .. } = part.unwrap() {
                has += end.distance_from(first_offset).unwrap();
            }
        }
        has
    }
}

/// About a kibibyte that tells its number.
fn payload(number: u32) -> String {
    format!("{number:08} {}", "x".repeat(KIB))
}

/// Reads so many records from the beginning; anything but a record is a finding (R3).
async fn read_all(client: &Bifrost, log: LogId, records: u32) {
    let mut reader = client.log_by_id(log).await.unwrap().read(ReadOptions::default());
    let mut number = 0;
    while number < records {
        match timeout(PATIENCE, reader.next()).await.expect("readers go on") {
            Some(Ok(ReadEvent::Record(record))) => {
                assert_eq!(record.payload, payload(number));
                number += 1;
            }
            Some(Ok(ReadEvent::CaughtUp { .. })) => {}
            other => panic!("{other:?} in place of record {number}"),
        }
    }
}

fn loglet(log: LogId, segment: u32) -> LogletId {
    LogletId::new(log, SegmentIndex::new(segment))
}

/// A log of 90 records in three segments, of which the disk at place 2 has only the first ten.
async fn behind() -> (World, Bifrost, LogId) {
    let mut world = World::new().await;
    let log = world.log(0).await;
    let client = world.client().await;
    world.append(&client, log, 0..10).await;
    world.stop(2).await;
    world.append(&client, log, 10..50).await;
    world.move_to(&client, log, 0).await;
    world.append(&client, log, 50..80).await;
    world.move_to(&client, log, 1).await;
    world.append(&client, log, 80..90).await;
    world.start(2).await;
    (world, client, log)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_away_gets_what_it_misses_of_closed_segments() {
    let (world, client, log) = behind().await;
    assert!(world.has(2, loglet(log, 0), 51).await <= 10);
    let running = world.catch_up(2, 64 << 20);
    let progress = running.until_done().await;
    assert_eq!(progress.records_done, 70);
    assert!(progress.bytes_done > 70 * KIB as u64 && progress.percent() == 100, "{progress:?}");
    assert_eq!((world.has(2, loglet(log, 0), 51).await, world.has(2, loglet(log, 1), 31).await), (50, 30));
    // With another one gone, its copies carry the log.
    world.stop(0).await;
    read_all(&client, log, 90).await;
    running.cancel().await;
    // What it has is remembered: nothing is read or fetched again.
    let again = world.catch_up(2, 1);
    again.until("it looks again", |progress| progress.state == CatchUpState::Idle).await;
    assert_eq!(world.nodes[2].log_server().unwrap().whole_tail(loglet(log, 0)).get(), 51);
}

/// The Garnet case: whoever gave the records dies in the middle, and whoever gets them is given another role meanwhile.
#[tokio::test(start_paused = true)]
async fn the_sources_die_half_way_and_the_node_is_promoted_and_nothing_is_refused() {
    let (mut world, client, log) = behind().await;
    let running = world.catch_up(2, 4 * KIB as u64);
    running.until("it does not begin", |progress| progress.records_done > 0).await;
    // A partial copy is no hole to a reader.
    read_all(&client, log, 90).await;
    world.stop(0).await;
    world.stop(1).await;
    let waiting = running.until("nobody misses the sources", |progress| progress.last_error.is_some()).await;
    assert!(waiting.records_left > 0);
    world.start(1).await;
    // It numbers appends and is read while it catches up, and afterwards.
    world.move_to(&client, log, 2).await;
    world.append(&client, log, 90..95).await;
    read_all(&client, log, 95).await;
    let done = running.until_done().await;
    assert_eq!((done.records_left, done.last_error, done.segments_left), (0, None, 0));
    world.stop(1).await;
    world.start(0).await;
    read_all(&client, log, 95).await;
    running.cancel().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_cancelled_anywhere_and_goes_on_from_what_is_durable() {
    let (world, _client, log) = behind().await;
    for left in [69, 50, 25] {
        let running = world.catch_up(2, 4 * KIB as u64);
        running.until("it does not go on", |progress| progress.records_done > 0 && progress.records_left <= left).await;
        running.cancel().await;
    }
    let running = world.catch_up(2, 64 << 20);
    running.until("it is never done", |progress| progress.state == CatchUpState::Idle).await;
    assert_eq!((world.has(2, loglet(log, 0), 51).await, world.has(2, loglet(log, 1), 31).await), (50, 30));
    running.cancel().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_stops_it_and_lets_it_go_on() {
    let (world, client, _log) = behind().await;
    let node = world.nodes[2].id().node;
    let running = world.catch_up(2, 4 * KIB as u64);
    running.until("it does not begin", |progress| progress.records_done > 0).await;
    client.set_storage_state(node, StorageState::ReadOnly).await.unwrap();
    running.until("it does not stop", |progress| progress.state == CatchUpState::OutOfService).await;
    client.set_storage_state(node, StorageState::ReadWrite).await.unwrap();
    running.until_done().await;
    running.cancel().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_trimmed_or_deleted_under_it_is_left() {
    let (world, client, log) = behind().await;
    let running = world.catch_up(2, 4 * KIB as u64);
    running.until("it does not begin", |progress| progress.records_done > 0).await;
    let orders = client.log_by_id(log).await.unwrap();
    orders.trim(Lsn::new(45).unwrap()).await.unwrap();
    running.until("it copies what is trimmed", |progress| progress.records_left <= 35).await;
    client.delete_log(log).await.unwrap();
    let idle = running.until("it does not end", |progress| progress.state == CatchUpState::Idle).await;
    assert_eq!((idle.records_left, idle.segments_left), (0, 0));
    running.cancel().await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_closes_meanwhile_is_looked_after_too() {
    let (world, client, log) = behind().await;
    let running = world.catch_up(2, 64 << 20);
    running.until_done().await;
    world.move_to(&client, log, 0).await;
    let whole = |progress: &Progress| progress.state == CatchUpState::Idle && progress.segments_left == 0;
    running.until("the third segment is not whole", whole).await;
    let have = async {
        while world.has(2, loglet(log, 2), 11).await < 10 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, have).await.expect("it has the third segment");
    running.cancel().await;
}

/// Of the open segment the sequencer takes care, also when the server was a stopped process meanwhile.
#[tokio::test(start_paused = true)]
async fn a_server_that_was_stopped_and_started_gets_the_open_segment_from_its_sequencer() {
    let mut world = World::new().await;
    // What is committed is soon let go of, so that whoever was away depends on backfill.
    world.stop(0).await;
    let limits = SegmentLimits { retained_bytes_max: KIB, ..SegmentLimits::default() };
    world.nodes[0] = world.begin_life_with(0, limits).await;
    let log = world.log(0).await;
    let client = world.client().await;
    world.append(&client, log, 0..10).await;
    world.stop(2).await;
    world.append(&client, log, 10..60).await;
    world.start(2).await;
    let whole = async {
        while world.has(2, loglet(log, 0), 61).await < 60 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, whole).await.expect("it is sent what it missed");
}
