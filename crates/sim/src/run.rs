//! One run: start, faults, heal a core that suffices, demand progress, read everything once more, be quiet.

mod faults;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use bifrost::catalog::Catalog;
use bifrost::connect::GrpcConnect;
use bifrost::{Bifrost, Options, ReplicationProperty};
use bifrost_checker::Bound;
use bifrost_checker::event::Event;
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{LogletOffset, Scope};
use futures_util::FutureExt as _;
use tokio::time::sleep;
use turmoil::Sim;

use self::faults::Faulty;
pub use self::verdict::Verdict;
use crate::client::Client;
use crate::control::{Control, Stage};
use crate::disk::{Disk, FilesOptions};
use crate::history::History;
use crate::interpose;
use crate::members::{Members, member};
use crate::node::{DiskSlot, Ground, metadata_server, node};
use crate::plan::{Cluster, Plan};
use crate::transport::{Faults, ObservedMetadata, Rates};
use crate::truth::Truth;

/// One step of the simulation.
const STEP: Duration = Duration::from_millis(1);
/// How long the cluster has to start and make its logs. Nothing goes wrong meanwhile.
const BOOT_WITHIN: Duration = Duration::from_secs(60);
/// How long everything has after the heal. Stated in `docs/TESTING.md`, by what it is made of.
pub const HEAL_WITHIN: Duration = Duration::from_secs(90);
/// How long the cluster is left alone at the end.
const IDLE: Duration = Duration::from_secs(20);
/// Calls that an idle cluster of five nodes makes in that time at most, some of them to nodes that are dead.
const IDLE_CALLS_MAX: u64 = 200;
/// How long metadata is away before calls are counted: as long as pauses take to grow.
const DARK_BEFORE: Duration = Duration::from_secs(6);
/// How long they are counted then.
const DARK: Duration = Duration::from_secs(10);
/// Calls that eight hosts make meanwhile at most.
const DARK_CALLS_MAX: u64 = 700;
/// Bytes of a disk.
const DISK_BYTES: u64 = 1 << 30;

/// What every host is connected to, and the hosts.
struct World<'a> {
    sim: Sim<'a>,
    plan: Plan,
    ground: Ground,
    faulty: Faulty,
}

/// Runs a plan to its end. The process must not have run anything before: clocks and randomness are its own from here on.
pub fn run(plan: &Plan) -> Verdict {
    interpose::start(plan.seed);
    let mut world = World::new(plan);
    let (stuck, quiet) = match world.live() {
        Ok(quiet) => (None, quiet),
        Err(stuck) => (Some(stuck.0), Vec::new()),
    };
    Verdict::new(plan, &world.ground, stuck, quiet)
}

/// What did not come to its end, in words.
struct Stuck(String);

impl World<'_> {
    fn new(plan: &Plan) -> Self {
        let (latency_min, latency_max) = plan.cluster.latency_ms;
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(STEP)
            .simulation_duration(Duration::from_secs(24 * 3600))
            .min_message_latency(Duration::from_millis(u64::from(latency_min)))
            .max_message_latency(Duration::from_millis(u64::from(latency_max)))
            .tcp_capacity(1 << 16)
            .enable_random_order()
            .build();
        let history = History::new(interpose::now_micros);
        let disks = plan.nodes().into_iter().enumerate().map(|(place, host)| {
            let disk = disk(&plan.cluster, &host, &host, plan.seed.wrapping_add(place as u64), &history);
            let zone = plan.cluster.zone_of(&host);
            (host.clone(), DiskSlot { name: host, disk, zone, replaces: None })
        });
        let truth = Truth::new(history.clone());
        let members = Members::of(plan, &truth, &history);
        let doors = if members.is_some() { Vec::new() } else { plan.metadata_hosts() };
        let leaders: BTreeMap<String, Arc<ObservedMetadata>> = (0..)
            .zip(doors)
            .map(|(place, host)| {
                let seed = plan.seed.wrapping_add(100 + place);
                (host.clone(), Arc::new(ObservedMetadata::new(host, truth.clone(), history.clone(), seed)))
            })
            .collect();
        if let Some(first) = leaders.values().next() {
            first.lead();
        }
        let ground = Ground {
            control: Control::default(),
            history: history.clone(),
            faults: Faults::new(plan.seed ^ 0x5eed_ca11, history.clone()),
            truth,
            leaders,
            members,
            segments: SegmentLimits {
                offsets_max: plan.cluster.segment_records,
                retained_bytes_max: usize::try_from(plan.cluster.retained_bytes).unwrap_or(usize::MAX),
                ..SegmentLimits::default()
            },
            metadata: plan.metadata_hosts(),
            nodes: plan.nodes(),
            disks: Arc::new(parking_lot::Mutex::new(disks.collect())),
        };
        for (host, store) in &ground.leaders {
            let (name, store) = (host.clone(), store.clone());
            sim.host(host.as_str(), move || metadata_server(name.clone(), store.clone()));
        }
        if let Some(members) = &ground.members {
            for host in members.hosts() {
                let (name, members, ground) = (host.clone(), members.clone(), ground.clone());
                sim.host(host.as_str(), move || member(name.clone(), members.clone(), ground.clone()));
            }
        }
        for host in plan.nodes() {
            let (name, ground) = (host.clone(), ground.clone());
            sim.host(host, move || node(name.clone(), ground.clone()));
        }
        for (place, host) in plan.clients().into_iter().enumerate() {
            let (name, ground, plan) = (host.clone(), ground.clone(), plan.clone());
            sim.host(host, move || client(name.clone(), place, plan.clone(), ground.clone()));
        }
        let faulty = Faulty::new(plan, &ground);
        history.with_checker(|checker| {
            if plan.cluster.loss {
                checker.allow_loss();
            }
            checker.expect_disks();
            checker.expect_progress(u64::try_from(HEAL_WITHIN.as_micros()).unwrap_or(u64::MAX));
        });
        Self { sim, plan: plan.clone(), ground, faulty }
    }

    /// The phases; the calls that were made while nothing could be done, or nothing had to. `Err` when a phase did not come
    /// to its end.
    fn live(&mut self) -> Result<Vec<Bound>, Stuck> {
        let control = self.ground.control.clone();
        self.boot_badly();
        let members = self.ground.members.clone();
        let complete = || members.as_ref().is_none_or(Members::are_complete);
        if !self.until(BOOT_WITHIN, || control.has_logs() && complete())? {
            return Err(Stuck("the cluster did not start".to_owned()));
        }
        self.ground.faults.clear();
        let began = self.sim.elapsed();
        control.enter(Stage::Work);
        while self.sim.elapsed() < began + Duration::from_millis(u64::from(self.plan.work.lasts_ms)) {
            let at = self.sim.elapsed() - began;
            self.faulty.advance(&mut self.sim, at);
            self.step()?;
        }
        let staying_dead = self.faulty.heal(&mut self.sim, &self.plan);
        let mut quiet = Vec::new();
        if self.plan.work.dark {
            quiet.push(self.dark()?);
        }
        self.ground.history.note(format!("healed, except {staying_dead:?}"));
        self.ground.history.record(Event::Healed);
        control.enter(Stage::Heal);
        let alive: BTreeSet<String> =
            self.plan.hosts().into_iter().filter(|host| !staying_dead.contains(host)).collect();
        let of_the_living = |what: &String| what.split(' ').next().is_some_and(|host| alive.contains(host));
        let done = self.until(HEAL_WITHIN, || control.probed() && !control.open_work().iter().any(of_the_living))?;
        if !done {
            let open: Vec<String> = control.open_work().into_iter().filter(of_the_living).collect();
            return Err(Stuck(format!("not over {HEAL_WITHIN:?} after the heal: {}", open.join(", "))));
        }
        control.enter(Stage::Over);
        for host in self.plan.clients() {
            self.sim.crash(host);
        }
        // What was begun for the clients may still end.
        self.pass(IDLE)?;
        let found = self.calls_within(IDLE)?;
        quiet.push(Bound { what: "calls of an idle cluster", found, max: IDLE_CALLS_MAX });
        self.require_copies(&staying_dead);
        self.require_disks();
        self.require_members();
        Ok(quiet)
    }

    /// Nobody begins anything and metadata is away: once pauses have grown, whoever waits asks seldom.
    fn dark(&mut self) -> Result<Bound, Stuck> {
        self.ground.control.enter(Stage::Dark);
        self.ground.history.note("metadata is away, and nobody begins anything");
        self.faulty.darken(&mut self.sim, true);
        self.pass(DARK_BEFORE)?;
        let found = self.calls_within(DARK)?;
        self.faulty.darken(&mut self.sim, false);
        Ok(Bound { what: "calls of a cluster without metadata", found, max: DARK_CALLS_MAX })
    }

    fn calls_within(&mut self, time: Duration) -> Result<u64, Stuck> {
        let before = self.ground.faults.calls();
        self.pass(time)?;
        Ok(self.ground.faults.calls() - before)
    }

    /// Loses replies of metadata while nodes start.
    fn boot_badly(&self) {
        let rates = Rates { lose_reply: self.plan.cluster.boot_loses_percent, ..Rates::default() };
        for host in self.plan.nodes() {
            for server in self.plan.metadata_hosts() {
                self.ground.faults.set(&host, &server, rates);
            }
        }
    }

    /// The metadata members that live have applied everything.
    fn require_members(&self) {
        for host in self.ground.members.iter().flat_map(Members::behind) {
            self.ground.control.fail(format!("P5 the metadata member {host} still lacks entries"));
        }
    }

    /// What was durable on a disk is there, and nothing else (L2).
    fn require_disks(&self) {
        for (host, slot) in self.ground.disks.lock().iter() {
            for failure in slot.disk.failures() {
                self.ground.control.fail(format!("L2 the disk of {host}: {failure}"));
            }
        }
    }

    /// Whatever a copy of an open segment missed while it was away, it was given since (A4).
    fn require_copies(&self, dead: &BTreeSet<String>) {
        let keyspace = Catalog::new(Arc::new(self.ground.truth.keyspace()));
        // Memory answers at once.
        let chains = keyspace.logs(None, usize::from(u8::MAX)).now_or_never().and_then(Result::ok).unwrap_or_default();
        let alive = self.ground.control.alive();
        let disks = self.ground.disks.lock();
        for chain in chains {
            let Some(last) = chain.chain.last().filter(|last| last.decided_tail().is_none()) else { continue };
            let copies: Vec<(&String, BTreeSet<LogletOffset>)> = alive
                .iter()
                .filter(|(host, (_, disk))| {
                    !dead.contains(*host) && last.params.nodeset.members().iter().any(|member| member.disk == *disk)
                })
                .filter_map(|(host, _)| Some((host, disks.get(host)?)))
                .map(|(host, slot)| {
                    let mine = slot.disk.places().into_iter().filter(|(loglet, _)| *loglet == last.params.id);
                    (host, mine.map(|(_, first_offset)| first_offset).collect())
                })
                .collect();
            // Who was away when the log was trimmed may still have what the others dropped.
            let trimmed = chain.chain.trim_point.and_then(|point| LogletOffset::from_lsn(point, last.base_lsn));
            let all: BTreeSet<LogletOffset> =
                copies.iter().flat_map(|(_, batches)| batches).copied().filter(|at| Some(*at) > trimmed).collect();
            for (host, batches) in copies {
                let missing = all.difference(&batches).count();
                if missing > 0 {
                    let loglet = last.params.id;
                    self.ground
                        .control
                        .fail(format!("A4 the copy of {loglet} on {host} still lacks {missing} batches"));
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) -> Result<(), Stuck> {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    fn until(&mut self, within: Duration, over: impl Fn() -> bool) -> Result<bool, Stuck> {
        let end = self.sim.elapsed() + within;
        while self.sim.elapsed() < end {
            if over() {
                return Ok(true);
            }
            self.step()?;
        }
        Ok(false)
    }

    fn step(&mut self) -> Result<(), Stuck> {
        let nanos = u64::try_from(self.sim.elapsed().as_nanos()).unwrap_or(u64::MAX);
        interpose::set_now_nanos(nanos);
        match self.sim.step() {
            Ok(_) => Ok(()),
            Err(error) => Err(Stuck(format!("a host failed: {error}"))),
        }
    }
}

/// An empty disk for a host, of the kind that the plan says.
fn disk(cluster: &Cluster, host: &str, name: &str, seed: u64, history: &History) -> Disk {
    match cluster.files.as_ref().filter(|files| files.nodes.iter().any(|node| node == host)) {
        Some(files) => {
            let options = FilesOptions {
                file_bytes: u64::from(files.file_blocks) * 4096,
                recent_bytes: usize::try_from(files.recent_bytes).unwrap_or(usize::MAX),
            };
            Disk::on_files(name, seed, DISK_BYTES, history.clone(), options)
        }
        None => Disk::new(name, seed, DISK_BYTES, history.clone()),
    }
}

async fn client(host: String, place: usize, plan: Plan, ground: Ground) -> turmoil::Result {
    let metadata = ground.metadata_from(&host, &ground.nodes);
    let last = place + 1 == plan.clients().len();
    if last {
        ground.control.reached(Stage::Heal).await;
    }
    let catalog = Catalog::new(metadata.clone());
    let cluster = loop {
        match catalog.known_cluster_id().await {
            Ok(Some(cluster)) => break cluster,
            _ => sleep(Duration::from_millis(200)).await,
        }
    };
    let mut options = ground.client_options();
    options.cluster = Some(cluster);
    let connect = ground.connect_from(&host, Arc::new(GrpcConnect { options }));
    let bifrost = loop {
        match Bifrost::from_parts(metadata.clone(), connect.clone(), Options::default()).await {
            Ok(bifrost) => break bifrost,
            Err(error) => {
                ground.history.note(format!("{host} does not start: {error}"));
                sleep(Duration::from_millis(200)).await;
            }
        }
    };
    let client = Client {
        host: host.clone(),
        place,
        bifrost,
        control: ground.control.clone(),
        history: ground.history.clone(),
        work: plan.work.clone(),
        scans: plan.cluster.nodes,
        seed: plan.seed,
    };
    if last {
        client.probe().await;
        ground.control.set_probed();
    } else {
        if place == 0 && !ground.control.has_logs() {
            client.nodes_are_there(usize::from(plan.cluster.nodes)).await;
            client.make_logs(replication(&plan.cluster)).await;
        }
        client.work().await;
    }
    // A host without a program would not keep its time.
    std::future::pending::<()>().await;
    Ok(())
}

fn replication(cluster: &Cluster) -> Option<ReplicationProperty> {
    let copies = NonZeroU8::new(cluster.copies)?;
    let zones = NonZeroU8::new(cluster.zones_reached).filter(|zones| zones.get() > 1);
    ReplicationProperty::new(zones.map(|zones| (Scope::Zone, zones)).into_iter().chain([(Scope::Node, copies)])).ok()
}
