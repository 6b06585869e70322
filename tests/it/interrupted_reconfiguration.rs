//! C4: one reconfiguration, interrupted after every single step, ends in the same result whoever goes on with it.
//!
//! Actor A closes a segment. Everything that A sends and every reply that it gets is a numbered step. For each step a
//! run of its own stops A exactly there: dead, or only asleep while a rival acts and going on afterwards. Three copies,
//! two of them a write quorum; ten records are on all of them, and one batch of two, whose appender was told nothing,
//! is on the first copy only. So the closing has to drop it or to repair it, and always the same of both.

use std::time::Duration;

use bifrost::catalog::StoredChain;
use bifrost::reconfigure::{Intent, Progress, ReconfigureError};
use bifrost::{
    AppendError, AppendId, Bifrost, Log, LogId, Lsn, ReadEvent, ReadOptions, Reader, ReconfigureOptions, Reconfigured,
    Record, Resolved, TailKind,
};
use bifrost_checker::event::{AppendOutcome, CallId, ReaderId};
use bifrost_metadata::lossy::{Call, CallKind as MetadataCall, Fault, LossyMetadata};
use bifrost_types::{Actor, Chain, CloseReason, Finished, LogletId, SegmentIndex, SegmentState, Successor};
use bifrost_wire::metadata::{MetadataError, MetadataStore};
use bytes::Bytes;
use futures_util::StreamExt;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::interpose::{CallKind, Losses, Stepper};
use crate::support::judge::Judge;
use crate::support::stepped::SteppedMetadata;
use crate::support::world::{World, lsn, offset, op};

const A: u128 = 0xA;
const B: u128 = 0xB;
/// What is appended by somebody who only appends.
const BY_SOMEBODY: &[u8] = b"by somebody who only appends";
/// Acknowledged records before anything happens.
const BEFORE: u64 = 10;
/// Far above any healthy run; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the closing meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// All copies answer: two of them end before the batch in doubt, so it is dropped.
    AllAnswer,
    /// The third copy is dark: the batch in doubt may have been acknowledged, so it is repaired.
    OneDark,
    /// As the first, and no segment is to follow.
    ForGood,
}

impl Setting {
    /// The only tail that the servers' answers allow when they come in a fixed order.
    fn tail(self) -> u64 {
        match self {
            Self::AllAnswer | Self::ForGood => BEFORE + 1,
            Self::OneDark => BEFORE + 3,
        }
    }
}

/// What happens to A at the step, and who acts then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// A dies, and somebody asks for the same operation again.
    DiesSameOp,
    /// A dies, and somebody comes with another operation.
    DiesOtherOp,
    /// A dies, and nobody but an appender comes (Restate #2885).
    DiesAppender,
    /// A sleeps while somebody carries the same operation out, and goes on.
    SleepsSameOp,
    /// A sleeps while another operator comes, and goes on.
    SleepsOtherOp,
}

/// A log with records on its copies, before anybody closes anything.
struct Stage {
    log: LogId,
    /// Names the batch that only the first copy has.
    in_doubt: AppendId,
    in_doubt_records: [Bytes; 2],
    /// Has seen what was acknowledged.
    reader: Reader,
    /// What was noted of the log, with the calls of the batch in doubt and the name of the reader.
    judge: Judge,
    in_doubt_calls: Vec<CallId>,
    reader_id: ReaderId,
    _reader_client: Bifrost,
}

async fn stage(world: &World, setting: Setting, name: &str) -> Stage {
    let network = &world.network;
    network.light(world.node(2));
    network.release();
    let log = world.create_log(name, 0).await;
    let loglet = LogletId::new(log, SegmentIndex::FIRST);
    let client = world.client().await;
    let appender = client.log_by_id(log).await.expect("the log was made").appender();
    let mut judge = Judge::new(log);
    let mut records = Vec::new();
    for number in 0..BEFORE {
        let payload = Bytes::from(format!("{name}/{number}"));
        let lsn = appender.append(payload.clone()).await.expect("all is well");
        judge.appended(&payload, lsn);
        records.push((lsn, payload));
    }
    for place in 0..3 {
        network.stored(world.node(place), loglet, offset(BEFORE + 1)).await;
    }
    let reader_client = world.client().await;
    let reader_log = reader_client.log_by_id(log).await.expect("the log was made");
    let mut reader = reader_log.read(ReadOptions::default());
    let reader_id = judge.reader(Lsn::FIRST);
    judge.read(reader_id, &read(&mut reader, records.len()).await);

    network.hold(world.node(1), loglet);
    network.hold(world.node(2), loglet);
    let in_doubt_records = [Bytes::from(format!("{name}/doubt 0")), Bytes::from(format!("{name}/doubt 1"))];
    let bytes = in_doubt_records.iter().map(Bytes::len).sum();
    let permit = appender.reserve_batch(bytes, 2).await.expect("there is room");
    let in_doubt_calls = judge.begun(&in_doubt_records);
    let ticket = permit.send_batch(in_doubt_records.iter().cloned().map(Record::new).collect());
    network.stored(world.node(0), loglet, offset(BEFORE + 3)).await;
    client.shutdown().await;
    let in_doubt = match ticket.await {
        Err(AppendError::Unknown { id }) => id,
        outcome => panic!("an append on one copy of three ended as {outcome:?}"),
    };
    judge.ended(&in_doubt_calls, AppendOutcome::Unknown);
    if setting == Setting::OneDark {
        network.darken(world.node(2));
    }
    let _reader_client = reader_client;
    Stage { log, in_doubt, in_doubt_records, reader, judge, in_doubt_calls, reader_id, _reader_client }
}

/// Reads that many records; caught-up news is passed over.
async fn read(reader: &mut Reader, records: usize) -> Vec<(Lsn, Bytes)> {
    let mut seen = Vec::new();
    while seen.len() < records {
        match reader.next().await.expect("the log goes on").expect("nothing is broken") {
            ReadEvent::Record(record) => seen.push((record.lsn, record.payload)),
            ReadEvent::CaughtUp { .. } => {}
            gap @ ReadEvent::Gap { .. } => panic!("nothing was trimmed or lost: {gap:?}"),
        }
    }
    seen
}

fn intent(world: &World, number: u128, setting: Setting) -> Intent {
    Intent {
        op: op(number),
        segment: SegmentIndex::FIRST,
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor: successor(world, number, setting),
    }
}

/// A and B want different successors, so that one can see whose it is.
fn successor(world: &World, number: u128, setting: Setting) -> Option<Successor> {
    let place = if number == A { 1 } else { 2 };
    (number != A || setting != Setting::ForGood).then(|| world.successor(place))
}

/// Carries an intent out to the last step, telling the servers included.
async fn drive(world: &World, log: LogId, intent: Intent, stepper: Stepper) -> Result<Reconfigured, ReconfigureError> {
    let metadata = Arc::new(SteppedMetadata { inner: world.metadata.clone(), stepper: stepper.clone() });
    let (reconfigurer, peers) = world.reconfigurer(log, metadata, Some(Arc::new(stepper))).await;
    let (progress, _) = watch::channel(Progress::default());
    let (outcome, settle) = reconfigurer.drive(&intent, &progress, &|_: &StoredChain| {}).await?;
    if let Some(settle) = settle {
        settle.tell(peers).await;
    }
    Ok(outcome)
}

/// Like [`drive`], by an actor that nobody interrupts. Its calls are in order too, so that answers come in a fixed
/// order.
async fn drive_undisturbed(world: &World, log: LogId, intent: Intent) -> Reconfigured {
    drive(world, log, intent, Stepper::new(world.network.clone(), None)).await.expect("nothing is in its way")
}

async fn chain(world: &World, log: LogId) -> Chain {
    let catalog = bifrost::catalog::Catalog::new(world.metadata.clone());
    catalog.chain(log).await.expect("the log was made").chain
}

/// What the chain itself says about who closed the first segment, in the form of an answer to `asked`.
fn answer_by_chain(chain: &Chain, asked: u128) -> Reconfigured {
    let SegmentState::Sealed { tail, op: closer, .. } = chain.segments[0].state else { panic!("it is closed") };
    let successor = chain.segments.get(1).map(|segment| segment.index());
    let finished = Finished { op: closer, segment: SegmentIndex::FIRST, tail, successor };
    if closer == op(asked) {
        Reconfigured::Done(finished)
    } else {
        Reconfigured::Superseded { by: finished, open: chain.segments.get(1).map(|segment| segment.params.clone()) }
    }
}

/// One run. Returns whether A was interrupted.
async fn run(world: &World, setting: Setting, then: Then, cut: usize, name: &str) -> bool {
    let mut stage = stage(world, setting, name).await;
    let stepper = Stepper::new(world.network.clone(), Some(cut));
    let mut a = Box::pin(drive(world, stage.log, intent(world, A, setting), stepper.clone()));
    let undisturbed = tokio::select! {
        biased;
        outcome = &mut a => Some(outcome.expect("nothing is in its way")),
        () = stepper.reached() => None,
    };
    let interrupted = undisturbed.is_none();
    // Shown with a failure.
    println!("{setting:?}, {then:?}: step {cut} is {:?}", stepper.taken().last().filter(|_| interrupted));
    let then = if interrupted { then } else { Then::DiesSameOp };
    let at = chain(world, stage.log).await;
    stage.judge.chain(&at);
    let announced = at.pending.as_ref().is_some_and(|pending| pending.op == op(A)) || at.outcome(op(A)).is_some();
    let mut asleep = None;
    match then {
        Then::DiesSameOp | Then::DiesOtherOp | Then::DiesAppender => drop(a),
        Then::SleepsSameOp | Then::SleepsOtherOp => asleep = Some(a),
    }
    match then {
        Then::DiesSameOp | Then::SleepsSameOp => {
            let outcome = drive_undisturbed(world, stage.log, intent(world, A, setting)).await;
            assert!(matches!(outcome, Reconfigured::Done(_)), "{outcome:?}");
            stage.judge.reconfigured(op(A), &outcome);
            stage.judge.chain(&chain(world, stage.log).await);
        }
        Then::DiesOtherOp | Then::SleepsOtherOp => {
            let outcome = drive_undisturbed(world, stage.log, intent(world, B, setting)).await;
            assert_eq!(matches!(outcome, Reconfigured::Superseded { .. }), announced, "{outcome:?}");
            stage.judge.reconfigured(op(B), &outcome);
            stage.judge.chain(&chain(world, stage.log).await);
        }
        Then::DiesAppender => {
            world.network.release();
            let client = world.client().await;
            let log = client.log_by_id(stage.log).await.expect("the log was made");
            match log.appender().append(BY_SOMEBODY).await {
                Ok(lsn) => stage.judge.appended(&Bytes::from_static(BY_SOMEBODY), lsn),
                Err(AppendError::Closed { .. }) => assert!(announced && setting == Setting::ForGood),
                Err(error) => panic!("the appender does not go on: {error}"),
            }
            client.shutdown().await;
        }
    }
    if let Some(a) = asleep {
        stepper.resume();
        let outcome = a.await.expect("nothing is in its way");
        stage.judge.reconfigured(op(A), &outcome);
    }

    // C4: whoever asks for it again gets the same answer, however often.
    let again = drive_undisturbed(world, stage.log, intent(world, A, setting)).await;
    let chain = chain(world, stage.log).await;
    assert_eq!(again, answer_by_chain(&chain, A));
    let once_more = drive_undisturbed(world, stage.log, intent(world, A, setting)).await;
    for outcome in [Some(again), Some(once_more), undisturbed].iter().flatten() {
        stage.judge.reconfigured(op(A), outcome);
    }
    stage.judge.chain(&chain);
    // Whose it is depends on who was announced first, never on how far it came.
    let winner = if announced || then != Then::DiesOtherOp && then != Then::SleepsOtherOp { A } else { B };
    check_chain(world, setting, then, &chain, winner);
    check_contents(world, stage, &chain).await;
    interrupted
}

fn check_chain(world: &World, setting: Setting, then: Then, chain: &Chain, winner: u128) {
    bifrost::chain::validate(chain).expect("a chain");
    assert_eq!(chain.pending, None);
    assert_eq!(chain.segments[0].state, {
        let SegmentState::Sealed { tail, timings, .. } = chain.segments[0].state else { panic!("it is closed") };
        if then != Then::DiesAppender {
            assert_eq!(tail, offset(setting.tail()), "another tail than without an interruption");
        }
        let reason = CloseReason::Requested;
        SegmentState::Sealed { tail, lost_from: None, op: op(winner), actor: Actor::Operator, reason, timings }
    });
    match successor(world, winner, setting) {
        None => assert_eq!(chain.segments.len(), 1, "closed for good"),
        Some(wanted) => {
            assert_eq!(chain.segments.len(), 2, "exactly one segment was closed");
            let params = &chain.segments[1].params;
            assert_eq!(params.id, LogletId::new(chain.log, SegmentIndex::new(1)));
            assert_eq!((&params.nodeset, params.sequencer), (&wanted.nodeset, wanted.sequencer));
            assert_eq!(chain.segments[1].state, SegmentState::Open);
        }
    }
    // Created, announced, decided: nothing else changed the chain.
    assert_eq!(chain.version, 3);
}

/// Everything that was acknowledged is there, the batch in doubt is there or not as it is said to be, and the reader
/// that had seen the beginning sees the same as one that comes now.
async fn check_contents(world: &World, mut stage: Stage, chain: &Chain) {
    let judge = &mut stage.judge;
    world.network.release();
    let client = world.client().await;
    let log = client.log_by_id(stage.log).await.expect("the log was made");
    let tail = log.find_tail(TailKind::Linearizable).await.expect("the log is well").lsn;
    judge.tail(tail);
    let records = read_to(&log, tail).await;
    let second = judge.reader(Lsn::FIRST);
    judge.read(second, &records);

    let places: Vec<Lsn> = stage.in_doubt_records.iter().flat_map(|payload| positions(&records, payload)).collect();
    match log.resolve(stage.in_doubt).await.expect("the log is well") {
        Resolved::NotAppended => judge.ended(&stage.in_doubt_calls, AppendOutcome::NotAppended),
        Resolved::Committed(first) => judge.committed(&stage.in_doubt_calls, first),
        Resolved::Unknowable => panic!("nothing was trimmed"),
    }
    let decided = chain.segments[0].decided_tail().expect("it is closed");
    assert_eq!(places.is_empty(), decided <= offset(BEFORE + 1), "a repaired record is readable, a dropped one is not");

    let is_open = chain.segments.len() == 2;
    match log.appender().append("after").await {
        Ok(at) => {
            assert!(is_open);
            assert_eq!(at, tail);
            judge.appended(&Bytes::from_static(b"after"), at);
        }
        Err(error) => assert_eq!((error, is_open), (AppendError::Closed { log: stage.log }, false)),
    }
    let tail = log.find_tail(TailKind::Linearizable).await.expect("the log is well").lsn;
    judge.tail(tail);
    let rest = usize::try_from(tail.get() - BEFORE - 1).expect("few");
    judge.read(stage.reader_id, &read(&mut stage.reader, rest).await);
    let scan = judge.reader(Lsn::FIRST);
    judge.read(scan, &read_to(&log, tail).await);
    client.shutdown().await;
    stage.judge.finish();
}

fn positions(records: &[(Lsn, Bytes)], payload: &Bytes) -> Vec<Lsn> {
    records.iter().filter(|(_, found)| found == payload).map(|(lsn, _)| *lsn).collect()
}

async fn read_to(log: &Log, tail: Lsn) -> Vec<(Lsn, Bytes)> {
    let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
    let mut records = Vec::new();
    while let Some(event) = reader.next().await {
        match event.expect("nothing is broken") {
            ReadEvent::Record(record) => records.push((record.lsn, record.payload)),
            ReadEvent::CaughtUp { .. } => {}
            gap @ ReadEvent::Gap { .. } => panic!("nothing was trimmed or lost: {gap:?}"),
        }
    }
    records
}

/// Interrupts A at its first step, its second, and so on, until it comes to its end.
async fn interrupt_everywhere(then: Then) {
    for setting in [Setting::AllAnswer, Setting::OneDark, Setting::ForGood] {
        let mut cut = 0;
        loop {
            cut += 1;
            let one = async {
                let world = World::in_memory(3).await;
                let interrupted = run(&world, setting, then, cut, "c4").await;
                world.shutdown().await;
                interrupted
            };
            match timeout(PATIENCE, one).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => panic!("the run that was interrupted at step {cut} hangs"),
            }
        }
        println!("{setting:?}, {then:?}: interrupted at each of {} steps", cut - 1);
        assert!(cut > 15, "{setting:?}: only {cut} steps, so something was not counted");
    }
}

#[tokio::test]
async fn whoever_asks_for_a_dead_actors_operation_again_gets_its_outcome() {
    interrupt_everywhere(Then::DiesSameOp).await;
}

#[tokio::test]
async fn another_operator_finishes_what_a_dead_actor_announced_and_is_told_so() {
    interrupt_everywhere(Then::DiesOtherOp).await;
}

#[tokio::test]
async fn appenders_alone_finish_what_a_dead_actor_began() {
    interrupt_everywhere(Then::DiesAppender).await;
}

#[tokio::test]
async fn two_actors_with_the_same_operation_get_the_same_outcome_in_every_interleaving() {
    interrupt_everywhere(Then::SleepsSameOp).await;
}

#[tokio::test]
async fn of_two_operators_exactly_one_wins_in_every_interleaving() {
    interrupt_everywhere(Then::SleepsOtherOp).await;
}

/// The same through the public API, over gRPC and RocksDB. All the calls of A's client count, also those that follow
/// chain and nodes in the background.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_cut_off_at_any_step_leaves_a_log_that_goes_on() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let world = World::on_disk(3, directory.path()).await?;
    let setting = Setting::OneDark;
    let mut cut = 0;
    loop {
        cut += 1;
        let stepper = Stepper::new(world.network.clone(), Some(cut));
        let mut stage = timeout(PATIENCE, stage(&world, setting, &format!("cut-{cut}"))).await?;
        let options = ReconfigureOptions {
            op: Some(op(A)),
            successor: successor(&world, A, setting),
            ..ReconfigureOptions::default()
        };
        let a = async {
            let metadata = Arc::new(SteppedMetadata { inner: world.metadata.clone(), stepper: stepper.clone() });
            let client = world.client_through(metadata, Some(Arc::new(stepper.clone()))).await;
            let log = client.log_by_id(stage.log).await?;
            log.reconfigure(options.clone()).await
        };
        let undisturbed = tokio::select! {
            biased;
            outcome = timeout(PATIENCE, a) => Some(outcome??),
            () = stepper.reached() => None,
        };
        let interrupted = undisturbed.is_none();
        let at = chain(&world, stage.log).await;
        let announced = at.pending.is_some() || at.outcome(op(A)).is_some();
        let client = world.client().await;
        let log = client.log_by_id(stage.log).await?;
        let then = match cut % 3 {
            _ if !interrupted => Then::DiesSameOp,
            0 => Then::DiesSameOp,
            1 => Then::DiesOtherOp,
            _ => Then::DiesAppender,
        };
        let going_on = async {
            match then {
                Then::DiesOtherOp => {
                    let successor = successor(&world, B, setting);
                    let other = ReconfigureOptions { op: Some(op(B)), successor, ..ReconfigureOptions::default() };
                    let outcome = log.reconfigure(other).await?;
                    stage.judge.reconfigured(op(B), &outcome);
                    if interrupted {
                        // Announced but decided, too: then B's is the next reconfiguration, of the next segment.
                        anyhow::ensure!(
                            outcome.finished().op == op(if announced { A } else { B }) || at.pending.is_none()
                        );
                    }
                }
                Then::DiesAppender => {
                    world.network.release();
                    let lsn = log.appender().append(BY_SOMEBODY).await?;
                    stage.judge.appended(&Bytes::from_static(BY_SOMEBODY), lsn);
                }
                Then::DiesSameOp | Then::SleepsSameOp | Then::SleepsOtherOp => {
                    let outcome = log.reconfigure(options.clone()).await?;
                    stage.judge.reconfigured(op(A), &outcome);
                    anyhow::ensure!(matches!(outcome, Reconfigured::Done(_)));
                }
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, going_on).await??;
        let after = chain(&world, stage.log).await;
        stage.judge.chain(&after);
        if let SegmentState::Sealed { tail, op: closer, .. } = after.segments[0].state {
            anyhow::ensure!(then == Then::DiesAppender || tail == offset(setting.tail()), "tail {tail}");
            // What A announced is what happens. Before that, another operator closes the segment, and so may an appender
            // whose sequencer does not answer in time.
            anyhow::ensure!(
                closer == op(A) || (!announced && then != Then::DiesSameOp),
                "cut {cut}, {then:?}, announced: {announced}, and closed by {closer}: {after:?}"
            );
            if closer == op(A) {
                let again = log.reconfigure(options.clone()).await?;
                stage.judge.reconfigured(op(A), &again);
                anyhow::ensure!(again == answer_by_chain(&after, A), "{again:?}");
            }
            if after.segments.len() == 2 {
                timeout(PATIENCE, check_contents(&world, stage, &after)).await?;
            }
        } else {
            anyhow::ensure!(then == Then::DiesAppender, "nobody closed the segment");
        }
        client.shutdown().await;
        if !interrupted {
            break;
        }
    }
    println!("through the network: interrupted at each of {} steps", cut - 1);
    world.network.light(world.node(2));
    world.shutdown().await;
    Ok(())
}

/// M2: the actor itself gets over every single reply that it loses.
#[tokio::test]
async fn an_actor_that_loses_a_reply_finishes_with_the_right_outcome() {
    for setting in [Setting::AllAnswer, Setting::OneDark, Setting::ForGood] {
        // T1 and T2 are the transactions 0 and 1 of the actor.
        for (lost, kind, fault) in [
            (0, MetadataCall::Txn, Fault::LoseReply),
            (1, MetadataCall::Txn, Fault::LoseReply),
            (0, MetadataCall::Txn, Fault::FailBefore(MetadataError::Unknown)),
            (1, MetadataCall::Txn, Fault::FailBefore(MetadataError::Unavailable)),
            (0, MetadataCall::Get, Fault::FailBefore(MetadataError::Unavailable)),
            (2, MetadataCall::Get, Fault::LoseReply),
        ] {
            let script = move |call: &Call| match call.kind == kind && call.nth == lost {
                true => fault.clone(),
                false => Fault::None,
            };
            let world = World::in_memory(3).await;
            let metadata = Arc::new(LossyMetadata::new(world.memory_metadata(), Arc::new(script)));
            let losses = Arc::new(Losses::default());
            timeout(PATIENCE, finish_despite(&world, setting, metadata, losses)).await.expect("it hangs");
            world.shutdown().await;
        }
    }
}

#[tokio::test]
async fn an_actor_that_loses_replies_of_servers_finishes_with_the_right_outcome() {
    for setting in [Setting::AllAnswer, Setting::OneDark, Setting::ForGood] {
        let (seal, repair) = (CallKind::Seal, CallKind::Repair);
        let one_seal = (0..3).map(|place| vec![(place, seal)]);
        let all_seals = [vec![(0, seal), (1, seal), (2, seal)], vec![(0, seal), (1, repair)], vec![(1, repair)]];
        for lost in one_seal.chain(all_seals) {
            let world = World::in_memory(3).await;
            let losses = Arc::new(Losses::default());
            for (place, kind) in lost {
                losses.lose(world.node(place), kind, 1);
            }
            let metadata = world.metadata.clone();
            let finished = finish_despite(&world, setting, metadata, losses.clone());
            timeout(PATIENCE, finished).await.expect("it hangs");
            // Repairs happen only if somebody is dark, or a seal comes late.
            assert!(setting != Setting::OneDark || losses.is_used_up_but(world.node(2)));
            world.shutdown().await;
        }
    }
}

/// A closes the segment and gets the outcome that the chain has; nothing was done twice. The tail is one that the
/// answers allow: lost replies of servers change in which order the others count.
async fn finish_despite(world: &World, setting: Setting, metadata: Arc<dyn MetadataStore>, losses: Arc<Losses>) {
    let stage = stage(world, setting, "lossy").await;
    let (reconfigurer, _) = world.reconfigurer(stage.log, metadata, Some(losses)).await;
    let (progress, _) = watch::channel(Progress::default());
    let driven = reconfigurer.drive(&intent(world, A, setting), &progress, &|_: &StoredChain| {}).await;
    let (outcome, _) = driven.expect("a lost reply is no error");
    let chain = chain(world, stage.log).await;
    assert!(matches!(outcome, Reconfigured::Done(_)), "{outcome:?}");
    assert_eq!(outcome, answer_by_chain(&chain, A));
    let tail = chain.segments[0].decided_tail().expect("it is closed");
    assert!([offset(BEFORE + 1), offset(BEFORE + 3)].contains(&tail), "{tail}");
    check_chain(world, setting, Then::DiesAppender, &chain, A);
    check_contents(world, stage, &chain).await;
}

/// Restate #4940: with one server dark and another sealed by an operation that no chain knows, no write quorum is left.
/// Appends go on by themselves.
#[tokio::test]
async fn an_orphaned_seal_beside_a_dark_server_does_not_stop_appends() {
    let world = World::in_memory(3).await;
    let log = world.create_log("orphan", 0).await;
    let client = world.client().await;
    let log = client.log_by_id(log).await.expect("the log was made");
    let appender = log.appender();
    assert_eq!(appender.append("before").await, Ok(lsn(1)));
    world.network.darken(world.node(2));
    world.seal(1, &log.chain().segments[0].params, op(0x0bad)).await;
    let appended = timeout(PATIENCE, async {
        for number in 2..10 {
            assert_eq!(appender.append("goes on").await, Ok(lsn(number)));
        }
    });
    appended.await.expect("appends wait for an operator");
    let chain = log.describe().await.expect("metadata is well");
    let SegmentState::Sealed { reason, actor: Actor::Appender, .. } = chain.segments[0].state else {
        panic!("closed by somebody else: {chain:?}")
    };
    assert_eq!(reason, CloseReason::OrphanedSeal);
    client.shutdown().await;
    world.shutdown().await;
}
