//! Everything that crosses a process boundary: the contract of each service as a trait and plain messages, their
//! protobuf form, the gRPC client and server of each, and the encoding of batches.
//!
//! ```text
//!  caller of a service ──► trait ◄── service            same process: the service itself implements the trait
//!                            ▲
//!                            └── grpc client ══► grpc server ──► trait ◄── service      two processes
//! ```
//!
//! Whoever calls a service sees only the trait, so a cluster in one process and a cluster of many run the same code.
//! Bytes of a peer become domain types at this edge or are refused here; past it, code trusts types.
//!
//! Reading order: [`batch`] (records as bytes), [`error`], [`log_server`], [`sequencer`], [`metadata`], [`metadata_admin`],
//! [`liveness`], [`node`], [`logs`], [`codec`] (protobuf both ways, metadata values included), [`account`] (memory of answers), [`grpc`] (tonic clients and
//! servers with their limits), [`metrics`].

pub mod account;
#[cfg(test)]
mod allocations;
pub mod batch;
pub mod codec;
pub mod error;
pub mod grpc;
pub mod liveness;
pub mod log_server;
pub mod logs;
pub mod metadata;
pub mod metadata_admin;
pub mod metrics;
pub mod node;
pub mod sequencer;

/// Generated from `proto/bifrost/v1/*.proto`. Nothing outside this crate names these types.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod pb {
    tonic::include_proto!("bifrost.v1");
}

pub use error::RpcError;
