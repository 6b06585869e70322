//! Scenarios drawn from a seed, one after the other, for as long as is wanted.

use std::time::{Duration, Instant};

use bifrost::ReconfigureOptions;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

use super::scenarios;
use super::stage::Stage;
use crate::support::proxy::Fault;

/// How long schedules run: `make chaos` sets it.
const SECONDS: &str = "CHAOS_SECONDS";
const SECONDS_DEFAULT: u64 = 10;
/// Everything that was written is judged so often, so that a long run tells early and its memory has a bound.
const JUDGED_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Kill,
    KillLeader,
    Stop,
    Pause,
    Isolate,
    CutOneWay,
    LoseAnswers,
    LateAnswers,
    LostAnswers,
    Flap,
    TwoAtOnce,
    KillAll,
    StopAll,
}

/// As often as they are named here.
const KINDS: &[Kind] = &[
    Kind::Kill,
    Kind::Kill,
    Kind::KillLeader,
    Kind::KillLeader,
    Kind::Stop,
    Kind::Stop,
    Kind::Pause,
    Kind::Pause,
    Kind::Isolate,
    Kind::Isolate,
    Kind::CutOneWay,
    Kind::CutOneWay,
    Kind::LoseAnswers,
    Kind::LateAnswers,
    Kind::LostAnswers,
    Kind::Flap,
    Kind::TwoAtOnce,
    Kind::KillAll,
    Kind::StopAll,
];

/// Whether somebody asked for more than a look.
pub fn is_long_run() -> bool {
    asked().is_some_and(|asked| asked > SECONDS_DEFAULT)
}

/// How long schedules are to run.
pub fn wanted() -> Duration {
    Duration::from_secs(asked().unwrap_or(SECONDS_DEFAULT))
}

fn asked() -> Option<u64> {
    std::env::var(SECONDS).ok()?.parse().ok()
}

/// The same seed gives the same scenarios in the same order; whom they meet, and when, is up to the machine too.
pub fn play(stage: &mut Stage, seed: u64, time: Duration) {
    let mut random = StdRng::seed_from_u64(seed);
    let begun = Instant::now();
    let (mut judged, mut number) = (Instant::now(), 0);
    while begun.elapsed() < time {
        let kind = *KINDS.choose(&mut random).expect("some kinds");
        println!("chaos: after {:.1?}: {kind:?}", begun.elapsed());
        if random.random_bool(0.5) {
            reconfigure_all(stage);
        }
        one(stage, kind, &mut random);
        if judged.elapsed() > JUDGED_EVERY {
            number += 1;
            stage.next(&format!("logs-{number}"));
            judged = Instant::now();
        }
    }
}

fn one(stage: &mut Stage, kind: Kind, random: &mut StdRng) {
    let size = stage.cluster.size();
    // Rather one that numbers appends: the others are hardly missed.
    let any = random.random_range(0..size);
    let log = random.random_range(0..stage.load.logs().count());
    let node = if random.random_bool(0.7) { stage.sequencer(log) } else { any };
    let other = (node + random.random_range(1..size)) % size;
    let time = Duration::from_millis(random.random_range(100..6_000));
    match kind {
        Kind::Kill => scenarios::kill(stage, node),
        Kind::KillLeader => {
            let leader = stage.load.runtime().block_on(stage.cluster.leader());
            scenarios::kill(stage, leader);
        }
        Kind::Stop => scenarios::stop(stage, node),
        Kind::Pause => scenarios::pause(stage, node, time),
        Kind::Isolate => scenarios::isolate(stage, node, time),
        Kind::CutOneWay => scenarios::cut_one_way(stage, node, other, time),
        Kind::LoseAnswers => scenarios::lose_answers(stage, node, time),
        Kind::LateAnswers => {
            let delay = Duration::from_millis(random.random_range(50..300));
            scenarios::bad_answers(stage, node..node + 1, Fault { delay, lost_permille: 10 }, time);
        }
        Kind::LostAnswers => {
            let lost_permille = random.random_range(1..10);
            scenarios::bad_answers(stage, 0..size, Fault { delay: Duration::ZERO, lost_permille }, time);
        }
        Kind::Flap => scenarios::flap(stage, node, time / 10),
        Kind::TwoAtOnce => scenarios::kill_one_pause_another(stage, node, other, time / 2),
        Kind::KillAll => scenarios::kill_all(stage),
        Kind::StopAll => scenarios::stop_all(stage),
    }
}

/// An operator moves all logs in the same moment. How that ends is the checker's business; here it only must end.
fn reconfigure_all(stage: &Stage) {
    for log in stage.load.logs() {
        let log = log.clone();
        stage.load.runtime().spawn(async move {
            let _any = timeout(Duration::from_secs(60), log.reconfigure(ReconfigureOptions::default())).await;
        });
    }
}
