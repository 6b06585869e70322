//! Whom to tell that one lives: the core of the sender. No clock, no IO.

/// How many members are asked for one sign of life: the one that was told last, the leader that it names, and the one that
/// that one names.
const ASKED_MAX: usize = 3;

/// What became of a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// It was taken.
    Taken,
    /// By somebody who does not lead, and named this address, if any.
    NotLeader(Option<String>),
    /// There was no answer.
    Failed,
}

/// Whom to tell. It stays with who took the last beat, follows the hints of who does not lead, and goes on to the next
/// member after one that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Route {
    current: Option<String>,
    asked: usize,
}

impl Route {
    /// Whom to tell the next beat; `members` is where members are known to listen. `None` if there are none.
    pub(super) fn begin(&mut self, members: &[String]) -> Option<String> {
        self.asked = 1;
        if self.current.is_none() {
            self.current = members.first().cloned();
        }
        self.current.clone()
    }

    /// What became of it at the current address. Says whom to tell the same beat then, if anybody.
    pub(super) fn on_told(&mut self, told: Told, members: &[String]) -> Option<String> {
        match told {
            Told::Taken => return None,
            Told::NotLeader(Some(leader)) if self.current.as_ref() != Some(&leader) => self.current = Some(leader),
            Told::NotLeader(_) | Told::Failed => self.current = next(self.current.as_deref(), members),
        }
        self.asked += 1;
        // Who knows nobody gets no further in a hurry: there is an election, and the next beat is soon.
        (self.asked <= ASKED_MAX).then(|| self.current.clone()).flatten()
    }
}

/// The member after this one, or the first.
fn next(current: Option<&str>, members: &[String]) -> Option<String> {
    let place = members.iter().position(|member| Some(member.as_str()) == current);
    let next = place.map_or(0, |place| place + 1);
    members.get(next).or_else(|| members.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<String> {
        ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec()
    }

    fn some(address: &str) -> Option<String> {
        Some(address.to_owned())
    }

    #[test]
    fn who_leads_is_found_within_one_beat_and_kept() {
        let mut route = Route::default();
        assert_eq!(route.begin(&members()), some("a:1"));
        assert_eq!(route.on_told(Told::NotLeader(some("c:1")), &members()), some("c:1"));
        assert_eq!(route.on_told(Told::Taken, &members()), None);
        assert_eq!(route.begin(&members()), some("c:1"));
    }

    #[test]
    fn a_member_that_is_gone_is_passed_and_the_next_one_names_the_new_leader() {
        let mut route = Route { current: some("c:1"), asked: 0 };
        assert_eq!(route.begin(&members()), some("c:1"));
        assert_eq!(route.on_told(Told::Failed, &members()), some("a:1"), "the first comes after the last");
        assert_eq!(route.on_told(Told::NotLeader(some("b:1")), &members()), some("b:1"));
        assert_eq!(route.on_told(Told::Taken, &members()), None);
    }

    #[test]
    fn while_nobody_leads_a_beat_asks_few_and_the_next_one_asks_on() {
        let mut route = Route::default();
        let mut asked = Vec::new();
        for _ in 0..3 {
            let mut to = route.begin(&members());
            while let Some(address) = to {
                asked.push(address);
                to = route.on_told(Told::NotLeader(None), &members());
            }
        }
        assert_eq!(asked.len(), 9, "three for each beat");
        assert!(members().iter().all(|member| asked.contains(member)));
    }

    #[test]
    fn members_that_believe_in_each_other_keep_nobody_running_in_circles() {
        let mut route = Route::default();
        assert_eq!(route.begin(&members()), some("a:1"));
        assert_eq!(route.on_told(Told::NotLeader(some("b:1")), &members()), some("b:1"));
        assert_eq!(route.on_told(Told::NotLeader(some("a:1")), &members()), some("a:1"));
        assert_eq!(route.on_told(Told::NotLeader(some("b:1")), &members()), None);
    }

    #[test]
    fn without_members_nobody_is_told() {
        let mut route = Route::default();
        assert_eq!(route.begin(&[]), None);
        assert_eq!(route.on_told(Told::Failed, &[]), None);
    }
}
