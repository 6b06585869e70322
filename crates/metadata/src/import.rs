//! Puts an export into an empty store, in several transactions.
//!
//! A marker is there from the first transaction to the last. The last one also writes the key without which nobody takes
//! the store for the metadata of a cluster; so a half of an import serves nobody, and doing it again goes on.

use std::time::Duration;

use bifrost_wire::metadata::{MetadataError, MetadataStore, Precondition, Revision, Txn, TxnOutcome, Write};
use bytes::Bytes;
use thiserror::Error;
use tokio::time::sleep;

use crate::export::Export;

/// Under which an import that is not finished says which one it is.
pub const MARKER: &str = "import";
/// Keys of one transaction: each is demanded and written, beside the marker.
const KEYS: usize = 60;
/// Bytes of keys and values of one transaction; one larger value goes alone.
const BYTES: usize = 512 << 10;
/// Attempts at one transaction, and between two of them.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// Keys that are there now.
    pub keys: u64,
    /// Whether an import that was interrupted went on.
    pub resumed: bool,
    /// The revision of the last write.
    pub revision: Revision,
}

/// Why an import did not end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImportError {
    /// The target has keys that are not of this import. Nothing of them was changed.
    #[error("the target is not empty: it has the key {key:?}")]
    NotEmpty {
        /// One of them.
        key: String,
    },
    /// An import of another file was begun and not finished.
    #[error("an import of another file was begun in the target and not finished")]
    OtherImport,
    /// The target did not answer, or refused. Doing it again goes on.
    #[error("the target did not take everything")]
    Metadata(#[from] MetadataError),
}

/// Copies everything; `last` is the key whose presence makes the target somebody's metadata.
///
/// # Errors
/// [`ImportError`].
///
/// # Cancel safety
/// Safe: the marker stays, and doing it again with the same export goes on.
pub async fn import(store: &dyn MetadataStore, export: &Export, last: &str) -> Result<Imported, ImportError> {
    let name = format!("{:08x}", export.checksum());
    let (marker, resumed) = begin(store, &name).await?;
    let mut batch: Vec<(&str, &Bytes)> = Vec::new();
    let mut bytes = 0;
    for (key, versioned) in export.keyspace.entries().filter(|(key, _)| *key != last) {
        let more = key.len() + versioned.value.len();
        if !batch.is_empty() && (batch.len() >= KEYS || bytes + more > BYTES) {
            put(store, marker, &batch).await?;
            batch.clear();
            bytes = 0;
        }
        batch.push((key, &versioned.value));
        bytes += more;
    }
    if !batch.is_empty() {
        put(store, marker, &batch).await?;
    }
    let revision = finish(store, marker, export, last).await?;
    Ok(Imported { keys: export.keyspace.entries().len() as u64, resumed, revision })
}

/// Sets the marker, or finds it.
async fn begin(store: &dyn MetadataStore, name: &str) -> Result<(Revision, bool), ImportError> {
    let mut begun = false;
    for _ in 0..ATTEMPTS {
        if let Some(found) = patiently(|| store.get(MARKER.to_owned())).await? {
            return if found.value == name.as_bytes() {
                Ok((found.revision, !begun))
            } else {
                Err(ImportError::OtherImport)
            };
        }
        let page = patiently(|| store.list(String::new(), None, 1)).await?;
        if let Some((key, _)) = page.entries.into_iter().next() {
            return Err(ImportError::NotEmpty { key });
        }
        let set = Txn::new().expect(MARKER, Precondition::Absent).put(MARKER, name.to_owned());
        begun = true;
        match store.txn(set).await {
            Ok(_) | Err(MetadataError::Unknown | MetadataError::Unavailable) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(MetadataError::Unavailable.into())
}

/// Writes keys that are not there. Some may be, with these values, from an attempt before.
async fn put(store: &dyn MetadataStore, marker: Revision, batch: &[(&str, &Bytes)]) -> Result<(), ImportError> {
    let mut left = batch.to_vec();
    for _ in 0..ATTEMPTS {
        let mut txn = Txn::new().expect(MARKER, Precondition::Revision(marker));
        for (key, value) in &left {
            txn = txn.expect(*key, Precondition::Absent).put(*key, Bytes::clone(value));
        }
        match store.txn(txn).await {
            Ok(TxnOutcome::Committed(_)) => return Ok(()),
            Ok(TxnOutcome::Conflict(present)) => {
                let mut present = present.into_iter();
                if present.next().and_then(|(_, value)| value).is_none_or(|value| value.revision != marker) {
                    return Err(ImportError::OtherImport);
                }
                for (key, value) in present {
                    let Some(value) = value else { continue };
                    if left.iter().any(|(known, ours)| *known == key && **ours != value.value) {
                        return Err(ImportError::NotEmpty { key });
                    }
                    left.retain(|(known, _)| *known != key);
                }
                if left.is_empty() {
                    return Ok(());
                }
            }
            Err(MetadataError::Unknown | MetadataError::Unavailable) => sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(MetadataError::Unavailable.into())
}

/// Takes the marker away and writes the last key, in one.
async fn finish(
    store: &dyn MetadataStore,
    marker: Revision,
    export: &Export,
    last: &str,
) -> Result<Revision, ImportError> {
    let mut txn = Txn::new().expect(MARKER, Precondition::Revision(marker)).delete(MARKER);
    let value = export.keyspace.get(last).map(|versioned| versioned.value.clone());
    if let Some(value) = &value {
        txn = txn.expect(last, Precondition::Absent);
        txn.writes.push((last.to_owned(), Write::Put(value.clone())));
    }
    for _ in 0..ATTEMPTS {
        match store.txn(txn.clone()).await {
            Ok(TxnOutcome::Committed(revision)) => return Ok(revision),
            // An attempt before this one did it, and its reply was lost.
            Ok(TxnOutcome::Conflict(_)) => {
                let found = patiently(|| store.get(last.to_owned())).await?;
                return match found {
                    Some(found) if Some(&found.value) == value.as_ref() => Ok(found.revision),
                    Some(_) => Err(ImportError::NotEmpty { key: last.to_owned() }),
                    None => Err(ImportError::OtherImport),
                };
            }
            Err(MetadataError::Unknown | MetadataError::Unavailable) => sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(MetadataError::Unavailable.into())
}

/// Repeats a read that is not answered for the moment.
async fn patiently<T, F>(mut read: impl FnMut() -> F) -> Result<T, MetadataError>
where
    F: Future<Output = Result<T, MetadataError>>,
{
    for _ in 0..ATTEMPTS {
        match read().await {
            Err(MetadataError::Unknown | MetadataError::Unavailable) => sleep(PAUSE).await,
            other => return other,
        }
    }
    Err(MetadataError::Unavailable)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{CallKind, Fault, Keyspace, LossyMetadata, MemoryMetadata};

    const LAST: &str = "cluster";

    fn export(keys: u32) -> Export {
        let mut keyspace = Keyspace::new();
        keyspace.apply(&Txn::new().put(LAST, "7"));
        for key in 0..keys {
            keyspace.apply(&Txn::new().put(format!("k{key:04}"), vec![1; 9000]));
        }
        Export { cluster: None, keyspace }
    }

    async fn has(store: &impl MetadataStore, export: &Export) {
        let read = Export::read(store, None).await.expect("it answers").keyspace;
        let pairs = |keyspace: &Keyspace| -> Vec<_> {
            keyspace.entries().map(|(key, value)| (key.to_owned(), value.value.clone())).collect()
        };
        assert_eq!(pairs(&read), pairs(&export.keyspace));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_store_gets_everything_and_another_one_nothing() {
        let (store, export) = (MemoryMetadata::new(), export(200));
        let done = import(&store, &export, LAST).await.expect("it is empty");
        assert_eq!((done.keys, done.resumed), (201, false));
        has(&store, &export).await;
        let again = import(&store, &export, LAST).await;
        assert_eq!(again, Err(ImportError::NotEmpty { key: LAST.to_owned() }));
        has(&store, &export).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_import_that_was_interrupted_serves_nobody_and_goes_on() {
        let export = export(200);
        for stops_at in 0..5 {
            let store = MemoryMetadata::new();
            let script = move |call: &crate::Call| match (call.kind, call.nth) {
                (CallKind::Txn, nth) if nth >= stops_at => Fault::FailBefore(MetadataError::Invalid),
                _ => Fault::None,
            };
            let interrupted = LossyMetadata::new(store.clone(), Arc::new(script));
            import(&interrupted, &export, LAST).await.expect_err("it is interrupted");
            assert_eq!(store.get(LAST.to_owned()).await, Ok(None), "nobody takes it for a cluster");
            if stops_at > 0 {
                let other = import(&store, &self::export(3), LAST).await;
                assert_eq!(other, Err(ImportError::OtherImport));
            }
            let done = import(&store, &export, LAST).await.expect("it goes on");
            assert_eq!(done.resumed, stops_at > 0);
            has(&store, &export).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lost_replies_change_nothing() {
        let (store, export) = (MemoryMetadata::new(), export(200));
        let script = |call: &crate::Call| match (call.kind, call.nth % 3) {
            (CallKind::Txn, 0) => Fault::LoseReply,
            (_, 1) => Fault::FailBefore(MetadataError::Unavailable),
            _ => Fault::None,
        };
        let lossy = LossyMetadata::new(store.clone(), Arc::new(script));
        import(&lossy, &export, LAST).await.expect("it ends");
        has(&store, &export).await;
    }
}
