//! The processes of a cluster: started in process groups of their own, stopped by number, and none is left behind.
//!
//! Every process carries a mark in its environment, which its children inherit. So even one that left its group and its
//! parent is found, among the processes of this machine, and ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const MARK: &str = "BENCH_PEERS_RUN";
/// How long a member may take to stop in good order.
const STOP: Duration = Duration::from_secs(20);
/// How long a tool of a peer, such as rabbitmqctl, may take.
const TOOL: Duration = Duration::from_secs(90);
/// Lines of a log that an error shows.
const LOG_LINES: usize = 12;

#[derive(Debug)]
struct Member {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
}

/// Runs commands that end by themselves, with the mark of the run.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    mark: String,
}

impl Tools {
    /// Runs a tool to its end and returns what it printed.
    pub(crate) async fn tool(&self, command: &mut Command) -> Result<String> {
        command.env(MARK, &self.mark).kill_on_drop(true).stdin(Stdio::null());
        let output = timeout(TOOL, command.output()).await;
        let output = output.map_err(|_| anyhow!("no end within {TOOL:?}")).and_then(|output| Ok(output?));
        let output = output.with_context(|| program(command))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}", program(command), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What was started and not stopped yet. Dropped, it kills.
#[derive(Debug)]
pub(crate) struct Members {
    tools: Tools,
    started: Vec<Member>,
}

impl Members {
    /// Nobody yet. The run's name is the mark.
    pub(crate) fn new(run: &str) -> Self {
        Self { tools: Tools { mark: run.to_owned() }, started: Vec::new() }
    }

    /// Starts a member in a process group of its own; what it says goes to a file in the directory.
    pub(crate) fn start(&mut self, name: &str, command: &mut Command, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let log = directory.join(format!("{name}.out"));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let copy = file.try_clone().context("a second handle of a log")?;
        command.env(MARK, &self.tools.mark).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(copy).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {name}, {}", program(command)))?;
        let number = child.id().and_then(|number| i32::try_from(number).ok()).and_then(Pid::from_raw);
        let group = number.with_context(|| format!("{name} has no process number"))?;
        self.started.push(Member { name: name.to_owned(), child, group, log });
        Ok(())
    }

    /// Waits until the member that was started last has said this.
    pub(crate) async fn said(&mut self, what: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let member = self.started.last().context("nobody was started")?;
            let said = std::fs::read(&member.log).with_context(|| format!("reading {}", member.log.display()))?;
            if String::from_utf8_lossy(&said).contains(what) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} is not ready within {patience:?}{}", member.name, last_lines(member));
            }
            self.check()?;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// For tools of this run.
    pub(crate) fn tools(&self) -> Tools {
        self.tools.clone()
    }

    /// Whoever has ended by itself, and what it said last.
    pub(crate) fn check(&mut self) -> Result<()> {
        for member in &mut self.started {
            if let Some(status) = member.child.try_wait().context("asking for a member")? {
                bail!("{} has ended: {status}{}", member.name, last_lines(member));
            }
        }
        Ok(())
    }

    /// The ends of the members' logs, for an error.
    pub(crate) fn logs(&self) -> String {
        self.started.iter().map(last_lines).collect()
    }

    /// Tells all to stop, kills who does not, and sees that nobody is left.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        for member in &self.started {
            // A member that is gone already is stopped.
            let _gone = kill_process_group(member.group, Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        for member in &mut self.started {
            let left = deadline.saturating_duration_since(Instant::now());
            let _late = timeout(left, member.child.wait()).await;
        }
        self.kill();
        for mut member in self.started.drain(..) {
            let waited = timeout(STOP, member.child.wait()).await;
            waited.map_err(|_| anyhow!("{} does not end", member.name))?.context("waiting for a member")?;
        }
        for _ in 0..50 {
            if marked(&self.tools.mark).is_empty() {
                return Ok(());
            }
            self.kill();
            sleep(Duration::from_millis(100)).await;
        }
        bail!("processes are left: {:?}", marked(&self.tools.mark))
    }

    fn kill(&self) {
        for member in &self.started {
            let _gone = kill_process_group(member.group, Signal::KILL);
        }
        for process in marked(&self.tools.mark) {
            let _gone = kill_process(process, Signal::KILL);
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Processes of this run, zombies excluded: they have no environment.
fn marked(mark: &str) -> Vec<Pid> {
    let wanted = format!("{MARK}={mark}");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has_mark = |number: &i32| {
        let environment = std::fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    numbers.filter(has_mark).filter_map(Pid::from_raw).collect()
}

fn program(command: &Command) -> String {
    command.as_std().get_program().to_string_lossy().into_owned()
}

fn last_lines(member: &Member) -> String {
    let text = std::fs::read(&member.log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    let tail: Vec<&str> = lines.iter().skip(from).copied().collect();
    if tail.is_empty() { String::new() } else { format!("\n  {} said:\n    {}", member.name, tail.join("\n    ")) }
}
