//! An etcd for tests: a process on loopback over a temporary directory.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running etcd. It is killed, and its data removed, when this is dropped.
#[derive(Debug)]
pub struct Etcd {
    child: Child,
    endpoint: String,
    _directory: TempDir,
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").to_string()
}

impl Etcd {
    /// Starts one. It answers some moments later; [`EtcdMetadata`](crate::EtcdMetadata) waits for that.
    ///
    /// # Panics
    /// When there is no etcd on this machine.
    pub fn start() -> Self {
        let (endpoint, peer) = (free_address(), format!("http://{}", free_address()));
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let child = Command::new("etcd")
            .args(["--data-dir".as_ref(), directory.path().as_os_str()])
            .args(["--listen-client-urls", &format!("http://{endpoint}")])
            .args(["--advertise-client-urls", &format!("http://{endpoint}")])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is an etcd: `scripts/setup` installs it, from the package etcd-server");
        Self { child, endpoint, _directory: directory }
    }

    /// Forgets history up to a revision.
    ///
    /// # Panics
    /// When etcd does not answer, or has no such revision.
    pub fn compact(&self, revision: u64) {
        self.ctl(&["compact", &revision.to_string()]);
    }

    /// Ends every lease that there is.
    ///
    /// # Panics
    /// When etcd does not answer.
    pub fn revoke_leases(&self) {
        let leases = self.ctl(&["lease", "list"]);
        for lease in leases.lines().skip(1) {
            self.ctl(&["lease", "revoke", lease.trim()]);
        }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let endpoints = format!("--endpoints={}", self.endpoint);
        let done = Command::new("etcdctl").arg(endpoints).args(arguments).output();
        let done = done.expect("there is an etcdctl: `scripts/setup` installs it, from the package etcd-client");
        assert!(done.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Where clients reach it, `host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
