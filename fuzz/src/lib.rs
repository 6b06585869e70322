//! Fuzz targets: functions that take any bytes and must neither panic nor take what is not there (L6).
//!
//! ```text
//!  make fuzz ─► libFuzzer (src/main.rs), guided by coverage, at length ─┐
//!                                                                       ├─► Target::run(bytes)
//!  make test ─► tests/it/fuzz.rs, seeds with random damage, briefly ────┘
//! ```
//!
//! A checksum in front of a decoder stops a fuzzer at once. So targets of checked formats come twice: the bytes as they
//! are, and the same bytes with their checksum made right.
//!
//! Reading order: [`Target`], then one file per kind of bytes: `message` (protobuf of peers and of metadata), `batch`,
//! `chain` (transitions of a chain that decodes), `disk` (keys and values of the stores), `raft` (messages and snapshots of
//! metadata members), `text` (ids and properties that people type).

#![forbid(unsafe_code)]

mod batch;
mod chain;
mod disk;
mod message;
mod raft;
mod text;

/// One decoder, or a few that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// How it is called on the command line: letters and dashes.
    pub name: &'static str,
    /// Takes any bytes. A panic is a finding.
    pub run: fn(&[u8]),
    /// Legal inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "message", run: message::run, seeds: message::seeds },
    Target { name: "batch", run: batch::run, seeds: batch::seeds },
    Target { name: "chain", run: chain::run, seeds: chain::seeds },
    Target { name: "disk-batch", run: disk::batch, seeds: disk::batch_seeds },
    Target { name: "disk-state", run: disk::state, seeds: disk::state_seeds },
    Target { name: "marker", run: disk::marker, seeds: disk::marker_seeds },
    Target { name: "metadata-entry", run: disk::metadata_entry, seeds: disk::metadata_entry_seeds },
    Target { name: "metadata-export", run: disk::metadata_export, seeds: disk::metadata_export_seeds },
    Target { name: "raft-message", run: raft::message, seeds: raft::message_seeds },
    Target { name: "raft-snapshot", run: raft::snapshot, seeds: raft::snapshot_seeds },
    Target { name: "text", run: text::run, seeds: text::seeds },
];

/// The target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The bytes of a file of hexadecimal digits; what is no pair of digits is left out.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).filter_map(|digit| u8::try_from(digit).ok()).collect();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}
