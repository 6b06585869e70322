//! The exam of the models, the long random schedules, the simulator and the checker: each planted bug must be found, and
//! without one nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bifrost_types::plant::Plant;

use crate::fleet::{self, Ended, Job};
use crate::plan::{Fault, Kind, Plan, Stores};

/// The tests among those of a crate that play long random schedules.
const SCHEDULES: [&str; 4] = ["::machine::", "::model::", "racing", "after_any_crash"];

/// How much an exam may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Runs of the simulated cluster for each plant at most, from seed 1 on; only those whose plan has what it is about.
    pub seeds: u64,
    /// Runs without a plant.
    pub clean_seeds: u64,
    /// Seconds that the models hunt each plant at most; 0 leaves them out.
    pub model_seconds: u64,
    /// The built tests of the crates that play long random schedules with one core each.
    pub machines: Vec<PathBuf>,
    /// Schedules of each of them at most.
    pub schedules: u64,
    /// Processes at the same time.
    pub jobs: usize,
    /// What log servers of simulated clusters keep their copies in.
    pub stores: Stores,
}

/// One plan of so many has what a plant is about, at least.
const RARE: u64 = 1000;

const HEAD: &str = "| plant | what is wrong | models | random schedules | simulation |\n|---|---|---|---|---|\n";

/// How one layer did with one plant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Found, and how.
    By { effort: String, rule: String },
    /// Not found within the limits.
    No,
}

/// Runs the exam, says how it goes, and returns the table and whether it was passed.
pub fn exam(program: &Path, limits: &Limits, plants: &[Plant], say: &mut dyn FnMut(&str)) -> (String, bool) {
    let mut table = String::from(HEAD);
    let mut survivors = Vec::new();
    for plant in plants {
        let model = hunt_in_models(program, *plant, limits);
        let schedules = hunt_in_schedules(*plant, limits);
        let simulation = hunt_in_simulation(program, *plant, limits);
        if [&model, &schedules, &simulation].iter().all(|found| **found == Found::No) {
            survivors.push(plant.name());
        }
        let (name, what) = (plant.name(), plant.what().trim());
        let row = format!("| `{name}` | {what} | {} | {} | {} |\n", tell(&model), tell(&schedules), tell(&simulation));
        say(row.trim_end());
        table.push_str(&row);
    }
    let jobs: Vec<Job> = (1..=limits.clean_seeds).map(|seed| simulation(program, seed, limits.stores, None)).collect();
    let mut dirty = Vec::new();
    fleet::run(&jobs, limits.jobs, |ended| {
        if !ended.clean {
            say(&ended.output);
            dirty.push(ended.name.clone());
        }
        true
    });
    let passed = survivors.is_empty() && dirty.is_empty();
    let found = plants.len() - survivors.len();
    let _ = write!(table, "\n{found} of {} plants were found.", plants.len());
    if !survivors.is_empty() {
        let _ = write!(table, " Survivors: {}.", survivors.join(", "));
    }
    let _ = write!(table, " {} runs without a plant, {} with a finding.", limits.clean_seeds, dirty.len());
    (table, passed)
}

fn simulation(program: &Path, seed: u64, stores: Stores, plant: Option<Plant>) -> Job {
    let mut arguments = vec!["run".to_owned(), "--seed".to_owned(), seed.to_string()];
    arguments.extend(stores.arguments());
    arguments.extend(plant.into_iter().flat_map(|plant| ["--plant".to_owned(), plant.name().to_owned()]));
    Job { name: format!("seed {seed}"), program: program.to_owned(), arguments, environment: Vec::new() }
}

fn hunt_in_schedules(plant: Plant, limits: &Limits) -> Found {
    let environment = [
        ("BIFROST_PLANT", plant.name().to_owned()),
        ("PROPTEST_CASES", limits.schedules.to_string()),
        // The first schedule that shows the bug is enough here.
        ("PROPTEST_MAX_SHRINK_ITERS", "0".to_owned()),
        ("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1".to_owned()),
        ("RUST_BACKTRACE", "0".to_owned()),
    ];
    let environment: Vec<_> = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let job = |program: &PathBuf| Job {
        name: plant.name().to_owned(),
        program: program.clone(),
        // What counts how much the schedules reach fails for many reasons; it finds nothing.
        arguments: SCHEDULES.into_iter().chain(["--skip", "reach_what_they_are_for"]).map(str::to_owned).collect(),
        environment: environment.clone(),
    };
    let jobs: Vec<Job> = limits.machines.iter().map(job).collect();
    let ended = fleet::run(&jobs, limits.jobs, |ended| ended.clean);
    let found = ended.iter().filter(|ended| !ended.clean).find_map(|ended| {
        let failed = ended.output.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))?;
        let passed = ended.output.lines().find_map(|line| line.trim().strip_prefix("successes: ")?.parse::<u64>().ok());
        let effort = passed.map_or_else(|| "at once".to_owned(), |passed| format!("schedule {}", passed + 1));
        Some(Found::By { effort, rule: format!("`{}`", failed.rsplit("::").next().unwrap_or(failed)) })
    });
    found.unwrap_or(Found::No)
}

fn hunt_in_simulation(program: &Path, plant: Plant, limits: &Limits) -> Found {
    let plan = |seed: &u64| Plan::draw(*seed).with_stores(limits.stores);
    let seeds =
        (1..=limits.seeds.saturating_mul(RARE)).filter(|seed| may_show(plant, &plan(seed))).take(limits.seeds as usize);
    let jobs: Vec<Job> = seeds.map(|seed| simulation(program, seed, limits.stores, Some(plant))).collect();
    let ended = fleet::run(&jobs, limits.jobs, |ended| ended.clean);
    match ended.iter().find(|ended| ended.has_finding()) {
        Some(found) => Found::By { effort: found.name.clone(), rule: rule_of(found) },
        None => Found::No,
    }
}

/// Whether a plan has what a plant is about at all, where few do.
fn may_show(plant: Plant, plan: &Plan) -> bool {
    let loses_its_disk = |fault: &Fault| matches!(fault.kind, Kind::Wipe { renamed: false, .. });
    match plant {
        Plant::WipedDiskVotes => plan.faults.iter().any(loses_its_disk),
        Plant::NeededFileGivenBack => plan.cluster.files.is_some(),
        _ => true,
    }
}

fn hunt_in_models(program: &Path, plant: Plant, limits: &Limits) -> Found {
    if limits.model_seconds == 0 {
        return Found::No;
    }
    let models: PathBuf = program.with_file_name("bifrost-models");
    let arguments = ["--plant", plant.name(), "--seconds", &limits.model_seconds.to_string()].map(str::to_owned);
    let job =
        Job { name: plant.name().to_owned(), program: models, arguments: arguments.to_vec(), environment: Vec::new() };
    let ended = fleet::run(&[job], 1, |_| true);
    match ended.first() {
        // The models say that all is well with a hunt that was successful.
        Some(found) if found.clean => {
            let states = found.output.split_whitespace().next().unwrap_or("?");
            let told = found.output.lines().nth(1).unwrap_or("");
            // The ids come first, and after a colon what they say.
            let rule = told.split(':').next().unwrap_or("").trim();
            Found::By { effort: format!("{states} states, {}", seconds(found.took)), rule: rule.to_owned() }
        }
        _ => Found::No,
    }
}

/// The invariant that a run names first.
fn rule_of(ended: &Ended) -> String {
    if ended.is_panic() {
        return "an assertion".to_owned();
    }
    let line = ended.output.lines().find(|line| line.starts_with("  ") || line.starts_with("P5"));
    let rule = line.and_then(|line| line.split_whitespace().next());
    rule.unwrap_or("?").to_owned()
}

fn tell(found: &Found) -> String {
    match found {
        Found::By { effort, rule } => format!("{effort}: {rule}"),
        Found::No => "–".to_owned(),
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
