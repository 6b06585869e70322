//! A network within one process, for tests: each direction of each pair can be cut, delayed, or lose what it carries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::peers::{PeerError, Peers, Receive};
use crate::types::{Member, MemberId};

/// What happens on the way from one member to another. A call goes one way and its answer the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// Nothing arrives.
    pub cut: bool,
    /// How long it takes.
    pub delay: Duration,
    /// What it carries in a second, 0 for any amount. Messages do not hinder each other.
    pub bytes_per_second: u64,
    /// One message of so many is lost, 0 for none.
    pub lose_every: u64,
}

/// The network; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<MemberId, Arc<dyn Receive>>,
    ways: BTreeMap<(MemberId, MemberId), Way>,
    carried: BTreeMap<(MemberId, MemberId), u64>,
}

/// The network as one member sees it.
#[derive(Debug)]
pub struct MeshPeers {
    mesh: Mesh,
    me: MemberId,
}

impl Mesh {
    /// A network without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// The network for one member.
    pub fn peers_of(&self, me: MemberId) -> Arc<MeshPeers> {
        Arc::new(MeshPeers { mesh: self.clone(), me })
    }

    /// Connects a member, in place of an earlier one with its id.
    pub fn connect(&self, id: MemberId, member: Arc<dyn Receive>) {
        self.state.lock().members.insert(id, member);
    }

    /// Forgets a member: nothing reaches it.
    pub fn disconnect(&self, id: MemberId) {
        self.state.lock().members.remove(&id);
    }

    /// Sets one direction.
    pub fn set(&self, from: MemberId, to: MemberId, way: Way) {
        self.state.lock().ways.insert((from, to), way);
    }

    /// Cuts a member off from all others, or ends that.
    pub fn isolate(&self, id: MemberId, others: impl IntoIterator<Item = MemberId>, cut: bool) {
        for other in others.into_iter().filter(|other| *other != id) {
            self.set(id, other, Way { cut, ..Way::default() });
            self.set(other, id, Way { cut, ..Way::default() });
        }
    }

    /// How long this message takes, or that it is lost.
    fn carry(&self, from: MemberId, to: MemberId, bytes: usize) -> Option<Duration> {
        let mut state = self.state.lock();
        let carried = state.carried.entry((from, to)).or_default();
        *carried += 1;
        let carried = *carried;
        let way = state.ways.get(&(from, to)).copied().unwrap_or_default();
        let lost = way.cut || (way.lose_every > 0 && carried.is_multiple_of(way.lose_every));
        let micros = (bytes as u64).saturating_mul(1_000_000).checked_div(way.bytes_per_second).unwrap_or(0);
        (!lost).then_some(way.delay + Duration::from_micros(micros))
    }
}

impl MeshPeers {
    async fn exchange(&self, to: MemberId, message: Bytes) -> Result<Bytes, PeerError> {
        let Some(there) = self.mesh.carry(self.me, to, message.len()) else { return std::future::pending().await };
        sleep(there).await;
        let member = self.mesh.state.lock().members.get(&to).cloned();
        let answer = member.ok_or(PeerError::Unreachable)?.receive(message).await;
        let Some(back) = self.mesh.carry(to, self.me, answer.len()) else { return std::future::pending().await };
        sleep(back).await;
        Ok(answer)
    }
}

impl Peers for MeshPeers {
    fn call(
        &self,
        to: MemberId,
        _member: &Member,
        message: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(async move {
            timeout(deadline, self.exchange(to, message)).await.unwrap_or(Err(PeerError::DeadlinePassed))
        })
    }
}
