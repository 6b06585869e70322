//! gRPC: a server adapter and a client for each service, with explicit limits on both sides.
//!
//! ```text
//!  caller ─► Grpc* client ─► mpsc ─► coalesce ═══ HTTP/2 ═══► receive ─► mpsc ─► service      requests of a stream
//!  caller ◄─ mpsc ◄─ deliver ◄════════════════ HTTP/2 ════════ coalesce ◄─ mpsc ◄─ service      its replies
//! ```
//!
//! Streams put whatever waits in the channel into one message and never wait for more. Everything is bounded: a side that
//! does not read fills its channel, then its HTTP/2 window, then the channel of the sender, whose `send` waits.
//! Requests are sent once: nothing here retries, because only the caller knows whether a repetition is safe.
//!
//! What ends a stream: the caller dropping either channel cancels the RPC, and with it the service's half at the server; a
//! broken connection closes both; the server's shutdown token ends all streams at once, so that a graceful stop cannot hang.
//! One thing waits: while the peer takes nothing and the stream's window is full, hyper does not look at the caller's side, so
//! a dropped stream keeps its window's worth of bytes until the peer takes or ends it, or the connection ends. At a server
//! [`account`](crate::account) bounds what such streams hold.
//!
//! Reading order: [`ServerLimits`] and [`ClientOptions`] (`limits`), `status` (what a gRPC status means here), `protobuf`,
//! `coalesce`, `cluster` (whom a request is meant for), `network` (TCP, or what a test or the simulator puts in its place),
//! `connect`; `serve` and what it is made of: `accept`, `greeting`, `connection`, `front`, `requests`, `answers`; then
//! `client` and `server`, one file per service.

mod accept;
mod answers;
mod client;
mod cluster;
mod coalesce;
mod connect;
mod connection;
mod front;
mod greeting;
mod limits;
mod network;
#[cfg(any(test, feature = "test-util"))]
pub mod pipes;
pub(crate) mod protobuf;
mod requests;
mod serve;
mod server;
mod status;

#[cfg(test)]
mod tests;

pub use client::{GrpcLiveness, GrpcLogServer, GrpcLogs, GrpcMetadata, GrpcMetadataAdmin, GrpcNode, GrpcSequencers};
pub use connect::{InvalidAddress, connect_lazy};
pub use limits::{ClientOptions, InvalidLimits, ServerLimits};
pub use network::{Dial, Listener, Socket};
pub use serve::{ServeError, serve};
pub use server::{
    HealthGrpc, LivenessGrpc, LogServerGrpc, LogsGrpc, MetadataAdminGrpc, MetadataGrpc, NodeGrpc, ReflectionError,
    SequencersGrpc, add_reflection,
};
pub use tonic::service::{Routes, RoutesBuilder};
pub use tonic::transport::Channel;

/// The descriptors of package `bifrost.v1` with their comments, as an encoded `google.protobuf.FileDescriptorSet`, for gRPC
/// reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bifrost_v1.bin"));
