//! When a member that misses its leader asks for votes: the core, and what it goes by. Times are since an arbitrary start.
//!
//! openraft has a timer of its own and looks at it every one and a half heartbeats: with the default times it asks 0.65 to
//! 0.95 s after the last sign of life, and twice if two members ask at once. Here members ask in turn, each as soon as the
//! others may grant their votes. openraft's timer stays behind it, for whatever this one does not see.
//!
//! Safety does not depend on any of it: who asks too early is refused, who asks too late is late.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::status::{Role, Status};

/// What was heard of leaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Signs {
    /// When the last message to append came in or was answered.
    last: Option<Duration>,
    /// Messages that are being carried out: an fsync may take long, and meanwhile nobody is missed.
    under_way: usize,
}

/// Where messages of leaders are taken note of.
#[derive(Debug)]
pub(crate) struct Heard {
    started: Instant,
    signs: Mutex<Signs>,
}

/// A message of a leader that is being carried out.
pub(crate) struct UnderWay<'a>(&'a Heard);

impl Heard {
    /// Nothing was heard yet.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), signs: Mutex::default() }
    }

    /// A message to append came in; it is carried out until the answer is dropped.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        let mut signs = self.signs.lock();
        signs.under_way += 1;
        signs.last = Some(self.now());
        UnderWay(self)
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.started + time
    }

    pub(super) fn signs(&self) -> Signs {
        *self.signs.lock()
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut signs = self.0.signs.lock();
        signs.under_way = signs.under_way.saturating_sub(1);
        signs.last = Some(self.0.now());
    }
}

/// What to do about the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing before something changes.
    Nothing,
    /// Look again at this time.
    LookAt(Duration),
    /// Ask for votes.
    Ask,
}

/// Decides when this member asks for votes, at most once in a term.
#[derive(Debug)]
pub(super) struct Election {
    /// So long after the last sign of a leader members refuse their votes.
    lease: Duration,
    /// Between the end of the lease and the first member that asks: others may have heard the leader a little later.
    margin: Duration,
    /// Between one member and the next: time for votes, which are fsyncs, or the next one deposes who was just elected.
    turn: Duration,
    /// In which it asked last.
    asked_in: Option<u64>,
}

impl Election {
    pub(super) const fn new(lease: Duration, margin: Duration, turn: Duration) -> Self {
        Self { lease, margin, turn, asked_in: None }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Duration, status: &Status, signs: Signs) -> Next {
        let (Some(turns), Some(last)) = (turns(status), signs.last) else { return Next::Nothing };
        if self.asked_in == Some(status.term) {
            return Next::Nothing;
        }
        if signs.under_way > 0 {
            return Next::LookAt(now.saturating_add(self.margin));
        }
        let first = last.saturating_add(self.lease).saturating_add(self.margin);
        let due = first.saturating_add(self.turn.saturating_mul(turns));
        if now < due {
            return Next::LookAt(due);
        }
        self.asked_in = Some(status.term);
        Next::Ask
    }
}

/// After how many turns this member asks: the voters beside the leader, in the order of their ids, from 0. `None` if it
/// follows nobody, or has no vote itself.
fn turns(status: &Status) -> Option<u32> {
    let leader = status.leader.filter(|leader| *leader != status.member && status.role == Role::Follower)?;
    let voters: std::collections::BTreeSet<_> = status.voters.iter().flatten().collect();
    if !voters.contains(&status.member) {
        return None;
    }
    let before = voters.iter().filter(|voter| ***voter < status.member && ***voter != leader).count();
    u32::try_from(before).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::types::MemberId;

    const LEASE: Duration = Duration::from_millis(400);
    const MARGIN: Duration = Duration::from_millis(100);
    const TURN: Duration = Duration::from_millis(250);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn follower(member: u64, leader: u64, term: u64) -> Status {
        Status {
            member: MemberId::from(member),
            role: Role::Follower,
            leader: Some(MemberId::from(leader)),
            term,
            last_log: None,
            applied: None,
            snapshot: None,
            purged: None,
            voters: vec![BTreeSet::from([1, 2, 3].map(MemberId::from))],
            members: BTreeMap::new(),
            replicated: BTreeMap::new(),
            has_majority: true,
        }
    }

    fn heard_at(time: u64) -> Signs {
        Signs { last: Some(millis(time)), under_way: 0 }
    }

    #[test]
    fn the_voters_beside_the_leader_ask_one_after_the_other_once_the_lease_is_over() {
        for (leader, first, second) in [(1, 2, 3), (2, 1, 3), (3, 1, 2)] {
            let mut election = Election::new(LEASE, MARGIN, TURN);
            let status = follower(first, leader, 4);
            assert_eq!(election.next(millis(50), &status, heard_at(10)), Next::LookAt(millis(510)));
            assert_eq!(election.next(millis(510), &status, heard_at(300)), Next::LookAt(millis(800)), "it was heard");
            assert_eq!(election.next(millis(800), &status, heard_at(300)), Next::Ask);
            let mut election = Election::new(LEASE, MARGIN, TURN);
            assert_eq!(
                election.next(millis(800), &follower(second, leader, 4), heard_at(300)),
                Next::LookAt(millis(1050))
            );
        }
    }

    #[test]
    fn a_member_asks_once_in_a_term() {
        let mut election = Election::new(LEASE, MARGIN, TURN);
        let status = follower(2, 1, 4);
        assert_eq!(election.next(millis(900), &status, heard_at(0)), Next::Ask);
        assert_eq!(election.next(millis(901), &status, heard_at(0)), Next::Nothing, "the library goes on from here");
        assert_eq!(election.next(millis(1901), &follower(2, 1, 5), heard_at(1000)), Next::Ask);
    }

    #[test]
    fn nobody_is_missed_while_a_message_of_the_leader_is_carried_out() {
        let mut election = Election::new(LEASE, MARGIN, TURN);
        let signs = Signs { last: Some(millis(0)), under_way: 1 };
        assert_eq!(election.next(millis(900), &follower(2, 1, 4), signs), Next::LookAt(millis(1000)));
    }

    #[test]
    fn who_follows_nobody_or_has_no_vote_does_not_ask() {
        let mut election = Election::new(LEASE, MARGIN, TURN);
        let late = millis(9_000);
        assert_eq!(election.next(late, &follower(2, 1, 4), Signs::default()), Next::Nothing, "it never heard of one");
        assert_eq!(election.next(late, &follower(1, 1, 4), heard_at(0)), Next::Nothing);
        assert_eq!(election.next(late, &follower(7, 1, 4), heard_at(0)), Next::Nothing);
        let candidate = Status { role: Role::Candidate, ..follower(2, 1, 4) };
        assert_eq!(election.next(late, &candidate, heard_at(0)), Next::Nothing);
        let without = Status { leader: None, ..follower(2, 1, 4) };
        assert_eq!(election.next(late, &without, heard_at(0)), Next::Nothing);
    }
}
