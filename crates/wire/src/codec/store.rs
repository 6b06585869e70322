//! The store stream: many stores in one message, many answers in one answer.

use super::{DecodeError, MESSAGE_ITEMS_MAX, at_most, batches, id128, id128_bytes, non_zero, required};
use crate::log_server::{StoreReply, StoreRequest};
use crate::pb;

impl From<StoreRequest> for pb::LogletStore {
    fn from(request: StoreRequest) -> Self {
        Self {
            loglet: Some(request.loglet.into()),
            disk: id128_bytes(request.disk.get()),
            sequencer: Some(request.sequencer.into()),
            committed_tail: request.committed_tail.get(),
            first_offset: request.first_offset.get(),
            batches: request.batches,
        }
    }
}

impl TryFrom<pb::LogletStore> for StoreRequest {
    type Error = DecodeError;

    fn try_from(store: pb::LogletStore) -> Result<Self, DecodeError> {
        Ok(Self {
            loglet: required("LogletStore.loglet", store.loglet)?.try_into()?,
            disk: id128("LogletStore.disk", &store.disk)?,
            sequencer: required("LogletStore.sequencer", store.sequencer)?.try_into()?,
            committed_tail: non_zero("LogletStore.committed_tail", store.committed_tail)?,
            first_offset: non_zero("LogletStore.first_offset", store.first_offset)?,
            batches: batches("LogletStore.batches", store.batches)?,
        })
    }
}

impl From<Vec<StoreRequest>> for pb::StoreRequest {
    fn from(requests: Vec<StoreRequest>) -> Self {
        Self { stores: requests.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<pb::StoreRequest> for Vec<StoreRequest> {
    type Error = DecodeError;

    fn try_from(message: pb::StoreRequest) -> Result<Self, DecodeError> {
        at_most("StoreRequest.stores", message.stores.len(), MESSAGE_ITEMS_MAX)?;
        message.stores.into_iter().map(TryInto::try_into).collect()
    }
}

impl From<StoreReply> for pb::LogletStored {
    fn from(reply: StoreReply) -> Self {
        let StoreReply { loglet, outcome, followed } = reply;
        Self { loglet: Some(loglet.into()), outcome: outcome.map(Into::into), followed }
    }
}

impl TryFrom<pb::LogletStored> for StoreReply {
    type Error = DecodeError;

    fn try_from(reply: pb::LogletStored) -> Result<Self, DecodeError> {
        let pb::LogletStored { loglet, outcome, followed } = reply;
        let outcome = match outcome {
            None if followed => None,
            outcome => Some(required("LogletStored.outcome", outcome)?.try_into()?),
        };
        Ok(Self { loglet: required("LogletStored.loglet", loglet)?.try_into()?, outcome, followed })
    }
}

impl From<Vec<StoreReply>> for pb::StoreResponse {
    fn from(replies: Vec<StoreReply>) -> Self {
        Self { replies: replies.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<pb::StoreResponse> for Vec<StoreReply> {
    type Error = DecodeError;

    fn try_from(message: pb::StoreResponse) -> Result<Self, DecodeError> {
        at_most("StoreResponse.replies", message.replies.len(), MESSAGE_ITEMS_MAX)?;
        message.replies.into_iter().map(TryInto::try_into).collect()
    }
}
