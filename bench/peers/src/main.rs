//! Bifrost, its peers and a floor, side by side: `make bench-peers`.
//!
//! ```text
//!  options ─► run: rounds × peers × cells ─► findings ─► report ─► text, JSON, chart
//!               ├─ peer: starts three members ─► closed_loop, reads: the client, the same for all
//!               │     └─ members: processes, stopped by number
//!               └─ canary, flushes: what the disk does meanwhile
//! ```
//!
//! Reading order: [`cell`], [`closed_loop`], [`reads`], [`peer`] and one of its files, [`members`], [`run`],
//! [`report`]. `README.md` says how to read what it prints.

mod canary;
mod cell;
mod chart;
mod closed_loop;
mod flushes;
mod machine;
mod members;
mod options;
mod peer;
mod ports;
mod reads;
mod report;
mod run;
mod times;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use canary::Canary;
use flushes::Device;
use machine::Machine;
use members::{Members, Tools};
use options::Options;
use peer::{Ground, Peer};
use report::{Report, Summary};
use run::{Findings, Run, Skipped};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // On a thread of the runtime: the main thread would be woken through another one each time.
    let mut tasks = JoinSet::new();
    tasks.spawn(measure(options));
    match tasks.join_next().await {
        Some(Ok(Ok(true))) => ExitCode::SUCCESS,
        Some(Ok(Ok(false))) => ExitCode::from(130),
        Some(Ok(Err(error))) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
        Some(Err(error)) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}

/// Progress and errors; results go to stdout.
#[expect(clippy::print_stderr, reason = "a tool that people wait for says how far it is")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Returns whether all rounds were gone through; not, when a signal came or the time was over.
async fn measure(options: Options) -> Result<bool> {
    let scratch = Scratch::new(&options.directory)?;
    let mut members = Members::new(&scratch.name);
    let mut findings = Findings::default();
    let ground = Ground {
        installed: absolute(&options.installed)?,
        bifrost: absolute(&options.bifrost)?,
        directory: scratch.directory.clone(),
    };
    let device = match Device::below(&scratch.directory) {
        Ok(device) => Some(device),
        Err(error) => {
            say(&format!("flushes are not counted: {error:#}"));
            None
        }
    };
    let mut report = Report {
        machine: Machine::here(&scratch.directory, device.as_ref()),
        versions: BTreeMap::new(),
        acknowledgements: Peer::ALL.into_iter().map(|peer| (peer.name(), peer.acknowledgement())).collect(),
        rounds: options.rounds,
        seconds: options.seconds,
        warm_up_seconds: options.warm_up,
        canary_limit_micros: options.canary_limit,
        complete: false,
        medians: Vec::new(),
        bars: Vec::new(),
        skipped: Vec::new(),
        measures: Vec::new(),
    };
    let canary = Canary::new(&scratch.directory, options.canary_limit())?;
    let mut run = Run { options: &options, ground: &ground, device, canary };
    let work = async {
        let peers = available(&options.peers, &ground, &members.tools(), &mut report).await?;
        run.rounds(&peers, &mut members, &mut findings).await
    };
    let outcome = tokio::select! {
        outcome = work => outcome.map(|()| true),
        name = stopped() => {
            say(&format!("{name}: stopping what was started"));
            Ok(false)
        }
        () = sleep(options.limit()) => {
            say(&format!("the limit of {} minutes: stopping what was started", options.limit));
            Ok(false)
        }
    };
    let stop = members.stop().await;
    drop(scratch);
    report.complete = matches!(outcome, Ok(true));
    let told = tell(&options, report, findings);
    stop?;
    told?;
    outcome
}

/// Whoever is installed; notes who is not.
async fn available(wanted: &[Peer], ground: &Ground, tools: &Tools, report: &mut Report) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for &peer in wanted {
        match peer.version(ground, tools).await {
            Ok(version) => {
                report.versions.insert(peer.name(), version);
                peers.push(peer);
            }
            Err(error) => {
                say(&format!("{peer} is left out: {error:#}"));
                let why = format!("not installed: {error:#}");
                report.skipped.push(Skipped { peer: peer.to_string(), cell: None, round: None, why });
            }
        }
    }
    if peers.is_empty() {
        bail!("nobody of {wanted:?} can be started");
    }
    Ok(peers)
}

#[expect(clippy::print_stdout, reason = "the results of a tool")]
fn tell(options: &Options, report: Report, findings: Findings) -> Result<()> {
    if findings.measures.is_empty() {
        return Ok(());
    }
    let summary = Summary::of(&findings.measures);
    let report = report.fill(findings, &summary);
    println!("{}", report.text(&summary));
    let json = report.write(&options.results)?;
    let chart = options.chart.clone().unwrap_or_else(|| json.with_extension("svg"));
    let svg = chart::svg(&report.machine, report.rounds, &summary);
    std::fs::write(&chart, svg).with_context(|| format!("writing {}", chart.display()))?;
    println!("results: {}\nchart:   {}", json.display(), chart.display());
    Ok(())
}

/// Waits for a signal to stop; returns its name.
async fn stopped() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return "signals cannot be waited for";
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{}", path.display()))
}

/// A directory of this run alone, removed at its end.
#[derive(Debug)]
struct Scratch {
    name: String,
    directory: PathBuf,
}

impl Scratch {
    fn new(below: &Path) -> Result<Self> {
        let name = format!("bench-peers-{}", std::process::id());
        let directory = absolute(below)?.join(&name);
        std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        Ok(Self { name, directory })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            say(&format!("{} is left: {error}", self.directory.display()));
        }
    }
}
