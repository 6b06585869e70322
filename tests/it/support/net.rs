//! A network of its own for each host: namespaces joined by a bridge, whose links can be cut silently, one way or both.
//!
//! ```text
//!  clients ── bridge ──┬── operator
//!  10.77.0.1           ├── node 0   10.77.0.11
//!                      └── node 1   10.77.0.12 ..
//! ```
//! Nothing here has a name that another test could meet: a namespace lives as long as a file descriptor or a process in it,
//! so nothing is left behind however a test ends. All neighbours are known for good, and a link is cut by a wrong one: what
//! is sent is lost without a word, and what comes back is not. No packet filter is needed for it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Frames to this address reach nobody.
const NOBODY: u8 = 0xff;

/// Somebody with an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Where writers and readers are.
    Clients,
    /// Where whoever reconfigures is, to be cut off without the writers.
    Operator,
    /// A node, from 0.
    Node(usize),
}

impl Host {
    fn number(self) -> u8 {
        match self {
            Self::Clients => 1,
            Self::Operator => 2,
            Self::Node(index) => u8::try_from(index + 11).expect("a few nodes"),
        }
    }

    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number())
    }

    /// Its interface, in its namespace.
    const fn device(self) -> &'static str {
        match self {
            Self::Clients => "bridge",
            Self::Operator | Self::Node(_) => "eth0",
        }
    }
}

fn hardware(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

/// A network namespace without a name.
#[derive(Debug)]
pub struct Namespace {
    entry: File,
}

impl Namespace {
    fn new() -> Self {
        // Only a process can make one, and it is in it as soon as `cat` answers.
        let mut maker = Command::new("unshare");
        maker.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut maker = maker.spawn().expect("unshare is there");
        let (mut stdin, mut stdout) = (maker.stdin.take().expect("piped"), maker.stdout.take().expect("piped"));
        stdin.write_all(b"?").expect("it reads");
        stdout.read_exact(&mut [0]).expect("it may make a namespace");
        let entry = File::open(format!("/proc/{}/ns/net", maker.id())).expect("its namespace");
        drop(stdin);
        maker.wait().expect("it ends");
        Self { entry }
    }

    /// Takes the calling thread there for good; processes that it starts are there too.
    pub fn join(&self) {
        move_into_link_name_space(self.entry.as_fd(), Some(LinkNameSpaceType::Network)).expect("it is a namespace");
    }

    /// Does something there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = thread::scope(|scope| {
            let there = || {
                self.join();
                work()
            };
            scope.spawn(there).join()
        });
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Does something there, on a thread of its own.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
        let there = Self { entry: self.entry.try_clone().expect("a descriptor") };
        thread::spawn(move || {
            there.join();
            work();
        })
    }

    /// Runs commands of `ip` there, one a line.
    fn ip(&self, commands: &str) {
        let ended = self.enter(|| {
            // On Debian it is where the shell of a user does not look.
            let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
            let mut command = Command::new("ip");
            command.env("PATH", path).args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("ip is installed (package iproute2)");
            child.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("it reads");
            child.wait_with_output().expect("it ends")
        });
        assert!(ended.status.success(), "{commands}: {}", String::from_utf8_lossy(&ended.stderr));
    }

    /// What a process of this user opens to find it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.entry.as_raw_fd())
    }
}

/// The hosts of one cluster.
#[derive(Debug)]
pub struct Net {
    hosts: Vec<(Host, Namespace)>,
}

impl Net {
    pub fn of(nodes: usize) -> Self {
        let hosts = [Host::Clients, Host::Operator].into_iter().chain((0..nodes).map(Host::Node));
        let net = Self { hosts: hosts.map(|host| (host, Namespace::new())).collect() };
        let mut bridge = format!(
            "link set lo up\nlink add bridge address {} type bridge forward_delay 0\nlink set bridge up\n",
            hardware(Host::Clients.number())
        );
        for (host, namespace) in &net.hosts[1..] {
            let number = host.number();
            bridge += &format!(
                "link add port{number} type veth peer name eth0 address {} netns {}\nlink set port{number} master bridge up\n",
                hardware(number),
                namespace.path()
            );
        }
        net.namespace(Host::Clients).ip(&bridge);
        for (host, namespace) in &net.hosts {
            let device = host.device();
            let mut commands =
                format!("link set lo up\naddr add {}/24 dev {device}\nlink set {device} up\n", host.ip());
            for (other, _) in net.hosts.iter().filter(|(other, _)| other != host) {
                commands += &neighbour(*host, *other, other.number());
            }
            namespace.ip(&commands);
        }
        net
    }

    pub fn namespace(&self, host: Host) -> &Namespace {
        &self.hosts.iter().find(|(known, _)| *known == host).expect("a host of this network").1
    }

    /// From now on, what `from` sends to `to` is lost.
    pub fn cut(&self, from: Host, to: Host) {
        self.namespace(from).ip(&neighbour(from, to, NOBODY));
    }

    /// It arrives again.
    pub fn mend(&self, from: Host, to: Host) {
        self.namespace(from).ip(&neighbour(from, to, to.number()));
    }

    /// From now on nobody hears a host, and it hears nobody.
    pub fn isolate(&self, host: Host) {
        self.link(host, |_| NOBODY);
    }

    /// It is as if nothing had been cut at this host.
    pub fn rejoin(&self, host: Host) {
        self.link(host, Host::number);
    }

    /// Both ways between a host and all others.
    fn link(&self, host: Host, number: impl Fn(Host) -> u8) {
        let mut own = String::new();
        for (other, namespace) in self.hosts.iter().filter(|(other, _)| *other != host) {
            namespace.ip(&neighbour(*other, host, number(host)));
            own += &neighbour(host, *other, number(*other));
        }
        self.namespace(host).ip(&own);
    }
}

/// The command after which `host` sends what is for `other` to this hardware address.
fn neighbour(host: Host, other: Host, number: u8) -> String {
    format!("neigh replace {} lladdr {} dev {} nud permanent\n", other.ip(), hardware(number), host.device())
}

/// Whether this user may make network namespaces.
pub fn may_make_namespaces() -> bool {
    may(&["--net"])
}

fn may(unshare: &[&str]) -> bool {
    let tried = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Runs a test where it may make namespaces: here, or in a user namespace that it runs itself again in.
pub fn with_namespaces(test: &str, body: impl FnOnce()) {
    if may_make_namespaces() {
        return body();
    }
    let own = ["--user", "--map-root-user", "--net"];
    assert!(
        may(&own),
        "this machine lets this user make no network namespaces, which this test needs: run it as root, or allow \
         unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1); in a container, add the capability \
         SYS_ADMIN"
    );
    let binary = std::env::current_exe().expect("this binary");
    let mut again = Command::new("unshare");
    again.args(own).arg(binary).args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let status = again.status().expect("unshare is there");
    assert!(status.success(), "it failed in a user namespace; what it told is above");
}
