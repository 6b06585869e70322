//! Many runs, each in a process of its own, a few at a time.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// After this a run that does not end counts as failed: it loops without letting time pass.
const RUN_WITHIN: Duration = Duration::from_secs(300);
/// How often a running process is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// One process and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The seed, or another name, for people.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it finds in its environment besides what this process has.
    pub environment: Vec<(String, String)>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its place among the jobs.
    pub place: usize,
    /// Its name.
    pub name: String,
    /// Whether it said that all is well.
    pub clean: bool,
    /// What it printed.
    pub output: String,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    /// Whether a run found something. One that could not even begin is not clean either, and found nothing.
    pub fn has_finding(&self) -> bool {
        !self.clean && (self.output.contains(": FAILED after ") || self.output.contains("\nP5 ") || self.is_panic())
    }

    /// Whether an assertion stopped it.
    pub fn is_panic(&self) -> bool {
        self.output.contains(" panicked at ")
    }
}

/// Runs all jobs, `at_once` at a time, and shows each as it ends; no more are begun when `more` says `false` of one.
/// Returns those that ended, in the order of the jobs.
pub fn run(jobs: &[Job], at_once: usize, mut more: impl FnMut(&Ended) -> bool) -> Vec<Ended> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let mut all = thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let place = next.fetch_add(1, Ordering::SeqCst);
                    let Some(job) = jobs.get(place) else { break };
                    if sender.send(run_one(place, job)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut all = Vec::new();
        for ended in receiver {
            if !more(&ended) {
                stop.store(true, Ordering::SeqCst);
            }
            all.push(ended);
        }
        all
    });
    all.sort_by_key(|ended| ended.place);
    all
}

#[expect(clippy::disallowed_methods, reason = "waits for a real process, and gives up on it by a real clock")]
fn run_one(place: usize, job: &Job) -> Ended {
    let started = Instant::now();
    let spawned = Command::new(&job.program)
        .args(&job.arguments)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let ended =
        |clean: bool, output: String| Ended { place, name: job.name.clone(), clean, output, took: started.elapsed() };
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return ended(false, format!("{} does not start: {error}", job.program.display())),
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let read_out = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = out.map(|mut out| out.read_to_end(&mut text));
            text
        });
        let read_err = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = err.map(|mut err| err.read_to_end(&mut text));
            text
        });
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if started.elapsed() < RUN_WITHIN => thread::sleep(LOOK),
                Ok(None) | Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
            }
        };
        let mut output = String::from_utf8_lossy(&read_out.join().unwrap_or_default()).into_owned();
        output.push_str(&String::from_utf8_lossy(&read_err.join().unwrap_or_default()));
        match status {
            Some(status) if status.code().is_some_and(|code| code < 100) => ended(status.success(), output),
            Some(status) => ended(false, format!("{output}P5 {} ended with {status}: it panicked", job.name)),
            None => ended(false, format!("{output}P5 {} was not over after {RUN_WITHIN:?}", job.name)),
        }
    })
}
