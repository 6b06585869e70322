//! The whole cluster in one process, from one seed: production nodes, clients and metadata on a simulated network, simulated
//! time and simulated disks. One process is one run; the same seed is the same run, byte for byte.
//!
//! ```text
//!  seed ─► plan ─► run ──► hosts of turmoil: m1 m2 … (metadata), n1 … (nodes), c1 c2 c3 (clients)
//!                   │         │ tonic over SimSocket          │ LogStore
//!                   │      network, transport (lost replies)  disk (what is not synced)
//!                   │ faults at their times                    │
//!                   └──► history ◄── calls, deliveries, what became durable, what metadata took
//!                           └─► bifrost-checker ─► verdict
//! ```
//!
//! Reading order: [`plan`] (a run as data), [`run`] (its phases), [`node`], [`members`] and [`client`] (the programs on the
//! hosts), [`links`], [`network`], [`transport`], [`disk`] (what may go wrong), [`history`], [`truth`], [`control`], [`trace`], [`interpose`]
//! (clocks and randomness of the process), [`fleet`] (many processes), [`exam`].
//!
//! This crate replaces symbols of the C library, and it is built with planted bugs: nothing of the product may depend on it.

pub mod client;
pub mod control;
pub mod disk;
pub mod exam;
pub mod fleet;
pub mod history;
pub mod interpose;
pub mod links;
pub mod members;
pub mod network;
pub mod node;
pub mod plan;
pub mod run;
pub mod trace;
pub mod transport;
pub mod truth;
