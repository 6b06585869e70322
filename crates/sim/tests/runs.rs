//! Runs of the built simulator: the same seed twice, the plans that failed once, and a handful of seeds.

use std::path::{Path, PathBuf};

use bifrost_sim::fleet::{self, Ended, Job};
use bifrost_sim::plan::{Apart, Call, Cluster, Fault, Group, Kind, Plan, Stores, Work};

/// How many seeds every test run tries. `make sim SEEDS=500` tries more.
const SEEDS: u64 = 60;
/// Seeds of the proof that a seed is a run: quiet ones and busy ones.
const TWICE: [u64; 4] = [1, 4, 22, 51];

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_bifrost-sim"))
}

fn job(arguments: &[&str]) -> Job {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Job { name: arguments.join(" "), program: program(), arguments, environment: Vec::new() }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

fn assert_clean(all: &[Ended]) {
    let failed: Vec<&Ended> = all.iter().filter(|ended| !ended.clean).collect();
    let names: Vec<&str> = failed.iter().map(|ended| ended.name.as_str()).collect();
    assert!(failed.is_empty(), "{names:?} failed; the first:\n{}", failed.first().map_or("", |ended| &ended.output));
}

#[test]
fn one_seed_is_one_run_byte_for_byte() {
    let seeds: Vec<String> = TWICE.iter().map(u64::to_string).collect();
    let jobs: Vec<Job> = seeds
        .iter()
        .flat_map(|seed| [job(&["run", "--trace", "--seed", seed]), job(&["run", "--trace", "--seed", seed])])
        .collect();
    let all = fleet::run(&jobs, cores(), |_| true);
    for (pair, seed) in all.chunks(2).zip(TWICE) {
        let [one, other] = pair else { panic!("seed {seed} ran once") };
        assert!(one.output.lines().count() > 500, "seed {seed}: nothing happened");
        let differs = one.output.lines().zip(other.output.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}: the runs differ");
        assert_eq!(one.output.len(), other.output.len(), "seed {seed}: one run is longer");
    }
    let (first, second) = (all.first().map(|ended| &ended.output), all.get(2).map(|ended| &ended.output));
    assert_ne!(first, second, "two seeds are two runs");
}

#[test]
fn plans_that_failed_once_are_clean() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let mut plans: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the plans are in the repository")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    plans.sort();
    assert!(!plans.is_empty());
    let jobs: Vec<Job> =
        plans.iter().map(|plan| job(&["run", "--plan", plan.to_str().expect("names of plans are ASCII")])).collect();
    assert_clean(&fleet::run(&jobs, cores(), |_| true));
}

/// One log on three nodes, one operator, on the host `c2`, who reconfigures it all the time; one fault.
fn reconfigured_all_the_time(kind: Kind) -> Plan {
    let cluster = Cluster {
        nodes: 3,
        zones: 1,
        copies: 2,
        zones_reached: 1,
        sacrificed: Vec::new(),
        sacrificed_return: false,
        loss: false,
        latency_ms: (1, 4),
        segment_records: 1 << 40,
        retained_bytes: 1 << 20,
        boot_loses_percent: 0,
        group: None,
        files: None,
    };
    let work = Work {
        logs: 1,
        appenders: 2,
        in_flight: 4,
        append_every_ms: 40,
        readers: 1,
        tail_every_ms: 500,
        trim_every_ms: 0,
        reconfigure_every_ms: 150,
        operators: 1,
        lasts_ms: 4_000,
        idle_from_ms: 0,
        dark: false,
    };
    Plan { seed: 1, cluster, work, faults: vec![Fault { at_ms: 500, for_ms: 2_500, kind }] }
}

/// The same, with metadata that a group keeps; snapshots are frequent.
fn on_a_group(plan: Plan) -> Plan {
    let group = Group { members: 3, snapshot_entries: 10, kept_entries: 2, request_entries: 2, stays_dead: None };
    Plan { cluster: Cluster { group: Some(group), ..plan.cluster }, ..plan }
}

/// Runs each and returns what happened.
fn run_plans(name: &str, plans: &[Plan]) -> Vec<Ended> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).expect("cargo's directory for tests can be written");
    let jobs: Vec<Job> = plans
        .iter()
        .enumerate()
        .map(|(number, plan)| {
            let path = directory.join(format!("{number}.toml"));
            std::fs::write(&path, plan.to_string()).expect("the same");
            job(&["run", "--trace", "--plan", path.to_str().expect("names of plans are ASCII")])
        })
        .collect();
    fleet::run(&jobs, cores(), |_| true)
}

#[test]
fn whoever_reconfigures_may_die_at_any_step() {
    let steps = [Call::Get, Call::Txn, Call::Seal, Call::State, Call::Repair, Call::Settle];
    let moments = steps.into_iter().flat_map(|call| (0..4).map(move |after| (call, after)));
    let plans: Vec<Plan> = moments
        .flat_map(|(call, after)| {
            let died = move |executed| Kind::CrashAt { host: "c2".to_owned(), call, after, executed };
            [true, false].map(|executed| reconfigured_all_the_time(died(executed)))
        })
        .collect();
    let all = run_plans("dies-at-a-step", &plans);
    assert_clean(&all);
    let died = all.iter().filter(|ended| ended.output.contains("c2 dies between two steps")).count();
    println!("{died} of {} operators died at a step", all.len());
    assert!(died * 2 > all.len(), "only {died} of {} operators died", all.len());
}

#[test]
fn metadata_may_change_its_leader_at_any_write_of_a_chain() {
    let plans: Vec<Plan> = (0..10).map(|after| reconfigured_all_the_time(Kind::LeaderChangeAt { after })).collect();
    let all = run_plans("leader-changes-at-a-write", &plans);
    assert_clean(&all);
    for ended in &all {
        assert!(ended.output.contains("m1 steps down"), "{}: nobody lost the lead", ended.name);
    }
}

#[test]
fn a_metadata_group_may_change_its_leader_at_any_write_of_a_chain() {
    let changes = |after| on_a_group(reconfigured_all_the_time(Kind::LeaderChangeAt { after }));
    let plans: Vec<Plan> = (0..9).map(changes).collect();
    let all = run_plans("leader-of-group-changes-at-a-write", &plans);
    assert_clean(&all);
    let deposed = all.iter().filter(|ended| ended.output.contains(" steps down")).count();
    assert_eq!(deposed, all.len(), "somebody kept the lead");
}

#[test]
fn a_metadata_group_survives_what_happens_to_its_members() {
    let m = |number: u8| format!("m{number}");
    let apart = |from, held| Kind::LeaderApart { from, held };
    let kinds = [
        apart(Apart::Members, false),
        apart(Apart::Users, true),
        apart(Apart::All, true),
        apart(Apart::MembersWithUsers, false),
        Kind::PowerLoss,
        Kind::NoLeader,
        Kind::Crash { host: m(1), silent: true },
        Kind::FailingDisk { node: m(1) },
        Kind::SlowDisk { node: m(2), from_ms: 50, up_to_ms: 400 },
    ];
    let mut plans: Vec<Plan> = kinds.into_iter().map(|kind| on_a_group(reconfigured_all_the_time(kind))).collect();
    for after in 0..3 {
        // One that was away gets a snapshot, and dies while it writes it.
        let mut plan = on_a_group(reconfigured_all_the_time(Kind::Crash { host: m(3), silent: false }));
        plan.faults.push(Fault { at_ms: 2_900, for_ms: 900, kind: Kind::CrashInSnapshot { host: m(3), after } });
        plans.push(plan);
    }
    // What only the old leader has is overwritten, and it dies before all of it is. Whether it has anything at the moment in
    // which it is cut off is up to the seed.
    for seed in 1..=4 {
        let mut plan = on_a_group(reconfigured_all_the_time(apart(Apart::MembersWithUsers, false)));
        plan.seed = seed;
        // Several transactions are on their way at any moment.
        (plan.work.logs, plan.work.operators, plan.work.reconfigure_every_ms) = (4, 3, 15);
        // It gets what it missed as entries, however much that is, and not as a snapshot.
        plan.cluster.group.iter_mut().for_each(|group| group.snapshot_entries = 1_000);
        plan.faults.push(Fault { at_ms: 2_900, for_ms: 2_000, kind: Kind::CrashInOverwrite });
        plans.push(plan);
    }
    let all = run_plans("group", &plans);
    assert_clean(&all);
    let told = |what: &str| all.iter().filter(|ended| ended.output.contains(what)).count();
    assert!(told("m3 goes on from a snapshot") > 0, "nobody needed a snapshot");
    assert!(told("dies in the middle of a snapshot") > 0, "nobody died in one");
    assert!(told("dies when it has overwritten entries") > 0, "nobody overwrote anything");
    assert!(told("leads in term 2") > 3, "hardly anybody else led");
    assert!(told("disk of m1: a sync fails") == 1, "no disk failed");
}

#[test]
fn log_servers_on_files_survive_what_happens_to_their_disks() {
    let node = || "n2".to_owned();
    let kinds = [
        Kind::Crash { host: node(), silent: false },
        Kind::FailingDisk { node: node() },
        Kind::FullDisk { node: node() },
        Kind::SlowDisk { node: node(), from_ms: 20, up_to_ms: 300 },
        Kind::Destroy,
    ];
    let plans = kinds.map(|kind| {
        let mut plan = reconfigured_all_the_time(kind);
        plan.cluster.loss = plan.faults.iter().any(|fault| fault.kind == Kind::Destroy);
        let mut plan = plan.with_stores(Stores::Files);
        (plan.work.logs, plan.work.trim_every_ms, plan.work.append_every_ms) = (2, 400, 10);
        plan.cluster.files.iter_mut().for_each(|files| files.file_blocks = 4);
        // What is found wrong with one is found by those that come after it.
        let crashes = [1_000, 1_700, 2_600].into_iter().zip(["n1", "n3", "n2"]);
        let crash = |host: &str| Kind::Crash { host: host.to_owned(), silent: false };
        plan.faults.extend(crashes.map(|(at_ms, host)| Fault { at_ms, for_ms: 300, kind: crash(host) }));
        plan
    });
    let all = run_plans("files", &plans);
    assert_clean(&all);
    for ended in &all {
        let told = |what: &str| ended.output.lines().filter(|line| line.contains(what)).count();
        let (gone, moved) = (told("files go") - told(" 0 files go"), told("moved out") - told("and 0 groups"));
        assert!(gone > 10 && moved > 0, "{}: files went {gone} times, {moved} were compacted", ended.name);
    }
}

#[test]
fn seeds_are_clean() {
    let seeds: Vec<String> = (1..=SEEDS).map(|seed| seed.to_string()).collect();
    let jobs: Vec<Job> = seeds.iter().map(|seed| job(&["run", "--seed", seed])).collect();
    assert_clean(&fleet::run(&jobs, cores(), |_| true));
    println!("{SEEDS} seeds, all clean");
}

#[test]
fn a_planted_bug_is_found() {
    let seeds: Vec<String> = (1..=20).map(|seed| seed.to_string()).collect();
    for plant in ["acknowledged-before-fsync", "committed-ahead"] {
        let jobs: Vec<Job> = seeds.iter().map(|seed| job(&["run", "--plant", plant, "--seed", seed])).collect();
        let all = fleet::run(&jobs, cores(), |ended| ended.clean);
        assert!(all.iter().any(Ended::has_finding), "{plant} survived {} seeds", all.len());
    }
}

#[test]
fn a_wrong_plan_is_refused_with_the_reason() {
    let all = fleet::run(&[job(&["run", "--plan", "no-such-file.toml"])], 1, |_| true);
    assert!(!all[0].clean && all[0].output.contains("no-such-file.toml"), "{}", all[0].output);
    let all = fleet::run(&[job(&["run", "--plant", "no-such-plant"])], 1, |_| true);
    assert!(!all[0].has_finding(), "what could not begin found nothing");
    assert!(!all[0].clean && all[0].output.contains("no plant is called"), "{}", all[0].output);
}
