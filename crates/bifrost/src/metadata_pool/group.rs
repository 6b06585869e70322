//! Where the members of the metadata group are, by their own words.

use std::sync::Arc;
use std::time::Duration;

use bifrost_wire::grpc::ClientOptions;
use bifrost_wire::metadata_admin::{MemberRole, MemberStatus, MetadataAdmin};
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::doors::check;
use super::{Target, Targets};

/// How long a call goes on while nobody leads: longer than the members need to elect somebody.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks that found nobody to ask.
const PAUSE: Duration = Duration::from_millis(30);
/// How long a call may go without an answer before it is looked whether somebody else leads by now.
const SLOW: Duration = Duration::from_millis(250);
/// For the status of one member. It comes from memory.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);
/// How long the others have to say theirs once most have: a member that is silent must not hold up who asks in an election.
const STATUS_GRACE: Duration = Duration::from_millis(50);

/// How long one call may be repeated.
#[derive(Debug)]
pub(super) struct Attempts {
    until: Instant,
}

impl Attempts {
    /// Whether another one is due after one that failed.
    pub(super) fn more(&self) -> bool {
        Instant::now() < self.until
    }
}

/// For a call to the group.
pub(super) fn attempts() -> Attempts {
    Attempts { until: Instant::now() + PATIENCE }
}

/// What makes a pool one over the group.
#[derive(Debug)]
pub(super) struct Group {
    options: ClientOptions,
    /// What it was given: asked along with the others, for the case that all of those are gone.
    seeds: Vec<Arc<Target>>,
    /// One look at a time; whoever waited uses what it found.
    looking: Semaphore,
    addresses: watch::Sender<Vec<String>>,
    /// How often the pool was told who leads.
    led: watch::Sender<u64>,
}

impl Group {
    pub(super) fn new(options: ClientOptions, seeds: Vec<Arc<Target>>) -> Self {
        let addresses = seeds.iter().map(|seed| seed.address.clone()).collect();
        let (looking, led) = (Semaphore::new(1), watch::Sender::new(0));
        Self { options, seeds, looking, addresses: watch::Sender::new(addresses), led }
    }

    /// Somebody who knows says where the leader listens. What waits for another one goes there.
    pub(super) fn led_at(&self, targets: &Mutex<Targets>, address: &str) {
        let before = {
            let mut targets = targets.lock();
            let before = targets.current();
            let known = targets.all.iter().find(|target| target.address == address).cloned();
            known.into_iter().for_each(|leader| targets.prefer(&leader));
            before.filter(|before| !targets.is_current(before))
        };
        if let Some(before) = before {
            check(&before);
            self.led.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    pub(super) fn watch_addresses(&self) -> watch::Receiver<Vec<String>> {
        self.addresses.subscribe()
    }

    /// Asks all members, and goes to the one that leads. With `failed`, only if that one is still asked first. Says whether
    /// there is another one to ask now.
    pub(super) async fn look(&self, targets: &Mutex<Targets>, failed: Option<&Arc<Target>>) -> bool {
        let Ok(_looking) = self.looking.acquire().await else { return false };
        let asked = {
            let targets = targets.lock();
            if failed.is_some_and(|failed| !targets.is_current(failed)) {
                return true;
            }
            self.everybody(&targets)
        };
        let statuses = ask(&asked).await;
        let leader = leader_of(&statuses);
        let found = self.learn(&mut targets.lock(), &statuses, leader.as_deref(), failed);
        if !found && failed.is_some() {
            sleep(PAUSE).await;
        }
        found
    }

    /// Returns when somebody else leads than `asked`, which has not answered: a member that is paused or cut off answers
    /// nobody, and the others elect without it.
    ///
    /// # Cancel safety
    /// Safe: what was learned is kept.
    pub(super) async fn led_elsewhere(&self, targets: &Mutex<Targets>, asked: &Arc<Target>) {
        let mut led = self.led.subscribe();
        loop {
            // Subscribed before: what changes from here on is not missed.
            if !targets.lock().is_current(asked) {
                return;
            }
            let told = timeout(SLOW, led.changed()).await;
            if told.is_ok() {
                continue;
            }
            // One look serves all calls that wait.
            let Ok(_looking) = self.looking.try_acquire() else { continue };
            let everybody = {
                let targets = targets.lock();
                if !targets.is_current(asked) {
                    return;
                }
                self.everybody(&targets)
            };
            let statuses = ask(&everybody).await;
            if let Some(leader) = leader_of(&statuses).filter(|leader| *leader != asked.address) {
                self.learn(&mut targets.lock(), &statuses, Some(&leader), Some(asked));
                check(asked);
                return;
            }
        }
    }

    fn everybody(&self, targets: &Targets) -> Vec<Arc<Target>> {
        let mut asked = targets.all.clone();
        for seed in &self.seeds {
            if !asked.iter().any(|target| target.address == seed.address) {
                asked.push(Arc::clone(seed));
            }
        }
        asked
    }

    /// Takes the members over, and says whether there is another one to ask than the one that failed.
    fn learn(
        &self,
        targets: &mut Targets,
        statuses: &[MemberStatus],
        leader: Option<&str>,
        failed: Option<&Arc<Target>>,
    ) -> bool {
        let current = targets.current();
        if let Some(newest) = newest(statuses) {
            let known = |address: &str| {
                let known = targets.all.iter().chain(&self.seeds).find(|target| target.address == address).cloned();
                // An address that is none helps nobody, and the others are there.
                known.or_else(|| Target::connect(address, &self.options).ok())
            };
            let all: Vec<_> =
                newest.members.iter().filter_map(|known_member| known(&known_member.member.address)).collect();
            if !all.is_empty() {
                let place = |address: &str| all.iter().position(|target| target.address == address);
                targets.current = current.and_then(|current| place(&current.address)).unwrap_or(0);
                targets.all = all;
                let addresses: Vec<String> = targets.all.iter().map(|target| target.address.clone()).collect();
                self.addresses.send_if_modified(|known| {
                    let differs = *known != addresses;
                    *known = addresses;
                    differs
                });
            }
        }
        let leads = leader.and_then(|leader| targets.all.iter().position(|target| target.address == leader));
        match (leads, failed) {
            (Some(leads), _) => {
                targets.current = leads;
                // The leader that failed may have lost its followers for a moment only.
                failed.is_none_or(|failed| !targets.is_current(failed))
            }
            (None, Some(failed)) => {
                targets.pass(failed);
                false
            }
            (None, None) => false,
        }
    }
}

/// What the members say, as soon as most have spoken and somebody leads, or all have had their time.
async fn ask(asked: &[Arc<Target>]) -> Vec<MemberStatus> {
    let status = |target: Arc<Target>| async move { timeout(STATUS_DEADLINE, target.admin.status()).await };
    let mut answers: FuturesUnordered<_> = asked.iter().cloned().map(status).collect();
    let mut statuses = Vec::new();
    let mut deadline = Instant::now() + STATUS_DEADLINE;
    while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
        statuses.extend(answer.ok().and_then(Result::ok));
        if statuses.len() * 2 > asked.len() {
            if leader_of(&statuses).is_some() {
                break;
            }
            deadline = deadline.min(Instant::now() + STATUS_GRACE);
        }
    }
    statuses
}

/// Where the leader of the latest term listens. One of an older term may not know yet that it leads nobody.
fn leader_of(statuses: &[MemberStatus]) -> Option<String> {
    let term = statuses.iter().map(|status| status.term).max()?;
    let latest = statuses.iter().filter(|status| status.term == term && status.role != MemberRole::Stopped);
    latest.filter_map(|status| status.leader_member()).map(|leader| leader.address.clone()).next()
}

/// Who has applied most and knows a group: what it says of the members is the newest.
fn newest(statuses: &[MemberStatus]) -> Option<&MemberStatus> {
    statuses.iter().filter(|status| !status.members.is_empty()).max_by_key(|status| status.applied)
}

#[cfg(test)]
mod tests {
    use bifrost_types::{ClusterId, NodeId};
    use bifrost_wire::metadata_admin::{KnownMember, MetadataMember};

    use super::*;

    fn node(number: u32) -> NodeId {
        NodeId::try_from(number).expect("non-zero")
    }

    fn status(term: u64, leader: Option<u32>, members: &[u32], applied: u64) -> MemberStatus {
        let member = |number: &u32| MetadataMember { node: node(*number), address: format!("127.0.0.1:{number}") };
        MemberStatus {
            cluster: ClusterId::try_from(1).expect("non-zero"),
            node: node(1),
            role: MemberRole::Follower,
            term,
            leader: leader.map(node),
            members: members.iter().map(|number| KnownMember { member: member(number), voter: true }).collect(),
            last_log: None,
            applied: Some(applied),
            group: 0,
            replaced_groups: Vec::new(),
        }
    }

    #[test]
    fn the_leader_of_the_latest_term_is_asked() {
        let old = status(3, Some(1), &[1, 2, 3], 9);
        let new = status(4, Some(2), &[1, 2, 3], 8);
        assert_eq!(leader_of(&[old.clone(), new.clone()]), Some("127.0.0.1:2".to_owned()));
        assert_eq!(leader_of(&[old.clone(), status(5, None, &[1, 2, 3], 8)]), None, "an election is on");
        assert_eq!(newest(&[new, old.clone()]), Some(&old));
        assert_eq!(newest(&[status(0, None, &[], 0)]), None, "it was never told of a group");
    }

    #[tokio::test]
    async fn members_that_came_are_learned_and_those_that_left_are_forgotten() {
        let pool = super::super::MetadataPool::follow(["127.0.0.1:1", "127.0.0.1:2"], &ClientOptions::default());
        let pool = pool.expect("addresses");
        let group = pool.group.as_ref().expect("over a group");
        let mut told = group.watch_addresses();
        let failed = pool.current().expect("a target");
        let statuses = [status(2, Some(3), &[2, 3], 5)];
        assert!(group.learn(&mut pool.targets.lock(), &statuses, Some("127.0.0.1:3"), Some(&failed)));
        assert_eq!(pool.addresses(), ["127.0.0.1:2", "127.0.0.1:3"]);
        assert_eq!(pool.current().map(|target| target.address.clone()), Some("127.0.0.1:3".to_owned()));
        assert!(told.has_changed().expect("the pool lives"));
        assert_eq!(*told.borrow_and_update(), pool.addresses());
        let failed = pool.current();
        let nobody = group.learn(&mut pool.targets.lock(), &[], None, failed.as_ref());
        assert!(!nobody, "there is nobody to ask");
        assert_eq!(pool.current().map(|target| target.address.clone()), Some("127.0.0.1:2".to_owned()));
    }
}
