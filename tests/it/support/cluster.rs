//! A cluster of real processes, each node in a network of its own, with the clients in another.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use bifrost::Bifrost;
use bifrost_types::NodeId;
use bifrost_wire::grpc::{ClientOptions, GrpcMetadataAdmin};
use bifrost_wire::metadata_admin::{MemberRole, MemberStatus, MetadataAdmin};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::net::{Host, Net};
use super::proxy::Proxy;
use super::tool::command;

/// Only what hangs gets here.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// For one member to say what it is.
const ASKED: Duration = Duration::from_secs(1);
const PORT: u16 = 2437;
/// Where members of the metadata group hear each other.
pub const METADATA_PORT: u16 = 2438;
/// Where a node listens that has proxies at those two.
const BEHIND: u16 = 1000;
/// What the nodes tell; of openraft's warnings there are many a second while a member is away.
const TELL: &str = "info,openraft=off";
/// Of a node's words, how many lines a failed test shows.
const LINES_SHOWN: usize = 60;

/// One node over its lives.
#[derive(Debug)]
struct Place {
    id: Option<NodeId>,
    child: Option<Child>,
}

/// Nodes in networks. Whoever calls must be where the clients are: see [`run`](Self::run).
#[derive(Debug)]
pub struct Cluster {
    net: Net,
    directory: TempDir,
    places: Vec<Place>,
    /// One in front of each node, or none at all.
    proxies: Vec<Proxy>,
    begun: Instant,
}

impl Cluster {
    /// Starts a cluster with its data in a fresh directory below `below`, and runs `body` where the clients are.
    pub fn run<T: Send>(nodes: usize, below: &Path, body: impl FnOnce(Self) -> T + Send) -> T {
        Self::run_on(Net::of(nodes), Vec::new(), nodes, below, body)
    }

    /// The same with a proxy in front of each node, through which everybody reaches it.
    pub fn run_behind_proxies<T: Send>(
        nodes: usize,
        below: &Path,
        seed: u64,
        body: impl FnOnce(Self) -> T + Send,
    ) -> T {
        let net = Net::of(nodes);
        let ports = [PORT, METADATA_PORT].map(|port| (port, port + BEHIND));
        let proxy = |node: usize| {
            let host = Host::Node(node);
            Proxy::start(net.namespace(host), host.ip(), &ports, seed.wrapping_add(node as u64))
        };
        let proxies = (0..nodes).map(proxy).collect();
        Self::run_on(net, proxies, nodes, below, body)
    }

    fn run_on<T: Send>(
        net: Net,
        proxies: Vec<Proxy>,
        nodes: usize,
        below: &Path,
        body: impl FnOnce(Self) -> T + Send,
    ) -> T {
        let directory = tempfile::tempdir_in(below).expect("a directory");
        let places = (0..nodes).map(|_| Place { id: None, child: None }).collect();
        let mut cluster = Self { net, directory, places, proxies, begun: Instant::now() };
        let start = move || {
            cluster.net.namespace(Host::Clients).join();
            cluster.begun = Instant::now();
            cluster.begin(0, &["--bootstrap"]);
            cluster.await_ready(0);
            let join = Self::metadata_address(0);
            for node in 1..nodes {
                cluster.begin(node, &["--join", &join]);
            }
            for node in 1..nodes {
                cluster.await_ready(node);
            }
            body(cluster)
        };
        thread::scope(|scope| scope.spawn(start).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub fn size(&self) -> usize {
        self.places.len()
    }

    /// Since the first process was started.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    pub const fn net(&self) -> &Net {
        &self.net
    }

    /// What stands in front of a node, if anything does.
    pub fn proxy(&self, node: usize) -> Option<&Proxy> {
        self.proxies.get(node)
    }

    /// Where clients and other nodes reach a node.
    pub fn address(node: usize) -> String {
        format!("{}:{PORT}", Host::Node(node).ip())
    }

    pub fn addresses(&self) -> Vec<String> {
        (0..self.size()).map(Self::address).collect()
    }

    pub fn metadata_address(node: usize) -> String {
        format!("{}:{METADATA_PORT}", Host::Node(node).ip())
    }

    /// What the cluster calls a node.
    pub fn id(&self, node: usize) -> NodeId {
        self.places[node].id.expect("it was started")
    }

    /// Which one the cluster calls so.
    pub fn node(&self, id: NodeId) -> usize {
        self.places.iter().position(|place| place.id == Some(id)).expect("a node of this cluster")
    }

    pub fn is_running(&self, node: usize) -> bool {
        self.places[node].child.is_some()
    }

    fn told(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node-{node}.log"))
    }

    /// Starts a process and does not wait for it.
    pub fn begin(&mut self, node: usize, arguments: &[&str]) {
        assert!(!self.is_running(node), "node {node} runs already");
        let told = OpenOptions::new().create(true).append(true).open(self.told(node)).expect("a file");
        let mut command = command(["server", "--output", "json"]);
        command
            .args(arguments)
            .env("BIFROST__NODE__NAME", format!("node-{node}"))
            .env("BIFROST__NODE__LISTEN", Self::address(node))
            .env("BIFROST__NODE__DATA_DIR", self.directory.path().join(format!("node-{node}")))
            .env("BIFROST__METADATA__LISTEN", Self::metadata_address(node))
            .env("RUST_LOG", std::env::var("CHAOS_LOG").unwrap_or_else(|_| TELL.to_owned()))
            .stderr(told);
        if !self.proxies.is_empty() {
            let behind = |port: u16| format!("{}:{}", Host::Node(node).ip(), port + BEHIND);
            command
                .env("BIFROST__NODE__LISTEN", behind(PORT))
                .env("BIFROST__NODE__ADVERTISE", Self::address(node))
                .env("BIFROST__METADATA__LISTEN", behind(METADATA_PORT))
                .env("BIFROST__METADATA__ADVERTISE", Self::metadata_address(node));
        }
        let child = self.net.namespace(Host::Node(node)).enter(|| command.spawn().expect("the binary starts"));
        self.places[node].child = Some(child);
    }

    /// Waits until a process that was begun serves.
    #[track_caller]
    pub fn await_ready(&mut self, node: usize) {
        let child = self.places[node].child.as_mut().expect("it was begun");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (done, told) = sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            let _ended = stdout.read_line(&mut line);
            // Kept open: whoever writes to it later must not fail.
            done.send((line, stdout))
        });
        let line = match told.recv_timeout(PATIENCE) {
            Ok((line, stdout)) => {
                child.stdout = Some(stdout.into_inner());
                line
            }
            Err(_) => panic!("node {node} is not ready after {PATIENCE:?}"),
        };
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("node {node} did not start: {line:?}"));
        let id = ready["node"].as_str().and_then(|id| id.parse().ok());
        self.places[node].id = id;
    }

    /// Starts a node again.
    #[track_caller]
    pub fn start(&mut self, node: usize) {
        self.begin(node, &[]);
        self.await_ready(node);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let child = self.places[node].child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it is there");
    }

    /// Ends a process at once. It must still have been there.
    #[track_caller]
    pub fn kill(&mut self, node: usize) {
        self.check_running(node);
        self.signal(node, Signal::KILL);
        let mut child = self.places[node].child.take().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Stops a process in good order.
    #[track_caller]
    pub fn stop(&mut self, node: usize) {
        self.ask_to_stop(node);
        self.await_stopped(node);
    }

    /// Asks a process to stop, and does not wait.
    #[track_caller]
    pub fn ask_to_stop(&mut self, node: usize) {
        self.check_running(node);
        self.signal(node, Signal::TERM);
    }

    /// Waits until a process that was asked to stop has ended in good order.
    #[track_caller]
    pub fn await_stopped(&mut self, node: usize) {
        let child = self.places[node].child.as_mut().expect("it was asked to stop");
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is ours") {
                break status;
            }
            assert!(asked.elapsed() < PATIENCE, "node {node} does not stop");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0), "node {node} did not end in good order: {status}");
        self.places[node].child = None;
    }

    /// A process gets no time from now on.
    pub fn pause(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    #[track_caller]
    fn check_running(&mut self, node: usize) {
        let child = self.places[node].child.as_mut().expect("it runs");
        let ended = child.try_wait().expect("it is ours");
        assert!(ended.is_none(), "node {node} died by itself: {ended:?}");
    }

    /// Whoever should run does, and nobody ever panicked.
    #[track_caller]
    pub fn check(&mut self) {
        for node in 0..self.size() {
            if self.is_running(node) {
                self.check_running(node);
            }
            let told = self.words(node);
            assert!(!told.contains("panicked at"), "node {node} panicked");
        }
    }

    /// What a node has told.
    pub fn words(&self, node: usize) -> String {
        std::fs::read_to_string(self.told(node)).unwrap_or_default()
    }

    /// Where a new client finds the cluster.
    ///
    /// # Errors
    /// When none of the nodes answers.
    pub async fn connect(&self) -> anyhow::Result<Bifrost> {
        Ok(Bifrost::connect(self.addresses()).await?)
    }

    /// Which node leads metadata.
    pub async fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            let statuses = self.member_statuses().await;
            let leaders = statuses.iter().filter(|(_, status)| status.role == MemberRole::Leader);
            if let Some((node, _)) = leaders.max_by_key(|(_, status)| status.term) {
                return *node;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads metadata");
        }
    }

    /// Waits until every metadata member has what any of them has by now: after a cut the connections between them need a
    /// while to find out that it is over.
    pub async fn await_metadata_everywhere(&self) {
        let begun = Instant::now();
        let wanted = self.member_statuses().await.into_iter().map(|(_, status)| status.last_log).max().flatten();
        loop {
            let statuses = self.member_statuses().await;
            if statuses.len() == self.size() && statuses.iter().all(|(_, status)| status.applied >= wanted) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "a metadata member stays behind {wanted:?}: {statuses:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// What the members say that answer now.
    async fn member_statuses(&self) -> Vec<(usize, MemberStatus)> {
        let mut statuses = Vec::new();
        for node in (0..self.size()).filter(|node| self.is_running(*node)) {
            let admin = GrpcMetadataAdmin::connect_lazy(&Self::metadata_address(node), &ClientOptions::default());
            if let Ok(Ok(status)) = timeout(ASKED, admin.expect("an address").status()).await {
                statuses.push((node, status));
            }
        }
        statuses
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.size() {
            if let Some(mut child) = self.places[node].child.take() {
                // It may have ended already.
                let _ended = child.kill();
                let _reaped = child.wait();
            }
        }
        if thread::panicking() {
            for node in 0..self.size() {
                let words = self.words(node);
                let lines: Vec<&str> = words.lines().collect();
                eprintln!("-- the last words of node {node}:");
                for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}
