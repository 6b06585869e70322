//! Connections that carry one request at a time each.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Those that carry none now.
#[derive(Debug)]
pub(super) struct Pool<C>(Arc<Mutex<Vec<C>>>);

impl<C> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Pool<C> {
    pub(super) fn new(connections: Vec<C>) -> Self {
        Self(Arc::new(Mutex::new(connections)))
    }

    /// One of them; there are as many as appends in flight.
    pub(super) fn take(&self) -> Result<C> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().context("every connection is in use")
    }

    pub(super) fn give_back(&self, connection: C) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
