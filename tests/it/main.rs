//! All integration tests, in one binary because each one links RocksDB.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, missing_docs, unreachable_pub)]

mod architecture;
mod demo;
mod examples;
mod interrupted_reconfiguration;
mod smoke;
mod support;
mod tails;
