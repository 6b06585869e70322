//! What a listener counts. Names are `bifrost_wire_<what>_<unit>`; labels are enums.

use std::fmt;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Connections that are open now.
pub const CONNECTIONS: &str = "bifrost_wire_connections";
/// Connections that were closed by the listener, by `reason`: see [`CloseReason`].
pub const CLOSED: &str = "bifrost_wire_closed_connections_total";
/// Requests that were refused in front of the services, by `reason`: see [`RefuseReason`].
pub const REFUSED: &str = "bifrost_wire_refused_requests_total";
/// Bytes of answers that peers have not taken.
pub const ANSWER_BYTES: &str = "bifrost_wire_answer_bytes";

/// Why a listener closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// As many were open as there may be.
    TooMany,
    /// It did not begin to speak HTTP/2 in time.
    Silent,
    /// It speaks something else.
    OtherProtocol,
    /// It held memory that others waited for.
    Memory,
    /// Its peer took nothing from the socket.
    Stalled,
}

/// Why a request did not come to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseReason {
    /// It names another cluster.
    OtherCluster,
    /// What it names is no cluster.
    Malformed,
    /// As many requests and streams were open as there may be.
    TooMany,
}

/// Gives each metric its help text; called when a listener starts, harmless when repeated.
pub fn describe() {
    describe_gauge!(CONNECTIONS, "connections open now");
    describe_counter!(CLOSED, "connections closed by the listener, by reason");
    describe_counter!(REFUSED, "requests refused in front of the services, by reason");
    describe_gauge!(ANSWER_BYTES, "bytes of answers that peers have not taken");
}

/// Handles, registered once for each listener.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) answer_bytes: Gauge,
    too_many_connections: Counter,
    silent: Counter,
    other_protocol: Counter,
    memory: Counter,
    stalled: Counter,
    other_cluster: Counter,
    malformed: Counter,
    too_many_requests: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            connections: gauge!(CONNECTIONS),
            answer_bytes: gauge!(ANSWER_BYTES),
            too_many_connections: counter!(CLOSED, "reason" => "too-many"),
            silent: counter!(CLOSED, "reason" => "silent"),
            other_protocol: counter!(CLOSED, "reason" => "other-protocol"),
            memory: counter!(CLOSED, "reason" => "memory"),
            stalled: counter!(CLOSED, "reason" => "stalled"),
            other_cluster: counter!(REFUSED, "reason" => "other-cluster"),
            malformed: counter!(REFUSED, "reason" => "malformed"),
            too_many_requests: counter!(REFUSED, "reason" => "too-many"),
        }
    }

    /// Counts a connection that the listener closed.
    pub(crate) fn closed(&self, reason: CloseReason) {
        let counter = match reason {
            CloseReason::TooMany => &self.too_many_connections,
            CloseReason::Silent => &self.silent,
            CloseReason::OtherProtocol => &self.other_protocol,
            CloseReason::Memory => &self.memory,
            CloseReason::Stalled => &self.stalled,
        };
        counter.increment(1);
    }

    /// Counts a request that did not come to a service.
    pub(crate) fn refused(&self, reason: RefuseReason) {
        let counter = match reason {
            RefuseReason::OtherCluster => &self.other_cluster,
            RefuseReason::Malformed => &self.malformed,
            RefuseReason::TooMany => &self.too_many_requests,
        };
        counter.increment(1);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
