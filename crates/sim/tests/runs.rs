//! Runs of the built simulator: the same seed twice, the plans that failed once, and a handful of seeds.

use std::path::{Path, PathBuf};

use bifrost_sim::fleet::{self, Ended, Job};

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
