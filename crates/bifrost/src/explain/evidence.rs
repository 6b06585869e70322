//! The driver: asks everybody, all at once, each with a deadline.

use std::time::Duration;

use bifrost_loglet::peers::{MemberError, Peers};
use bifrost_types::{Chain, LogId, LogletId, Nodeset, Segment, SegmentIndex};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::StateRequest;
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::sequencer::SequencerCallError;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Evidence, MemberView, MetadataView, SequencerView};
use crate::catalog::CatalogError;
use crate::clock::now_millis;
use crate::cluster::Cluster;

/// For each question. They are asked at the same time, except that metadata comes first.
const DEADLINE: Duration = Duration::from_secs(2);

/// The servers may know of a change that came after the chain was read; then the chain is read again.
const ROUNDS: u32 = 3;

/// Gathers what can be found out about a log.
///
/// # Cancel safety
/// Safe: it only asks.
pub(crate) async fn gather(cluster: &Cluster, log: LogId, last_seen: Option<Chain>) -> Evidence {
    let mut round = 1;
    loop {
        let (metadata, _known_nodes) =
            tokio::join!(ask_metadata(cluster, log, last_seen.clone()), in_time(cluster.directory.refresh()));
        let evidence = ask_servers(cluster, log, metadata).await;
        if round == ROUNDS || !is_outdated(&evidence) {
            return evidence;
        }
        round += 1;
    }
}

async fn ask_metadata(cluster: &Cluster, log: LogId, last_seen: Option<Chain>) -> MetadataView {
    let asked = async {
        // In this order: both change in one transaction, and what is read second is not older.
        let chain = match cluster.catalog.chain(log).await {
            Ok(stored) => Some(stored.chain),
            Err(CatalogError::UnknownLog) => None,
            Err(error) => return Err(error),
        };
        let tombstone = cluster.catalog.tombstone(log).await?.map(|stored| stored.tombstone);
        Ok(match (chain, tombstone) {
            (_, Some(tombstone)) if tombstone.removed.is_some() => MetadataView::Removed(tombstone),
            (Some(chain), Some(tombstone)) => MetadataView::Deleting { chain, tombstone },
            (Some(chain), None) => MetadataView::Chain(chain),
            (None, _) => MetadataView::NoSuchLog,
        })
    };
    in_time(asked).await.unwrap_or_else(|error| MetadataView::NoAnswer { error, tried: Vec::new(), last_seen })
}

async fn ask_servers(cluster: &Cluster, log: LogId, metadata: MetadataView) -> Evidence {
    let chain = metadata.chain();
    let last = chain.and_then(Chain::last);
    let successor = chain.and_then(|chain| chain.pending.as_ref()?.successor.as_ref());
    let open = last.filter(|last| last.decided_tail().is_none());
    // A loglet that there is not yet: whoever answers is there.
    let next = chain.map_or(SegmentIndex::FIRST, |chain| chain.next_segment);
    let (members, sequencer, successor, pin) = tokio::join!(
        async {
            match last {
                Some(last) => ask_members(cluster, last.params.id, &last.params.nodeset).await,
                None => Vec::new(),
            }
        },
        async {
            match open {
                Some(open) => Some(ask_sequencer(cluster, open).await),
                None => None,
            }
        },
        async {
            match successor {
                Some(successor) => ask_members(cluster, LogletId::new(log, next), &successor.nodeset).await,
                None => Vec::new(),
            }
        },
        async { in_time(cluster.catalog.pin(log)).await.ok().flatten() },
    );
    let nodes = cluster.directory.records();
    Evidence { taken_at_millis: now_millis(), nodes, members, sequencer, successor, pin, metadata }
}

async fn ask_members(cluster: &Cluster, loglet: LogletId, nodeset: &Nodeset) -> Vec<MemberView> {
    join_all(nodeset.members().iter().map(|member| async move {
        let answer = match cluster.directory.log_server(member.node) {
            None => Err(MemberError::AddressUnknown),
            Some(server) => match timeout(DEADLINE, server.state(StateRequest { loglet, disk: member.disk })).await {
                Ok(answer) => answer.map_err(MemberError::from),
                Err(_) => Err(RpcError::DeadlinePassed.into()),
            },
        };
        MemberView { node: member.node, disk: member.disk, answer }
    }))
    .await
}

async fn ask_sequencer(cluster: &Cluster, open: &Segment) -> SequencerView {
    let sequencer = open.params.sequencer;
    let record = cluster.directory.records().into_iter().find(|record| record.id.node == sequencer.node);
    let Some(record) = record else { return SequencerView::Removed };
    let Some(sequencers) = cluster.directory.sequencers(sequencer) else {
        return SequencerView::LaterLife { now: record.id };
    };
    match timeout(DEADLINE, sequencers.tails(open.params.id, sequencer)).await {
        Ok(Ok(tails)) => SequencerView::Answered(tails),
        Ok(Err(error)) => SequencerView::Failed(error),
        Err(_) => SequencerView::Failed(SequencerCallError::Rpc(RpcError::DeadlinePassed)),
    }
}

/// Whether a server knows of something that the chain, as it was read, does not.
fn is_outdated(evidence: &Evidence) -> bool {
    let MetadataView::Chain(chain) = &evidence.metadata else { return false };
    let Some(last) = chain.last().filter(|last| last.decided_tail().is_none()) else { return false };
    let mut states = evidence.members.iter().filter_map(|member| member.answer.ok());
    let pending = chain.pending.as_ref().filter(|pending| pending.segment == last.index());
    match pending {
        None => states.any(|state| state.sealed.is_some()),
        Some(_) => states.any(|state| state.decided_tail.is_some()),
    }
}

/// An answer of metadata, or that there is none.
pub(crate) async fn in_time<T>(work: impl Future<Output = Result<T, CatalogError>>) -> Result<T, CatalogError> {
    match timeout(DEADLINE, work).await {
        Ok(result) => result,
        Err(_) => Err(MetadataError::Unavailable.into()),
    }
}
