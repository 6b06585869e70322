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

#[cfg(test)]
mod tests {
    use bifrost_types::{Generation, NodeGeneration, NodeId};

    use super::*;
    use crate::codec::every_message::round;

    #[test]
    fn every_beat_and_every_answer_survives() {
        let node = NodeId::try_from(7).expect("non-zero");
        for last in [false, true] {
            round::<pb::BeatRequest, Beat>(&Beat { node: NodeGeneration::new(node, Generation::FIRST), last });
        }
        let leader = MetadataMember { node, address: "127.0.0.1:2438".to_owned() };
        for taken in [Taken::Yes, Taken::NotLeader { leader: None }, Taken::NotLeader { leader: Some(leader) }] {
            round::<pb::BeatResponse, Taken>(&taken);
        }
    }

    #[test]
    fn a_beat_of_nobody_and_an_answer_that_says_nothing_are_refused() {
        let nobody = pb::BeatRequest { node: None, last: true };
        assert_eq!(Beat::try_from(nobody), Err(DecodeError::Missing { field: "BeatRequest.node" }));
        let nothing = pb::BeatResponse { outcome: None };
        assert_eq!(Taken::try_from(nothing), Err(DecodeError::Missing { field: "BeatResponse.outcome" }));
    }
}
