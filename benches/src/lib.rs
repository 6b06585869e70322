//! What the benchmarks are made of; `log.rs` beside `src/` puts them together. See `docs/PERFORMANCE.md`.
//!
//! Each figure of a disk-bound system is a figure of its disk first. So every cell stands on storage of its own, made for it
//! and removed after it, and a canary (4 KiB write + fdatasync, no Bifrost) is measured before and after it: what carries
//! over to another machine is the ratio.
//!
//! Reading order: [`canary`], [`backend`] (what is measured on), [`work`] (what is measured), [`process`] and
//! [`counters`] (what it cost), [`summary`] (the table).

pub mod backend;
pub mod canary;
pub mod counters;
pub mod process;
pub mod summary;
pub mod work;
