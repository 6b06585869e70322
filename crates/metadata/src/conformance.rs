//! One contract, one suite: what every [`MetadataStore`] must do, whatever stands behind it.
#![expect(clippy::disallowed_methods, reason = "tasks of a test suite end with it")]

mod transactions;
mod watches;

use std::fmt;
use std::sync::Arc;

use bifrost_wire::metadata::{MetadataError, MetadataStore, Revision, Txn, TxnOutcome, Versioned};

/// Runs the suite. `factory` makes a new empty store for each check; nobody else may write to it meanwhile. Wants a
/// tokio runtime of at least two threads, so that concurrent checks are.
///
/// # Panics
/// At the first promise that is not kept, naming it.
///
/// # Cancel safety
/// Dropping the future ends the check in progress; tasks it started run to their own end.
pub async fn conformance<S: MetadataStore + 'static>(factory: impl AsyncFn() -> S) {
    transactions::a_write_is_read_by_every_later_read(&factory().await).await;
    transactions::preconditions_decide_whether_anything_is_written(&factory().await).await;
    transactions::a_conflict_returns_the_present_values(&factory().await).await;
    transactions::revisions_count_the_transactions_that_write(&factory().await).await;
    transactions::a_recreated_key_never_repeats_a_revision(&factory().await).await;
    transactions::limits_are_refused_and_nothing_is_done(&factory().await).await;
    transactions::a_list_is_ordered_and_knows_its_prefix(&factory().await).await;
    transactions::a_list_is_paged_by_count_and_by_bytes(&factory().await).await;
    transactions::a_transaction_is_seen_whole_or_not_at_all(Arc::new(factory().await)).await;
    transactions::concurrent_counters_lose_nothing(Arc::new(factory().await)).await;
    transactions::a_retry_after_a_lost_reply_happens_once(factory().await).await;
    watches::a_watch_tells_the_present_and_then_every_change(&factory().await).await;
    watches::a_watch_is_told_all_changes_of_a_revision_together(&factory().await).await;
    watches::a_watch_resumes_from_every_retained_revision(Arc::new(factory().await)).await;
    watches::a_slow_watch_misses_nothing_or_is_told(&factory().await).await;
    watches::a_dropped_watch_hinders_nobody(&factory().await).await;
}

/// Commits or fails the suite.
async fn committed(store: &impl MetadataStore, txn: Txn) -> Revision {
    match answered("txn", store.txn(txn).await) {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict(present) => unreachable!("the transaction must commit, but {present:?}"),
    }
}

/// Conflicts or fails the suite.
async fn conflict(store: &impl MetadataStore, txn: Txn) -> Vec<(String, Option<Versioned>)> {
    match answered("txn", store.txn(txn).await) {
        TxnOutcome::Conflict(present) => present,
        TxnOutcome::Committed(revision) => unreachable!("the transaction must not commit, but did at {revision}"),
    }
}

async fn read(store: &impl MetadataStore, key: &str) -> Option<Versioned> {
    answered("get", store.get(key.to_owned()).await)
}

/// The answer of a call that must be given one.
fn answered<T>(call: &str, answer: Result<T, MetadataError>) -> T
where
    T: fmt::Debug,
{
    answer.unwrap_or_else(|error| unreachable!("{call} must be answered: {error}"))
}
