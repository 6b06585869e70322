//! A real file system of a few MiB, to be filled. Mounting one needs root: who is not, is in a namespace of its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const CHUNK: usize = 1 << 20;

/// Set for the second run of a test, so that there is no third.
const RERUN: &str = "BIFROST_TEST_RERUN";

/// Runs the calling test once more, in a user namespace where it is root and a mount namespace that nobody else sees,
/// unless it is root already. Returns whether it did; then the test is over.
#[track_caller]
pub fn ran_as_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if root || std::env::var_os(RERUN).is_some() {
        return false;
    }
    let thread = std::thread::current();
    let test = thread.name().expect("a test has a thread of its name");
    let binary = std::env::current_exe().expect("the test binary");
    let mut rerun = Command::new("unshare");
    rerun.args(["--user", "--map-root-user", "--mount"]).arg(binary).args(["--exact", test, "--nocapture"]);
    let ended = rerun.env(RERUN, "yes").output().expect("`unshare` starts");
    let told = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{test}, as root of a namespace:\n{}", String::from_utf8_lossy(&told));
    true
}

/// A tmpfs; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: TempDir,
}

impl SmallDisk {
    /// Mounts one of this size.
    #[track_caller]
    pub fn mount(mebibytes: u64) -> Self {
        Self::mount_with(&format!("size={mebibytes}m"))
    }

    /// Mounts one with these options.
    #[track_caller]
    pub fn mount_with(options: &str) -> Self {
        let at = TempDir::new().expect("a directory");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "bifrost-test"]).arg(at.path()).output();
        let mounted = mounted.expect("`mount` starts");
        let told = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(
            mounted.status.success(),
            "this test mounts a tmpfs and must be root, or be allowed to make a user namespace: {told}"
        );
        Self { at }
    }

    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(self.path()).expect("a file system");
        found.f_bavail * found.f_frsize
    }

    /// What somebody else does: takes every byte that is left but these.
    pub fn fill(&self, leave: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler()).expect("a file");
        let zeros = vec![0_u8; CHUNK];
        loop {
            let more = usize::try_from(self.free().saturating_sub(leave)).expect("small").min(CHUNK);
            match file.write(&zeros[..more]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Takes it back.
    pub fn clear(&self) {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            Ok(()) | Err(_) => {}
        }
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may have files open there.
        let unmounted = Command::new("umount").arg("-l").arg(self.at.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.at.path().display());
        }
    }
}
