//! Where the next segment of a log goes: what placement has to know is asked for here.

use std::collections::BTreeSet;

use bifrost_types::{Actor, CloseReason, LogletParams, NodeId, NodeRecord, Segment, Successor};
use bifrost_wire::node::NodeStatus;
use futures_util::future::join_all;
use tracing::{debug, warn};

use super::LogState;
use crate::placement::{Leave, PlanError, Situation, Wish, plan, takes_appends, takes_appends_again};
use crate::reconfigure::ReconfigureError;

/// What was found out to place a segment, a moment ago.
struct Survey {
    nodes: Vec<NodeRecord>,
    answers: Vec<NodeStatus>,
    pin: Option<NodeId>,
    preferred: Option<NodeId>,
}

impl LogState {
    /// Takes note that the log is appended from here, best through this node if the appender says one.
    pub(crate) fn appended_from(&self, preferred: Option<NodeId>) {
        *self.preferred.lock() = preferred.or(self.cluster.options.preferred);
    }

    /// Chooses what comes after `last`, among nodes that answer now.
    pub(crate) async fn place(&self, last: &Segment, leave: Leave) -> Result<Successor, ReconfigureError> {
        let planned = self.plan(last, leave, &Wish::default()).await;
        planned.map_err(|_| ReconfigureError::NoPlacement)
    }

    /// The same, as far as a wish leaves room.
    pub(crate) async fn plan(&self, last: &Segment, leave: Leave, wish: &Wish) -> Result<Successor, PlanError> {
        let survey = self.survey(last, wish.sequencer).await;
        plan(self.situation(&survey, last, leave), wish, &last.params.replication)
    }

    /// Closes an open segment that takes no appends with the disks that answer and have room, if a nodeset of others would;
    /// returns whether it is closed. Its sequencer may be well: another one would wait for the same disks.
    ///
    /// # Errors
    /// [`ReconfigureError`] as when [closing](Self::close_segment).
    ///
    /// # Cancel safety
    /// Safe at every await (C4).
    pub(crate) async fn leave_unwritable(&self, last: &Segment, actor: Actor) -> Result<bool, ReconfigureError> {
        let LogletParams { id, nodeset, replication, sequencer } = &last.params;
        let members = nodeset.members().iter().map(|member| self.cluster.answer_of(member.node));
        let members: Vec<NodeStatus> = join_all(members).await.into_iter().flatten().collect();
        if takes_appends(&members, &last.params) {
            return Ok(false);
        }
        let mut survey = self.survey(last, Some(sequencer.node)).await;
        // Nobody is called silent for being slower than the others.
        let known: BTreeSet<NodeId> = survey.answers.iter().map(|status| status.id.node).collect();
        survey.answers.extend(members.into_iter().filter(|status| !known.contains(&status.id.node)));
        let next = plan(self.situation(&survey, last, Leave::Stay), &Wish::default(), replication).ok();
        let next = next.filter(|next| takes_appends_again(&survey.answers, &last.params, next));
        let Some(next) = next else { return Ok(false) };
        debug!(loglet = %id, "its write quorum is away, and there is another one");
        self.close_segment_for(next, *id, CloseReason::Placement, actor).await?;
        Ok(true)
    }

    async fn survey(&self, last: &Segment, wanted: Option<NodeId>) -> Survey {
        if let Err(error) = self.cluster.directory.refresh().await {
            warn!(%error, "placing by node records that may be old");
        }
        let nodes = self.cluster.directory.records();
        let copies = last.params.replication.copies();
        let (answers, pin) = tokio::join!(self.cluster.answering(copies), self.cluster.catalog.pin(self.log));
        let pin = pin.unwrap_or_else(|error| {
            // A pin is a wish: nothing waits for it.
            warn!(log = %self.log, %error, "placing without knowing whether the log is pinned");
            None
        });
        let mut answers = Vec::clone(&*answers);
        let preferred = *self.preferred.lock();
        // An answer that is waited for is not only awaited when it is fast.
        for wanted in [wanted, pin, preferred] {
            answers.extend(self.cluster.answer_if_missing(wanted, &answers).await);
        }
        Survey { nodes, answers, pin, preferred }
    }

    fn situation<'a>(&self, survey: &'a Survey, last: &'a Segment, leave: Leave) -> Situation<'a> {
        Situation {
            nodes: &survey.nodes,
            answers: &survey.answers,
            present: Some(&last.params),
            leave,
            pin: survey.pin,
            preferred: survey.preferred,
            seed: self.log.get(),
            nodeset_max: self.cluster.options.nodeset_max,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use bifrost_types::{Nodeset, ReplicationProperty};
    use tokio::time::timeout;

    use super::*;
    use crate::cluster::fresh_op;
    use crate::test_world::{PATIENCE, World};
    use crate::{Bifrost, Log, TailKind};

    /// A log with two copies whose nodeset are the first two nodes and no more: the third one was away or had no room. Its
    /// sequencer is at the first.
    async fn narrow_log(world: &World) -> (Bifrost, Log) {
        let all = world.successor(0);
        let two = Nodeset::new(all.nodeset.members()[..2].to_vec()).unwrap();
        let narrow = Successor { nodeset: two, ..all };
        let made = world.catalog().create_log(Some("orders"), fresh_op(), &narrow).await.unwrap();
        let client = world.client().await;
        let log = client.log_by_id(made.chain.log).await.unwrap();
        log.appender().append("one").await.unwrap();
        (client, log)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tail_is_found_by_moving_a_log_whose_write_quorum_is_away_to_a_node_that_is_there() {
        let world = World::new().await;
        let (_client, log) = narrow_log(&world).await;
        world.nodes[1].shutdown().await;
        let tail = timeout(PATIENCE, log.find_tail(TailKind::Linearizable)).await.unwrap().unwrap();
        assert_eq!(tail.lsn.get(), 2);
        let chain = log.describe().await.unwrap();
        let last = chain.last().unwrap();
        assert_eq!(chain.segments.len(), 2, "moved once");
        assert!(last.params.nodeset.index_of(world.nodes[2].id().node).is_some(), "{last:?}");
        assert_eq!(last.params.replication, ReplicationProperty::nodes(2.try_into().unwrap()));
        log.appender().append("two").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_nobody_could_take_over_waits_and_is_not_closed() {
        let mut world = World::new().await;
        let (_client, log) = narrow_log(&world).await;
        world.nodes[1].shutdown().await;
        world.nodes[2].shutdown().await;
        let waiting = timeout(Duration::from_secs(300), log.find_tail(TailKind::Linearizable));
        assert!(waiting.await.is_err(), "it was found without a write quorum");
        let chain = log.describe().await.unwrap();
        assert_eq!((chain.segments.len(), chain.pending), (1, None));
        world.nodes[1] = world.begin_life(1).await;
        let tail = timeout(PATIENCE, log.find_tail(TailKind::Linearizable)).await.unwrap().unwrap();
        assert_eq!((tail.lsn.get(), log.chain().segments.len()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_in_flight_to_a_silent_disk_goes_on_once_the_sequencer_said_its_last_word() {
        let world = World::new().await;
        let (_client, log) = narrow_log(&world).await;
        world.nodes[1].shutdown().await;
        // For all that its other copy can tell, it may have been acknowledged: only the sequencer knows that it was not.
        let lsn = timeout(PATIENCE, log.appender().append("two")).await.unwrap().unwrap();
        assert_eq!(lsn.get(), 2);
        let chain = log.describe().await.unwrap();
        assert_eq!(chain.segments.len(), 2);
        assert_eq!(chain.segments[1].base_lsn, lsn, "it was withdrawn from the first segment, and is in the second");
    }
}
