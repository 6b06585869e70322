//! What happens to the cluster in each row, and how long the writers of a log wait for it.

use std::time::{Duration, Instant};

use bifrost::{Log, ReconfigureOptions};
use bifrost_types::SegmentState;
use tokio::time::sleep;

use super::chaos::load::Load;
use super::disk::DiskWatch;
use super::summary::Measured;
use super::support::cluster::Cluster;

/// A disk that takes longer than this for 4 KiB stalls: as long as the shortest gap that is aimed at.
const STALL: Duration = Duration::from_millis(20);
/// Before a repetition: what follows a closed segment, up to the disks that look whether they miss something of it, is over then.
const REST: Duration = Duration::from_millis(1500);
/// Between two attempts to put the sequencer where a repetition wants it.
const PAUSE: Duration = Duration::from_millis(100);

/// One kind of change or loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// An operator moves the sequencer.
    Planned,
    /// The sequencer's node gets SIGTERM.
    Stop,
    /// The same, when it leads metadata too.
    StopLeader,
    /// The sequencer's node is killed.
    Kill,
    /// The same, when it leads metadata too.
    KillLeader,
    /// The metadata leader, another node than the sequencer's, is killed as soon as a reconfiguration is announced.
    LeaderDiesMeanwhile,
    /// The sequencer's node is cut off: nobody is told anything.
    CutOff,
}

impl Row {
    pub const ALL: [Self; 7] = [
        Self::Planned,
        Self::Stop,
        Self::StopLeader,
        Self::Kill,
        Self::KillLeader,
        Self::LeaderDiesMeanwhile,
        Self::CutOff,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned_reconfiguration",
            Self::Stop => "stop",
            Self::StopLeader => "stop_of_metadata_leader",
            Self::Kill => "kill",
            Self::KillLeader => "kill_of_metadata_leader",
            Self::LeaderDiesMeanwhile => "leader_killed_during_reconfiguration",
            Self::CutOff => "cut_off",
        }
    }

    /// Whether the sequencer is to be where metadata is led, at the beginning of each repetition.
    const fn with_leader(self) -> Option<bool> {
        match self {
            Self::Planned => None,
            Self::Stop | Self::Kill | Self::LeaderDiesMeanwhile | Self::CutOff => Some(false),
            Self::StopLeader | Self::KillLeader => Some(true),
        }
    }

    pub fn measure(self, cluster: &mut Cluster, load: &Load, disk: &DiskWatch, repetitions: u32) -> Measured {
        let log = load.logs().next().expect("a log").clone();
        let mut measured = Measured::default();
        while measured.gaps.len() < repetitions && measured.stalled.len() < repetitions {
            load.runtime().block_on(self.prepare(cluster, &log));
            load.await_progress(&load.mark(), "before a repetition");
            std::thread::sleep(REST);
            let (mark, begun) = (load.mark(), Instant::now());
            let (node, closed_before) = (sequencer(cluster, &log), log.chain().segments.len());
            self.happens(cluster, load, &log, node);
            let from = load.mark();
            load.await_progress(&from, self.name());
            let (gap, ended) = (load.gaps(&mark)[0], Instant::now());
            let canary = disk.worst(begun, ended);
            if canary < STALL {
                measured.gaps.push(gap);
                measured.canary.push(canary);
            } else {
                measured.stalled.push(gap);
            }
            self.put_right(cluster, node);
            load.runtime().block_on(cluster.await_metadata_everywhere());
            load.await_progress(&load.mark(), "after a repetition");
            note_closes(&log, closed_before, &mut measured);
        }
        measured
    }

    async fn prepare(self, cluster: &Cluster, log: &Log) {
        let Some(with_leader) = self.with_leader() else { return };
        loop {
            let (leader, node) = (cluster.leader().await, sequencer(cluster, log));
            if (leader == node) == with_leader {
                return;
            }
            let there = if with_leader { leader } else { (leader + 1) % cluster.size() };
            let options = ReconfigureOptions { sequencer: Some(cluster.id(there)), ..ReconfigureOptions::default() };
            // It may be too early after the last repetition.
            if log.reconfigure(options).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    fn happens(self, cluster: &mut Cluster, load: &Load, log: &Log, node: usize) {
        match self {
            Self::Planned => {
                let moved = load.runtime().block_on(log.reconfigure(ReconfigureOptions::default()));
                moved.expect("all nodes are well");
            }
            Self::Stop | Self::StopLeader => cluster.stop(node),
            Self::Kill | Self::KillLeader => cluster.kill(node),
            Self::LeaderDiesMeanwhile => {
                let leader = load.runtime().block_on(cluster.leader());
                let version = log.chain().version;
                let moving = log.clone();
                load.runtime().spawn(async move { moving.reconfigure(ReconfigureOptions::default()).await });
                while log.chain().version == version {
                    std::thread::yield_now();
                }
                cluster.kill(leader);
            }
            Self::CutOff => cluster.net().isolate(super::support::net::Host::Node(node)),
        }
    }

    fn put_right(self, cluster: &mut Cluster, node: usize) {
        if self == Self::CutOff {
            cluster.net().rejoin(super::support::net::Host::Node(node));
        }
        for node in 0..cluster.size() {
            if !cluster.is_running(node) {
                cluster.start(node);
            }
        }
    }
}

fn sequencer(cluster: &Cluster, log: &Log) -> usize {
    cluster.node(log.chain().last().expect("a segment").params.sequencer.node)
}

/// What the chain says of the closes since then.
fn note_closes(log: &Log, before: usize, measured: &mut Measured) {
    let chain = log.chain();
    for segment in chain.segments.iter().skip(before.saturating_sub(1)) {
        if let SegmentState::Sealed { timings, .. } = &segment.state {
            measured.seals.push(Duration::from_micros(timings.seal_micros));
            measured.closes.push(Duration::from_micros(timings.total_micros));
        }
    }
}
