//! What happens in one run: the cluster, the work, and the faults, all drawn from a seed or read from a file.
//!
//! A plan is data. The same plan and the same seed give the same run, byte for byte; a failing one is kept under `plans/`.

mod draw;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It cannot be read.
    #[error("the plan cannot be read")]
    Syntax(#[from] toml::de::Error),
    /// It contradicts itself.
    #[error("a fault is for {name}, which the cluster does not have")]
    NoSuchHost {
        /// What it names.
        name: String,
    },
    /// More is broken than the replication property allows, and the plan does not say so.
    #[error("what stays dead is more than {replication} tolerates, and `loss` is not set")]
    BeyondTolerance {
        /// The property.
        replication: String,
    },
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Everything else that is random in the run comes from it.
    pub seed: u64,
    /// What the run is made of.
    pub cluster: Cluster,
    /// What clients do.
    pub work: Work,
    /// What goes wrong, by the time at which it begins.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// The machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// How many nodes, named `n1`, `n2`, and so on.
    pub nodes: u8,
    /// How many zones they stand in, one after the other.
    pub zones: u8,
    /// Copies of each record.
    pub copies: u8,
    /// Zones that each record must reach.
    pub zones_reached: u8,
    /// The nodes that are not healed at the end, and the only ones that lose or damage what they have.
    pub sacrificed: Vec<String>,
    /// The smallest and the largest time of a message on its way, in milliseconds.
    pub latency_ms: (u32, u32),
    /// Records after which a segment is full.
    pub segment_records: u64,
    /// Replies of metadata that are lost while the nodes start for the first time, in a hundred.
    #[serde(default)]
    pub boot_loses_percent: u8,
}

/// What clients do until the faults are over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// How many logs.
    pub logs: u8,
    /// Appenders of each log.
    pub appenders: u8,
    /// Appends in flight of each appender at most.
    pub in_flight: u8,
    /// The mean pause between two appends of an appender, in milliseconds.
    pub append_every_ms: u32,
    /// Readers of each log that follow it from the start.
    pub readers: u8,
    /// The mean pause between two linearizable tails of each log, in milliseconds; 0 for none.
    pub tail_every_ms: u32,
    /// The mean pause between two trims of each log, in milliseconds; 0 for none.
    pub trim_every_ms: u32,
    /// The mean pause between two reconfigurations of each log, in milliseconds; 0 for none.
    pub reconfigure_every_ms: u32,
    /// How many operators reconfigure at the same time.
    pub operators: u8,
    /// How long the faults and the work last, in milliseconds.
    pub lasts_ms: u32,
    /// The first log takes nothing after this time and is only asked again at the end, in milliseconds; 0 for never.
    #[serde(default)]
    pub idle_from_ms: u32,
}

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
    /// A node crashes, and its disk is empty when it comes back, as another disk.
    Wipe {
        /// The node.
        node: String,
        /// Whether it comes back as a new node with a new disk, or as the one that lost it.
        renamed: bool,
    },
    /// The leader of the metadata changes: requests under way are executed or not, and their replies are lost.
    LeaderChange,
    /// No metadata server answers.
    NoLeader,
    /// The wall clocks jump.
    ClockJump {
        /// By this much, in milliseconds.
        by_ms: i64,
    },
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// [`PlanError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)?;
        plan.validate()?;
        Ok(plan)
    }

    /// The names of all hosts, in the order in which the simulation knows them.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = self.metadata_hosts();
        hosts.extend(self.nodes());
        hosts.extend(self.clients());
        hosts
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.cluster.nodes).map(|place| format!("n{place}")).collect()
    }

    /// The names of the metadata servers.
    pub fn metadata_hosts(&self) -> Vec<String> {
        vec!["m1".to_owned(), "m2".to_owned()]
    }

    /// The names of the clients: operators and users of each log, then one that only appears at the end.
    pub fn clients(&self) -> Vec<String> {
        (1..=CLIENTS).map(|place| format!("c{place}")).collect()
    }

    fn validate(&self) -> Result<(), PlanError> {
        let hosts = self.hosts();
        let named = self.faults.iter().flat_map(|fault| fault.kind.hosts()).chain(&self.cluster.sacrificed);
        for name in named {
            if !hosts.contains(name) {
                return Err(PlanError::NoSuchHost { name: name.clone() });
            }
        }
        if !self.cluster.tolerates(&self.cluster.sacrificed) {
            return Err(PlanError::BeyondTolerance { replication: self.cluster.replication() });
        }
        Ok(())
    }
}

/// Hosts on which clients run.
pub const CLIENTS: u8 = 3;

impl Cluster {
    /// The zone of a node, from 0.
    pub fn zone_of(&self, name: &str) -> u8 {
        let place = name.get(1..).and_then(|place| place.parse::<u8>().ok()).unwrap_or(1);
        place.saturating_sub(1) % self.zones.max(1)
    }

    /// The replication property as people write it.
    pub fn replication(&self) -> String {
        format!("{{zone: {}, node: {}}}", self.zones_reached, self.copies)
    }

    /// Whether everything that was acknowledged can be read, and more be appended, when these nodes are gone for ever:
    /// the others must hold a write quorum, and these must not.
    pub fn tolerates(&self, gone: &[String]) -> bool {
        let (gone, left): (Vec<_>, Vec<_>) =
            (1..=self.nodes).map(|place| format!("n{place}")).partition(|name| gone.contains(name));
        self.is_write_quorum(&left) && !self.is_write_quorum(&gone)
    }

    fn is_write_quorum(&self, names: &[String]) -> bool {
        let mut zones: Vec<u8> = names.iter().map(|name| self.zone_of(name)).collect();
        zones.sort_unstable();
        zones.dedup();
        names.len() >= usize::from(self.copies) && zones.len() >= usize::from(self.zones_reached)
    }
}

impl Kind {
    /// The hosts that it names.
    pub fn hosts(&self) -> Vec<&String> {
        match self {
            Self::Partition { a, b } | Self::Hold { a, b } | Self::OneWay { from: a, to: b } => {
                a.iter().chain(b).collect()
            }
            Self::Pause { host } | Self::Slow { host, .. } | Self::Crash { host, .. } => vec![host],
            Self::LoseReplies { from, to, .. } | Self::Duplicate { from, to, .. } | Self::Late { from, to, .. } => {
                vec![from, to]
            }
            Self::SlowDisk { node, .. }
            | Self::FailingDisk { node }
            | Self::FullDisk { node }
            | Self::Corrupt { node }
            | Self::Wipe { node, .. } => vec![node],
            Self::LeaderChange | Self::NoLeader | Self::ClockJump { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match toml::to_string(self) {
            Ok(text) => f.write_str(&text),
            Err(_) => Err(fmt::Error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_plan_is_the_same_for_the_same_seed_and_survives_being_written() {
        for seed in 0..200 {
            let plan = Plan::draw(seed);
            assert_eq!(plan, Plan::draw(seed), "seed {seed}");
            assert_eq!(Plan::parse(&plan.to_string()).expect("what was written"), plan, "seed {seed}");
        }
    }

    #[test]
    fn a_plan_that_breaks_too_much_is_refused() {
        let mut plan = Plan::draw(1);
        plan.cluster.sacrificed = plan.nodes();
        assert!(matches!(Plan::parse(&plan.to_string()), Err(PlanError::BeyondTolerance { .. })));
        let mistyped = Plan::draw(2).to_string().replace("for_ms", "for_sm");
        assert!(matches!(Plan::parse(&mistyped), Err(PlanError::Syntax(_))), "a key that there is not");
        plan.cluster.sacrificed = vec!["n99".to_owned()];
        assert!(matches!(Plan::parse(&plan.to_string()), Err(PlanError::NoSuchHost { .. })));
    }
}
