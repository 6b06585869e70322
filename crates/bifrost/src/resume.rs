//! Following metadata for ever: a watch that ends is begun again where it was, after a pause that grows while nothing comes of
//! it. Who missed more than metadata remembers begins anew.
//!
//! ```text
//!  loop {
//!      let ended = follow(&mut bookmark.seen).await;   // nothing seen: list; then watch from there on, moving the mark
//!      bookmark.pause_after(ended).await;
//!  }
//! ```

use bifrost_wire::metadata::MetadataError;
use tracing::debug;

use crate::back_off::BackOff;
use crate::catalog::CatalogError;

/// How far whoever follows has come.
#[derive(Debug)]
pub(crate) struct Bookmark<S> {
    /// What is followed, for people.
    what: &'static str,
    /// Everything up to here was seen; `None` before anything was read.
    pub(crate) seen: Option<S>,
    paused_at: Option<S>,
    back_off: BackOff,
}

impl<S: Copy + PartialEq> Bookmark<S> {
    pub(crate) const fn new(what: &'static str, seen: Option<S>) -> Self {
        Self { what, seen, paused_at: seen, back_off: BackOff::new() }
    }

    /// Waits before the next watch, longer if the last one brought nothing.
    ///
    /// # Cancel safety
    /// Safe: what was seen is kept.
    pub(crate) async fn pause_after(&mut self, ended: Result<(), CatalogError>) {
        if let Err(error) = ended {
            debug!(what = self.what, %error, "not followed");
            if matches!(error, CatalogError::Metadata(MetadataError::Compacted { .. })) {
                self.seen = None;
            }
        }
        if self.paused_at != self.seen {
            self.paused_at = self.seen;
            self.back_off.reset();
        }
        self.back_off.pause().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    async fn paused(bookmark: &mut Bookmark<u64>, ended: Result<(), CatalogError>) -> Duration {
        let began = Instant::now();
        bookmark.pause_after(ended).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_something_was_seen_and_what_was_compacted_is_forgotten() {
        let mut bookmark = Bookmark::new("a test", None);
        let away = || Err(CatalogError::Metadata(MetadataError::Unavailable));
        let first = paused(&mut bookmark, away()).await;
        assert!(paused(&mut bookmark, away()).await > first);
        bookmark.seen = Some(7);
        assert_eq!(paused(&mut bookmark, Ok(())).await, first, "something was seen");
        assert!(paused(&mut bookmark, away()).await > first);
        assert_eq!(bookmark.seen, Some(7), "it is resumed there");
        let compacted = MetadataError::Compacted { oldest: 9 };
        paused(&mut bookmark, Err(CatalogError::Metadata(compacted))).await;
        assert_eq!(bookmark.seen, None);
    }
}
