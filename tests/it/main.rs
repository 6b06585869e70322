//! All integration tests, in one binary because each one links RocksDB.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod abuse;
mod api;
mod append_and_seal_concurrent;
mod architecture;
mod bench;
// Network namespaces are Linux's.
mod catch_up;
#[cfg(target_os = "linux")]
mod chaos;
mod cli;
mod cli_logs;
mod controller;
#[path = "support/copies.rs"]
mod copies;
mod corruption;
#[path = "support/counters.rs"]
mod counters;
mod data_directory;
mod delete_log;
mod demo;
mod end_of_range;
mod etcd;
mod examples;
mod explain;
mod failover;
#[path = "support/faults.rs"]
mod faults;
mod full_disk;
mod fuzz;
mod gateway;
mod interrupted_reconfiguration;
mod joined;
mod kill_nine;
mod log_pages;
mod lost_records;
mod malformed;
mod metadata_partition;
mod metadata_tools;
mod monitoring;
mod nodes;
mod old_copy;
mod python;
mod readme;
mod replaced_successor;
mod roles;
#[path = "../bench/scale"]
mod scale {
    pub mod appends;
    pub mod effort;
    pub mod history;
    pub mod load;
    pub mod logs;
    pub mod point;
    pub mod processes;
    pub mod readers;
    pub mod segments;
}
#[path = "scale.rs"]
mod scale_bench;
mod server;
mod server_refusals;
mod short_chain;
mod slow_copy;
mod smoke;
mod storage_states;
mod support;
mod tails;
