//! Opening the store: what is refused before anything is touched, and why RocksDB does not open.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind};
use rustix::fs::{Access, access};
use thiserror::Error;

use super::ballast::Ballast;
use super::options::RocksOptions;
use super::{BATCHES, DIRECTORY, STATES};
use crate::marker::Marker;
use crate::options::InvalidOption;

/// What a file system puts into its own root.
const LOST_AND_FOUND: &str = "lost+found";

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The options are not valid.
    #[error(transparent)]
    Options(#[from] InvalidOption),
    /// Another process, or another server of this one, has it open.
    #[error("the data directory {} is in use by another process; stop that one, or choose another directory", directory.display())]
    InUse {
        /// Which directory.
        directory: PathBuf,
    },
    /// There is a file where the directory should be.
    #[error("{} is a file, and a data directory is wanted; choose another path, or move the file away", directory.display())]
    NotADirectory {
        /// Which path.
        directory: PathBuf,
    },
    /// There are files, and they are not a log server's.
    #[error(
        "{} holds {}, which is no part of a log server's data; choose an empty directory, or that of this node",
        directory.display(), entry.display()
    )]
    Foreign {
        /// Which directory.
        directory: PathBuf,
        /// One of the entries in it.
        entry: PathBuf,
    },
    /// Its user may not write there, or the file system is read-only.
    #[error("the data directory {} cannot be written; give this user the right to, or choose another directory", directory.display())]
    Unwritable {
        /// Which directory.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The marker is there and the store is not. Served as empty it would deny what it had acknowledged (W2).
    #[error(
        "the data directory {} has a marker and no store: its records were removed; put them back, or remove the marker \
         too, so that the disk counts as lost",
        directory.display()
    )]
    StoreMissing {
        /// Which directory.
        directory: PathBuf,
    },
    /// The file system is too full to open what is there.
    #[error("the file system of {} is full; free some space there and start again", directory.display())]
    Full {
        /// Which directory.
        directory: PathBuf,
    },
    /// What is on the disk is damaged; the copies of this server must come from other servers.
    #[error("the data directory {} is damaged; keep it for a look, and give the node an empty one", directory.display())]
    Damaged {
        /// Which directory.
        directory: PathBuf,
        /// What RocksDB found.
        #[source]
        source: rocksdb::Error,
    },
    /// The directory cannot be made.
    #[error("cannot create the data directory {}; check the path and its owner", directory.display())]
    Create {
        /// Which directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot open the data directory {}", directory.display())]
    Failed {
        /// Which directory.
        directory: PathBuf,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
}

/// Refuses what is not the directory of a log server, and changes nothing. A directory that is not there is fine.
///
/// # Errors
/// [`OpenError`].
pub fn check_directory(directory: &Path) -> Result<(), OpenError> {
    let owned = || directory.to_owned();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotADirectory { directory: owned() });
        }
        Err(source) => return Err(OpenError::Unwritable { directory: owned(), source }),
    };
    let mut foreign = None;
    let (mut store, mut marker) = (false, false);
    for entry in entries {
        let name = entry.map_err(|source| OpenError::Unwritable { directory: owned(), source })?.file_name();
        match name.to_str() {
            Some(DIRECTORY) => store = true,
            Some(Marker::FILE) => marker = true,
            Some(Marker::TEMPORARY | Ballast::FILE | LOST_AND_FOUND) => {}
            Some(_) | None => foreign = Some(PathBuf::from(name)),
        }
    }
    if let Some(entry) = foreign
        && !store
        && !marker
    {
        return Err(OpenError::Foreign { directory: owned(), entry });
    }
    access(directory, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| OpenError::Unwritable { directory: owned(), source: error.into() })?;
    // The store is made before the marker, so this order of things has another reason than a crash.
    if marker && !store { Err(OpenError::StoreMissing { directory: owned() }) } else { Ok(()) }
}

/// Makes the directory, and durable in every parent that this changes.
pub(super) fn create(directory: &Path) -> Result<(), OpenError> {
    let make = || -> io::Result<()> {
        let directory = std::path::absolute(directory)?;
        let missing = directory.ancestors().take_while(|ancestor| !ancestor.exists()).count();
        fs::create_dir_all(&directory)?;
        for parent in directory.ancestors().skip(1).take(missing) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    make().map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull => OpenError::Full { directory: directory.to_owned() },
        _ => OpenError::Create { directory: directory.to_owned(), source },
    })
}

/// Opens RocksDB, or makes an empty one.
pub(super) fn open_database(directory: &Path, options: &RocksOptions) -> Result<DB, OpenError> {
    let families = [
        ColumnFamilyDescriptor::new(BATCHES, options.batches()),
        ColumnFamilyDescriptor::new(STATES, options.states()),
        // Not used, and set all the same: out of space RocksDB goes on once the largest write buffer of any family
        // would fit, and the default one takes 64 MiB.
        ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.states()),
    ];
    DB::open_cf_descriptors(&options.database(), directory.join(DIRECTORY), families)
        .map_err(|source| refusal(directory, source))
}

fn refusal(directory: &Path, source: rocksdb::Error) -> OpenError {
    let directory = directory.to_owned();
    let locked = source.as_ref().contains("/LOCK: ");
    match source.kind() {
        _ if is_full(&source) => OpenError::Full { directory },
        ErrorKind::IOError if locked => OpenError::InUse { directory },
        ErrorKind::Corruption => OpenError::Damaged { directory, source },
        _ => OpenError::Failed { directory, source },
    }
}

/// RocksDB tells the reason in words only. A quota that is used up is a full disk of its own.
pub(super) fn is_full(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}
