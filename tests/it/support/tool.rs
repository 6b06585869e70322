//! The real binary as a process: one command, or `bifrost dev` while it is needed.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::Value;
use tempfile::TempDir;

/// Only a process that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, or 128 and the signal, as a shell has it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Requires success and gives what was printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// The JSON objects on stdout, one a line.
    #[track_caller]
    pub fn objects(self) -> Vec<Value> {
        objects(&self.ok())
    }

    /// Requires this exit code, an error of three lines at most, and gives it.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.lines().count() <= 3, "{self:?}");
        self.stderr
    }

    /// The error of a command with `--output json`.
    #[track_caller]
    pub fn error(self, code: i32) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        let report: Value = serde_json::from_str(&self.stderr).unwrap_or_else(|_| panic!("no JSON: {self:?}"));
        report["error"].clone()
    }
}

#[track_caller]
pub fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

/// The binary, without any configuration of whoever runs the tests.
pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bifrost-under-test"));
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BIFROST")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Ended {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary starts");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let (done, ended) = sync_channel(1);
    thread::scope(|scope| {
        // It may end before it has read everything.
        scope.spawn(move || stdin.write_all(input));
        let told = scope.spawn(move || {
            let mut text = Vec::new();
            stdout.read_to_end(&mut text).map(|_| text)
        });
        let mut stderr = child.stderr.take().expect("piped");
        scope.spawn(move || {
            let mut text = Vec::new();
            let read = stderr.read_to_end(&mut text);
            done.send(read.map(|_| text))
        });
        let stderr = match ended.recv_timeout(PATIENCE) {
            Ok(stderr) => stderr.expect("stderr is read"),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                child.kill().expect("killed");
                panic!("hangs: {command:?}")
            }
        };
        let status = child.wait().expect("it ended");
        let stdout = told.join().expect("the thread ends").expect("stdout is read");
        let text = |bytes| String::from_utf8(bytes).expect("output is text");
        Ended { code: code(status), stdout: text(stdout), stderr: text(stderr) }
    })
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("a code or a signal")
}

/// A running `bifrost dev`. Killed when it is dropped.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    /// What it said when it was ready.
    pub ready: Value,
    /// Where it keeps its data unless it was told: what is killed cannot tidy up.
    _temporary: TempDir,
}

impl Dev {
    /// Starts it with these arguments, at free ports unless they name one, and waits until it is ready.
    #[track_caller]
    pub fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments: Vec<OsString> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let mut command = command(["dev", "--output", "json"]);
        if !arguments.iter().any(|argument| argument == "--port") {
            command.args(["--port", "0"]);
        }
        let temporary = tempfile::tempdir().expect("a directory");
        command.args(arguments).env("TMPDIR", temporary.path()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (done, told) = sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.read_line(&mut line);
            done.send((read.map(|_| line), stdout))
        });
        let Ok((line, stdout)) = told.recv_timeout(PATIENCE) else {
            child.kill().expect("killed");
            panic!("bifrost dev is not ready after {PATIENCE:?}")
        };
        let line = line.expect("a line");
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line:?}"));
        Self { child, stdout, ready, _temporary: temporary }
    }

    /// The addresses of the nodes, in order.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.ready["addresses"].as_array().expect("a list");
        addresses.iter().map(|address| address.as_str().expect("a text").to_owned()).collect()
    }

    pub fn data_dir(&self) -> &Path {
        Path::new(self.ready["data_dir"].as_str().expect("a text"))
    }

    /// A command that knows this cluster.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = command(arguments);
        command.env("BIFROST_ADDRESS", self.addresses().join(","));
        command
    }

    /// Runs one without input.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        run(&mut self.command(arguments), b"")
    }

    /// Runs one with this input.
    #[track_caller]
    pub fn feed<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, input: impl AsRef<[u8]>) -> Ended {
        run(&mut self.command(arguments), input.as_ref())
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, signal: &str) {
        send_signal(&self.child, signal);
    }

    /// Sends a signal, such as `TERM`, and returns the exit code and what else was printed.
    pub fn end(mut self, signal: &str) -> (i32, String) {
        send_signal(&self.child, signal);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text until it ends");
        (code(self.child.wait().expect("it ended")), rest)
    }
}

/// Sends a signal to a process that is running. After `STOP` all its threads stand still: the one that got the signal
/// tells the others, and until it does they go on.
pub fn send_signal(child: &Child, signal: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().expect("sh runs");
    assert!(sent.success());
    if signal == "STOP" {
        let (_, status) = waitpid(Some(Pid::from_child(child)), WaitOptions::UNTRACED)
            .expect("it is our child")
            .expect("something becomes of it");
        assert!(status.stopped(), "it ended: {status:?}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
