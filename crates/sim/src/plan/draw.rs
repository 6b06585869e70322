//! A plan from a seed: which cluster, which classes of faults, how many, how long, against whom.

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::{Call, Cluster, Fault, Kind, Plan, Work, retained_bytes};

/// Kinds of faults that a run may have; each run draws some of these classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Links,
    Crashes,
    Calls,
    Disks,
    Metadata,
    Clocks,
}

const CLASSES: [Class; 6] = [Class::Links, Class::Crashes, Class::Calls, Class::Disks, Class::Metadata, Class::Clocks];

/// Nodes, zones, copies, zones that a record must reach.
const SHAPES: [(u8, u8, u8, u8); 6] =
    [(3, 1, 2, 1), (3, 1, 2, 1), (3, 3, 2, 2), (4, 1, 3, 1), (5, 1, 3, 1), (5, 2, 2, 2)];

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        // Not the stream that the run itself draws from.
        let mut random = SmallRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let cluster = cluster(&mut random);
        let work = work(&mut random);
        let mut plan = Self { seed, cluster, work, faults: Vec::new() };
        let mut classes = CLASSES.to_vec();
        classes.shuffle(&mut random);
        classes.truncate(random.random_range(1..=CLASSES.len()));
        // One run in eight is quiet: what must hold without faults is seen there.
        let faults = if random.random_ratio(1, 8) { 0 } else { random.random_range(1..=16) };
        for _ in 0..faults {
            let Some(class) = classes.choose(&mut random) else { break };
            let kind = plan.kind(*class, &mut random);
            let at_ms = random.random_range(0..plan.work.lasts_ms);
            let longest = plan.work.lasts_ms - at_ms;
            let for_ms = if random.random_bool(0.5) { 3_000.min(longest) } else { longest };
            let for_ms = random.random_range(1..=for_ms.max(1));
            plan.faults.push(match kind {
                // The others must have the time to go on without those on it.
                Kind::Island { .. } => Fault { at_ms: at_ms / 2, for_ms: random.random_range(4_000..=15_000), kind },
                kind => Fault { at_ms, for_ms, kind },
            });
        }
        if plan.cluster.loss {
            // In the second half: there is something to destroy by then.
            let at_ms = random.random_range(plan.work.lasts_ms / 2..plan.work.lasts_ms);
            plan.faults.push(Fault { at_ms, for_ms: 1, kind: Kind::Destroy });
        }
        plan.draw_group();
        plan.draw_files();
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan
    }

    fn kind(&self, class: Class, random: &mut SmallRng) -> Kind {
        let hosts = self.hosts();
        let nodes = self.nodes();
        let host = |random: &mut SmallRng| pick(&hosts, random);
        let node = |random: &mut SmallRng| pick(&nodes, random);
        match class {
            Class::Links => match random.random_range(0..9) {
                0 => {
                    let (a, b) = split(&hosts, random);
                    Kind::Partition { a, b }
                }
                1 => {
                    let (from, to) = split(&hosts, random);
                    Kind::OneWay { from, to }
                }
                2 => {
                    let (a, b) = split(&hosts, random);
                    Kind::Hold { a, b }
                }
                3 => Kind::Pause { host: host(random) },
                // Somebody hears nothing new of the chains, and still reaches everybody whom it knows.
                4 => Kind::Hold { a: vec![node(random)], b: self.metadata_hosts() },
                5 => Kind::Hold { a: vec![pick(&self.clients(), random)], b: vec!["n1".to_owned()] },
                6 | 7 => {
                    let client = if random.random_bool(0.5) { "c1" } else { "c2" };
                    Kind::Island { client: client.to_owned(), held: random.random_bool(0.5) }
                }
                _ => Kind::Slow { host: host(random), up_to_ms: random.random_range(20..=1_500) },
            },
            Class::Crashes => {
                let users: Vec<String> = hosts.iter().filter(|name| !name.starts_with('m')).cloned().collect();
                let host = pick(&users, random);
                if random.random_bool(0.5) {
                    let call = *Call::ALL.choose(random).unwrap_or(&Call::Txn);
                    Kind::CrashAt { host, call, after: random.random_range(0..6), executed: random.random_bool(0.5) }
                } else {
                    Kind::Crash { host, silent: random.random_bool(0.3) }
                }
            }
            Class::Calls => {
                let client = random.random_bool(0.5);
                let from = if client { pick(&self.clients(), random) } else { host(random) };
                let to = node(random);
                let percent = random.random_range(1..=60);
                match random.random_range(0..3) {
                    0 => Kind::LoseReplies { from, to, percent },
                    1 => Kind::Duplicate { from, to, percent },
                    _ => Kind::Late { from, to, percent, up_to_ms: random.random_range(100..=20_000) },
                }
            }
            Class::Disks => match (random.random_range(0..10), self.cluster.sacrificed.as_slice()) {
                (0 | 1, _) => {
                    let from_ms = random.random_range(0..=100);
                    Kind::SlowDisk { node: node(random), from_ms, up_to_ms: from_ms + random.random_range(1..=5_000) }
                }
                (2 | 3, _) => Kind::FailingDisk { node: node(random) },
                (4, sacrificed) if !sacrificed.is_empty() => {
                    Kind::Wipe { node: pick(sacrificed, random), renamed: random.random_bool(0.5) }
                }
                (5..=7, sacrificed) if !sacrificed.is_empty() => Kind::Corrupt { node: pick(sacrificed, random) },
                _ => Kind::FullDisk { node: node(random) },
            },
            Class::Metadata => match random.random_range(0..8) {
                0 => Kind::NoLeader,
                3..=5 => Kind::LeaderChangeAt { after: random.random_range(0..6) },
                1 | 2 => {
                    // Clients reach metadata through the nodes, and nodes by the servers: each by its first address.
                    let client = random.random_bool(0.5);
                    let (from, to) = if client { (pick(&self.clients(), random), "n1") } else { (node(random), "m1") };
                    Kind::LoseReplies { from, to: to.to_owned(), percent: random.random_range(5..=60) }
                }
                _ => Kind::LeaderChange,
            },
            Class::Clocks => Kind::ClockJump { by_ms: random.random_range(-86_400_000..=86_400_000) },
        }
    }
}

fn cluster(random: &mut SmallRng) -> Cluster {
    let (nodes, zones, copies, zones_reached) = *SHAPES.choose(random).unwrap_or(&(3, 1, 2, 1));
    let least = random.random_range(1..=3);
    let mut cluster = Cluster {
        nodes,
        zones,
        copies,
        zones_reached,
        sacrificed: Vec::new(),
        sacrificed_return: random.random_bool(0.5),
        loss: random.random_ratio(1, 12),
        retained_bytes: if random.random_bool(0.5) { random.random_range(0..=5_000) } else { retained_bytes() },
        latency_ms: (least, least + random.random_range(0..=20)),
        segment_records: if random.random_ratio(1, 3) { random.random_range(20..=300) } else { 1 << 40 },
        boot_loses_percent: if random.random_ratio(1, 3) { random.random_range(3..=20) } else { 0 },
        group: None,
        files: None,
    };
    let mut names: Vec<String> = (1..=nodes).map(|place| format!("n{place}")).collect();
    names.shuffle(random);
    // Where a record loses every copy, whoever else is gone would make its loss a matter of opinion.
    let wanted = if cluster.loss { 0 } else { random.random_range(0..=2) };
    for name in names {
        let with: Vec<String> = cluster.sacrificed.iter().cloned().chain([name]).collect();
        if with.len() <= wanted && cluster.tolerates(&with) {
            cluster.sacrificed = with;
        }
    }
    cluster
}

fn work(random: &mut SmallRng) -> Work {
    let lasts_ms = random.random_range(8_000..=30_000);
    let sometimes = |random: &mut SmallRng, from: u32, to: u32| {
        if random.random_ratio(3, 4) { random.random_range(from..=to) } else { 0 }
    };
    Work {
        logs: random.random_range(1..=2),
        appenders: random.random_range(1..=4),
        in_flight: random.random_range(1..=12),
        append_every_ms: random.random_range(20..=300),
        readers: random.random_range(1..=2),
        tail_every_ms: sometimes(random, 300, 3_000),
        trim_every_ms: sometimes(random, 2_000, 8_000),
        reconfigure_every_ms: if random.random_bool(0.5) {
            random.random_range(200..=1_000)
        } else {
            sometimes(random, 1_000, 8_000)
        },
        operators: random.random_range(1..=2),
        lasts_ms,
        dark: random.random_ratio(1, 3),
        idle_from_ms: if random.random_ratio(1, 4) { random.random_range(1_000..=lasts_ms) } else { 0 },
    }
}

fn pick(names: &[String], random: &mut SmallRng) -> String {
    names.choose(random).cloned().unwrap_or_default()
}

/// Two parts of a list, neither empty.
fn split(names: &[String], random: &mut SmallRng) -> (Vec<String>, Vec<String>) {
    let mut names = names.to_vec();
    names.shuffle(random);
    let at = random.random_range(1..names.len().max(2));
    let rest = names.split_off(at.min(names.len()));
    (names, rest)
}
