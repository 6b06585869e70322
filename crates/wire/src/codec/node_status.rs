//! What a node says about itself.

use std::time::Duration;

use bifrost_types::{Role, Roles};

use super::{DecodeError, at_most, id128, id128_bytes, required};
use crate::node::{CatchUpProgress, DiskSpace, DiskStatus, Fullness, NodeLoad, NodeStatus, STATUS_ERROR_BYTES_MAX};
use crate::pb;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn role(role: Role) -> pb::NodeRole {
    match role {
        Role::Metadata => pb::NodeRole::Metadata,
        Role::LogServer => pb::NodeRole::LogServer,
        Role::Sequencer => pb::NodeRole::Sequencer,
    }
}

/// The wire form of roles, wherever they are named.
pub(super) fn encode_roles(roles: Roles) -> Vec<i32> {
    roles.iter().map(|named| role(named).into()).collect()
}

/// Roles, each at most once and at least one.
pub(super) fn decode_roles(field: &'static str, values: &[i32]) -> Result<Roles, DecodeError> {
    at_most(field, values.len(), Role::ALL.len())?;
    let mut roles = Vec::with_capacity(values.len());
    for &value in values {
        let role = match pb::NodeRole::try_from(value) {
            Ok(pb::NodeRole::Metadata) => Role::Metadata,
            Ok(pb::NodeRole::LogServer) => Role::LogServer,
            Ok(pb::NodeRole::Sequencer) => Role::Sequencer,
            Ok(pb::NodeRole::Unspecified) | Err(_) => return Err(DecodeError::UnknownValue { field, value }),
        };
        if roles.contains(&role) {
            return Err(DecodeError::Inconsistent { field });
        }
        roles.push(role);
    }
    Roles::new(roles).map_err(|_| DecodeError::Missing { field })
}

impl From<DiskSpace> for pb::DiskSpace {
    fn from(space: DiskSpace) -> Self {
        let DiskSpace { total_bytes, free_bytes, soft_mark_bytes, hard_mark_bytes } = space;
        Self { total_bytes, free_bytes, soft_mark_bytes, hard_mark_bytes }
    }
}

impl TryFrom<pb::DiskSpace> for DiskSpace {
    type Error = DecodeError;

    fn try_from(space: pb::DiskSpace) -> Result<Self, DecodeError> {
        let pb::DiskSpace { total_bytes, free_bytes, soft_mark_bytes, hard_mark_bytes } = space;
        if total_bytes == 0 {
            return Err(DecodeError::Zero { field: "DiskSpace.total_bytes" });
        }
        if hard_mark_bytes > soft_mark_bytes {
            return Err(DecodeError::Inconsistent { field: "DiskSpace.hard_mark_bytes" });
        }
        Ok(Self { total_bytes, free_bytes, soft_mark_bytes, hard_mark_bytes })
    }
}

impl From<DiskStatus> for pb::NodeDisk {
    fn from(status: DiskStatus) -> Self {
        let fullness = match status.fullness {
            Fullness::Ample => pb::DiskFullness::Ample,
            Fullness::Low => pb::DiskFullness::Low,
            Fullness::Full => pb::DiskFullness::Full,
            Fullness::Scarce => pb::DiskFullness::Scarce,
            Fullness::Exhausted => pb::DiskFullness::Exhausted,
        };
        Self { disk: id128_bytes(status.disk.get()), fullness: fullness.into(), space: status.space.map(Into::into) }
    }
}

impl TryFrom<pb::NodeDisk> for DiskStatus {
    type Error = DecodeError;

    fn try_from(status: pb::NodeDisk) -> Result<Self, DecodeError> {
        let fullness = match pb::DiskFullness::try_from(status.fullness) {
            Ok(pb::DiskFullness::Ample) => Fullness::Ample,
            Ok(pb::DiskFullness::Low) => Fullness::Low,
            Ok(pb::DiskFullness::Full) => Fullness::Full,
            Ok(pb::DiskFullness::Scarce) => Fullness::Scarce,
            Ok(pb::DiskFullness::Exhausted) => Fullness::Exhausted,
            Ok(pb::DiskFullness::Unspecified) | Err(_) => {
                return Err(DecodeError::UnknownValue { field: "NodeDisk.fullness", value: status.fullness });
            }
        };
        Ok(Self {
            disk: id128("NodeDisk.disk", &status.disk)?,
            fullness,
            space: status.space.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<CatchUpProgress> for pb::CatchUpProgress {
    fn from(progress: CatchUpProgress) -> Self {
        Self {
            bytes_to_do: progress.bytes_to_do,
            bytes_done: progress.bytes_done,
            segments_left: progress.segments_left,
            since_last_byte_millis: progress.since_last_byte.map(millis),
            last_error: progress.last_error,
        }
    }
}

impl TryFrom<pb::CatchUpProgress> for CatchUpProgress {
    type Error = DecodeError;

    fn try_from(progress: pb::CatchUpProgress) -> Result<Self, DecodeError> {
        if progress.bytes_done > progress.bytes_to_do {
            return Err(DecodeError::Inconsistent { field: "CatchUpProgress.bytes_done" });
        }
        let error_bytes = progress.last_error.as_ref().map_or(0, String::len);
        at_most("CatchUpProgress.last_error", error_bytes, STATUS_ERROR_BYTES_MAX)?;
        Ok(Self {
            bytes_to_do: progress.bytes_to_do,
            bytes_done: progress.bytes_done,
            segments_left: progress.segments_left,
            since_last_byte: progress.since_last_byte_millis.map(Duration::from_millis),
            last_error: progress.last_error,
        })
    }
}

impl From<NodeStatus> for pb::NodeStatusResponse {
    fn from(status: NodeStatus) -> Self {
        let NodeLoad { open_sequencers, loglets, sequenced_bytes, stored_bytes } = status.load;
        Self {
            id: Some(status.id.into()),
            roles: encode_roles(status.roles),
            disk: status.disk.map(Into::into),
            load: Some(pb::NodeLoad { open_sequencers, loglets, sequenced_bytes, stored_bytes }),
            uptime_millis: millis(status.uptime),
            leaving: status.leaving,
            catch_up: status.catch_up.map(Into::into),
        }
    }
}

impl TryFrom<pb::NodeStatusResponse> for NodeStatus {
    type Error = DecodeError;

    fn try_from(status: pb::NodeStatusResponse) -> Result<Self, DecodeError> {
        let pb::NodeLoad { open_sequencers, loglets, sequenced_bytes, stored_bytes } =
            required("NodeStatusResponse.load", status.load)?;
        Ok(Self {
            id: required("NodeStatusResponse.id", status.id)?.try_into()?,
            roles: decode_roles("NodeStatusResponse.roles", &status.roles)?,
            disk: status.disk.map(TryInto::try_into).transpose()?,
            load: NodeLoad { open_sequencers, loglets, sequenced_bytes, stored_bytes },
            uptime: Duration::from_millis(status.uptime_millis),
            leaving: status.leaving,
            catch_up: status.catch_up.map(TryInto::try_into).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use bifrost_types::{DiskId, Generation, NodeGeneration, NodeId};

    use super::*;
    use crate::codec::every_message::round;

    fn status() -> NodeStatus {
        NodeStatus {
            id: NodeGeneration::new(NodeId::try_from(3).expect("non-zero"), Generation::FIRST),
            roles: Roles::ALL,
            disk: Some(DiskStatus {
                disk: DiskId::try_from(7).expect("non-zero"),
                fullness: Fullness::Low,
                space: Some(DiskSpace { total_bytes: 100, free_bytes: 12, soft_mark_bytes: 15, hard_mark_bytes: 10 }),
            }),
            load: NodeLoad { open_sequencers: 1, loglets: 2, sequenced_bytes: 3, stored_bytes: 4 },
            uptime: Duration::from_millis(5),
            leaving: true,
            catch_up: Some(CatchUpProgress {
                bytes_to_do: 9,
                bytes_done: 8,
                segments_left: 1,
                since_last_byte: Some(Duration::from_millis(6)),
                last_error: Some("no copy answers".to_owned()),
            }),
        }
    }

    #[test]
    fn a_status_comes_back_as_it_was() {
        round::<pb::NodeStatusResponse, NodeStatus>(&status());
        let bare = NodeStatus { disk: None, catch_up: None, leaving: false, ..status() };
        round::<pb::NodeStatusResponse, NodeStatus>(&bare);
        for fullness in [Fullness::Ample, Fullness::Full, Fullness::Scarce, Fullness::Exhausted] {
            let disk = DiskStatus { fullness, space: None, ..status().disk.expect("it has one") };
            round::<pb::NodeStatusResponse, NodeStatus>(&NodeStatus { disk: Some(disk), ..status() });
        }
    }

    #[test]
    fn what_contradicts_itself_or_is_too_long_is_refused() {
        type Spoil = fn(&mut pb::NodeStatusResponse);
        fn progress(status: &mut pb::NodeStatusResponse) -> &mut pb::CatchUpProgress {
            status.catch_up.as_mut().expect("set")
        }
        fn space(status: &mut pb::NodeStatusResponse) -> &mut pb::DiskSpace {
            status.disk.as_mut().expect("set").space.as_mut().expect("set")
        }
        let field = "NodeStatusResponse.roles";
        let spoilt: [(Spoil, DecodeError); 9] = [
            (|status| status.roles.clear(), DecodeError::Missing { field }),
            (|status| status.roles = vec![3, 3], DecodeError::Inconsistent { field }),
            (|status| status.roles = vec![9], DecodeError::UnknownValue { field, value: 9 }),
            (|status| status.roles = vec![1; 4], DecodeError::TooLong { field, actual: 4, max: 3 }),
            (|status| status.load = None, DecodeError::Missing { field: "NodeStatusResponse.load" }),
            (|status| space(status).total_bytes = 0, DecodeError::Zero { field: "DiskSpace.total_bytes" }),
            (
                |status| space(status).hard_mark_bytes = 16,
                DecodeError::Inconsistent { field: "DiskSpace.hard_mark_bytes" },
            ),
            (
                |status| progress(status).bytes_done = 10,
                DecodeError::Inconsistent { field: "CatchUpProgress.bytes_done" },
            ),
            (
                |status| progress(status).last_error = Some("x".repeat(STATUS_ERROR_BYTES_MAX + 1)),
                DecodeError::TooLong { field: "CatchUpProgress.last_error", actual: 513, max: STATUS_ERROR_BYTES_MAX },
            ),
        ];
        for (spoil, expected) in spoilt {
            let mut message = pb::NodeStatusResponse::from(status());
            spoil(&mut message);
            assert_eq!(NodeStatus::try_from(message), Err(expected));
        }
    }
}
