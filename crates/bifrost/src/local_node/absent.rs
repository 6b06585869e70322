//! What a node answers that has not the role.

use bifrost_types::{LogletId, NodeGeneration};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{
    CallError, CopyState, LogServer, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest, StateRequest,
    StoreStream, TrimRequest,
};
use bifrost_wire::sequencer::{AppendOpen, AppendStream, EndRequest, SequencerCallError, SequencerTails, Sequencers};
use futures_util::future::{BoxFuture, ready};

/// Says of every call that there is no such service here, as a listener does that does not offer it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absent;

fn refuse<T: Send + 'static>() -> BoxFuture<'static, Result<T, CallError>> {
    Box::pin(ready(Err(RpcError::NotOffered.into())))
}

impl LogServer for Absent {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(ready(Err(RpcError::NotOffered)))
    }

    fn seal(&self, _: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        refuse()
    }

    fn state(&self, _: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        refuse()
    }

    fn repair(&self, _: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        refuse()
    }

    fn settle(&self, _: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        refuse()
    }

    fn trim(&self, _: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        refuse()
    }

    fn read(&self, _: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        refuse()
    }
}

impl Sequencers for Absent {
    fn open_append(&self, _: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        Box::pin(ready(Err(RpcError::NotOffered.into())))
    }

    fn tails(&self, _: LogletId, _: NodeGeneration) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(ready(Err(RpcError::NotOffered.into())))
    }

    fn end(&self, _: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(ready(Err(RpcError::NotOffered.into())))
    }
}
