//! A write-ahead log in files that are written before they are needed, and used again.
//!
//! ```text
//!  append(group) ─► frame: header, checksum, bytes, padding ─► one write ─► one fdatasync ─► sequence number
//!                                            │ no room
//!                                            ▼
//!                    the next file: prepared ahead by a thread, or on the spot
//!
//!  0000000007.journal   full; its groups are needed until `release`  ─► used again under the next number, or removed
//!  0000000008.journal   being written
//!  0000000009.journal   prepared
//! ```
//!
//! An fsync of a file that has grown, or into space that was only reserved, makes the file system commit its own journal as
//! well; one of bytes that were written before does not. So a file is filled with zeros first, and used again when nobody
//! needs what is in it. Zeros are written like anything else: where groups are large, the disk would have to write as much
//! again to save little, and room for the file is only reserved. What was in it before is never taken for something new:
//! checksums cover a number that each use of a file draws anew.
//!
//! A group is on stable storage, whole, when [`Journal::append`] returns, and groups are replayed in their order. One that
//! was being written in a crash may be there or not, as a whole. A frame that cannot be read with good ones behind it is
//! damage, and the journal does not open: it was acknowledged. The last frame alone cannot be told from a torn one.
//!
//! Reading order: [`frame`] (bytes), `blocks` (what is written at once), [`directory`] (what is needed of a file system), `recovery` (what a directory says),
//! `pace` (how fast files are made), [`journal`], [`rocks`] (a database on top).

mod aligned;
mod blocks;
pub mod directory;
mod error;
pub mod frame;
mod helper;
pub mod journal;
mod pace;
mod recovery;
#[cfg(feature = "rocksdb")]
pub mod rocks;

pub use blocks::Blocks;
pub use directory::{Directory, RealDirectory};
pub use error::{Damage, JournalError, OpenError};
pub use frame::BLOCK_BYTES;
pub use journal::{Appended, Journal, JournalOptions, Salts};
pub use pace::Pace;
pub use recovery::{Position, Replay, Replayed, file_name, open_to_read, read_groups, remove_file};

#[cfg(test)]
mod tests;
