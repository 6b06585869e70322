//! The bytes of everything that members keep on disk and tell each other.
//!
//! ```text
//!  number    u64, little-endian            text, bytes   u32 length, then as many bytes
//!  maybe x   0, or 1 and x                 list          u32 count, then the elements
//! ```
//!
//! Reading is total: bytes of a peer or a disk become values that the rest may trust, or a [`CodecError`]. What openraft
//! takes for granted is checked here, because it does not check it: a membership has voters, each with an address.

mod entry;
mod message;
mod raw;

use thiserror::Error;

pub use entry::{decode_entry, encode_entry};
pub use message::{
    AppendReply, AppendRequest, CHUNK_BYTES_MAX, InstallReply, InstallRequest, Sent, VoteReply, VoteRequest,
    decode_append_reply, decode_append_request, decode_canvass_reply, decode_canvass_request, decode_install_reply,
    decode_install_request, decode_vote_reply, decode_vote_request, encode_append_reply, encode_append_request,
    encode_canvass_reply, encode_canvass_request, encode_install_reply, encode_install_request, encode_vote_reply,
    encode_vote_request,
};
pub use raw::{Reader, Writer};

/// Most members of a metadata group, learners included.
pub const MEMBERS_MAX: usize = 64;
/// Longest address of a member.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Longest name of a snapshot.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 128;
/// Most transactions of one entry.
pub const ENTRY_TXNS_MAX: usize = 1024;
/// Most entries of one request.
pub const REQUEST_ENTRIES_MAX: usize = 1024;

/// Why bytes are not what they should be. Nothing of them was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodecError {
    /// They end too early.
    #[error("{what} is cut off")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// They go on after the end.
    #[error("{what} has {bytes} bytes too many")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// Bytes that are left.
        bytes: usize,
    },
    /// A kind that this build does not know.
    #[error("{what} is of the unknown kind {tag}")]
    UnknownTag {
        /// What was being read.
        what: &'static str,
        /// The kind.
        tag: u8,
    },
    /// A list, a text or bytes over the limit.
    #[error("{what} has {len} elements or bytes, more than {max}")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// How many there are.
        len: usize,
        /// How many may be there.
        max: usize,
    },
    /// A text that is not UTF-8.
    #[error("{what} is not a text")]
    NotText {
        /// What was being read.
        what: &'static str,
    },
    /// Parts that are legal by themselves contradict each other.
    #[error("{what} contradicts itself")]
    Inconsistent {
        /// What was read.
        what: &'static str,
    },
}

#[cfg(test)]
mod tests;
