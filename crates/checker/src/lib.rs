//! Judges a history of calls and observations by the promises of the log, online and in linear time.

pub mod event;
