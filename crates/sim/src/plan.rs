//! What happens in one run: the cluster, the work, and the faults, all drawn from a seed or read from a file.
//!
//! A plan is data. The same plan and the same seed give the same run, byte for byte; a failing one is kept under `plans/`.

mod draw;
mod files;
mod group;
mod kind;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::files::{Files, Stores};
pub use self::group::Group;
pub use self::kind::{Apart, Call, Fault, Kind};

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
    /// More nodes may lose what they have than the replication property allows.
    #[error("what is sacrificed is more than {replication} tolerates")]
    BeyondTolerance {
        /// The property.
        replication: String,
    },
    /// A fault happens to a metadata group only, and there is none.
    #[error("a fault happens to a metadata group, and `cluster.group` is not set")]
    NoGroup,
    /// A group that has no majority, or loses it for ever.
    #[error("a metadata group has 3 to 9 members that make snapshots, and one of them may stay dead")]
    BadGroup,
    /// Files that have no room for anything.
    #[error("a file of `cluster.files` has 3 blocks or more")]
    TooFewBlocks,
    /// A record is to lose all its copies, and the plan does not say that it expects a loss.
    #[error("a fault destroys every copy of a record, and `cluster.loss` is not set")]
    LossNotExpected,
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
    /// The only nodes that lose or damage what they have.
    pub sacrificed: Vec<String>,
    /// Whether they come back at the end, with what they have. Otherwise they stay dead.
    #[serde(default)]
    pub sacrificed_return: bool,
    /// More is damaged than the replication property tolerates: then somebody must be told, and nothing else be lost.
    #[serde(default)]
    pub loss: bool,
    /// The smallest and the largest time of a message on its way, in milliseconds.
    pub latency_ms: (u32, u32),
    /// Records after which a segment is full.
    pub segment_records: u64,
    /// Bytes of committed batches that a sequencer keeps for copies that are behind.
    #[serde(default = "retained_bytes")]
    pub retained_bytes: u32,
    /// Replies of metadata that are lost while the nodes start for the first time, in a hundred.
    #[serde(default)]
    pub boot_loses_percent: u8,
    /// Metadata is a group of members that talk Raft. Otherwise it is one keyspace behind two servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Log servers that keep their copies in files. None of them does without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
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
    /// After the work metadata is away for a while, and whoever waits must do so quietly.
    #[serde(default)]
    pub dark: bool,
}

/// What sequencers keep unless a plan says otherwise.
const fn retained_bytes() -> u32 {
    16 << 20
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
        let servers = self.cluster.group.as_ref().map_or(2, |group| group.members);
        (1..=servers).map(|place| format!("m{place}")).collect()
    }

    /// The names of the clients: operators and users of each log, then one that only appears at the end.
    pub fn clients(&self) -> Vec<String> {
        (1..=CLIENTS).map(|place| format!("c{place}")).collect()
    }

    fn validate(&self) -> Result<(), PlanError> {
        let hosts = self.hosts();
        let on_files = self.cluster.files.iter().flat_map(|files| &files.nodes);
        let named = self.faults.iter().flat_map(|fault| fault.kind.hosts());
        let named = named.chain(&self.cluster.sacrificed).chain(on_files);
        for name in named {
            if !hosts.contains(name) {
                return Err(PlanError::NoSuchHost { name: name.clone() });
            }
        }
        if self.cluster.files.as_ref().is_some_and(|files| files.file_blocks < 3) {
            return Err(PlanError::TooFewBlocks);
        }
        match &self.cluster.group {
            Some(group) if !group.is_sound(&self.metadata_hosts()) => return Err(PlanError::BadGroup),
            None if self.faults.iter().any(|fault| fault.kind.needs_group()) => return Err(PlanError::NoGroup),
            Some(_) | None => {}
        }
        if !self.cluster.tolerates(&self.cluster.sacrificed) {
            return Err(PlanError::BeyondTolerance { replication: self.cluster.replication() });
        }
        if !self.cluster.loss && self.faults.iter().any(|fault| matches!(fault.kind, Kind::Destroy)) {
            return Err(PlanError::LossNotExpected);
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

    /// Whether the nodes of these names can hold a record.
    pub fn is_write_quorum(&self, names: &[String]) -> bool {
        let mut zones: Vec<u8> = names.iter().map(|name| self.zone_of(name)).collect();
        zones.sort_unstable();
        zones.dedup();
        names.len() >= usize::from(self.copies) && zones.len() >= usize::from(self.zones_reached)
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
    fn the_stores_of_a_plan_are_drawn_and_change_nothing_else_of_it() {
        let (mut none, mut some, mut all) = (0, 0, 0);
        for seed in 0..200 {
            let plan = Plan::draw(seed);
            match &plan.cluster.files {
                None => none += 1,
                Some(files) if files.nodes == plan.nodes() => all += 1,
                Some(_) => some += 1,
            }
            let (files, model) = (plan.clone().with_stores(Stores::Files), plan.with_stores(Stores::Model));
            assert_eq!(files.cluster.files.as_ref().map(|files| &files.nodes), Some(&files.nodes()), "seed {seed}");
            assert_eq!(files.with_stores(Stores::Model), model, "seed {seed}");
        }
        assert!(none > 20 && some > 20 && all > 60, "{none} on models, {some} mixed, {all} on files");
    }

    #[test]
    fn a_plan_that_breaks_too_much_is_refused() {
        let mut plan = Plan::draw(1);
        plan.cluster.sacrificed = plan.nodes();
        assert!(matches!(Plan::parse(&plan.to_string()), Err(PlanError::BeyondTolerance { .. })));
        let mistyped = Plan::draw(2).to_string().replace("for_ms", "for_sm");
        assert!(matches!(Plan::parse(&mistyped), Err(PlanError::Syntax(_))), "a key that there is not");
        let mut lossy = Plan::draw(3);
        lossy.cluster.loss = false;
        lossy.faults.push(Fault { at_ms: 1, for_ms: 1, kind: Kind::Destroy });
        assert!(matches!(Plan::parse(&lossy.to_string()), Err(PlanError::LossNotExpected)));
        let mut grouped = (0..).map(Plan::draw).find(|plan| plan.cluster.group.is_some()).expect("half of them are");
        grouped.cluster.group.iter_mut().for_each(|group| group.members = 2);
        assert!(matches!(Plan::parse(&grouped.to_string()), Err(PlanError::BadGroup | PlanError::NoSuchHost { .. })));
        grouped.cluster.group = None;
        grouped.faults = vec![Fault { at_ms: 1, for_ms: 1, kind: Kind::PowerLoss }];
        assert!(matches!(Plan::parse(&grouped.to_string()), Err(PlanError::NoGroup)));
        let mut narrow = Plan::draw(4).with_stores(Stores::Files);
        narrow.cluster.files.iter_mut().for_each(|files| files.file_blocks = 2);
        assert!(matches!(Plan::parse(&narrow.to_string()), Err(PlanError::TooFewBlocks)));
        plan.cluster.sacrificed = vec!["n99".to_owned()];
        assert!(matches!(Plan::parse(&plan.to_string()), Err(PlanError::NoSuchHost { .. })));
    }
}
