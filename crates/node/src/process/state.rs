//! What a node's directory says about its node: enough to start again without `--bootstrap` and `--join`.
//!
//! It is written before each step that it names, so that a start that was interrupted goes on with that step. One JSON
//! object in `node.json`, replaced as a whole and synced; its fields are in `docs/FORMAT.md`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bifrost_types::{ClusterId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const FILE: &str = "node.json";
const TEMPORARY: &str = "node.json.new";
const LOCK: &str = "lock";
const FORMAT: u32 = 1;
/// Far more than all members' addresses take; a larger file is not read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How the node came to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begun {
    /// It made the cluster.
    Bootstrap,
    /// It joined it.
    Join,
}

/// What keeps the metadata of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The metadata group of its own members.
    #[default]
    Raft,
    /// An etcd that somebody runs.
    Etcd,
}

impl Engine {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_raft(&self) -> bool {
        *self == Self::Raft
    }
}

/// Its part in the metadata group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    /// Where the others reach it.
    pub address: String,
    /// Whether it was made a voter: until then it asks again at each start.
    pub voter: bool,
    /// Whether the others were not told yet that it is there now.
    pub moved: bool,
}

/// What is known of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its cluster.
    pub cluster: ClusterId,
    /// How it came there.
    pub begun: Begun,
    /// Its name.
    pub name: String,
    /// Its number, once it has one.
    pub node: Option<NodeId>,
    /// Where the cluster had its metadata when the node started last. A change must be wanted: two engines would be two
    /// truths.
    pub engine: Engine,
    /// Its part in the metadata group, if it has one or is about to.
    pub member: Option<MemberState>,
    /// Where metadata was reached last.
    pub metadata: Vec<String>,
}

/// Why the directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The system does not let us.
    #[error("the data directory {} cannot be used", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {} is in use by another process", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// What is in it is no node's.
    #[error("the data directory {} is not empty, and what is in it is not the data of a node", path.display())]
    Foreign {
        /// Which directory.
        path: PathBuf,
    },
    /// There is nothing of a node.
    #[error("{} is not the data directory of a node", path.display())]
    NoNode {
        /// Which directory.
        path: PathBuf,
    },
    /// The file is not whole, or of another build.
    #[error("{} cannot be read: it is damaged or of another version", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// The directory of one node, locked for this process until it is dropped.
#[derive(Debug)]
pub struct NodeDirectory {
    path: PathBuf,
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    cluster: String,
    begun: Begun,
    name: String,
    node: Option<u32>,
    #[serde(default, skip_serializing_if = "Engine::is_raft")]
    engine: Engine,
    member: Option<MemberDocument>,
    metadata: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberDocument {
    address: String,
    voter: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    moved: bool,
}

impl NodeDirectory {
    /// Takes the directory, made if it is not there, and reads what it says. `None` for an empty one.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn open(path: &Path) -> Result<(Self, Option<NodeState>), DirectoryError> {
        let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        if !path.join(FILE).exists() && !is_fresh(path).map_err(failed)? {
            return Err(DirectoryError::Foreign { path: path.to_owned() });
        }
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DirectoryError::InUse { path: path.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
        let this = Self { path: path.to_owned(), _lock: lock };
        let state = this.read()?;
        Ok((this, state))
    }

    /// Takes the directory of a node that has been started before.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing was changed.
    pub fn open_known(path: &Path) -> Result<(Self, NodeState), DirectoryError> {
        let no_node = || DirectoryError::NoNode { path: path.to_owned() };
        if !path.join(FILE).exists() {
            return Err(no_node());
        }
        let (directory, state) = Self::open(path)?;
        Ok((directory, state.ok_or_else(no_node)?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<Option<NodeState>, DirectoryError> {
        let path = self.path.join(FILE);
        let failed = |source| DirectoryError::Io { path: path.clone(), source };
        let damaged = || DirectoryError::Damaged { path: path.clone() };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > FILE_BYTES_MAX => return Err(damaged()),
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(failed)?;
        let document: Document = serde_json::from_slice(&text).map_err(|_| damaged())?;
        document.state().map(Some).ok_or_else(damaged)
    }

    /// Replaces what it says. It is durable when this returns; interrupted, the old state is there, or the new one.
    ///
    /// # Errors
    /// [`DirectoryError::Io`].
    pub fn write(&self, state: &NodeState) -> Result<(), DirectoryError> {
        let write = || -> io::Result<()> {
            let temporary = self.path.join(TEMPORARY);
            let mut file = File::create(&temporary)?;
            serde_json::to_writer_pretty(&mut file, &Document::of(state))?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, self.path.join(FILE))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| DirectoryError::Io { path: self.path.join(FILE), source })
    }
}

/// Whether nothing is there but what an interrupted first start leaves.
fn is_fresh(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != TEMPORARY {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Document {
    fn of(state: &NodeState) -> Self {
        Self {
            format: FORMAT,
            cluster: state.cluster.to_string(),
            begun: state.begun,
            name: state.name.clone(),
            node: state.node.map(NodeId::get),
            engine: state.engine,
            member: state.member.clone().map(|MemberState { address, voter, moved }| MemberDocument {
                address,
                voter,
                moved,
            }),
            metadata: state.metadata.clone(),
        }
    }

    fn state(self) -> Option<NodeState> {
        if self.format != FORMAT {
            return None;
        }
        Some(NodeState {
            cluster: self.cluster.parse().ok()?,
            begun: self.begun,
            name: self.name,
            node: self.node.map(NodeId::try_from).transpose().ok()?,
            engine: self.engine,
            member: self.member.map(|MemberDocument { address, voter, moved }| MemberState { address, voter, moved }),
            metadata: self.metadata,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> NodeState {
        NodeState {
            cluster: ClusterId::try_from(7).expect("non-zero"),
            begun: Begun::Join,
            name: "a".to_owned(),
            node: NodeId::try_from(3).ok(),
            engine: Engine::Raft,
            member: Some(MemberState { address: "127.0.0.1:2438".to_owned(), voter: false, moved: false }),
            metadata: vec!["127.0.0.1:2438".to_owned()],
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_directory_serves_one_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new");
        let (taken, found) = NodeDirectory::open(&path).expect("made");
        assert_eq!(found, None);
        taken.write(&state()).expect("written");
        assert!(matches!(NodeDirectory::open(&path), Err(DirectoryError::InUse { .. })));
        drop(taken);
        let (taken, found) = NodeDirectory::open(&path).expect("free again");
        assert_eq!(found, Some(state()));
        let elsewhere = NodeState { engine: Engine::Etcd, member: None, ..state() };
        taken.write(&elsewhere).expect("written");
        drop(taken);
        assert_eq!(NodeDirectory::open(&path).expect("free again").1, Some(elsewhere));
    }

    #[test]
    fn what_is_no_nodes_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("letters"), b"dear").expect("written");
        assert!(matches!(NodeDirectory::open(directory.path()), Err(DirectoryError::Foreign { .. })));
        assert!(!directory.path().join(LOCK).exists());
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let (taken, _) = NodeDirectory::open(directory.path()).expect("empty");
        taken.write(&state()).expect("written");
        drop(taken);
        let whole = fs::read_to_string(directory.path().join(FILE)).expect("text");
        for text in [
            "",
            "{}",
            &whole[..whole.len() / 2],
            &whole.replace("\"format\": 1", "\"format\": 2"),
            &whole.replace('3', "0"),
        ] {
            fs::write(directory.path().join(FILE), text).expect("written");
            assert!(matches!(NodeDirectory::open(directory.path()), Err(DirectoryError::Damaged { .. })), "{text}");
        }
    }
}
