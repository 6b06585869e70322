//! Numbers, replicates and acknowledges one loglet.
