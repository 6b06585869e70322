//! What is needed of a file system, and the real one.

#[cfg(any(test, feature = "test-util"))]
pub mod memory;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::{Errno, retry_on_intr};

use crate::blocks::Blocks;
use crate::frame::BLOCK_BYTES;
use crate::pace::Pace;

/// Where groups have so many bytes on average, files are not filled with zeros: the disk is busy with the groups, and what an
/// fsync saves in a file that was written before is less than what writing the zeros takes.
const UNFILLED_BYTES: u64 = 256 << 10;
/// Zeros that are written at once: as many bytes as some groups have on average, at least, and at most. Where groups are large
/// more of them keep the disk less busy; a small one would wait behind them.
const ZEROS_BYTES: RangeInclusive<usize> = 64 << 10..=256 << 10;
const ZEROED_GROUPS: u64 = 2;

/// How a new file gets its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// It is reserved, where the file system can do that.
    Reserved,
    /// Zeros are written, so many bytes at once, whole blocks: the more, the less time all of them take, and the longer a
    /// group waits behind some.
    Zeros {
        /// Bytes.
        at_once: usize,
    },
}

impl Fill {
    /// Zeros, in pieces that hold up nobody for long.
    pub const ZEROS: Self = Self::Zeros { at_once: *ZEROS_BYTES.start() };

    /// What suits a file for groups of so many bytes on average.
    #[must_use]
    pub fn for_groups(average_bytes: u64) -> Self {
        if average_bytes >= UNFILLED_BYTES {
            return Self::Reserved;
        }
        let wanted = usize::try_from(average_bytes.saturating_mul(ZEROED_GROUPS)).unwrap_or(usize::MAX);
        Self::Zeros { at_once: wanted.clamp(*ZEROS_BYTES.start(), *ZEROS_BYTES.end()) }
    }
}

/// A directory of files that do not change their size. Calls block. Clones are handles to the same.
pub trait Directory: fmt::Debug + Clone + Send + Sync + 'static {
    /// An open file.
    type File: JournalFile;
    /// One that is open for reading only.
    type Reader: ReadFile;

    /// What is in it.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Bytes that files may still take.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Makes a file of so many bytes that read as zeros; it has all of its room when this returns, and none is left after an
    /// error. Zeros that are written are on the disk then; they are written as fast as `pace` lets it.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str, bytes: u64, fill: Fill, pace: &Pace) -> io::Result<()>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// What the system says.
    fn open_to_read(&self, name: &str) -> io::Result<Self::Reader>;

    /// Gives a file another name. Durable when this returns; after an error it has one name or the other.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable when this returns; after an error it is there or not.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file of a [`Directory`], for reading.
pub trait ReadFile: fmt::Debug + Send + Sync + 'static {
    /// Its size.
    ///
    /// # Errors
    /// What the system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads up to the end of `into`, or of the file; returns how much.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
}

/// A file of a [`Directory`].
pub trait JournalFile: ReadFile {
    /// Writes whole blocks at a multiple of their size. Durable after [`sync`](Self::sync).
    ///
    /// # Errors
    /// What the system says; what is there then is unknown.
    fn write(&self, blocks: &Blocks, at: u64) -> io::Result<()>;

    /// Everything that was written is on the disk when this returns.
    ///
    /// # Errors
    /// What the system says; what is there then is unknown, also after a later success.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug, Clone)]
pub struct RealDirectory {
    path: Arc<Path>,
    direct: bool,
}

impl RealDirectory {
    /// The directory at `path`, made if it is missing; its parent must be there. Writes go past the page cache where the
    /// file system allows that.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::create_dir(path) {
            Ok(()) => sync_directory(path.parent().unwrap_or(Path::new(".")))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let mut directory = Self { path: path.into(), direct: true };
        directory.direct = directory.takes_direct_writes();
        Ok(directory)
    }

    /// Whether writes go past the page cache.
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    /// Tries it: what a file system says of a flag is not what it does, and blocks may be larger than ours.
    fn takes_direct_writes(&self) -> bool {
        const PROBE: &str = "probe.tmp";
        let mut block = Blocks::with_capacity(BLOCK_BYTES);
        block.put_zeros(BLOCK_BYTES);
        let created = self.create(PROBE, BLOCK_BYTES as u64, Fill::ZEROS, &Pace::unlimited());
        let written = created.and_then(|()| self.open(PROBE)).and_then(|file| file.write(&block, 0));
        // Left behind, it is removed by whoever opens the journal.
        let _left = self.remove(PROBE);
        written.is_ok()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Piece by piece, past the page cache if that can be: a sync of all of it at once would hold up those of groups.
    fn make(&self, path: &Path, bytes: u64, fill: Fill, pace: &Pace) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(self.flags()).open(path)?;
        // In one place on the disk, although others write meanwhile; and a disk without room says so now.
        match retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, bytes)) {
            Ok(()) if fill == Fill::Reserved => return file.sync_all(),
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        let at_once = match fill {
            Fill::Reserved => *ZEROS_BYTES.start(),
            Fill::Zeros { at_once } => at_once.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES),
        };
        let mut zeros = Blocks::with_capacity(at_once);
        zeros.put_zeros(at_once);
        let mut at = 0;
        while at < bytes {
            let piece = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(at_once);
            pace.wait(at + piece as u64)?;
            file.write_all_at(zeros.bytes().get(..piece).unwrap_or_default(), at)?;
            at += piece as u64;
        }
        file.sync_all()
    }

    const fn flags(&self) -> i32 {
        if self.direct { OFlags::DIRECT.bits().cast_signed() } else { 0 }
    }
}

/// Entries that were made, renamed or removed are durable then.
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl Directory for RealDirectory {
    type File = RealFile;
    type Reader = RealReader;

    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = statvfs(&*self.path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn create(&self, name: &str, bytes: u64, fill: Fill, pace: &Pace) -> io::Result<()> {
        let path = self.at(name);
        self.make(&path, bytes, fill, pace).inspect_err(|_| {
            // On a full disk it would stand in the way of everybody else.
            let _left = fs::remove_file(&path);
        })
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        let path = self.at(name);
        let written = OpenOptions::new().write(true).custom_flags(self.flags()).open(&path)?;
        Ok(RealFile { written, read: RealReader(fs::File::open(&path)?) })
    }

    fn open_to_read(&self, name: &str) -> io::Result<RealReader> {
        fs::File::open(self.at(name)).map(RealReader)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))?;
        sync_directory(&self.path)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))?;
        sync_directory(&self.path)
    }
}

/// A file of a [`RealDirectory`].
#[derive(Debug)]
pub struct RealFile {
    written: fs::File,
    /// Past the page cache a read would have to be aligned too.
    read: RealReader,
}

/// A file of a [`RealDirectory`], for reading.
#[derive(Debug)]
pub struct RealReader(fs::File);

impl ReadFile for RealReader {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl ReadFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        self.read.bytes()
    }

    fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.read.read(into, at)
    }
}

impl JournalFile for RealFile {
    fn write(&self, blocks: &Blocks, at: u64) -> io::Result<()> {
        self.written.write_all_at(blocks.bytes(), at)
    }

    fn sync(&self) -> io::Result<()> {
        self.written.sync_data()
    }
}
