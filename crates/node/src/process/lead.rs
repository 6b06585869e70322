//! Who judges silence over etcd, which has no leader of ours: one node, found by a lease there. All nodes send it signs of life
//! at their own listeners, and its controller acts on its detector as one beside a metadata leader does.
//!
//! Nothing depends on there being exactly one ([`bifrost::liveness`]). Until a first one is known, and while etcd is away,
//! nobody is judged.

use bifrost::liveness::core::{Lead, TooManyNodes};
use bifrost::liveness::{Detector, Farewell, LivenessOptions, send_beats};
use bifrost_etcd::EtcdMetadata;
use bifrost_etcd::lead::{Standing, stand};
use bifrost_types::NodeGeneration;
use bifrost_wire::RpcError;
use bifrost_wire::grpc::ClientOptions;
use bifrost_wire::liveness::{Beat, BeatError, Liveness};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Takes signs of life while its node leads.
#[derive(Debug)]
pub(super) struct ElectedLiveness {
    detector: Detector,
}

impl ElectedLiveness {
    pub(super) const fn new(detector: Detector) -> Self {
        Self { detector }
    }
}

impl Liveness for ElectedLiveness {
    fn beat(&self, beat: Beat) -> BoxFuture<'_, Result<(), BeatError>> {
        Box::pin(async move {
            if !self.detector.leads() {
                // Who leads is to be read in etcd, by everybody.
                return Err(BeatError::NotLeader { leader: None });
            }
            self.detector.beat(beat).map_err(|TooManyNodes| BeatError::Rpc(RpcError::Overloaded))
        })
    }
}

/// What a node needs to take its part.
pub(super) struct Part {
    pub(super) etcd: EtcdMetadata,
    pub(super) node: NodeGeneration,
    pub(super) address: String,
    pub(super) detector: Detector,
    pub(super) liveness: LivenessOptions,
    pub(super) client: ClientOptions,
}

/// Stands for the lead, judges while it has it, and says to whoever leads that this node lives, until `stop`.
pub(super) fn take_part(part: Part, tasks: &TaskTracker, stop: &CancellationToken) -> Farewell {
    let Part { etcd, node, address, detector, liveness, client } = part;
    let (told, standing) = watch::channel(Standing::default());
    tasks.spawn(stand(etcd, holder(node, &address), told, stop.clone()));
    let (judging, stopped) = (detector.follow(standing.clone(), lead), stop.clone());
    tasks.spawn(async move {
        let _stopped = stopped.run_until_cancelled_owned(judging).await;
    });
    let farewell = Farewell::default();
    let leader = move || standing.borrow().lead.iter().filter_map(|lead| address_of(&lead.holder)).collect();
    let (beats, stopped) = (send_beats(leader, node, liveness, client, farewell.clone()), stop.clone());
    tasks.spawn(async move {
        let _stopped = stopped.run_until_cancelled_owned(beats).await;
    });
    farewell
}

/// How this node leads, if it does.
fn lead(standing: &Standing) -> Option<Lead> {
    standing.lead.as_ref().filter(|_| standing.mine).map(|lead| Lead::of(lead.term))
}

/// What a life of a node calls itself: no two have the same name.
fn holder(node: NodeGeneration, address: &str) -> String {
    format!("{node} {address}")
}

/// Where the holder takes signs of life.
fn address_of(holder: &str) -> Option<String> {
    holder.split_once(' ').map(|(_, address)| address.to_owned())
}

#[cfg(test)]
mod tests {
    use bifrost_types::{Generation, NodeId};

    use super::*;

    #[test]
    fn a_holder_says_where_it_listens() {
        let node = NodeGeneration::new(NodeId::try_from(3).expect("not 0"), Generation::FIRST);
        assert_eq!(address_of(&holder(node, "127.0.0.1:7101")).as_deref(), Some("127.0.0.1:7101"));
        assert_eq!(address_of("somebody"), None);
    }
}
