//! The unary calls of a log server: seal, state, repair, settle, trim.

use super::{DecodeError, batches, id128, id128_bytes, non_zero, required};
use crate::log_server::{CopyError, CopyState, RepairRequest, SealRequest, SettleRequest, StateRequest, TrimRequest};
use crate::pb;

impl From<SealRequest> for pb::SealRequest {
    fn from(request: SealRequest) -> Self {
        Self {
            loglet: Some(request.loglet.into()),
            disk: id128_bytes(request.disk.get()),
            op: id128_bytes(request.op.get()),
        }
    }
}

impl TryFrom<pb::SealRequest> for SealRequest {
    type Error = DecodeError;

    fn try_from(request: pb::SealRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            loglet: required("SealRequest.loglet", request.loglet)?.try_into()?,
            disk: id128("SealRequest.disk", &request.disk)?,
            op: id128("SealRequest.op", &request.op)?,
        })
    }
}

impl From<StateRequest> for pb::StateRequest {
    fn from(request: StateRequest) -> Self {
        Self { loglet: Some(request.loglet.into()), disk: id128_bytes(request.disk.get()) }
    }
}

impl TryFrom<pb::StateRequest> for StateRequest {
    type Error = DecodeError;

    fn try_from(request: pb::StateRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            loglet: required("StateRequest.loglet", request.loglet)?.try_into()?,
            disk: id128("StateRequest.disk", &request.disk)?,
        })
    }
}

impl From<RepairRequest> for pb::RepairRequest {
    fn from(request: RepairRequest) -> Self {
        Self {
            loglet: Some(request.loglet.into()),
            disk: id128_bytes(request.disk.get()),
            op: id128_bytes(request.op.get()),
            committed_tail: request.committed_tail.get(),
            first_offset: request.first_offset.get(),
            batches: request.batches,
        }
    }
}

impl TryFrom<pb::RepairRequest> for RepairRequest {
    type Error = DecodeError;

    fn try_from(request: pb::RepairRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            loglet: required("RepairRequest.loglet", request.loglet)?.try_into()?,
            disk: id128("RepairRequest.disk", &request.disk)?,
            op: id128("RepairRequest.op", &request.op)?,
            committed_tail: non_zero("RepairRequest.committed_tail", request.committed_tail)?,
            first_offset: non_zero("RepairRequest.first_offset", request.first_offset)?,
            batches: batches("RepairRequest.batches", request.batches)?,
        })
    }
}

impl From<SettleRequest> for pb::SettleRequest {
    fn from(request: SettleRequest) -> Self {
        Self {
            loglet: Some(request.loglet.into()),
            disk: id128_bytes(request.disk.get()),
            op: id128_bytes(request.op.get()),
            decided_tail: request.decided_tail.get(),
        }
    }
}

impl TryFrom<pb::SettleRequest> for SettleRequest {
    type Error = DecodeError;

    fn try_from(request: pb::SettleRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            loglet: required("SettleRequest.loglet", request.loglet)?.try_into()?,
            disk: id128("SettleRequest.disk", &request.disk)?,
            op: id128("SettleRequest.op", &request.op)?,
            decided_tail: non_zero("SettleRequest.decided_tail", request.decided_tail)?,
        })
    }
}

impl From<TrimRequest> for pb::TrimRequest {
    fn from(request: TrimRequest) -> Self {
        Self {
            loglet: Some(request.loglet.into()),
            disk: id128_bytes(request.disk.get()),
            trim_point: request.trim_point.get(),
        }
    }
}

impl TryFrom<pb::TrimRequest> for TrimRequest {
    type Error = DecodeError;

    fn try_from(request: pb::TrimRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            loglet: required("TrimRequest.loglet", request.loglet)?.try_into()?,
            disk: id128("TrimRequest.disk", &request.disk)?,
            trim_point: non_zero("TrimRequest.trim_point", request.trim_point)?,
        })
    }
}

/// The five responses differ by name only, because each call of a protocol must be able to grow its own answer.
macro_rules! copy_response {
    ($($response:ident),*) => {
        $(
            impl From<Result<CopyState, CopyError>> for pb::$response {
                fn from(outcome: Result<CopyState, CopyError>) -> Self {
                    Self { outcome: Some(outcome.into()) }
                }
            }

            impl TryFrom<pb::$response> for Result<CopyState, CopyError> {
                type Error = DecodeError;

                fn try_from(response: pb::$response) -> Result<Self, DecodeError> {
                    required(concat!(stringify!($response), ".outcome"), response.outcome)?.try_into()
                }
            }
        )*
    };
}

copy_response!(SealResponse, StateResponse, RepairResponse, SettleResponse, TrimResponse);
