//! When a member that misses its leader asks for votes: the core, and what it goes by. Times are since an arbitrary start.
//!
//! Members canvass first: each in its turn asks the others whether they would vote for it, and asks for votes when a majority
//! would. A member that was cut off, or that alone does not hear the leader, so never raises the term, and deposes nobody when
//! it is back (the pre-vote of section 9.6 of Ongaro's thesis). openraft's own timer, which knows nothing of this, is off.
//!
//! Safety does not depend on any of it: who asks too early is refused, who asks too late is late.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::status::{Role, Status};
use crate::types::LogId;

/// What was heard of leaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Signs {
    /// When a leader was heard last, or a vote was given; at first when the member started: it may have heard one before.
    last: Duration,
    /// Messages that are being carried out: an fsync may take long, and meanwhile nobody is missed.
    under_way: usize,
}

impl Signs {
    /// When a leader was heard last.
    pub(super) const fn last(self) -> Duration {
        self.last
    }

    /// Whether a leader may be there still: so long after its last sign nobody else gets a vote.
    fn holds(self, now: Duration, lease: Duration) -> bool {
        self.under_way > 0 || now.saturating_sub(self.last) < lease
    }
}

/// Where messages of leaders are taken note of.
#[derive(Debug)]
pub(crate) struct Heard {
    started: Instant,
    lease: Duration,
    signs: Mutex<Signs>,
}

/// A message of a leader that is being carried out.
pub(crate) struct UnderWay<'a>(&'a Heard);

impl Heard {
    /// Nothing was heard yet. After a sign of a leader members refuse their votes for `lease`.
    pub(crate) fn new(lease: Duration) -> Self {
        Self { started: Instant::now(), lease, signs: Mutex::default() }
    }

    /// A message of the present leader came in; it is carried out until the answer is dropped.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        let mut signs = self.signs.lock();
        signs.under_way += 1;
        signs.last = self.now();
        UnderWay(self)
    }

    /// A vote was given: whoever has it gets time to become the leader.
    pub(crate) fn voted(&self) {
        self.signs.lock().last = self.now();
    }

    /// Whether this member would vote for one whose log ends at `theirs` now. It promises nothing.
    pub(crate) fn would_vote(&self, status: &Status, mine: Option<LogId>, theirs: Option<LogId>) -> bool {
        let is_led = status.serves() || self.holds();
        !is_led && theirs >= mine
    }

    /// Whether a leader may be there still.
    pub(super) fn holds(&self) -> bool {
        self.signs().holds(self.now(), self.lease)
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
        signs.last = self.0.now();
    }
}

/// What to do about the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing before something changes.
    Nothing,
    /// Look again at this time.
    LookAt(Duration),
    /// Ask the others whether they would vote for this member, then say [`Election::canvassed`].
    Canvass,
}

/// Decides when this member asks for votes.
#[derive(Debug)]
pub(super) struct Election {
    lease: Duration,
    /// Between the end of the lease and the first member that asks: others may have heard the leader a little later.
    margin: Duration,
    /// Between one member and the next: time for votes, which are fsyncs, or the next one deposes who was just elected.
    turn: Duration,
    canvassing: bool,
    /// Not before this time: it asked already.
    again: Duration,
}

impl Election {
    pub(super) const fn new(lease: Duration, margin: Duration, turn: Duration) -> Self {
        Self { lease, margin, turn, canvassing: false, again: Duration::ZERO }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Duration, status: &Status, signs: Signs) -> Next {
        let Some(due) = self.due(status, signs).filter(|_| !self.canvassing) else { return Next::Nothing };
        if signs.under_way > 0 {
            return Next::LookAt(now.saturating_add(self.margin));
        }
        let due = due.max(self.again);
        if now < due {
            return Next::LookAt(due);
        }
        self.canvassing = true;
        Next::Canvass
    }

    /// The others were asked; whether to ask for votes now.
    pub(super) fn canvassed(&mut self, now: Duration, status: &Status, signs: Signs, would_win: bool) -> bool {
        self.canvassing = false;
        let asks = would_win && signs.under_way == 0 && self.due(status, signs).is_some_and(|due| due <= now);
        // Two that asked at the same moment must not do it again: the later its turn, the longer one waits.
        let turns = if asks { 1 + turns(status).unwrap_or(0) } else { 1 };
        self.again = now.saturating_add(self.turn.saturating_mul(turns));
        asks
    }

    /// When this member is the one to ask, if it ever is.
    fn due(&self, status: &Status, signs: Signs) -> Option<Duration> {
        if is_alone(status) {
            return turns(status).map(|_| Duration::ZERO);
        }
        let first = signs.last.saturating_add(self.lease).saturating_add(self.margin);
        turns(status).map(|turns| first.saturating_add(self.turn.saturating_mul(turns)))
    }
}

/// After how many turns this member asks: the voters beside the leader, in the order of their ids, from 0. `None` if it
/// leads, or has no vote itself.
fn turns(status: &Status) -> Option<u32> {
    if !matches!(status.role, Role::Follower | Role::Candidate) {
        return None;
    }
    let voters: std::collections::BTreeSet<_> = status.voters.iter().flatten().collect();
    if !voters.contains(&status.member) {
        return None;
    }
    let before = voters.iter().filter(|voter| ***voter < status.member && Some(***voter) != status.leader).count();
    u32::try_from(before).ok()
}

/// Whether no other vote counts: then there is nobody to wait for.
fn is_alone(status: &Status) -> bool {
    status.voters.iter().flatten().all(|voter| *voter == status.member)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::CommittedLeaderId;

    use super::*;
    use crate::types::MemberId;

    const LEASE: Duration = Duration::from_millis(400);
    const MARGIN: Duration = Duration::from_millis(100);
    const TURN: Duration = Duration::from_millis(250);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn election() -> Election {
        Election::new(LEASE, MARGIN, TURN)
    }

    fn follower(member: u64, leader: u64) -> Status {
        Status {
            member: MemberId::from(member),
            role: Role::Follower,
            leader: Some(MemberId::from(leader)),
            term: 4,
            last_log: None,
            applied: None,
            snapshot: None,
            purged: None,
            voters: vec![BTreeSet::from([1, 2, 3].map(MemberId::from))],
            members: BTreeMap::new(),
            replicated: BTreeMap::new(),
            missed: None,
            has_majority: true,
        }
    }

    fn heard_at(time: u64) -> Signs {
        Signs { last: millis(time), under_way: 0 }
    }

    #[test]
    fn the_voters_beside_the_leader_ask_one_after_the_other_once_the_lease_is_over() {
        for (leader, first, second) in [(1, 2, 3), (2, 1, 3), (3, 1, 2)] {
            let mut election = election();
            let status = follower(first, leader);
            assert_eq!(election.next(millis(50), &status, heard_at(10)), Next::LookAt(millis(510)));
            assert_eq!(election.next(millis(510), &status, heard_at(300)), Next::LookAt(millis(800)), "it was heard");
            assert_eq!(election.next(millis(800), &status, heard_at(300)), Next::Canvass);
            assert!(election.canvassed(millis(801), &status, heard_at(300), true));
            assert_eq!(
                super::tests::election().next(millis(800), &follower(second, leader), heard_at(300)),
                Next::LookAt(millis(1050))
            );
        }
    }

    #[test]
    fn who_would_lose_asks_for_no_votes_and_canvasses_again_a_turn_later() {
        let mut election = election();
        let status = follower(2, 1);
        for round in 0..50 {
            let now = 900 + 250 * round;
            assert_eq!(election.next(millis(now), &status, heard_at(0)), Next::Canvass);
            assert_eq!(election.next(millis(now), &status, heard_at(0)), Next::Nothing, "one at a time");
            assert!(!election.canvassed(millis(now), &status, heard_at(0), false));
            assert_eq!(election.next(millis(now), &status, heard_at(0)), Next::LookAt(millis(now + 250)));
        }
    }

    #[test]
    fn a_leader_that_was_heard_during_the_canvass_stays() {
        let mut election = election();
        let status = follower(2, 1);
        assert_eq!(election.next(millis(900), &status, heard_at(0)), Next::Canvass);
        assert!(!election.canvassed(millis(950), &status, heard_at(940), true));
        assert_eq!(election.next(millis(900), &status, heard_at(0)), Next::LookAt(millis(1200)));
        assert_eq!(election.next(millis(1200), &status, heard_at(0)), Next::Canvass);
        assert!(!election.canvassed(millis(1250), &status, Signs { under_way: 1, ..heard_at(0) }, true));
    }

    #[test]
    fn two_that_asked_for_votes_at_the_same_moment_do_not_do_it_again() {
        let candidate = |member| Status { role: Role::Candidate, leader: None, ..follower(member, 1) };
        let mut again = Vec::new();
        for member in [2, 3] {
            let mut election = election();
            assert_eq!(election.next(millis(2_000), &candidate(member), heard_at(0)), Next::Canvass);
            assert!(election.canvassed(millis(2_000), &candidate(member), heard_at(0), true));
            again.push(election.next(millis(2_000), &candidate(member), heard_at(0)));
        }
        assert_eq!(again, [Next::LookAt(millis(2_500)), Next::LookAt(millis(2_750))]);
    }

    #[test]
    fn nobody_is_missed_while_a_message_of_the_leader_is_carried_out() {
        let signs = Signs { last: millis(0), under_way: 1 };
        assert_eq!(election().next(millis(900), &follower(2, 1), signs), Next::LookAt(millis(1000)));
    }

    #[test]
    fn who_leads_or_has_no_vote_does_not_ask_and_who_is_alone_waits_for_nobody() {
        let late = millis(9_000);
        let leads = Status { role: Role::Leader, ..follower(1, 1) };
        assert_eq!(election().next(late, &leads, heard_at(0)), Next::Nothing);
        assert_eq!(election().next(late, &follower(7, 1), heard_at(0)), Next::Nothing);
        let new = Status { voters: Vec::new(), leader: None, ..follower(1, 1) };
        assert_eq!(election().next(late, &new, heard_at(0)), Next::Nothing, "it belongs to no group yet");
        let alone = Status { voters: vec![BTreeSet::from([MemberId::from(1)])], leader: None, ..follower(1, 1) };
        assert_eq!(election().next(millis(0), &alone, heard_at(0)), Next::Canvass);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_would_vote_for_a_log_like_its_own_once_it_hears_of_no_leader() {
        let id = |term, index| Some(LogId::new(CommittedLeaderId::new(term, MemberId::from(1)), index));
        let heard = Heard::new(LEASE);
        let status = follower(2, 1);
        assert!(!heard.would_vote(&status, None, None), "it may have heard one in the life before");
        tokio::time::advance(LEASE).await;
        assert!(heard.would_vote(&status, id(4, 7), id(4, 7)));
        assert!(heard.would_vote(&status, id(4, 7), id(5, 3)));
        assert!(!heard.would_vote(&status, id(4, 7), id(4, 6)));
        assert!(!heard.would_vote(&Status { role: Role::Leader, ..follower(1, 1) }, None, None), "it leads");
        let under_way = heard.begin();
        tokio::time::advance(LEASE * 9).await;
        assert!(!heard.would_vote(&status, None, None), "of a message that takes long");
        drop(under_way);
        assert!(!heard.would_vote(&status, None, None));
        tokio::time::advance(LEASE).await;
        assert!(heard.would_vote(&status, None, None));
        heard.voted();
        assert!(!heard.would_vote(&status, None, None), "it voted a moment ago");
    }
}
