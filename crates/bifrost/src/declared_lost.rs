//! Which disks of a segment will never answer again, by the word of an operator: what a reader need not wait for (R3).
//!
//! ```text
//!  node records ──► declared_lost (the rule) ──► Words ──► LogletReader::declare_lost ──► a gap, if all the others deny
//! ```
//!
//! The word must be a person's. A node that finds its disk gone writes that into its record too, and a disk that is only not
//! mounted looks just like that.

use bifrost_loglet::read::{ReadProgress, Readable};
use bifrost_types::{Member, NodeRecord, NodeSet, Nodeset, StorageState};
use bifrost_wire::metadata::Revision;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::watch;
use tracing::debug;

use crate::back_off::BackOff;
use crate::directory::Directory;

/// What is known of the node of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// Its record.
    Record(&'a NodeRecord),
    /// It has none any more, and had one when the chain named it: an operator took it away.
    Removed,
    /// It has none in what was read before the chain.
    Unheard,
}

impl<'a> Known<'a> {
    /// What was read: the record of the node, if there was one, and whether the records were read no earlier than the
    /// chain that names the node. It had one then.
    pub(crate) fn read(record: Option<&'a NodeRecord>, after_the_chain: bool) -> Self {
        match record {
            Some(record) => Self::Record(record),
            None if after_the_chain => Self::Removed,
            None => Self::Unheard,
        }
    }
}

/// The rule: the members whose disks an operator gave up.
pub(crate) fn declared_lost<'a>(nodeset: &Nodeset, known: impl Fn(&Member) -> Known<'a>) -> NodeSet {
    let lost = nodeset.iter().filter(|(_, member)| match known(member) {
        // Numbers of nodes are never given twice, and the disk is not served under another one (W2).
        Known::Removed => true,
        // It may be there, in a record that is not read yet.
        Known::Unheard => false,
        // The record speaks of another disk, so nobody has said anything of this one.
        Known::Record(record) if record.disk != Some(member.disk) => false,
        Known::Record(record) => match record.storage {
            StorageState::DataLoss => record.declared_lost,
            // By an operator, when no segment with records needed it; it is never served again.
            StorageState::Retired => true,
            StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => false,
        },
    });
    lost.map(|(index, _)| index).collect()
}

/// What is followed on behalf of one reader of a segment.
struct Words {
    directory: Directory,
    nodeset: Nodeset,
    /// Of the chain that names the nodeset.
    named_at: Revision,
    records: watch::Receiver<()>,
    readable: watch::Receiver<Readable>,
    progress: watch::Receiver<ReadProgress>,
    told: NodeSet,
    back_off: BackOff,
}

/// The members that were declared lost, anew with each word. Says nothing of a segment whose tail is not decided: its
/// sequencer may still have what it will give to the copies that are left.
///
/// Ends when the segment's reader or the log's last handle is gone.
pub(crate) fn words(
    directory: Directory,
    nodeset: Nodeset,
    named_at: Revision,
    readable: watch::Receiver<Readable>,
    progress: watch::Receiver<ReadProgress>,
) -> BoxStream<'static, NodeSet> {
    let records = directory.changes();
    let (told, back_off) = (NodeSet::EMPTY, BackOff::new());
    let words = Words { directory, nodeset, named_at, records, readable, progress, told, back_off };
    unfold(words, |mut words| async move { words.next().await.map(|lost| (lost, words)) }).boxed()
}

impl Words {
    async fn next(&mut self) -> Option<NodeSet> {
        loop {
            // Marked as seen before they are looked at: what changes meanwhile is looked at again.
            self.records.mark_unchanged();
            let decided = self.readable.borrow_and_update().decided.is_some();
            let waits = matches!(*self.progress.borrow_and_update(), ReadProgress::Blocked(_));
            if decided {
                let (lost, unheard) = self.directory.declared_lost(&self.nodeset, self.named_at);
                if lost != self.told {
                    self.told = lost;
                    return Some(lost);
                }
                // Only whoever waits for a node that nobody knows asks whether there still is one.
                if unheard && waits {
                    match self.directory.refresh().await {
                        Ok(as_of) if as_of >= self.named_at => self.back_off.reset(),
                        behind => {
                            debug!(?behind, "the records of the nodes are not read");
                            self.back_off.pause().await;
                        }
                    }
                    continue;
                }
            }
            let heard = tokio::select! {
                biased;
                heard = self.records.changed() => heard,
                heard = self.readable.changed() => heard,
                heard = self.progress.changed() => heard,
            };
            heard.ok()?;
        }
    }
}

#[cfg(test)]
mod tests;
