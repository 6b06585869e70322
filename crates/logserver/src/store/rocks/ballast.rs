//! The ballast: a file whose only use is to be given up. When others fill the file system to the last byte, what it
//! held is there for seals and trims, which are how the disk gets room again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The ballast of one data directory.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// Its name in the data directory.
    pub(super) const FILE: &'static str = "BALLAST";

    pub(super) fn new(directory: &Path, bytes: u64) -> Self {
        Self { path: directory.join(Self::FILE), bytes }
    }

    /// Whether it is there. One of another size counts: it is given up like any.
    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Reserves its bytes. A file system that cannot reserve is written to.
    pub(super) fn make(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        let made = match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.write_zeros(&file),
            outcome => outcome.map_err(io::Error::from),
        };
        // Half a ballast is worse than none: it would take what is left.
        made.and_then(|()| file.sync_all()).inspect_err(|_| drop(fs::remove_file(&self.path)))
    }

    /// Gives its bytes back.
    pub(super) fn give_up(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn write_zeros(&self, file: &File) -> io::Result<()> {
        io::copy(&mut io::Read::take(io::repeat(0), self.bytes), &mut &*file).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn it_is_made_with_its_size_and_given_up_twice() {
        let directory = tempfile::TempDir::new().unwrap();
        let ballast = Ballast::new(directory.path(), 1 << 16);
        assert!(!ballast.is_there());
        ballast.make().unwrap();
        assert!(ballast.is_there());
        assert_eq!(fs::metadata(directory.path().join(Ballast::FILE)).unwrap().len(), 1 << 16);
        ballast.make().unwrap();
        ballast.give_up().unwrap();
        ballast.give_up().unwrap();
        assert!(!ballast.is_there());
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        let ballast = Ballast::new(directory.path(), 1 << 60);
        ballast.make().unwrap_err();
        assert!(!ballast.is_there());
    }
}
