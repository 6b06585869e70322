//! Locations, nodesets, replication properties and the parameters of a loglet, as parts of metadata values.

use std::num::NonZeroU8;

use bifrost_types::limits::NODESET_MAX;
use bifrost_types::{Location, LogletParams, Member, Nodeset, NodesetError, ReplicationProperty, Scope};

use super::{DecodeError, at_most, id128, id128_bytes, non_zero, required};
use crate::pb;

impl From<Location> for pb::Location {
    fn from(location: Location) -> Self {
        Self { region: location.region.to_string(), zone: location.zone.to_string() }
    }
}

impl From<pb::Location> for Location {
    fn from(location: pb::Location) -> Self {
        Self { region: location.region.into(), zone: location.zone.into() }
    }
}

impl From<&Member> for pb::Member {
    fn from(member: &Member) -> Self {
        Self {
            node: member.node.get(),
            disk: id128_bytes(member.disk.get()),
            location: Some(member.location.clone().into()),
        }
    }
}

impl TryFrom<pb::Member> for Member {
    type Error = DecodeError;

    fn try_from(member: pb::Member) -> Result<Self, DecodeError> {
        Ok(Self {
            node: non_zero("Member.node", member.node)?,
            disk: id128("Member.disk", &member.disk)?,
            location: member.location.map(Into::into).unwrap_or_default(),
        })
    }
}

/// The members of a nodeset.
pub(super) fn members(nodeset: &Nodeset) -> Vec<pb::Member> {
    nodeset.members().iter().map(Into::into).collect()
}

/// The nodeset of these members.
pub(super) fn nodeset(field: &'static str, members: Vec<pb::Member>) -> Result<Nodeset, DecodeError> {
    at_most(field, members.len(), NODESET_MAX)?;
    nodeset_of(field, members.into_iter().map(Member::try_from).collect::<Result<_, _>>()?)
}

/// The same of members that were read.
pub(super) fn nodeset_of(field: &'static str, members: Vec<Member>) -> Result<Nodeset, DecodeError> {
    Nodeset::new(members).map_err(|error| match error {
        NodesetError::Empty => DecodeError::Missing { field },
        NodesetError::TooLarge { members } => DecodeError::TooLong { field, actual: members, max: NODESET_MAX },
        NodesetError::Duplicate { .. } => DecodeError::Inconsistent { field },
    })
}

/// The counts of a replication property.
pub(super) fn counts(property: &ReplicationProperty) -> Vec<pb::ReplicationCount> {
    property
        .counts()
        .map(|(scope, count)| {
            let scope = match scope {
                Scope::Node => pb::Scope::Node,
                Scope::Zone => pb::Scope::Zone,
                Scope::Region => pb::Scope::Region,
            };
            pb::ReplicationCount { scope: scope.into(), count: u32::from(count.get()) }
        })
        .collect()
}

/// The replication property of these counts.
pub(super) fn replication(
    field: &'static str,
    counts: Vec<pb::ReplicationCount>,
) -> Result<ReplicationProperty, DecodeError> {
    if counts.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    at_most(field, counts.len(), Scope::ALL.len())?;
    let mut property: Vec<(Scope, NonZeroU8)> = Vec::with_capacity(counts.len());
    for item in counts {
        let scope = match pb::Scope::try_from(item.scope) {
            Ok(pb::Scope::Node) => Scope::Node,
            Ok(pb::Scope::Zone) => Scope::Zone,
            Ok(pb::Scope::Region) => Scope::Region,
            Ok(pb::Scope::Unspecified) | Err(_) => {
                return Err(DecodeError::UnknownValue { field: "ReplicationCount.scope", value: item.scope });
            }
        };
        let field = "ReplicationCount.count";
        let count = u8::try_from(item.count).map_err(|_| DecodeError::OutOfRange { field })?;
        let count = NonZeroU8::new(count).ok_or(DecodeError::Zero { field })?;
        if property.iter().any(|(named, _)| *named == scope) {
            return Err(DecodeError::Inconsistent { field: "ReplicationCount.scope" });
        }
        property.push((scope, count));
    }
    ReplicationProperty::new(property).map_err(|_| DecodeError::Inconsistent { field })
}

impl From<&LogletParams> for pb::LogletParams {
    fn from(params: &LogletParams) -> Self {
        Self {
            id: Some(params.id.into()),
            nodeset: members(&params.nodeset),
            replication: counts(&params.replication),
            sequencer: Some(params.sequencer.into()),
        }
    }
}

impl TryFrom<pb::LogletParams> for LogletParams {
    type Error = DecodeError;

    fn try_from(params: pb::LogletParams) -> Result<Self, DecodeError> {
        Ok(Self {
            id: required("LogletParams.id", params.id)?.try_into()?,
            nodeset: nodeset("LogletParams.nodeset", params.nodeset)?,
            replication: replication("LogletParams.replication", params.replication)?,
            sequencer: required("LogletParams.sequencer", params.sequencer)?.try_into()?,
        })
    }
}
