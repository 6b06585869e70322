//! `bifrost-sim`: runs of the simulated cluster, and the exam of what watches it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of the command line")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use bifrost_checker::Bound;
use bifrost_sim::exam::{Limits, exam};
use bifrost_sim::fleet::{self, Job};
use bifrost_sim::plan::{Plan, Stores};
use bifrost_sim::run::run;
use bifrost_sim::trace::Diagnostics;
use bifrost_types::plant::Plant;
use clap::{Args, Parser, Subcommand};

/// The whole cluster in one process, from one seed.
#[derive(Debug, Parser)]
#[command(name = "bifrost-sim", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed or plan, or many seeds, each in a process of its own.
    Run(Run),
    /// Print the plan of a seed: what it is made of, what clients do, what goes wrong. A file for `run --plan`.
    Plan {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// What log servers keep their copies in.
        #[arg(long, value_enum, default_value_t)]
        store: Stores,
    },
    /// Give the cluster each planted bug in turn, and fail if one is not found or if anything is found without one.
    Exam(Exam),
}

#[derive(Debug, Args)]
struct Run {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Processes at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// A plan in place of the one of the seed.
    #[arg(long, conflicts_with_all = ["seed", "seeds"])]
    plan: Option<PathBuf>,
    /// What log servers keep their copies in.
    #[arg(long, value_enum, default_value_t)]
    store: Stores,
    /// Print everything that happened, and what the product said about it.
    #[arg(long)]
    trace: bool,
    /// Give the cluster a planted bug.
    #[arg(long)]
    plant: Option<String>,
    /// Also say how often each rule was checked.
    #[arg(long)]
    summary: bool,
}

#[derive(Debug, Args)]
struct Exam {
    /// Runs of each plant at most.
    #[arg(long, default_value_t = 60)]
    seeds: u64,
    /// Runs without a plant.
    #[arg(long, default_value_t = 100)]
    clean_seeds: u64,
    /// Seconds that the models hunt each plant at most; 0 leaves them out.
    #[arg(long, default_value_t = 20)]
    model_seconds: u64,
    /// Processes at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Built tests that play long random schedules with one core; `scripts/sim exam` names them.
    #[arg(long = "machine")]
    machines: Vec<PathBuf>,
    /// What log servers of simulated clusters keep their copies in.
    #[arg(long, value_enum, default_value_t)]
    store: Stores,
    /// Schedules of each at most.
    #[arg(long, default_value_t = 300)]
    schedules: u64,
    /// Only these plants, by name; all of them if none is named.
    plants: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    match CommandLine::parse().command {
        Command::Run(arguments) if arguments.seeds > 1 => run_many(&arguments),
        Command::Run(arguments) => run_one(&arguments),
        Command::Plan { seed, store } => {
            print!("{}", Plan::draw(seed).with_stores(store));
            Ok(ExitCode::SUCCESS)
        }
        Command::Exam(arguments) => examine(&arguments),
    }
}

fn run_one(arguments: &Run) -> anyhow::Result<ExitCode> {
    if let Some(name) = &arguments.plant {
        carry(plant(name)?)?;
    }
    let plan = match &arguments.plan {
        Some(path) => read_plan(path)?,
        None => Plan::draw(arguments.seed),
    };
    let plan = plan.with_stores(arguments.store);
    let level = if arguments.trace { tracing::Level::DEBUG } else { tracing::Level::ERROR };
    let diagnostics = Diagnostics::install(level)?;
    let verdict = run(&plan);
    if arguments.trace {
        std::io::stdout().write_all(&diagnostics.take())?;
        for line in &verdict.lines {
            println!("{line}");
        }
    }
    if arguments.summary {
        print!("{}", verdict.summary);
        for Bound { what, found, max } in &verdict.quiet {
            println!("{what}: {found}, at most {max} is fine");
        }
    }
    println!("{verdict}");
    if !verdict.is_clean() {
        let what = match &arguments.plan {
            Some(path) => format!("PLAN={}", path.display()),
            None => format!("SEED={}", plan.seed),
        };
        let store = arguments.store.chosen().map_or_else(String::new, |store| format!(" STORE={store}"));
        println!("again: make sim {what}{store} TRACE=1");
    }
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::disallowed_methods, reason = "how fast it goes is told to people")]
fn run_many(arguments: &Run) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("where this program is")?;
    let end = arguments.seed.checked_add(arguments.seeds).context("too many seeds")?;
    let jobs: Vec<Job> = (arguments.seed..end)
        .map(|seed| {
            let mut of_one = vec!["run".to_owned(), "--seed".to_owned(), seed.to_string()];
            of_one.extend(arguments.store.arguments());
            of_one.extend(arguments.plant.iter().flat_map(|plant| ["--plant".to_owned(), plant.clone()]));
            Job { name: format!("seed {seed}"), program: program.clone(), arguments: of_one, environment: Vec::new() }
        })
        .collect();
    let started = Instant::now();
    let (mut over, mut failed) = (0_u64, 0_u64);
    let ended = fleet::run(&jobs, arguments.jobs, |ended| {
        over += 1;
        failed += u64::from(!ended.clean);
        let minutes = started.elapsed().as_secs_f64() / 60.0;
        let rate = over as f64 / minutes;
        eprint!("\r{over} of {} seeds, {rate:.0} a minute, {failed} failed", arguments.seeds);
        true
    });
    eprintln!();
    let dirty: Vec<_> = ended.iter().filter(|ended| !ended.clean).collect();
    match dirty.first() {
        None => {
            let seconds = started.elapsed().as_secs();
            println!("{over} seeds from {}, all clean, in {seconds} s", arguments.seed);
            Ok(ExitCode::SUCCESS)
        }
        Some(first) => {
            let names: Vec<&str> = dirty.iter().map(|ended| ended.name.as_str()).collect();
            println!("{failed} of {over} seeds failed: {}; the first:\n{}", names.join(", "), first.output);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn examine(arguments: &Exam) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("where this program is")?;
    let plants = match arguments.plants.as_slice() {
        [] => Plant::ALL.to_vec(),
        names => names.iter().map(|name| plant(name)).collect::<Result<_, _>>()?,
    };
    let Exam { seeds, clean_seeds, model_seconds, jobs, schedules, store, .. } = *arguments;
    let machines = arguments.machines.clone();
    let limits = Limits { seeds, clean_seeds, model_seconds, jobs, machines, schedules, stores: store };
    let (table, passed) = exam(&program, &limits, &plants, &mut |line| eprintln!("{line}"));
    println!("{table}");
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_plan(path: &Path) -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Plan::parse(&text).with_context(|| path.display().to_string())
}

fn plant(name: &str) -> anyhow::Result<Plant> {
    Plant::named(name).with_context(|| {
        let known: Vec<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
        format!("no plant is called {name}; there are {}", known.join(", "))
    })
}

#[cfg(bifrost_plant)]
fn carry(plant: Plant) -> anyhow::Result<()> {
    if !bifrost_types::plant::set(plant) {
        bail!("this process carries a bug already");
    }
    Ok(())
}

#[cfg(not(bifrost_plant))]
fn carry(plant: Plant) -> anyhow::Result<()> {
    bail!("this build cannot carry {}: it was made without --cfg bifrost_plant; use `make sim`", plant.name())
}
