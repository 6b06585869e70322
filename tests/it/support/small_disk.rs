//! A real file system of a few MiB, to be filled. Mounting one needs root.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const CHUNK: usize = 1 << 20;

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
        assert!(mounted.status.success(), "this test mounts a tmpfs of its own and must run as root: {told}");
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
