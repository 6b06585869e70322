//! `bifrost server` as processes on loopback: one directory and two ports for each node.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::ports::free_address;
use super::tool::{Ended, command, run, send_signal};

/// Only a process that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that was started. Killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    told: Receiver<(String, BufReader<ChildStdout>)>,
    /// What it said when it was ready; null before that.
    pub ready: Value,
}

/// Where one node is: the ports stay the same over its lives.
#[derive(Debug)]
struct Place {
    name: String,
    listen: String,
    metadata: String,
    metrics: String,
    server: Option<Server>,
}

/// Nodes, started one after the other.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    places: Vec<Place>,
}

impl Server {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (done, told) = sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            let _ended = stdout.read_line(&mut line);
            done.send((line, stdout))
        });
        Self { child, told, ready: Value::Null }
    }

    /// Waits until it is ready and returns what it said.
    #[track_caller]
    pub fn wait_ready(&self) -> Value {
        let (line, _) = self.told.recv_timeout(PATIENCE).expect("it is ready in time");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line:?}"))
    }

    /// Lets it run for this long, and kills it.
    pub fn kill_after(self, time: Duration) {
        thread::sleep(time);
        drop(self);
    }

    fn kill(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Cluster {
    /// No nodes yet.
    pub fn empty() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), places: Vec::new() }
    }

    /// The first makes the cluster, the others join it.
    #[track_caller]
    pub fn of(nodes: usize) -> Self {
        let mut cluster = Self::empty();
        let first = cluster.reserve();
        cluster.start_with(first, |command| {
            command.arg("--bootstrap");
        });
        for _ in 1..nodes {
            cluster.add(|_| ());
        }
        cluster
    }

    /// One more node joins.
    #[track_caller]
    pub fn add(&mut self, with: impl FnOnce(&mut Command)) -> usize {
        let (index, join) = (self.reserve(), self.metadata_address(0));
        self.start_with(index, |command| {
            with(command.args(["--join", &join]));
        });
        index
    }

    /// A name, a directory and ports for a node that does not run.
    pub fn reserve(&mut self) -> usize {
        let name = format!("node-{}", self.places.len());
        self.places.push(Place {
            name,
            listen: free_address(),
            metadata: free_address(),
            metrics: free_address(),
            server: None,
        });
        self.places.len() - 1
    }

    pub fn directory(&self, index: usize) -> PathBuf {
        self.directory.path().join(&self.places[index].name)
    }

    pub fn metadata_address(&self, index: usize) -> String {
        self.places[index].metadata.clone()
    }

    pub fn address(&self, index: usize) -> String {
        self.places[index].listen.clone()
    }

    /// Where a node answers over plain HTTP.
    pub fn monitoring_address(&self, index: usize) -> &str {
        &self.places[index].metrics
    }

    /// What a node answers over plain HTTP: status and body.
    #[track_caller]
    pub fn get(&self, index: usize, path: &str) -> (u16, String) {
        self.ask_http(index, "GET", path).expect("it answers")
    }

    /// The same with any method; `None` if nobody listens, or whoever does has no room for one more connection.
    pub fn ask_http(&self, index: usize, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.places[index].metrics).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().expect("a status"), body.to_owned()))
    }

    pub fn server(&self, index: usize) -> &Server {
        self.places[index].server.as_ref().expect("it runs")
    }

    /// The command that runs a node.
    pub fn server_command(&self, index: usize) -> Command {
        let place = &self.places[index];
        let mut command = command(["server"]);
        command
            .env("BIFROST__NODE__NAME", &place.name)
            .env("BIFROST__NODE__LISTEN", &place.listen)
            .env("BIFROST__NODE__DATA_DIR", self.directory(index))
            .env("BIFROST__METADATA__LISTEN", &place.metadata)
            .env("BIFROST__METRICS__LISTEN", &place.metrics);
        command
    }

    /// Runs a node that is not to start, to its end.
    #[track_caller]
    pub fn run_server(&self, index: usize, with: impl FnOnce(&mut Command)) -> Ended {
        let mut command = self.server_command(index);
        with(&mut command);
        run(&mut command, b"")
    }

    /// Starts a node and does not wait for it.
    pub fn spawn(&self, index: usize, with: impl FnOnce(&mut Command)) -> Server {
        let mut command = self.server_command(index);
        with(command.args(["--output", "json"]));
        Server::spawn(&mut command)
    }

    /// Starts a node and waits until it is ready.
    #[track_caller]
    pub fn start_with(&mut self, index: usize, with: impl FnOnce(&mut Command)) -> Value {
        let mut server = self.spawn(index, with);
        server.ready = server.wait_ready();
        let ready = server.ready.clone();
        self.places[index].server = Some(server);
        ready
    }

    /// Starts a node again.
    #[track_caller]
    pub fn start(&mut self, index: usize) -> Value {
        self.start_with(index, |_| ())
    }

    /// Takes in a node that was started and not waited for.
    #[track_caller]
    pub fn ready(&mut self, index: usize, mut server: Server) {
        server.ready = server.wait_ready();
        self.places[index].server = Some(server);
    }

    /// Gives the metadata member of a node that does not run another port, and tells it.
    pub fn move_metadata(&mut self, index: usize) -> String {
        self.places[index].metadata = free_address();
        self.metadata_address(index)
    }

    /// Whether the process of a node is alive.
    pub fn runs(&mut self, index: usize) -> bool {
        let server = self.places[index].server.as_mut().expect("it was started");
        server.child.try_wait().expect("a child").is_none()
    }

    pub fn kill(&mut self, index: usize) {
        self.places[index].server = None;
    }

    /// Sends a signal to a node that runs.
    pub fn signal(&self, index: usize, signal: &str) {
        send_signal(&self.server(index).child, signal);
    }

    /// Sends SIGTERM and gives the exit code.
    pub fn stop(&mut self, index: usize) -> i32 {
        let mut server = self.places[index].server.take().expect("it runs");
        send_signal(&server.child, "TERM");
        let (done, ended) = sync_channel(1);
        thread::scope(|scope| {
            let child = &mut server.child;
            let id = child.id();
            scope.spawn(move || {
                let status = child.wait().expect("it ends");
                let _late = done.send(status.code().unwrap_or(-1));
            });
            ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                let _killed = Command::new("sh").args(["-c", &format!("kill -9 {id}")]).status();
                panic!("it does not stop")
            })
        })
    }

    /// A command of the tool that knows one node.
    pub fn command<A: AsRef<OsStr>>(&self, through: usize, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = command(arguments);
        command.env("BIFROST_ADDRESS", self.address(through));
        command
    }

    /// Runs one to its end.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, through: usize, arguments: impl IntoIterator<Item = A>, input: &[u8]) -> Ended {
        run(&mut self.command(through, arguments), input)
    }

    /// Starts one whose input comes bit by bit.
    pub fn start_command<A: AsRef<OsStr>>(&self, through: usize, arguments: impl IntoIterator<Item = A>) -> Child {
        self.command(through, arguments).stdin(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Waits for its end; its input must be closed.
    #[track_caller]
    pub fn finish(&self, mut child: Child) -> Ended {
        let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (mut out, mut err) = (String::new(), String::new());
        thread::scope(|scope| {
            scope.spawn(|| stderr.read_to_string(&mut err).expect("text"));
            stdout.read_to_string(&mut out).expect("text");
        });
        let code = child.wait().expect("it ends").code().unwrap_or(-1);
        Ended { code, stdout: out, stderr: err }
    }
}
