//! Deletion of logs: interrupted after every step, with lost replies, against handles that are in use, with servers that
//! are away.

use std::sync::Arc;
use std::time::Duration;

use bifrost::catalog::{Catalog, CatalogError};
use bifrost::connect::{Connect, GrpcConnect};
use bifrost::delete::sweeper::{SweeperOptions, sweep};
use bifrost::delete::{Deleter, Given, give_back};
use bifrost::directory::Directory;
use bifrost::reconfigure::{Progress, ReconfigureError};
use bifrost::{
    AppendError, Bifrost, LogError, LogId, LogOptions, NotAppended, ReadError, ReadEvent, ReadOptions,
    ReconfigureOptions, TailKind, catalog::StoredChain,
};
use bifrost_metadata::lossy::{CallKind, Fault, LossyMetadata};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{LogletParams, Lsn};
use bifrost_wire::log_server::{CopyError, CopyState, StateRequest, StoreRequest};
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::sequencer::{SequencerCallError, SequencerError};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::support::interpose::Stepper;
use super::support::stepped::SteppedMetadata;
use super::support::world::{World, lsn, offset, op};

const RECORDS: u64 = 5;

/// Impatient, so that a test need not wait.
fn impatient() -> SweeperOptions {
    SweeperOptions {
        grace: Duration::from_millis(1),
        pause_max: Duration::from_millis(20),
        attempt_deadline: Duration::from_secs(2),
    }
}

/// A log with two segments and records in both.
async fn filled(world: &World, name: &str) -> LogId {
    let log = world.create_log(name, 0).await;
    let client = world.client().await;
    let handle = client.log_by_id(log).await.expect("it was made");
    let appender = handle.appender();
    for _ in 0..RECORDS {
        appender.append("before").await.expect("all is well");
    }
    handle.reconfigure(ReconfigureOptions::default()).await.expect("all is well");
    for _ in 0..RECORDS {
        appender.append("after").await.expect("all is well");
    }
    client.shutdown().await;
    log
}

async fn loglets(catalog: &Catalog, log: LogId) -> Vec<LogletParams> {
    let stored = catalog.chain(log).await.expect("it is there");
    stored.chain.segments.iter().map(|segment| segment.params.clone()).collect()
}

/// Waits until the tombstone of a log is gone.
async fn given_back(catalog: &Catalog, log: LogId) {
    loop {
        let (tombstones, revision) = catalog.tombstones().await.expect("memory never fails");
        if !tombstones.iter().any(|stored| stored.tombstone.log == log) {
            return;
        }
        let mut watch = catalog.watch_tombstones(revision).await.expect("memory never fails");
        let _changed = watch.recv().await;
    }
}

/// Runs a sweeper until nothing of the log is left.
async fn swept(world: &World, log: LogId) {
    let catalog = Catalog::new(world.metadata.clone());
    let directory = Directory::new(catalog.clone(), world.connect.clone());
    directory.refresh().await.expect("memory never fails");
    tokio::select! {
        biased;
        () = sweep(catalog.clone(), directory, impatient()) => unreachable!("it sweeps for ever"),
        () = given_back(&catalog, log) => {}
    }
}

async fn states(world: &World, params: &LogletParams) -> Vec<CopyState> {
    let mut states = Vec::new();
    for (place, member) in params.nodeset.members().iter().enumerate() {
        let request = StateRequest { loglet: params.id, disk: member.disk };
        states.push(world.log_server(place).state(request).await.expect("the server is well"));
    }
    states
}

/// Nothing of the log is left but what keeps late stores out.
async fn assert_gone(world: &World, log: LogId, name: &str, loglets: &[LogletParams]) {
    let catalog = Catalog::new(world.metadata.clone());
    assert_eq!(catalog.chain(log).await, Err(CatalogError::UnknownLog));
    assert_eq!(catalog.log_id(name).await, Ok(None));
    for params in loglets {
        for (place, state) in states(world, params).await.into_iter().enumerate() {
            assert!(state.sealed.is_some(), "{}: {state:?}", params.id);
            assert_eq!(state.decided_tail, Some(offset(RECORDS + 1)));
            assert_eq!(state.trim_point, Some(offset(RECORDS)), "its space is given back");
            let member = &params.nodeset.members()[place];
            let late = StoreRequest {
                loglet: params.id,
                disk: member.disk,
                sequencer: params.sequencer,
                committed_tail: offset(RECORDS + 1),
                first_offset: offset(RECORDS + 1),
                batches: vec![],
            };
            let mut stream = world.log_server(place).open_store().await.expect("the server is well");
            stream.requests.send(late).await.expect("the server is well");
            let refused = stream.replies.recv().await.expect("the server is well");
            assert!(matches!(refused.outcome, Some(Err(CopyError::Sealed { .. }))), "{refused:?}");
        }
    }
    // The name is free, the id is not.
    assert!(world.create_log(name, 1).await > log);
}

#[tokio::test]
async fn a_deletion_that_is_interrupted_after_any_step_is_finished_by_a_sweeper() {
    let world = World::in_memory(3).await;
    let catalog = Catalog::new(world.metadata.clone());
    let mut cut = 0;
    let mut announced = 0;
    loop {
        cut += 1;
        let name = format!("log-{cut}");
        let log = filled(&world, &name).await;
        let loglets = loglets(&catalog, log).await;
        let stepper = Stepper::new(world.network.clone(), Some(cut));
        let stepped = Arc::new(SteppedMetadata { inner: world.metadata.clone(), stepper: stepper.clone() });
        let (_, peers) = world.reconfigurer(log, stepped.clone(), Some(Arc::new(stepper.clone()))).await;
        let deleting = async {
            let catalog = Catalog::new(stepped);
            let deleter = Deleter::new(log, catalog.clone(), peers.clone());
            let (progress, _) = watch::channel(Progress::default());
            let removed = deleter.drive(op(1), &progress, &|_: &StoredChain| {}).await.expect("all is well");
            let removed = removed.expect("nobody else gave it back");
            assert_eq!(
                give_back(&catalog, peers.as_ref(), &removed, &Given::default()).await.expect("all is well").by.len(),
                0
            );
        };
        let interrupted = tokio::select! {
            biased;
            () = deleting => false,
            () = stepper.reached() => true,
        };
        println!("step {cut}: {:?}", stepper.taken().last());
        let begun = catalog.tombstone(log).await.expect("memory never fails").is_some();
        let there = catalog.chain(log).await.is_ok();
        assert_eq!(catalog.log_id(&name).await.expect("memory never fails").is_some(), there, "both or none");
        if interrupted && there && !begun {
            // Nothing happened yet: the log goes on as if nobody had thought of it.
            let client = world.client().await;
            let handle = client.log_by_id(log).await.expect("it is there");
            assert_eq!(handle.appender().append("more").await, Ok(lsn(2 * RECORDS + 1)));
            client.shutdown().await;
            continue;
        }
        announced += 1;
        swept(&world, log).await;
        assert_gone(&world, log, &name, &loglets).await;
        if !interrupted {
            break;
        }
    }
    assert!(announced > 10, "{announced} of {cut} steps");
    world.shutdown().await;
}

#[tokio::test]
async fn lost_replies_of_metadata_leave_one_deletion_that_succeeds() {
    let world = World::in_memory(3).await;
    let faults =
        [Fault::LoseReply, Fault::FailBefore(MetadataError::Unknown), Fault::FailBefore(MetadataError::Unavailable)];
    for (kind, first, last) in [(CallKind::Txn, 0, 5), (CallKind::Get, 4, 10)] {
        for nth in first..last {
            for (number, fault) in faults.iter().enumerate() {
                let name = format!("{kind:?}-{nth}-{number}");
                let log = filled(&world, &name).await;
                let fault = fault.clone();
                let script = move |call: &bifrost_metadata::lossy::Call| {
                    if call.kind == kind && call.nth == nth { fault.clone() } else { Fault::None }
                };
                let metadata = LossyMetadata::new(world.memory_metadata(), Arc::new(script));
                let client = world.client_through(Arc::new(metadata), None).await;
                assert_eq!(client.delete_log(log).await, Ok(()), "{name}");
                let again = client.delete_log(log).await;
                assert_eq!(again, Err(LogError::Catalog(CatalogError::UnknownLog)), "{name}");
                client.shutdown().await;
                assert_eq!(Catalog::new(world.metadata.clone()).log_id(&name).await, Ok(None));
            }
        }
    }
    world.shutdown().await;
}

#[tokio::test]
async fn the_same_operation_is_recognised_as_long_as_space_is_owed() {
    let world = World::in_memory(3).await;
    let log = filled(&world, "orders").await;
    let client = world.client().await;
    world.network.darken(world.node(2));
    assert_eq!(client.delete_log_as(log, op(9)).await, Ok(()));
    assert_eq!(client.delete_log_as(log, op(9)).await, Ok(()), "its own deletion");
    assert_eq!(client.delete_log_as(log, op(8)).await, Err(LogError::Catalog(CatalogError::UnknownLog)));
    world.network.light(world.node(2));
    swept(&world, log).await;
    assert_eq!(client.delete_log_as(log, op(9)).await, Err(LogError::Catalog(CatalogError::UnknownLog)));
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test]
async fn everything_that_waits_for_a_deleted_log_ends_with_a_typed_error() {
    let world = World::in_memory(3).await;
    let log = world.create_log("orders", 0).await;
    let (user, operator) = (world.client().await, world.client().await);
    let handle = user.log_by_id(log).await.expect("it was made");
    let appender = handle.appender();
    let last = appender.append("one").await.expect("all is well");
    let mut follower = handle.read(ReadOptions::default());
    assert!(matches!(follower.next().await, Some(Ok(ReadEvent::Record(_)))));
    // In flight for ever: no write quorum stores it.
    let loglet = handle.chain().segments[0].params.id;
    for place in 0..3 {
        world.network.hold(world.node(place), loglet);
    }
    let in_flight = appender.reserve(3).await.expect("there is room").send("two");
    world.network.stored(world.node(0), loglet, offset(2)).await;

    assert_eq!(operator.delete_log(log).await, Ok(()));

    assert!(matches!(
        in_flight.await,
        Err(AppendError::NotAppended { cause: NotAppended::Deleted } | AppendError::Unknown { .. })
    ));
    let deleted = Err(LogError::Deleted { log });
    let refused = loop {
        match follower.next().await {
            Some(Ok(ReadEvent::CaughtUp { .. } | ReadEvent::Gap { .. })) => {}
            other => break other,
        }
    };
    assert_eq!(refused, Some(Err(ReadError::Deleted { log })));
    assert_eq!(appender.append("three").await, Err(AppendError::NotAppended { cause: NotAppended::Deleted }));
    assert_eq!(handle.find_tail(TailKind::Linearizable).await.map(drop), deleted);
    assert_eq!(handle.trim(last).await.map(drop), deleted);
    assert_eq!(handle.reconfigure(ReconfigureOptions::default()).await.map(drop), deleted);
    assert_eq!(handle.describe().await.map(drop), deleted);
    let mut late = handle.read(ReadOptions::default());
    assert_eq!(late.next().await, Some(Err(ReadError::Deleted { log })));
    let fresh = handle.appender();
    assert_eq!(fresh.append("four").await, Err(AppendError::NotAppended { cause: NotAppended::Deleted }));

    // Another log of that name has nothing to do with the old handle.
    world.network.release();
    let next = operator.create_log("orders", LogOptions::default()).await.expect("the name is free");
    assert!(next.id() > log);
    assert_eq!(next.appender().append("five").await, Ok(Lsn::FIRST));
    assert_eq!(appender.append("six").await, Err(AppendError::NotAppended { cause: NotAppended::Deleted }));
    assert_eq!(next.find_tail(TailKind::Linearizable).await.map(|tail| tail.lsn), Ok(lsn(2)));
    user.shutdown().await;
    operator.shutdown().await;
    world.shutdown().await;
}

#[tokio::test]
async fn a_deletion_waits_for_an_f_majority_and_says_for_whom() {
    let world = World::in_memory(3).await;
    let log = filled(&world, "orders").await;
    let catalog = Catalog::new(world.metadata.clone());
    let client = world.client().await;
    let handle = client.log_by_id(log).await.expect("it is there");
    let mut progress = handle.progress();
    world.network.darken(world.node(0));
    world.network.darken(world.node(1));
    let mut deleting = Box::pin(client.delete_log(log));
    let blocked = progress.wait_for(|progress| match progress {
        Progress::Closing { close, .. } => close.sealed.count() == 1,
        Progress::Metadata => false,
    });
    tokio::select! {
        biased;
        outcome = &mut deleting => panic!("it cannot be closed: {outcome:?}"),
        seen = blocked => drop(seen.expect("the handle lives")),
    }
    // It is still there: somebody may have been acknowledged, and what was can be read.
    assert!(catalog.chain(log).await.is_ok());
    assert_eq!(catalog.log_id("orders").await, Ok(Some(log)));
    world.network.light(world.node(0));
    assert_eq!(deleting.await, Ok(()));
    assert_eq!(catalog.log_id("orders").await, Ok(None));
    world.network.light(world.node(1));
    swept(&world, log).await;
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test]
async fn a_node_that_the_cluster_forgot_owes_nothing() {
    let world = World::in_memory(3).await;
    let log = filled(&world, "orders").await;
    let client = world.client().await;
    world.network.darken(world.node(2));
    let metadata = world.metadata.clone();
    let key = format!("nodes/{:010}", world.node(2).get());
    metadata.txn(bifrost_wire::metadata::Txn::new().delete(key)).await.expect("memory never fails");
    assert_eq!(client.delete_log(log).await, Ok(()));
    swept(&world, log).await;
    client.shutdown().await;
    world.network.light(world.node(2));
    world.shutdown().await;
}

#[tokio::test]
async fn unknown_logs_cannot_be_deleted_and_a_closed_one_can() {
    let bifrost = Bifrost::in_memory().await.expect("memory");
    let unknown = LogId::try_from(77).expect("not 0");
    assert_eq!(bifrost.delete_log(unknown).await, Err(LogError::Catalog(CatalogError::UnknownLog)));
    let log = bifrost.create_log("orders", LogOptions::default()).await.expect("a log");
    log.appender().append("one").await.expect("all is well");
    let close = ReconfigureOptions { close: true, ..ReconfigureOptions::default() };
    log.reconfigure(close).await.expect("all is well");
    assert_eq!(bifrost.delete_log(log.id()).await, Ok(()));
    given_back(bifrost.catalog(), log.id()).await;
    assert!(bifrost.log("orders").await.is_err());
    bifrost.shutdown().await;
}

/// Many at once delete the same log: all of them succeed or hear that there is none.
#[tokio::test]
async fn any_number_of_deleters_and_sweepers_at_once_agree() {
    let world = World::in_memory(3).await;
    let log = filled(&world, "orders").await;
    let loglets = loglets(&Catalog::new(world.metadata.clone()), log).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(world.client().await);
    }
    let deleting = futures_util::future::join_all(clients.iter().map(|client| client.delete_log(log)));
    let (outcomes, (), ()) = tokio::join!(deleting, swept_after(&world, log), swept_after(&world, log));
    assert!(outcomes.iter().any(Result::is_ok));
    for outcome in outcomes {
        assert!(matches!(outcome, Ok(()) | Err(LogError::Catalog(CatalogError::UnknownLog))), "{outcome:?}");
    }
    for client in &clients {
        client.shutdown().await;
    }
    assert_gone(&world, log, "orders", &loglets).await;
    world.shutdown().await;
}

/// Sweeps from when the deletion was announced.
async fn swept_after(world: &World, log: LogId) {
    let catalog = Catalog::new(world.metadata.clone());
    let mut watch = catalog.watch_tombstones(0).await.expect("memory never fails");
    let _announced = watch.recv().await;
    swept(world, log).await;
}

/// Errors of a deletion are few.
#[tokio::test]
async fn a_deleter_of_nothing_says_so_at_once() {
    let world = World::in_memory(1).await;
    let log = LogId::try_from(5).expect("not 0");
    let (_, peers) = world.reconfigurer(log, world.metadata.clone(), None).await;
    let deleter = Deleter::new(log, Catalog::new(world.metadata.clone()), peers);
    let (progress, _) = watch::channel(Progress::default());
    let outcome = deleter.drive(op(1), &progress, &|_: &StoredChain| {}).now_or_never();
    assert_eq!(outcome, Some(Err(ReconfigureError::Catalog(CatalogError::UnknownLog))));
    world.shutdown().await;
}

/// A sequencer without appends never hears of a seal, and no later segment takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sequencer_of_a_deleted_log_ends_with_it() {
    let cluster = LocalCluster::start(LocalClusterOptions::default()).await.expect("a cluster");
    let client = cluster.connect().await.expect("a client");
    let log = client.create_log("orders", LogOptions::default()).await.expect("a log");
    log.appender().append("one").await.expect("all is well");
    let stored = client.catalog().chain(log.id()).await.expect("it is there");
    let sequencer = stored.chain.segments[0].params.sequencer;
    let loglet = stored.chain.segments[0].params.id;
    let nodes = client.nodes();
    let record = nodes.iter().find(|record| record.id == sequencer).expect("it runs");
    let services = GrpcConnect::default().connect(record).expect("an address");
    services.sequencers.tails(loglet, sequencer).await.expect("it runs");
    client.delete_log(log.id()).await.expect("all is well");
    given_back(client.catalog(), log.id()).await;
    // The sweeper of its node hears of it at once, and the chain knows nothing of it any more.
    let not_open = SequencerCallError::Refused(SequencerError::NotOpen);
    while services.sequencers.tails(loglet, sequencer).await != Err(not_open) {
        tokio::task::yield_now().await;
    }
    client.shutdown().await;
    cluster.shutdown().await;
}
