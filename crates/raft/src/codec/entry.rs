//! A log entry: its id, and nothing, transactions, or a membership.

use bifrost_metadata::{Precondition, Txn, Write};
use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_TXN_ITEMS_MAX, METADATA_VALUE_BYTES_MAX};
use bytes::Bytes;
use openraft::EntryPayload;

use super::{CodecError, ENTRY_TXNS_MAX, Reader, Writer};
use crate::types::{Command, Entry};

const BLANK: u8 = 0;
const TXNS: u8 = 1;
const MEMBERSHIP: u8 = 2;

const ABSENT: u8 = 0;
const REVISION: u8 = 1;

const PUT: u8 = 0;
const DELETE: u8 = 1;

/// The bytes of an entry.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut writer = Writer::default();
    write_entry(&mut writer, entry);
    writer.finish()
}

/// Reads an entry.
///
/// # Errors
/// [`CodecError`].
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    let mut reader = Reader::new("an entry", bytes);
    let entry = read_entry(&mut reader)?;
    reader.end()?;
    Ok(entry)
}

pub(super) fn write_entry(writer: &mut Writer, entry: &Entry) {
    writer.log_id(&entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => writer.tag(BLANK),
        EntryPayload::Normal(command) => {
            writer.tag(TXNS);
            writer.count(command.txns.len());
            command.txns.iter().for_each(|txn| write_txn(writer, txn));
        }
        EntryPayload::Membership(membership) => {
            writer.tag(MEMBERSHIP);
            writer.membership(membership);
        }
    }
}

pub(super) fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, CodecError> {
    let log_id = reader.log_id()?;
    let payload = match reader.tag()? {
        BLANK => EntryPayload::Blank,
        TXNS => {
            let mut txns = Vec::new();
            for _ in 0..reader.count(ENTRY_TXNS_MAX)? {
                txns.push(read_txn(reader)?);
            }
            EntryPayload::Normal(Command { txns })
        }
        MEMBERSHIP => EntryPayload::Membership(reader.membership()?),
        tag => return reader.unknown(tag),
    };
    Ok(Entry { log_id, payload })
}

fn write_txn(writer: &mut Writer, txn: &Txn) {
    writer.count(txn.preconditions.len());
    for (key, precondition) in &txn.preconditions {
        writer.bytes(key.as_bytes());
        match precondition {
            Precondition::Absent => writer.tag(ABSENT),
            Precondition::Revision(revision) => {
                writer.tag(REVISION);
                writer.u64(*revision);
            }
        }
    }
    writer.count(txn.writes.len());
    for (key, write) in &txn.writes {
        writer.bytes(key.as_bytes());
        match write {
            Write::Put(value) => {
                writer.tag(PUT);
                writer.bytes(value);
            }
            Write::Delete => writer.tag(DELETE),
        }
    }
}

fn read_txn(reader: &mut Reader<'_>) -> Result<Txn, CodecError> {
    let mut txn = Txn::new();
    for _ in 0..reader.count(METADATA_TXN_ITEMS_MAX)? {
        let key = reader.text(METADATA_KEY_BYTES_MAX)?;
        let precondition = match reader.tag()? {
            ABSENT => Precondition::Absent,
            REVISION => Precondition::Revision(reader.u64()?),
            tag => return reader.unknown(tag),
        };
        txn.preconditions.push((key, precondition));
    }
    for _ in 0..reader.count(METADATA_TXN_ITEMS_MAX)? {
        let key = reader.text(METADATA_KEY_BYTES_MAX)?;
        let write = match reader.tag()? {
            // Copied: a slice would keep the whole entry in memory for as long as this value lives.
            PUT => Write::Put(Bytes::copy_from_slice(reader.bytes(METADATA_VALUE_BYTES_MAX)?)),
            DELETE => Write::Delete,
            tag => return reader.unknown(tag),
        };
        txn.writes.push((key, write));
    }
    Ok(txn)
}
