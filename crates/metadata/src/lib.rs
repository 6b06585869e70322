//! Versioned values with transactions and watch.
