#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost_wire::metadata::Precondition;
use futures_util::FutureExt;

use super::*;
use crate::memory::MemoryMetadata;

fn lossy(fault: Fault) -> LossyMetadata<MemoryMetadata> {
    let first = move |call: &Call| if call.index == 0 { fault.clone() } else { Fault::None };
    LossyMetadata::new(MemoryMetadata::new(), Arc::new(first))
}

fn create() -> Txn {
    Txn::new().expect("a", Precondition::Absent).put("a", "1")
}

#[tokio::test]
async fn a_failed_call_has_no_effect_and_a_lost_reply_has() {
    for error in [MetadataError::Unknown, MetadataError::Unavailable] {
        let store = lossy(Fault::FailBefore(error));
        assert_eq!(store.txn(create()).await, Err(error));
        assert_eq!(store.txn(create()).await, Ok(TxnOutcome::Committed(1)));
    }
    let store = lossy(Fault::LoseReply);
    assert_eq!(store.txn(create()).await, Err(MetadataError::Unknown));
    assert!(matches!(store.txn(create()).await, Ok(TxnOutcome::Conflict(_))));
}

#[tokio::test]
async fn a_hanging_call_waits_for_its_release() {
    for (after, effect) in [(false, false), (true, true)] {
        let release = CancellationToken::new();
        let fault = if after { Fault::HangAfter(release.clone()) } else { Fault::HangBefore(release.clone()) };
        let store = lossy(fault);
        let mut call = store.txn(create());
        assert!((&mut call).now_or_never().is_none(), "it hangs");
        assert_eq!(store.inner().get("a".into()).await.unwrap().is_some(), effect);
        release.cancel();
        assert_eq!(call.await, Ok(TxnOutcome::Committed(1)));
    }
}

#[tokio::test]
async fn a_hanging_call_that_is_dropped_has_happened_or_not() {
    for (after, effect) in [(false, false), (true, true)] {
        let never = CancellationToken::new();
        let fault = if after { Fault::HangAfter(never.clone()) } else { Fault::HangBefore(never.clone()) };
        let store = lossy(fault);
        assert!(store.txn(create()).now_or_never().is_none());
        assert_eq!(store.get("a".into()).await.unwrap().is_some(), effect);
    }
}

#[tokio::test]
async fn the_script_sees_every_call_with_its_numbers() {
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let script = move |call: &Call| {
        log.lock().push((call.index, call.nth, call.kind, call.keys.join(",")));
        Fault::None
    };
    let store = LossyMetadata::new(MemoryMetadata::new(), Arc::new(script));
    store.get("a".into()).await.unwrap();
    store.txn(create().delete("b")).await.unwrap();
    store.clone().get("c".into()).await.unwrap();
    store.list("d".into(), None, 1).await.unwrap();
    drop(store.watch("e".into(), 0).await.unwrap());
    drop(store.get("never polled".into()));
    let expected = [
        (0, 0, CallKind::Get, "a"),
        (1, 0, CallKind::Txn, "a,b"),
        (2, 1, CallKind::Get, "c"),
        (3, 0, CallKind::List, "d"),
        (4, 0, CallKind::Watch, "e"),
    ];
    assert_eq!(*seen.lock(), expected.map(|(index, nth, kind, keys)| (index, nth, kind, keys.to_owned())));
    assert_eq!(store.calls(), 5);
}
