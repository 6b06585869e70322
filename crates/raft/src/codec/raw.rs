//! Numbers, texts and lists; and the small nouns of Raft made of them.

use std::collections::{BTreeMap, BTreeSet};

use openraft::CommittedLeaderId;

use super::{ADDRESS_BYTES_MAX, CodecError, MEMBERS_MAX, SNAPSHOT_NAME_BYTES_MAX};
use crate::types::{
    GroupId, LINEAGE_MAX, Lineage, LogId, Member, MemberId, Membership, SnapshotMeta, StoredMembership, Vote,
};

/// Most configurations of a membership: the old one and the new one while it changes, and one more that a change of
/// the change may add.
const CONFIGS_MAX: usize = 3;

/// Writes values one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A kind.
    pub fn tag(&mut self, tag: u8) {
        self.bytes.push(tag);
    }

    /// Yes or no.
    pub fn bool(&mut self, value: bool) {
        self.tag(u8::from(value));
    }

    /// A number.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// The length of what follows. Whoever writes keeps to the limits, which are far below 4 billion.
    pub fn count(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&count.to_le_bytes());
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Something that may be missing.
    pub fn maybe<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A member.
    pub fn member(&mut self, id: MemberId) {
        self.u64(id.get());
    }

    /// The id of an entry.
    pub fn log_id(&mut self, id: &LogId) {
        self.u64(id.leader_id.term);
        self.member(id.leader_id.node_id);
        self.u64(id.index);
    }

    /// The group of a member, and those before it.
    pub fn lineage(&mut self, lineage: &Lineage) {
        self.u64(lineage.group.get());
        self.count(lineage.before.len());
        lineage.before.iter().for_each(|group| self.u64(group.get()));
    }

    /// A vote.
    pub fn vote(&mut self, vote: &Vote) {
        self.u64(vote.leader_id.term);
        self.member(vote.leader_id.node_id);
        self.bool(vote.committed);
    }

    /// A membership.
    pub fn membership(&mut self, membership: &Membership) {
        let configs = membership.get_joint_config();
        self.count(configs.len());
        for config in configs {
            self.count(config.len());
            config.iter().for_each(|id| self.member(*id));
        }
        self.count(membership.nodes().count());
        for (id, member) in membership.nodes() {
            self.member(*id);
            self.bytes(member.address.as_bytes());
        }
    }

    /// A membership and the entry that set it.
    pub fn stored_membership(&mut self, stored: &StoredMembership) {
        self.maybe(stored.log_id().as_ref(), Self::log_id);
        self.membership(stored.membership());
    }

    /// What a snapshot covers.
    pub fn snapshot_meta(&mut self, meta: &SnapshotMeta) {
        self.maybe(meta.last_log_id.as_ref(), Self::log_id);
        self.stored_membership(&meta.last_membership);
        self.bytes(meta.snapshot_id.as_bytes());
    }
}

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `what` from these bytes.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, what }
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`CodecError::Trailing`] when something is left.
    pub fn end(self) -> Result<(), CodecError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Trailing { what: self.what, bytes: self.bytes.len() })
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (array, rest) = self.bytes.split_first_chunk::<N>().ok_or(CodecError::Truncated { what: self.what })?;
        self.bytes = rest;
        Ok(*array)
    }

    /// A kind.
    ///
    /// # Errors
    /// [`CodecError`], as those of every reader here.
    pub fn tag(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[tag]| tag)
    }

    /// The error for a kind that is not known.
    pub fn unknown<T>(&self, tag: u8) -> Result<T, CodecError> {
        Err(CodecError::UnknownTag { what: self.what, tag })
    }

    /// The error for parts that contradict each other.
    pub fn inconsistent(&self) -> CodecError {
        CodecError::Inconsistent { what: self.what }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        match self.tag()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => self.unknown(tag),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The length of what follows, at most `max`.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn count(&mut self, max: usize) -> Result<usize, CodecError> {
        let len = self.array().map(u32::from_le_bytes)? as usize;
        if len > max { Err(CodecError::TooLong { what: self.what, len, max }) } else { Ok(len) }
    }

    /// Bytes, at most `max`.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], CodecError> {
        let len = self.count(max)?;
        let (bytes, rest) = self.bytes.split_at_checked(len).ok_or(CodecError::Truncated { what: self.what })?;
        self.bytes = rest;
        Ok(bytes)
    }

    /// A text of at most `max` bytes.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn text(&mut self, max: usize) -> Result<String, CodecError> {
        let text = std::str::from_utf8(self.bytes(max)?).map_err(|_| CodecError::NotText { what: self.what })?;
        Ok(text.to_owned())
    }

    /// Something that may be missing.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, CodecError>) -> Result<Option<T>, CodecError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A member.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn member(&mut self) -> Result<MemberId, CodecError> {
        self.u64().map(MemberId::from)
    }

    /// The id of an entry. An index is below 2^62: counting on from it never runs over.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn log_id(&mut self) -> Result<LogId, CodecError> {
        let (term, member, index) = (self.u64()?, self.member()?, self.u64()?);
        if term >= 1 << 62 || index >= 1 << 62 {
            return Err(self.inconsistent());
        }
        Ok(LogId::new(CommittedLeaderId::new(term, member), index))
    }

    /// The group of a member, and those before it.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn lineage(&mut self) -> Result<Lineage, CodecError> {
        let group = GroupId::from(self.u64()?);
        let mut before = Vec::new();
        for _ in 0..self.count(LINEAGE_MAX)? {
            before.push(GroupId::from(self.u64()?));
        }
        if before.contains(&group) {
            return Err(self.inconsistent());
        }
        Ok(Lineage { group, before })
    }

    /// A vote.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn vote(&mut self) -> Result<Vote, CodecError> {
        let (term, member, committed) = (self.u64()?, self.member()?, self.bool()?);
        if term >= 1 << 62 {
            return Err(self.inconsistent());
        }
        Ok(if committed { Vote::new_committed(term, member) } else { Vote::new(term, member) })
    }

    /// A membership in which every voter has an address. One without any member is that of a member that was never
    /// told of one.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn membership(&mut self) -> Result<Membership, CodecError> {
        let mut configs = Vec::new();
        for _ in 0..self.count(CONFIGS_MAX)? {
            let mut config = BTreeSet::new();
            for _ in 0..self.count(MEMBERS_MAX)? {
                config.insert(self.member()?);
            }
            if config.is_empty() {
                return Err(self.inconsistent());
            }
            configs.push(config);
        }
        let mut members = BTreeMap::new();
        for _ in 0..self.count(MEMBERS_MAX)? {
            members.insert(self.member()?, Member { address: self.text(ADDRESS_BYTES_MAX)? });
        }
        if !configs.iter().flatten().all(|voter| members.contains_key(voter)) {
            return Err(self.inconsistent());
        }
        Ok(Membership::new(configs, members))
    }

    /// A membership and the entry that set it.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn stored_membership(&mut self) -> Result<StoredMembership, CodecError> {
        Ok(StoredMembership::new(self.maybe(Self::log_id)?, self.membership()?))
    }

    /// What a snapshot covers.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn snapshot_meta(&mut self) -> Result<SnapshotMeta, CodecError> {
        Ok(SnapshotMeta {
            last_log_id: self.maybe(Self::log_id)?,
            last_membership: self.stored_membership()?,
            snapshot_id: self.text(SNAPSHOT_NAME_BYTES_MAX)?,
        })
    }
}
