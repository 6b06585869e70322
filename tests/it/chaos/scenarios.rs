//! What may go wrong with a cluster of three, one function each. Each begins and ends with a cluster that is whole, and
//! asks for progress while it is not.

use std::time::{Duration, Instant};

use bifrost::ReconfigureOptions;

use super::stage::Stage;
use crate::support::cluster::{Cluster, METADATA_PORT};
use crate::support::net::Host;
use crate::support::proxy::{Fault, Proxy};

/// A process that got no time for so long has missed every deadline there is between processes: of beats, of calls, of
/// keepalives (5 s until one is sent and 5 s until it counts as lost).
pub const LONGER_THAN_EVERY_TIME_OUT: Duration = Duration::from_secs(12);
/// Restate #4940: it took 16 s until appends moved off a server that was cut off.
pub const ISOLATED: Duration = Duration::from_secs(5);

/// TCP sends again after 0.2 s, 0.4 s, and so on: for the fifth time 6.2 s after the cut, and then 12.6 s after it. Pings give a
/// connection up 10 s after it.
pub const LINK_CUT: Duration = Duration::from_millis(6500);

/// Each process is stopped in good order and started again, one after the other.
pub fn rolling_restart(stage: &mut Stage) {
    for node in 0..stage.cluster.size() {
        stop(stage, node);
    }
}

/// A process is stopped in good order and started again.
pub fn stop(stage: &mut Stage, node: usize) {
    let stopped = format!("node {node} is stopped");
    stage.fault(&stopped, Duration::ZERO, |cluster| cluster.stop(node), |cluster| cluster.start(node));
}

/// A process dies and is started again.
pub fn kill(stage: &mut Stage, node: usize) {
    let killed = format!("node {node} is killed");
    stage.fault(&killed, Duration::ZERO, |cluster| cluster.kill(node), |cluster| cluster.start(node));
}

/// A process gets no time for a while, and does not know it when it goes on.
pub fn pause(stage: &mut Stage, node: usize, time: Duration) {
    let paused = format!("node {node} is paused");
    stage.fault(&paused, time, |cluster| cluster.pause(node), |cluster| cluster.resume(node));
}

/// Nobody reaches a node, and it reaches nobody.
pub fn isolate(stage: &mut Stage, node: usize, time: Duration) {
    let isolated = format!("node {node} is cut off");
    let host = Host::Node(node);
    stage.fault(&isolated, time, |cluster| cluster.net().isolate(host), |cluster| cluster.net().rejoin(host));
}

/// What one node sends to another is lost; the other way works.
pub fn cut_one_way(stage: &mut Stage, from: usize, to: usize, time: Duration) {
    let cut = format!("node {from} is not heard by node {to}");
    let (from, to) = (Host::Node(from), Host::Node(to));
    stage.fault(&cut, time, |cluster| cluster.net().cut(from, to), |cluster| cluster.net().mend(from, to));
}

/// What a node sends to its clients is lost: they are heard and get no answer.
pub fn lose_answers(stage: &mut Stage, node: usize, time: Duration) {
    let lost = format!("the answers of node {node} to clients are lost");
    let (from, to) = (Host::Node(node), Host::Clients);
    stage.fault(&lost, time, |cluster| cluster.net().cut(from, to), |cluster| cluster.net().mend(from, to));
}

/// What these nodes answer, to each other and to clients, comes late, and some of it is lost with its connection although
/// what was asked for was done. The cluster must stand behind proxies.
pub fn bad_answers(stage: &mut Stage, nodes: std::ops::Range<usize>, fault: Fault, time: Duration) {
    let bad = format!("answers of nodes {nodes:?} have {fault:?}");
    let hosts = (0..stage.cluster.size()).map(Host::Node).chain([Host::Clients]);
    let asking: Vec<_> = hosts.map(Host::ip).collect();
    let proxied = nodes.clone();
    let wrong = move |cluster: &mut Cluster| {
        for proxy in proxied.filter_map(|node| cluster.proxy(node)) {
            asking.iter().for_each(|asking| proxy.set(*asking, fault));
        }
    };
    let right = move |cluster: &mut Cluster| {
        let lost: u64 = nodes.filter_map(|node| cluster.proxy(node)).map(Proxy::heal).sum();
        println!("chaos: {lost} answers were lost so far");
    };
    stage.fault(&bad, time, wrong, right);
}

/// A metadata member is cut off and comes back: its leader sends it what it missed at once. TCP alone would use the connection
/// between them again after about as long as it was cut, and until then the next loss would take the majority away.
pub fn heal_soon(stage: &mut Stage) {
    let leader = stage.load.runtime().block_on(stage.cluster.leader());
    let follower = (leader + 1) % stage.cluster.size();
    let log = stage.load.logs().next().expect("a log under load").clone();
    stage.cluster.net().isolate(Host::Node(follower));
    stage.load.runtime().block_on(async {
        let there = ReconfigureOptions { sequencer: Some(stage.cluster.id(leader)), ..ReconfigureOptions::default() };
        log.reconfigure(there).await.expect("two of three are there");
    });
    std::thread::sleep(LINK_CUT);
    stage.cluster.net().rejoin(Host::Node(follower));
    let healed = Instant::now();
    stage.load.runtime().block_on(stage.cluster.await_metadata_everywhere());
    let took = healed.elapsed();
    println!("chaos: a member that was cut off for {LINK_CUT:.1?} had everything after {took:.1?}");
    assert!(took < LINK_CUT / 3, "the connection to it was not used for {took:?}");
}

/// Members of the metadata group do not hear each other, so there is no metadata; everybody else is heard. Appends need
/// none, and a reconfiguration that is begun meanwhile seals nothing and ends once metadata is back.
pub fn metadata_is_away(stage: &mut Stage, rounds: u32) {
    let log = stage.load.logs().next().expect("a log under load").clone();
    let before = log.chain().version;
    let proxies = || (0..stage.cluster.size()).filter_map(|node| stage.cluster.proxy(node));
    proxies().for_each(|proxy| proxy.close(METADATA_PORT));
    let away = stage.load.mark();
    let moving = log.clone();
    let moved = stage.load.runtime().spawn(async move { moving.reconfigure(ReconfigureOptions::default()).await });
    for round in 0..rounds {
        let mark = stage.load.mark();
        stage.load.await_progress(&mark, &format!("round {round} without metadata"));
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(!moved.is_finished(), "there is no metadata to write it to");
    assert_eq!(log.chain().version, before);
    println!("chaos: without metadata gaps of {:.0?}", stage.load.gaps(&away));
    for proxy in proxies() {
        proxy.heal();
    }
    let back = stage.load.mark();
    stage.load.runtime().block_on(moved).expect("it ends").expect("metadata is back");
    stage.load.await_progress(&back, "after metadata was away");
}

/// A process dies, and dies once more while it starts.
pub fn flap(stage: &mut Stage, node: usize, time: Duration) {
    let flaps = format!("node {node} dies twice");
    let wrong = |cluster: &mut Cluster| {
        cluster.kill(node);
        cluster.begin(node, &[]);
        std::thread::sleep(time);
        cluster.kill(node);
    };
    stage.fault(&flaps, Duration::ZERO, wrong, |cluster| cluster.start(node));
}

/// More than the cluster can do without: nothing may be asked of it until they are back.
pub fn kill_one_pause_another(stage: &mut Stage, killed: usize, paused: usize, time: Duration) {
    stage.cluster.pause(paused);
    stage.cluster.kill(killed);
    std::thread::sleep(time);
    stage.cluster.begin(killed, &[]);
    stage.cluster.resume(paused);
    stage.cluster.await_ready(killed);
    let mark = stage.load.mark();
    let took = stage.load.await_progress(&mark, "after two nodes were away at once");
    println!("chaos: nodes {killed} and {paused} were away at once: all logs went on {took:.0?} after they were back");
}

/// All processes are stopped in good order at the same time, and started again.
pub fn stop_all(stage: &mut Stage) {
    let size = stage.cluster.size();
    for node in 0..size {
        stage.cluster.ask_to_stop(node);
    }
    for node in 0..size {
        stage.cluster.await_stopped(node);
    }
    start_all(stage, "all nodes were stopped");
}

/// All processes die at the same time, and are started again.
pub fn kill_all(stage: &mut Stage) {
    for node in 0..stage.cluster.size() {
        stage.cluster.kill(node);
    }
    start_all(stage, "all nodes were killed");
}

fn start_all(stage: &mut Stage, after: &str) {
    let size = stage.cluster.size();
    // A majority must be there before any of them can be ready.
    for node in 0..size {
        stage.cluster.begin(node, &[]);
    }
    for node in 0..size {
        stage.cluster.await_ready(node);
    }
    let mark = stage.load.mark();
    let took = stage.load.await_progress(&mark, after);
    println!("chaos: {after}: all logs went on {took:.0?} after all were ready again");
}
