//! What goes into the files is counted.

use std::fmt;

use ::metrics::{Counter, counter};

use crate::metrics::FILES_WRITTEN;

/// What goes into files.
#[derive(Clone)]
pub(crate) struct FileMetrics {
    pub(crate) records: Counter,
    pub(crate) moved: Counter,
    pub(crate) zeros: Counter,
}

impl FileMetrics {
    pub(crate) fn new() -> Self {
        let kind = |kind| counter!(FILES_WRITTEN, "kind" => kind);
        Self { records: kind("records"), moved: kind("moved"), zeros: kind("zeros") }
    }
}

impl fmt::Debug for FileMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileMetrics").finish_non_exhaustive()
    }
}
