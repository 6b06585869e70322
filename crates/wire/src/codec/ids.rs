//! Identities that are more than one number.

use bifrost_types::{LogletId, NodeGeneration, SegmentIndex};

use super::{DecodeError, non_zero};
use crate::pb;

impl From<LogletId> for pb::LogletId {
    fn from(id: LogletId) -> Self {
        Self { log: id.log.get(), segment: id.segment.get() }
    }
}

impl TryFrom<pb::LogletId> for LogletId {
    type Error = DecodeError;

    fn try_from(id: pb::LogletId) -> Result<Self, DecodeError> {
        Ok(Self::new(non_zero("LogletId.log", id.log)?, SegmentIndex::new(id.segment)))
    }
}

impl From<NodeGeneration> for pb::NodeGeneration {
    fn from(id: NodeGeneration) -> Self {
        Self { node: id.node.get(), generation: id.generation.get() }
    }
}

impl TryFrom<pb::NodeGeneration> for NodeGeneration {
    type Error = DecodeError;

    fn try_from(id: pb::NodeGeneration) -> Result<Self, DecodeError> {
        Ok(Self::new(non_zero("NodeGeneration.node", id.node)?, non_zero("NodeGeneration.generation", id.generation)?))
    }
}
