//! Why a journal does not open, or stops.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a journal cannot be opened. Nothing was changed, except that leftovers of an interrupted preparation were removed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file or the directory cannot be used.
    #[error("the journal in {} cannot be read or written", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something else is in the directory.
    #[error("{} holds {name}, which is no part of a journal; choose another directory", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// One of the entries.
        name: String,
    },
    /// A newer build wrote it.
    #[error("the journal in {} is of format {found}, which this build does not know; start it with the build that wrote it", directory.display())]
    NewerFormat {
        /// The directory.
        directory: PathBuf,
        /// The format.
        found: u32,
    },
    /// What was acknowledged is missing or cannot be read.
    #[error("the journal in {} is damaged", directory.display())]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// How.
        #[source]
        damage: Damage,
    },
    /// Whoever takes the groups does not know what one of them means.
    #[error("group {sequence} of the journal in {} cannot be applied", directory.display())]
    Replay {
        /// The directory.
        directory: PathBuf,
        /// The group.
        sequence: u64,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What is wrong with the files of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Damage {
    /// A file does not begin as one.
    #[error("{name} has no readable header")]
    Header {
        /// The file.
        name: String,
    },
    /// A file is missing between two others.
    #[error("file {number} is missing")]
    FileMissing {
        /// The file.
        number: u64,
    },
    /// A frame cannot be read, and later ones can.
    #[error("group {sequence} cannot be read in {name} at byte {at}, and group {later} behind it can")]
    Frame {
        /// The group that should be there.
        sequence: u64,
        /// The file.
        name: String,
        /// Where in it.
        at: u64,
        /// A group that follows.
        later: u64,
    },
    /// The journal begins after the group that is needed next.
    #[error("group {needed} is needed, and the first one here is {first}")]
    Begins {
        /// What is needed.
        needed: u64,
        /// What is there.
        first: u64,
    },
    /// The journal ends before a group that was in it.
    #[error("group {known} was in the journal, and the last one here is {last:?}")]
    Ends {
        /// What was there.
        known: u64,
        /// What is there.
        last: Option<u64>,
    },
}

/// Why a group was not appended. After [`Failed`](Self::Failed) nobody knows whether it is there: the journal is not to be
/// used any more.
#[derive(Debug, Error)]
pub enum JournalError {
    /// There is no room for the next file. The group is not in the journal; a later one may be taken.
    #[error("there is no room for the journal")]
    Full,
    /// More than a group may have.
    #[error("a group of {bytes} bytes is more than a journal takes")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// A write or an fsync failed, now or before.
    #[error("the journal failed")]
    Failed(#[source] io::Error),
}
