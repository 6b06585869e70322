//! `bifrost server` processes on loopback, and what the kernel says that they cost.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bifrost::{Bifrost, Log, LogId};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::effort::Effort;
use super::point::Point;
use crate::support::ports::free_address;
use crate::support::tool::command;

/// Only what hangs gets here.
pub const PATIENCE: Duration = Duration::from_secs(900);
/// Between two attempts at what is not there yet.
const PAUSE: Duration = Duration::from_millis(5);
/// What the kernel counts CPU time in, for every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// What `st_blocks` counts in.
const BLOCK_BYTES: u64 = 512;

#[derive(Debug)]
struct Place {
    name: String,
    listen: String,
    metadata: String,
    child: Option<Child>,
}

/// A cluster of processes, killed when it is dropped.
#[derive(Debug)]
pub struct Processes {
    directory: TempDir,
    places: Vec<Place>,
}

/// What all processes together have used since they were started, and have now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Seconds of CPU time, of threads in user mode and in the kernel.
    pub cpu: f64,
    /// Context switches of the threads that are there.
    pub switches: f64,
    /// Bytes of memory that is resident.
    pub resident: f64,
    /// Bytes that were caused to be written to a disk.
    pub written: f64,
    /// Bytes that were caused to be read from a disk.
    pub read: f64,
}

impl Sample {
    /// What was used since then; what is there now.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            switches: self.switches - before.switches,
            resident: self.resident,
            written: self.written - before.written,
            read: self.read - before.read,
        }
    }
}

/// How long the whole cluster needed.
#[derive(Debug, Clone, Copy)]
pub struct Restarted {
    /// From the start of the first process until an append was acknowledged.
    pub acknowledged: Duration,
    /// Seconds of CPU time that the processes used until then.
    pub cpu: f64,
}

impl Processes {
    /// Starts so many with their data below `below`; the first makes the cluster.
    pub fn start(servers: usize, below: &Path) -> Self {
        let place = |index| Place {
            name: format!("node-{index}"),
            listen: free_address(),
            metadata: free_address(),
            child: None,
        };
        let directory = tempfile::tempdir_in(below).expect("a directory");
        let mut processes = Self { directory, places: (0..servers).map(place).collect() };
        let join = processes.places[0].metadata.clone();
        for index in 0..servers {
            let arguments: &[&str] = if index == 0 { &["--bootstrap"] } else { &["--join", &join] };
            let told = processes.spawn(index, arguments);
            let ready = told.recv_timeout(PATIENCE).expect("it is ready in time");
            assert!(ready.contains("\"node\""), "not ready: {ready:?}");
        }
        processes
    }

    /// Starts one; what comes back is its first word.
    fn spawn(&mut self, index: usize, arguments: &[&str]) -> Receiver<String> {
        let (told, data) = (self.directory.path().join("told"), self.data(index));
        let place = &mut self.places[index];
        let mut command = command(["server", "--output", "json"]);
        command
            .args(arguments)
            .env("BIFROST__NODE__NAME", &place.name)
            .env("BIFROST__NODE__LISTEN", &place.listen)
            .env("BIFROST__NODE__DATA_DIR", data)
            .env("BIFROST__METADATA__LISTEN", &place.metadata)
            .env("RUST_LOG", "warn,openraft=off")
            .stderr(File::options().create(true).append(true).open(told).expect("a file"))
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        place.child = Some(child);
        let (done, ready) = sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                // Of what it says later nobody hears, and it must not fail for that.
                let _later = done.try_send(std::mem::take(&mut line));
            }
        });
        ready
    }

    fn data(&self, index: usize) -> PathBuf {
        self.directory.path().join(&self.places[index].name)
    }

    pub fn addresses(&self) -> Vec<String> {
        self.places.iter().map(|place| place.listen.clone()).collect()
    }

    /// Where a client finds them.
    pub async fn connect(&self) -> Bifrost {
        Bifrost::connect(self.addresses()).await.expect("the cluster answers")
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        self.places.iter().filter_map(|place| place.child.as_ref()).map(Child::id)
    }

    /// All that run, together.
    pub fn sample(&self) -> Sample {
        let mut all = Sample::default();
        for pid in self.pids() {
            let one = sample(pid);
            all.cpu += one.cpu;
            all.switches += one.switches;
            all.resident += one.resident;
            all.written += one.written;
            all.read += one.read;
        }
        all
    }

    /// Bytes that all directories take on the disk.
    pub fn disk_bytes(&self) -> u64 {
        (0..self.places.len()).map(|index| disk_bytes(&self.data(index))).sum()
    }

    fn signal(&self, signal: Signal) {
        for place in &self.places {
            let child = place.child.as_ref().expect("it runs");
            kill_process(Pid::from_child(child), signal).expect("it is there");
        }
    }

    /// Stops all of them at once, in good order, and says how long that took.
    fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        for place in &mut self.places {
            let mut child = place.child.take().expect("it runs");
            let status = loop {
                if let Some(status) = child.try_wait().expect("it is ours") {
                    break status;
                }
                assert!(begun.elapsed() < PATIENCE, "{} does not stop", place.name);
                thread::sleep(PAUSE);
            };
            assert_eq!(status.code(), Some(0), "{} did not end in good order: {status}", place.name);
        }
        begun.elapsed()
    }

    /// Ends all of them at once.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        for place in &mut self.places {
            place.child.take().expect("it runs").wait().expect("it ends");
        }
    }

    /// What a start costs after a stop in good order, and after a kill; the latter's figures.
    pub async fn restarts(&mut self, point: &mut Point, log: LogId, effort: &Effort) -> Restarted {
        point.add("stop_ms", self.stop().as_secs_f64() * 1e3);
        let stopped = self.restart(log).await;
        point.add("start_after_stop_ms", stopped.acknowledged.as_secs_f64() * 1e3);
        point.add("start_after_stop_cpu_ms", stopped.cpu * 1e3);
        effort.told(&format!("stopped and started again in {:.1?}", stopped.acknowledged));
        self.kill();
        let killed = self.restart(log).await;
        point.add("start_after_kill_ms", killed.acknowledged.as_secs_f64() * 1e3);
        point.add("start_after_kill_cpu_ms", killed.cpu * 1e3);
        effort.told(&format!("killed and started again in {:.1?}", killed.acknowledged));
        killed
    }

    /// Starts all of them again, and waits until a log takes an append.
    async fn restart(&mut self, log: LogId) -> Restarted {
        let begun = Instant::now();
        for index in 0..self.places.len() {
            drop(self.spawn(index, &[]));
        }
        let appending = async {
            let client = until(async || Bifrost::connect(self.addresses()).await.ok()).await;
            let log: Log = until(async || client.log_by_id(log).await.ok()).await;
            let appender = log.appender();
            until(async || appender.append(Bytes::from_static(b"again")).await.ok()).await;
            let acknowledged = begun.elapsed();
            client.shutdown().await;
            acknowledged
        };
        let acknowledged = timeout(PATIENCE, appending).await.expect("it takes appends again in time");
        Restarted { acknowledged, cpu: self.sample().cpu }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.places.iter_mut().filter_map(|place| place.child.as_mut()) {
            // It may have ended already.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        if thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.directory.path().join("told")).unwrap_or_default());
        }
    }
}

/// Tries until it succeeds.
async fn until<T>(attempt: impl AsyncFn() -> Option<T>) -> T {
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        sleep(PAUSE).await;
    }
}

fn sample(pid: u32) -> Sample {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
    let stat = of("stat");
    // Behind the name, which may hold anything: the state is field 3.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: f64 = fields[11..=12].iter().map(|field| field.parse::<f64>().expect("ticks")).sum();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    // A thread may end meanwhile.
    let statuses = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let switches = statuses
        .map(|status| field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:"))
        .sum();
    let (status, io) = (of("status"), of("io"));
    Sample {
        cpu: ticks / TICKS_PER_SECOND,
        switches,
        resident: field(&status, "VmRSS:") * 1024.0,
        written: field(&io, "write_bytes:"),
        read: field(&io, "read_bytes:"),
    }
}

fn field(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    // A file may go while it is counted.
    let below = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| disk_bytes(&entry.path())).sum::<u64>();
    found.blocks() * BLOCK_BYTES + below
}
