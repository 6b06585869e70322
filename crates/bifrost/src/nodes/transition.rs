//! Which storage state an operator may make of which (DESIGN §6): a table.

use bifrost_types::{NodeId, NodeRecord, StorageState};
use thiserror::Error;

/// What it takes to get a disk into a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It is in it.
    Already,
    /// One write.
    Write,
    /// One write, if no segment needs the node any more.
    WriteIfUnneeded,
}

/// Why a disk does not get into a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransitionRefused {
    /// The node has not written a marker on a disk yet.
    #[error("{node} has no disk yet; it gets one when it starts")]
    NoDisk {
        /// The node.
        node: NodeId,
    },
    /// Only a node that takes no new segments can be retired.
    #[error(
        "{node} is read-write and takes new segments; make it read-only first, and retire it when nothing needs it"
    )]
    TakesNewSegments {
        /// The node.
        node: NodeId,
    },
    /// A disk that is out of service does not come back: what was written without it would be missing there.
    #[error("the disk of {node} is in state {storage}, and does not come back; start a new node for a new disk")]
    OutOfService {
        /// The node.
        node: NodeId,
        /// The state.
        storage: StorageState,
    },
    /// A disk that was marked has a state.
    #[error("{node} cannot be made provisioning: that is how a node begins")]
    NotABeginning {
        /// The node.
        node: NodeId,
    },
}

/// The table: what an operator wants against the record.
///
/// # Errors
/// [`TransitionRefused`].
pub fn transition(record: &NodeRecord, desired: StorageState) -> Result<Transition, TransitionRefused> {
    use StorageState::{DataLoss, Provisioning, ReadOnly, ReadWrite, Retired};
    let node = record.id.node;
    match (record.storage, desired) {
        // The node itself may have written it: an operator's word is more (R3).
        (DataLoss, DataLoss) if !record.declared_lost => Ok(Transition::Write),
        (Provisioning, Provisioning)
        | (ReadWrite, ReadWrite)
        | (ReadOnly, ReadOnly)
        | (DataLoss, DataLoss)
        | (Retired, Retired) => Ok(Transition::Already),
        (_, Provisioning) => Err(TransitionRefused::NotABeginning { node }),
        (Provisioning, ReadWrite | ReadOnly | DataLoss | Retired) => Err(TransitionRefused::NoDisk { node }),
        (ReadWrite, ReadOnly | DataLoss) | (ReadOnly, ReadWrite | DataLoss) => Ok(Transition::Write),
        (ReadOnly, Retired) => Ok(Transition::WriteIfUnneeded),
        (ReadWrite, Retired) => Err(TransitionRefused::TakesNewSegments { node }),
        (storage @ DataLoss, ReadWrite | ReadOnly | Retired) | (storage @ Retired, ReadWrite | ReadOnly | DataLoss) => {
            Err(TransitionRefused::OutOfService { node, storage })
        }
    }
}

#[cfg(test)]
mod tests {
    use bifrost_types::{DiskId, Generation, Location, NodeGeneration, Roles};

    use super::*;

    #[test]
    fn the_table_has_an_answer_for_every_pair() {
        use StorageState::{DataLoss, Provisioning, ReadOnly, ReadWrite, Retired};
        let node = NodeId::try_from(3).expect("non-zero");
        let states = [Provisioning, ReadWrite, ReadOnly, DataLoss, Retired];
        let answer = |(from, declared_lost), to| {
            let record = NodeRecord {
                id: NodeGeneration::new(node, Generation::FIRST),
                name: "three".to_owned(),
                address: String::new(),
                location: Location::default(),
                disk: DiskId::try_from(7).ok(),
                storage: from,
                declared_lost,
                roles: Roles::DATA,
            };
            match transition(&record, to) {
                Ok(Transition::Already) => '=',
                Ok(Transition::Write) => 'w',
                Ok(Transition::WriteIfUnneeded) => 'u',
                Err(TransitionRefused::NoDisk { .. }) => 'n',
                Err(TransitionRefused::TakesNewSegments { .. }) => 't',
                Err(TransitionRefused::OutOfService { .. }) => 'o',
                Err(TransitionRefused::NotABeginning { .. }) => 'b',
            }
        };
        let found = states.map(|state| (state, false)).into_iter().chain([(DataLoss, true)]);
        let rows: Vec<String> = found.map(|from| states.iter().map(|to| answer(from, *to)).collect()).collect();
        assert_eq!(rows, ["=nnnn", "b=wwt", "bw=wu", "boowo", "booo=", "boo=o"]);
    }
}
