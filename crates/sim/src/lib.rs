//! The whole cluster in one process, from one seed.

pub mod client;
pub mod control;
pub mod disk;
pub mod exam;
pub mod fleet;
pub mod history;
pub mod interpose;
pub mod links;
pub mod network;
pub mod node;
pub mod plan;
pub mod run;
pub mod trace;
pub mod transport;
