//! Whose disk this is: the marker file in the data directory (DESIGN §6).
//!
//! The marker is what makes a wiped disk another disk (W2): its id lives and dies with the data beside it. Its generation
//! is what makes an old copy of a disk known as one: each start writes the next into the marker before it writes it into
//! the node's record. What to do about a missing, foreign or old one is decided by the node, which knows the metadata;
//! here it is only read and written.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bifrost_types::{ClusterId, DiskId, Generation, NodeId};
use thiserror::Error;

const VERSION: u32 = 2;
/// Before markers had a generation.
const VERSION_WITHOUT_GENERATION: u32 = 1;
/// Far more than a marker takes; what is longer is not read.
const BYTES_MAX: u64 = 4096;

/// Who a data directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The disk; made at random when the marker is written first.
    pub disk: DiskId,
    /// The newest life of the node that began with this disk. Never below that of the node's record, unless this is an
    /// old copy of the disk. `None` in a marker of format 1, which the next start replaces.
    pub generation: Option<Generation>,
}

/// Why a data directory must not be used.
#[derive(Debug, Error)]
pub enum MarkerError {
    /// It belongs to another cluster.
    #[error("the disk belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// Whose it is.
        found: ClusterId,
        /// Who asked.
        expected: ClusterId,
    },
    /// It belongs to another node.
    #[error("the disk belongs to {found}, not to {expected}")]
    OtherNode {
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// It is another disk than the one the metadata names.
    #[error("the disk is {found}, not {expected}")]
    OtherDisk {
        /// Which one it is.
        found: DiskId,
        /// Which one was wanted.
        expected: DiskId,
    },
    /// Written by a newer build.
    #[error(
        "the data directory has format {found}, this build knows format {VERSION}; start it with the build that wrote it"
    )]
    NewerFormat {
        /// Its format.
        found: u32,
    },
    /// The file is there and is not a marker.
    #[error("the marker {} is damaged; restore it from a copy, or give the node an empty directory", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("the marker {} cannot be read or written; check its owner and the disk", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Marker {
    /// Its name in the data directory.
    pub const FILE: &'static str = "MARKER";
    /// What it is called until it is durable.
    pub(crate) const TEMPORARY: &'static str = "MARKER.tmp";

    /// Reads the marker of a data directory; `None` if there is none, or no such directory. Blocks.
    ///
    /// # Errors
    /// [`MarkerError::Damaged`], [`MarkerError::NewerFormat`] or [`MarkerError::Io`].
    pub fn read(directory: &Path) -> Result<Option<Self>, MarkerError> {
        let path = directory.join(Self::FILE);
        let bytes = match fs::metadata(&path)
            .and_then(|about| if about.len() > BYTES_MAX { Ok(Vec::new()) } else { fs::read(&path) })
        {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MarkerError::Io { path, source }),
        };
        match Self::decode(&bytes) {
            Ok(marker) => Ok(Some(marker)),
            Err(Unreadable::Newer(found)) => Err(MarkerError::NewerFormat { found }),
            Err(Unreadable::Damaged) => Err(MarkerError::Damaged { path }),
        }
    }

    /// Writes the marker, replacing one that is there, and makes it durable: a temporary file, fsync, rename, fsync of
    /// the directory. After a crash the old marker is there, or the new one. Blocks.
    ///
    /// # Errors
    /// [`MarkerError::Io`].
    pub fn write(&self, directory: &Path) -> Result<(), MarkerError> {
        let path = directory.join(Self::FILE);
        let write = || -> io::Result<()> {
            fs::create_dir_all(directory)?;
            let temporary = directory.join(Self::TEMPORARY);
            let mut file = File::create(&temporary)?;
            file.write_all(self.encode().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|source| MarkerError::Io { path: path.clone(), source })
    }

    /// Refuses a disk of another cluster or node.
    ///
    /// # Errors
    /// [`MarkerError::OtherCluster`] or [`MarkerError::OtherNode`].
    pub fn check_owner(&self, cluster: ClusterId, node: NodeId) -> Result<(), MarkerError> {
        if self.cluster != cluster {
            return Err(MarkerError::OtherCluster { found: self.cluster, expected: cluster });
        }
        if self.node != node {
            return Err(MarkerError::OtherNode { found: self.node, expected: node });
        }
        Ok(())
    }

    /// Refuses a disk that is not the one the metadata names.
    ///
    /// # Errors
    /// [`MarkerError::OtherDisk`].
    pub fn check_disk(&self, disk: DiskId) -> Result<(), MarkerError> {
        if self.disk == disk { Ok(()) } else { Err(MarkerError::OtherDisk { found: self.disk, expected: disk }) }
    }

    fn encode(&self) -> String {
        let Self { cluster, node, disk, generation } = self;
        let text = match generation {
            Some(generation) => format!(
                "bifrost-disk {VERSION}\ncluster {cluster}\nnode {node}\ndisk {disk}\ngeneration {generation}\n",
                generation = generation.get()
            ),
            None => {
                format!("bifrost-disk {VERSION_WITHOUT_GENERATION}\ncluster {cluster}\nnode {node}\ndisk {disk}\n")
            }
        };
        let crc = bifrost_checksum::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::Damaged)?;
        let body = text.rfind("crc32c ").and_then(|at| text.split_at_checked(at));
        let (covered, checksum) = body.ok_or(Unreadable::Damaged)?;
        if checksum != format!("crc32c {:08x}\n", bifrost_checksum::crc32c(covered.as_bytes())) {
            return Err(Unreadable::Damaged);
        }
        let mut lines = covered.lines();
        let mut field = |name: &str| {
            let line = lines.next()?.strip_prefix(name)?;
            line.strip_prefix(' ')
        };
        // The version comes first and the checksum last in every format, so a newer one is told from damage.
        let version: u32 = field("bifrost-disk").and_then(|text| text.parse().ok()).ok_or(Unreadable::Damaged)?;
        if version > VERSION {
            return Err(Unreadable::Newer(version));
        }
        let cluster = field("cluster").and_then(|text| text.parse().ok()).ok_or(Unreadable::Damaged)?;
        let node = field("node").and_then(|text| text.parse().ok()).ok_or(Unreadable::Damaged)?;
        let disk = field("disk").and_then(|text| text.parse().ok()).ok_or(Unreadable::Damaged)?;
        let generation = match version {
            VERSION_WITHOUT_GENERATION => None,
            _ => {
                let number =
                    field("generation").and_then(|text| text.parse::<u32>().ok()).ok_or(Unreadable::Damaged)?;
                Some(Generation::try_from(number).map_err(|_| Unreadable::Damaged)?)
            }
        };
        let marker = Self { cluster, node, disk, generation };
        if marker.encode().as_bytes() == bytes { Ok(marker) } else { Err(Unreadable::Damaged) }
    }
}

/// Decodes any bytes as a marker, for fuzz targets (L6). Panics only if a marker does not survive another round trip.
#[cfg(any(test, feature = "test-util"))]
pub fn survives(bytes: &[u8]) {
    if let Ok(marker) = Marker::decode(bytes) {
        assert_eq!(marker.encode().as_bytes(), bytes, "a marker has one form");
    }
}

enum Unreadable {
    Damaged,
    Newer(u32),
}
