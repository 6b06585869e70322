//! Opening the store: what is refused before anything is touched, and why RocksDB does not open.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bifrost_journal::rocks::is_full;
use rocksdb::ErrorKind;
use rustix::fs::{Access, access};
use thiserror::Error;

use super::ballast::Ballast;
use super::{DIRECTORY, RECORDS};
use crate::marker::Marker;
use crate::options::InvalidOption;
use crate::store::files::FileStoreError;

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
        /// What was found.
        #[source]
        source: Box<dyn Error + Send + Sync>,
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
        /// What was said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
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
            Some(Marker::TEMPORARY | Ballast::FILE | LOST_AND_FOUND | RECORDS) => {}
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

impl OpenError {
    pub(super) fn of(directory: &Path, error: rocksdb::Error) -> Self {
        let directory = directory.to_owned();
        match error.kind() {
            _ if is_full(&error) => Self::Full { directory },
            ErrorKind::IOError if error.as_ref().contains("/LOCK: ") => Self::InUse { directory },
            ErrorKind::Corruption => Self::Damaged { directory, source: error.into() },
            _ => Self::Failed { directory, source: error.into() },
        }
    }

    pub(super) fn of_io(directory: &Path, source: io::Error) -> Self {
        let directory = directory.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { directory },
            _ => Self::Failed { directory, source: source.into() },
        }
    }

    pub(super) fn of_files(directory: &Path, error: FileStoreError) -> Self {
        let directory = directory.to_owned();
        if error.is_full() {
            Self::Full { directory }
        } else if error.is_damage() {
            Self::Damaged { directory, source: error.into() }
        } else {
            Self::Failed { directory, source: error.into() }
        }
    }
}
