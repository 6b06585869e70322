//! The record of a node as a metadata value.

use bifrost_types::{NodeRecord, Roles, StorageState};
use bytes::Bytes;
use prost::Message as _;

use super::node_status::{decode_roles, encode_roles};
use super::{DecodeError, VALUE_FORMAT_VERSION, id128, id128_bytes, required};
use crate::pb;

/// The format version that records are written with: it has roles. Version 1 is read too: it had none, and every node had
/// the same two.
const FORMAT_VERSION: u32 = 2;

/// The metadata value of a node's record.
pub fn encode_node_record(record: &NodeRecord) -> Bytes {
    pb::NodeRecord::from(record).encode_to_vec().into()
}

/// The node's record of a metadata value.
///
/// # Errors
/// [`DecodeError`] when the bytes are no record of a node, or one of another format version.
pub fn decode_node_record(bytes: &[u8]) -> Result<NodeRecord, DecodeError> {
    let value = pb::NodeRecord::decode(bytes).map_err(|_| DecodeError::NotProtobuf { message: "NodeRecord" })?;
    value.try_into()
}

impl From<&NodeRecord> for pb::NodeRecord {
    fn from(record: &NodeRecord) -> Self {
        let storage = match record.storage {
            StorageState::Provisioning => pb::StorageState::Provisioning,
            StorageState::ReadWrite => pb::StorageState::ReadWrite,
            StorageState::ReadOnly => pb::StorageState::ReadOnly,
            StorageState::DataLoss => pb::StorageState::DataLoss,
            StorageState::Retired => pb::StorageState::Retired,
        };
        Self {
            format_version: FORMAT_VERSION,
            id: Some(record.id.into()),
            name: record.name.clone(),
            address: record.address.clone(),
            location: Some(record.location.clone().into()),
            disk: record.disk.map(|disk| id128_bytes(disk.get())),
            storage: storage.into(),
            roles: encode_roles(record.roles),
            declared_lost: record.declared_lost,
        }
    }
}

impl TryFrom<pb::NodeRecord> for NodeRecord {
    type Error = DecodeError;

    fn try_from(value: pb::NodeRecord) -> Result<Self, DecodeError> {
        let roles = match value.format_version {
            VALUE_FORMAT_VERSION if value.roles.is_empty() => Roles::DATA,
            VALUE_FORMAT_VERSION => return Err(DecodeError::Unexpected { field: "NodeRecord.roles" }),
            FORMAT_VERSION => decode_roles("NodeRecord.roles", &value.roles)?,
            version => return Err(DecodeError::FormatVersion { field: "NodeRecord.format_version", version }),
        };
        let storage = match pb::StorageState::try_from(value.storage) {
            Ok(pb::StorageState::Provisioning) => StorageState::Provisioning,
            Ok(pb::StorageState::ReadWrite) => StorageState::ReadWrite,
            Ok(pb::StorageState::ReadOnly) => StorageState::ReadOnly,
            Ok(pb::StorageState::DataLoss) => StorageState::DataLoss,
            Ok(pb::StorageState::Retired) => StorageState::Retired,
            Ok(pb::StorageState::Unspecified) | Err(_) => {
                return Err(DecodeError::UnknownValue { field: "NodeRecord.storage", value: value.storage });
            }
        };
        if value.declared_lost && storage != StorageState::DataLoss {
            return Err(DecodeError::Unexpected { field: "NodeRecord.declared_lost" });
        }
        Ok(Self {
            id: required("NodeRecord.id", value.id)?.try_into()?,
            name: value.name,
            address: value.address,
            location: value.location.map(Into::into).unwrap_or_default(),
            disk: value.disk.map(|disk| id128("NodeRecord.disk", &disk)).transpose()?,
            storage,
            declared_lost: value.declared_lost,
            roles,
        })
    }
}
