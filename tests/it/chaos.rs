//! Clusters of real processes under load while nodes die, stop, hang and are cut off. Reading order: `support::net`,
//! `support::cluster` (what it plays on), [`load`] (who writes, who reads, who judges), [`stage`], [`scenarios`],
//! [`mixed`] (schedules from a seed).
//!
//! Every run ends like this: everything is put right, a client that saw nothing of the past appends to each log and reads
//! all of it, the checker judges what everybody saw, and no process may have died by itself.

mod interrupted;
mod load;
mod many_logs;
mod mixed;
mod scenarios;
mod stage;

use std::time::Duration;

use tokio::runtime::Builder;

use self::stage::Stage;
use super::faults::seed_of;
use super::support::cluster::Cluster;
use super::support::net::with_namespaces;
use super::support::proxy::Fault;

/// Logs on one sequencer node: in a long run, and in `make test`, where making them takes most of the time.
const MANY: usize = 1_000;
const SOME: usize = 200;

#[test]
fn each_process_is_stopped_and_started_under_load() {
    with_namespaces("chaos::each_process_is_stopped_and_started_under_load", || {
        Stage::of_three(scenarios::rolling_restart);
    });
}

#[test]
fn any_process_is_killed_again_and_again() {
    with_namespaces("chaos::any_process_is_killed_again_and_again", || {
        Stage::of_three(|stage| {
            for round in 0..6 {
                scenarios::kill(stage, round % 3);
            }
        });
    });
}

#[test]
fn a_process_that_was_paused_for_longer_than_every_time_out_goes_on() {
    with_namespaces("chaos::a_process_that_was_paused_for_longer_than_every_time_out_goes_on", || {
        Stage::of_three(|stage| {
            let leader = stage.load.runtime().block_on(stage.cluster.leader());
            scenarios::pause(stage, leader, scenarios::LONGER_THAN_EVERY_TIME_OUT);
        });
    });
}

#[test]
fn a_node_that_is_cut_off_is_left_behind_and_comes_back() {
    with_namespaces("chaos::a_node_that_is_cut_off_is_left_behind_and_comes_back", || {
        Stage::of_three(|stage| {
            for node in 0..2 {
                scenarios::isolate(stage, node, scenarios::ISOLATED);
            }
        });
    });
}

#[test]
fn a_link_that_is_healed_is_used_at_once() {
    with_namespaces("chaos::a_link_that_is_healed_is_used_at_once", || Stage::of_three(scenarios::heal_soon));
}

#[test]
fn a_node_that_is_heard_one_way_only_does_not_stop_the_others() {
    with_namespaces("chaos::a_node_that_is_heard_one_way_only_does_not_stop_the_others", || {
        Stage::of_three(|stage| {
            let leader = stage.load.runtime().block_on(stage.cluster.leader());
            let other = (leader + 1) % 3;
            let time = Duration::from_secs(1);
            // Between two nodes that both number appends, hold copies and take part in metadata; one of them leads it.
            scenarios::cut_one_way(stage, leader, other, time);
            scenarios::cut_one_way(stage, other, leader, time);
            scenarios::lose_answers(stage, other, time);
        });
    });
}

#[test]
fn answers_that_come_late_or_never_stop_nobody() {
    with_namespaces("chaos::answers_that_come_late_or_never_stop_nobody", || {
        let seed = seed_of("answers");
        Stage::behind_proxies(seed, |stage| {
            let leader = stage.load.runtime().block_on(stage.cluster.leader());
            let (other, time) = ((leader + 1) % 3, Duration::from_secs(1));
            let late = Fault { delay: Duration::from_millis(150), lost_permille: 20 };
            scenarios::bad_answers(stage, leader..leader + 1, late, time);
            scenarios::bad_answers(stage, other..other + 1, late, time);
            scenarios::bad_answers(stage, 0..3, Fault { delay: Duration::ZERO, lost_permille: 5 }, time);
        });
    });
}

#[test]
fn appends_go_on_without_metadata_and_a_reconfiguration_waits_for_it() {
    with_namespaces("chaos::appends_go_on_without_metadata_and_a_reconfiguration_waits_for_it", || {
        Stage::behind_proxies(seed_of("metadata"), |stage| scenarios::metadata_is_away(stage, 12));
    });
}

#[test]
fn a_cluster_that_stops_as_a_whole_or_dies_as_a_whole_goes_on() {
    with_namespaces("chaos::a_cluster_that_stops_as_a_whole_or_dies_as_a_whole_goes_on", || {
        Stage::of_three(|stage| {
            scenarios::stop_all(stage);
            scenarios::kill_all(stage);
        });
    });
}

#[test]
fn a_reconfiguration_is_finished_by_others_when_the_metadata_leader_dies_in_its_middle() {
    with_namespaces(
        "chaos::a_reconfiguration_is_finished_by_others_when_the_metadata_leader_dies_in_its_middle",
        || {
            Stage::of_three(interrupted::leader_dies_between_announcement_and_decision);
        },
    );
}

#[test]
fn many_idle_logs_leave_a_dead_sequencer() {
    with_namespaces("chaos::many_idle_logs_leave_a_dead_sequencer", || {
        let logs = if mixed::is_long_run() { MANY } else { SOME };
        Cluster::run(3, &std::env::temp_dir(), |mut cluster| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            let moved = runtime.block_on(many_logs::sequencer_of_many_dies(&mut cluster, logs));
            cluster.check();
            let many_logs::Moved { idle, appended } = moved;
            println!("chaos: {logs} idle logs moved in {idle:.1?}, and took an append each in {appended:.1?} more");
        });
    });
}

/// Ten seconds of it here; `make chaos` runs it for an hour, and `BIFROST_SEED` repeats a schedule.
#[test]
fn a_schedule_from_a_seed_breaks_no_promise() {
    with_namespaces("chaos::a_schedule_from_a_seed_breaks_no_promise", || {
        let seed = seed_of("chaos");
        Stage::behind_proxies(seed, |stage| mixed::play(stage, seed, mixed::wanted()));
    });
}
