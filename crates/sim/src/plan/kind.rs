//! What goes wrong, and when.

use serde::{Deserialize, Serialize};

/// Something goes wrong for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins, in milliseconds since the cluster is up.
    pub at_ms: u32,
    /// How long it lasts, in milliseconds. What is not healed by time, such as a jump of the clock, ignores it.
    pub for_ms: u32,
    /// What it is.
    #[serde(flatten)]
    pub kind: Kind,
}

/// A step of whoever reconfigures a log, repairs it or trims it: one call to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// A metadata transaction.
    Txn,
    /// A linearizable read of metadata.
    Get,
    /// A copy is sealed.
    Seal,
    /// A copy is given what it lacks.
    Repair,
    /// A copy is told where its segment ends.
    Settle,
    /// A copy is asked for its state.
    State,
    /// A copy is trimmed.
    Trim,
    /// A stream of appends is opened.
    OpenAppend,
    /// A stream of stores is opened.
    OpenStore,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Txn,
        Self::Get,
        Self::Seal,
        Self::Repair,
        Self::Settle,
        Self::State,
        Self::Trim,
        Self::OpenAppend,
        Self::OpenStore,
    ];

    /// What the transport calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Txn => "txn",
            Self::Get => "get",
            Self::Seal => "seal",
            Self::Repair => "repair",
            Self::Settle => "settle",
            Self::State => "state",
            Self::Trim => "trim",
            Self::OpenAppend => "open-append",
            Self::OpenStore => "open-store",
        }
    }
}

/// Whom the leader of a metadata group does not reach, nor they it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apart {
    /// The other members. Everybody else reaches all.
    Members,
    /// Nodes and clients.
    Users,
    /// Anybody.
    All,
    /// The other members, whom nodes and clients do not reach either: what is written goes to a leader of nobody.
    MembersWithUsers,
}

/// What goes wrong. Hosts are `n1`, `n2` … for nodes, `m1`, `m2` for metadata servers, `c1`, `c2` … for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// Messages between the two groups are dropped.
    Partition {
        /// One side.
        a: Vec<String>,
        /// The other side.
        b: Vec<String>,
    },
    /// Messages in one direction are dropped.
    OneWay {
        /// Who sends.
        from: Vec<String>,
        /// Who hears nothing.
        to: Vec<String>,
    },
    /// Messages between the two groups are held, and delivered at the end.
    Hold {
        /// One side.
        a: Vec<String>,
        /// The other side.
        b: Vec<String>,
    },
    /// A client and the node that numbers the appends of the first log reach each other, and nobody else.
    Island {
        /// The client.
        client: String,
        /// Whether messages to and from the others are held, and delivered at the end. Otherwise they are dropped.
        held: bool,
    },
    /// Everything that a host sends and is sent is held: it wakes up with old beliefs.
    Pause {
        /// The host.
        host: String,
    },
    /// Messages of a host take up to this long.
    Slow {
        /// The host.
        host: String,
        /// Milliseconds.
        up_to_ms: u32,
    },
    /// A host loses its memory and what its disk has not synced; it comes back at the end.
    Crash {
        /// The host.
        host: String,
        /// Whether its peers hear nothing of it, as when the power fails.
        silent: bool,
    },
    /// A host crashes between two steps of what it does: at one of its calls, which is carried out or is not. It comes back
    /// at the end.
    CrashAt {
        /// The host.
        host: String,
        /// At a call of this kind.
        call: Call,
        /// So many of them pass before.
        after: u32,
        /// Whether the call is carried out.
        executed: bool,
    },
    /// Calls between two hosts are executed and their replies lost, so many in a hundred.
    LoseReplies {
        /// Who calls.
        from: String,
        /// Who is called.
        to: String,
        /// In a hundred.
        percent: u8,
    },
    /// Requests between two hosts are executed twice, so many in a hundred.
    Duplicate {
        /// Who calls.
        from: String,
        /// Who is called.
        to: String,
        /// In a hundred.
        percent: u8,
    },
    /// Requests between two hosts are executed once more, much later, so many in a hundred.
    Late {
        /// Who calls.
        from: String,
        /// Who is called.
        to: String,
        /// In a hundred.
        percent: u8,
        /// At most this much later, in milliseconds.
        up_to_ms: u32,
    },
    /// Syncs of a disk take this long.
    SlowDisk {
        /// The node.
        node: String,
        /// At least, in milliseconds.
        from_ms: u32,
        /// At most, in milliseconds.
        up_to_ms: u32,
    },
    /// The next sync of a disk fails. Its node stops, and comes back at the end.
    FailingDisk {
        /// The node.
        node: String,
    },
    /// A disk has no room.
    FullDisk {
        /// The node.
        node: String,
    },
    /// One stored batch of a disk becomes unreadable, for good.
    Corrupt {
        /// The node.
        node: String,
    },
    /// One batch becomes unreadable on every disk that has it, for good.
    Destroy,
    /// A node crashes, and its disk is empty when it comes back, as another disk.
    Wipe {
        /// The node.
        node: String,
        /// Whether it comes back as a new node with a new disk, or as the one that lost it.
        renamed: bool,
    },
    /// The leader of the metadata changes: requests under way are executed or not, and their replies are lost.
    LeaderChange,
    /// The leader of the metadata changes while a chain is written: that write is executed or not, and its reply is lost.
    LeaderChangeAt {
        /// So many writes of chains pass before.
        after: u32,
    },
    /// No metadata server answers.
    NoLeader,
    /// The leader of a metadata group and others are apart.
    LeaderApart {
        /// Which others.
        from: Apart,
        /// Whether messages are held, and delivered at the end. Otherwise they are dropped.
        held: bool,
    },
    /// All members of a metadata group lose their memory and what their disks have not synced; they come back at the end.
    PowerLoss,
    /// A member of a metadata group crashes while it writes a snapshot. It comes back at the end.
    CrashInSnapshot {
        /// Its host.
        host: String,
        /// In the write after so many.
        after: u32,
    },
    /// The next member of a metadata group that overwrites entries which others have not crashes when the new ones are on
    /// its disk. It comes back at the end.
    CrashInOverwrite,
    /// The wall clocks jump.
    ClockJump {
        /// By this much, in milliseconds.
        by_ms: i64,
    },
}

impl Kind {
    /// Whether it happens to a metadata group only.
    pub const fn needs_group(&self) -> bool {
        matches!(
            self,
            Self::LeaderApart { .. } | Self::PowerLoss | Self::CrashInSnapshot { .. } | Self::CrashInOverwrite
        )
    }

    /// The hosts that it names.
    pub fn hosts(&self) -> Vec<&String> {
        match self {
            Self::Partition { a, b } | Self::Hold { a, b } | Self::OneWay { from: a, to: b } => {
                a.iter().chain(b).collect()
            }
            Self::Island { client: host, .. }
            | Self::Pause { host }
            | Self::Slow { host, .. }
            | Self::Crash { host, .. }
            | Self::CrashAt { host, .. }
            | Self::CrashInSnapshot { host, .. } => {
                vec![host]
            }
            Self::LoseReplies { from, to, .. } | Self::Duplicate { from, to, .. } | Self::Late { from, to, .. } => {
                vec![from, to]
            }
            Self::SlowDisk { node, .. }
            | Self::FailingDisk { node }
            | Self::FullDisk { node }
            | Self::Corrupt { node }
            | Self::Wipe { node, .. } => vec![node],
            Self::Destroy
            | Self::LeaderChange
            | Self::LeaderChangeAt { .. }
            | Self::NoLeader
            | Self::LeaderApart { .. }
            | Self::PowerLoss
            | Self::CrashInOverwrite
            | Self::ClockJump { .. } => Vec::new(),
        }
    }
}
