//! Whether an answer of metadata fits a moment between its call and itself (M1).

use std::collections::BTreeMap;
use std::ops::Bound;

use bifrost_checker::event::Value;
use bifrost_wire::metadata::{Changes, Page, Revision, Txn, TxnOutcome, Versioned, Write};

use super::{Facts, Truth};
use crate::history::value_of;

/// What was told to anybody before a call began: its answer may not be older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor(Revision);

impl Truth {
    /// For a call that begins now.
    pub fn floor(&self) -> Floor {
        Floor(self.facts.lock().told)
    }

    /// Judges a read of one key.
    pub fn judge_get(&self, who: &str, Floor(floor): Floor, key: &str, found: Option<&Versioned>) {
        let wrong = {
            let mut facts = self.facts.lock();
            facts.told = facts.told.max(found.map_or(0, |found| found.revision));
            facts.wrong(floor, key, found)
        };
        if let Some(wrong) = wrong {
            self.breach(format!("M1 {who} reads {key}: {wrong}"));
        }
    }

    /// Judges a page: it shows one revision, whole.
    pub fn judge_page(&self, who: &str, Floor(floor): Floor, (prefix, after): (&str, Option<&str>), page: &Page) {
        let wrong = {
            let mut facts = self.facts.lock();
            facts.told = facts.told.max(page.revision);
            facts.wrong_page(floor, prefix, after, page)
        };
        if let Some(wrong) = wrong {
            self.breach(format!("M1 {who} lists {prefix}: {wrong}"));
        }
    }

    /// Judges the answer to a transaction.
    pub fn judge_txn(&self, who: &str, Floor(floor): Floor, txn: &Txn, outcome: &TxnOutcome) {
        let wrong = {
            let mut facts = self.facts.lock();
            match outcome {
                TxnOutcome::Committed(revision) => {
                    facts.told = facts.told.max(*revision);
                    facts.wrong_commit(floor, txn, *revision)
                }
                TxnOutcome::Conflict(present) => {
                    present.iter().find_map(|(key, found)| facts.wrong(floor, key, found.as_ref()))
                }
            }
        };
        if let Some(wrong) = wrong {
            self.breach(format!("M1 {who} writes: {wrong}"));
        }
    }
}

impl Facts {
    fn wrong(&self, floor: Revision, key: &str, found: Option<&Versioned>) -> Option<String> {
        let writes = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        // When what was found was overwritten; nothing before the first write is like a removal.
        let mut over = Vec::new();
        let next = |place: usize| writes.get(place).map(|(revision, _)| *revision);
        match found {
            Some(found) => {
                let is = (found.revision, Some(value_of(&found.value)));
                let Some(place) = writes.iter().position(|written| *written == is) else {
                    return Some(format!("revision {} did not write that", found.revision));
                };
                over.push(next(place + 1));
            }
            None => {
                over.push(next(0));
                let gone = writes.iter().enumerate().filter(|(_, (_, value))| value.is_none());
                over.extend(gone.map(|(place, _)| next(place + 1)));
            }
        }
        if over.iter().any(|next| next.is_none_or(|next| next > floor)) {
            return None;
        }
        let known = over.iter().flatten().max().copied().unwrap_or(0);
        Some(format!("{:?} is what revision {known} replaced, and {floor} was told", found.map(|found| found.revision)))
    }

    fn wrong_page(&self, floor: Revision, prefix: &str, after: Option<&str>, page: &Page) -> Option<String> {
        if page.revision < floor || page.revision > self.revision {
            return Some(format!("at revision {}, and {floor} was told of {}", page.revision, self.revision));
        }
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let keys = self.keys.range::<str, _>((start, Bound::Unbounded)).map(|(key, _)| key);
        let wanted: Vec<(&str, Revision, Value)> = keys
            .take_while(|key| key.starts_with(prefix))
            .filter_map(|key| self.at(key, page.revision).map(|(revision, value)| (key.as_str(), revision, value)))
            .collect();
        let found: Vec<(&str, Revision, Value)> =
            page.entries.iter().map(|(key, found)| (key.as_str(), found.revision, value_of(&found.value))).collect();
        let whole = if page.more { wanted.starts_with(&found) } else { wanted == found };
        let keys = |entries: &[(&str, Revision, Value)]| {
            entries.iter().map(|(key, revision, _)| format!("{key}@{revision}")).collect::<Vec<_>>().join(" ")
        };
        (!whole).then(|| format!("revision {} has {}, and not {}", page.revision, keys(&wanted), keys(&found)))
    }

    fn wrong_commit(&self, floor: Revision, txn: &Txn, revision: Revision) -> Option<String> {
        if txn.writes.is_empty() {
            let then = revision >= floor && revision <= self.revision;
            return (!then).then(|| format!("nothing, at revision {revision}, and {floor} was told"));
        }
        let wanted: BTreeMap<&str, Option<Value>> =
            txn.writes.iter().map(|(key, write)| (key.as_str(), sum(write))).collect();
        let Some(changes) = self.revisions.get(&revision) else {
            // Removing what is not there has a revision, and leaves nothing.
            let removes = wanted.values().all(Option::is_none) && revision <= self.revision;
            return (!removes).then(|| format!("revision {revision} was never decided"));
        };
        let all = changes.iter().all(|(key, value)| wanted.get(key.as_str()) == Some(value));
        let whole = wanted.iter().filter(|(_, value)| value.is_some()).count()
            == changes.iter().filter(|(_, value)| value.is_some()).count();
        match (all && whole, revision > floor) {
            (true, true) => None,
            (true, false) => Some(format!("revision {revision} is told after {floor}")),
            (false, _) => Some(format!("revision {revision} is another transaction")),
        }
    }
}

fn sum(write: &Write) -> Option<Value> {
    match write {
        Write::Put(value) => Some(value_of(value)),
        Write::Delete => None,
    }
}

/// Judges what one watch delivers: every change under its prefix, in order.
#[derive(Debug)]
pub struct WatchJudge {
    truth: Truth,
    who: String,
    prefix: String,
    last: Revision,
}

impl WatchJudge {
    /// A watch that begins after a revision.
    pub fn new(truth: Truth, who: &str, prefix: String, after: Revision) -> Self {
        Self { truth, who: who.to_owned(), prefix, last: after }
    }

    /// Judges the next item.
    pub fn judge(&mut self, changes: &Changes) {
        let wrong = {
            let mut facts = self.truth.facts.lock();
            facts.told = facts.told.max(changes.revision);
            self.wrong(&facts, changes)
        };
        self.last = self.last.max(changes.revision);
        if let Some(wrong) = wrong {
            self.truth.breach(format!("M1 {} watches {}: {wrong}", self.who, self.prefix));
        }
    }

    fn wrong(&self, facts: &Facts, changes: &Changes) -> Option<String> {
        let (last, now) = (self.last, changes.revision);
        if now < last || now > facts.revision {
            return Some(format!("revision {now} after {last}"));
        }
        if now == last {
            // It is told once more how far the store is.
            return (!changes.changes.is_empty()).then(|| format!("revision {now} twice"));
        }
        let mine =
            |(key, value): &(String, Option<Value>)| key.starts_with(&self.prefix).then(|| (key.clone(), *value));
        let missed =
            facts.revisions.range(last + 1..now).find(|(_, writes)| writes.iter().any(|write| mine(write).is_some()));
        if let Some((missed, _)) = missed {
            return Some(format!("revision {now} after {last}, and nothing of {missed}"));
        }
        let wanted: BTreeMap<String, Option<Value>> =
            facts.revisions.get(&now).into_iter().flatten().filter_map(mine).collect();
        let found: BTreeMap<String, Option<Value>> =
            changes.changes.iter().map(|change| (change.key.clone(), change.value.as_deref().map(value_of))).collect();
        (wanted != found).then(|| format!("revision {now} wrote something else"))
    }
}
