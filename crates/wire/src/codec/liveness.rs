//! Signs of life.

use super::{DecodeError, required};
use crate::error::RpcError;
use crate::liveness::{Beat, BeatError};
use crate::metadata_admin::MetadataMember;
use crate::pb;
use pb::beat_response::{self as b, Outcome};

impl From<Beat> for pb::BeatRequest {
    fn from(beat: Beat) -> Self {
        Self { node: Some(beat.node.into()), last: beat.last }
    }
}

impl TryFrom<pb::BeatRequest> for Beat {
    type Error = DecodeError;

    fn try_from(request: pb::BeatRequest) -> Result<Self, DecodeError> {
        Ok(Self { node: required("BeatRequest.node", request.node)?.try_into()?, last: request.last })
    }
}

/// What a member says of a beat: taken, or who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    NotLeader { leader: Option<MetadataMember> },
}

impl Taken {
    /// What a service decided; an error of the transport is no message.
    pub(crate) fn of(outcome: Result<(), BeatError>) -> Result<Self, RpcError> {
        match outcome {
            Ok(()) => Ok(Self::Yes),
            Err(BeatError::NotLeader { leader }) => Ok(Self::NotLeader { leader }),
            Err(BeatError::Rpc(error)) => Err(error),
        }
    }

    pub(crate) fn outcome(self) -> Result<(), BeatError> {
        match self {
            Self::Yes => Ok(()),
            Self::NotLeader { leader } => Err(BeatError::NotLeader { leader }),
        }
    }
}

impl From<Taken> for pb::BeatResponse {
    fn from(taken: Taken) -> Self {
        let outcome = match taken {
            Taken::Yes => Outcome::Taken(b::Taken {}),
            Taken::NotLeader { leader } => Outcome::NotLeader(b::NotLeader { leader: leader.map(Into::into) }),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::BeatResponse> for Taken {
    type Error = DecodeError;

    fn try_from(response: pb::BeatResponse) -> Result<Self, DecodeError> {
        Ok(match required("BeatResponse.outcome", response.outcome)? {
            Outcome::Taken(_) => Self::Yes,
            Outcome::NotLeader(not) => Self::NotLeader { leader: not.leader.map(TryInto::try_into).transpose()? },
        })
    }
}
