//! The sender of signs of life: asks [`Route`](super::route::Route) whom to tell, and tells.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_types::NodeGeneration;
use bifrost_wire::grpc::{ClientOptions, GrpcLiveness};
use bifrost_wire::liveness::{Beat, BeatError, Liveness};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::LivenessOptions;
use super::route::{Route, Told};

/// Connections that are kept beside the current one; more are let go.
const CONNECTIONS_MAX: usize = 16;
/// For the last sign of life: whoever does not take it notices the silence.
const FAREWELL_DEADLINE: Duration = Duration::from_millis(300);

/// When a sender is to say that its node stops, and that it did.
#[derive(Debug, Clone, Default)]
pub struct Farewell {
    wanted: CancellationToken,
    said: CancellationToken,
}

impl Farewell {
    /// Has the last beat sent, and returns when it was taken or a short time is over.
    ///
    /// # Cancel safety
    /// Safe: call again to wait for it.
    pub async fn say(&self) {
        self.wanted.cancel();
        let _late = timeout(FAREWELL_DEADLINE * 2, self.said.cancelled()).await;
    }
}

/// Sends signs of life of this node to whoever leads, of those whose addresses `members` tells, until `farewell` is said; run it
/// as a task.
///
/// It shares the runtime of the node on purpose: a node that cannot run a timer for as long as a silence serves nobody either.
///
/// # Cancel safety
/// Safe: without a last beat the silence is noticed.
pub async fn send_beats(
    members: impl Fn() -> Vec<String> + Send,
    me: NodeGeneration,
    options: LivenessOptions,
    client: ClientOptions,
    farewell: Farewell,
) {
    let _said = farewell.said.clone().drop_guard();
    // One that is not answered within two beats is lost; the next ones go elsewhere.
    let request_timeout = options.beat_interval.saturating_mul(2);
    // A link that is healed is to be used at once.
    let tcp_user_timeout = client.tcp_user_timeout.min(request_timeout.saturating_mul(2));
    let client = ClientOptions { request_timeout, connect_timeout: request_timeout, tcp_user_timeout, ..client };
    let mut sender = Sender { members, client, route: Route::default(), connections: BTreeMap::new() };
    let mut beats = interval(options.beat_interval);
    // After a pause one sign of life says as much as many.
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = farewell.wanted.cancelled() => break,
            _ = beats.tick() => sender.send(Beat { node: me, last: false }).await,
        }
    }
    let _late = timeout(FAREWELL_DEADLINE, sender.send(Beat { node: me, last: true })).await;
}

struct Sender<M> {
    members: M,
    client: ClientOptions,
    route: Route,
    connections: BTreeMap<String, GrpcLiveness>,
}

impl<M: Fn() -> Vec<String>> Sender<M> {
    async fn send(&mut self, beat: Beat) {
        let members = (self.members)();
        let mut to = self.route.begin(&members);
        while let Some(address) = to {
            let told = self.tell(&address, beat).await;
            to = self.route.on_told(told, &members);
        }
        if self.connections.len() > CONNECTIONS_MAX {
            self.connections.retain(|address, _| members.contains(address));
        }
    }

    async fn tell(&mut self, address: &str, beat: Beat) -> Told {
        if !self.connections.contains_key(address) {
            let Ok(connection) = GrpcLiveness::connect_lazy(address, &self.client) else { return Told::Failed };
            self.connections.insert(address.to_owned(), connection);
        }
        let Some(member) = self.connections.get(address) else { return Told::Failed };
        match member.beat(beat).await {
            Ok(()) => Told::Taken,
            Err(BeatError::NotLeader { leader }) => Told::NotLeader(leader.map(|leader| leader.address)),
            Err(error @ BeatError::Rpc(_)) => {
                debug!(address, %error, "a sign of life was not taken");
                Told::Failed
            }
        }
    }
}
