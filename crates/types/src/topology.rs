//! Where copies may lie: locations, nodesets, and how many failure domains a record must reach.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::id::{DiskId, NodeId};
use crate::limits::NODESET_MAX;

/// A kind of failure domain, from the smallest to the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One node.
    Node,
    /// All nodes of one zone of one region.
    Zone,
    /// All nodes of one region.
    Region,
}

impl Scope {
    /// All scopes, smallest first.
    pub const ALL: [Self; 3] = [Self::Node, Self::Zone, Self::Region];

    /// The word for it in a replication property.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Region => "region",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a node stands. Both names may be empty: then all nodes share one domain of that scope. Printed `region.zone`.
/// The names are shared: a chain repeats them for each member of each segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Location {
    /// The region's name.
    pub region: Arc<str>,
    /// The zone's name within the region.
    pub zone: Arc<str>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who names zones only, or regions only, reads just that.
        let dot = if self.region.is_empty() || self.zone.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.region, self.zone)
    }
}

/// One place of a nodeset: the disk that votes (W2), and where it stood when the loglet was made. The location is
/// frozen here because the quorum algebra of a loglet must not change when somebody relabels a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub disk: DiskId,
    /// Where it stood.
    pub location: Location,
}

/// Index of a member within its nodeset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(u8);

impl NodeIndex {
    /// The index as a number below [`NODESET_MAX`].
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// The members that may hold a loglet's records, ordered by node id: 1 to [`NODESET_MAX`] of them, each node once. Cheap to
/// clone: the thousands of segments of a chain share a few.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nodeset(Arc<[Member]>);

/// Why a list of members is not a nodeset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NodesetError {
    /// No member.
    #[error("a nodeset needs at least one member")]
    Empty,
    /// More than [`NODESET_MAX`] members.
    #[error("a nodeset of {members} is larger than {NODESET_MAX}")]
    TooLarge {
        /// How many were given.
        members: usize,
    },
    /// The same node twice.
    #[error("{node} is named twice")]
    Duplicate {
        /// The node.
        node: NodeId,
    },
}

impl Nodeset {
    /// Makes a nodeset; the order of `members` does not matter.
    ///
    /// # Errors
    /// [`NodesetError`] when empty, too large, or naming a node twice.
    pub fn new(mut members: Vec<Member>) -> Result<Self, NodesetError> {
        if members.is_empty() {
            return Err(NodesetError::Empty);
        }
        if members.len() > NODESET_MAX {
            return Err(NodesetError::TooLarge { members: members.len() });
        }
        members.sort_by_key(|member| member.node);
        for pair in members.windows(2) {
            if let [one, two] = pair
                && one.node == two.node
            {
                return Err(NodesetError::Duplicate { node: one.node });
            }
        }
        Ok(Self(members.into()))
    }

    /// The members, by node id.
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// How many members there are, at least 1.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// All indexes, ascending.
    pub fn indexes(&self) -> impl ExactSizeIterator<Item = NodeIndex> + use<> {
        (0..self.0.len()).map(|index| NodeIndex(index as u8))
    }

    /// Members with their indexes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (NodeIndex, &Member)> {
        self.0.iter().enumerate().map(|(index, member)| (NodeIndex(index as u8), member))
    }

    /// The member at an index of this nodeset.
    pub fn member(&self, index: NodeIndex) -> Option<&Member> {
        self.0.get(index.get())
    }

    /// The index of a node, or `None` if it is no member.
    pub fn index_of(&self, node: NodeId) -> Option<NodeIndex> {
        self.0.binary_search_by_key(&node, |member| member.node).ok().map(|index| NodeIndex(index as u8))
    }
}

/// A subset of one nodeset, as a bit set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeSet(u128);

const _: () = assert!(NODESET_MAX <= u128::BITS as usize, "a nodeset fits a bit set");

impl NodeSet {
    /// No member.
    pub const EMPTY: Self = Self(0);

    /// Adds a member; returns whether it was new.
    pub const fn insert(&mut self, index: NodeIndex) -> bool {
        let bit = 1_u128 << index.0;
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    /// Removes a member.
    pub const fn remove(&mut self, index: NodeIndex) {
        self.0 &= !(1_u128 << index.0);
    }

    /// Whether it is in.
    pub const fn contains(self, index: NodeIndex) -> bool {
        self.0 & (1_u128 << index.0) != 0
    }

    /// How many are in.
    pub const fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether none is in.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = NodeIndex> {
        (0..u128::BITS as u8).map(NodeIndex).filter(move |index| self.contains(*index))
    }
}

impl FromIterator<NodeIndex> for NodeSet {
    fn from_iter<T: IntoIterator<Item = NodeIndex>>(indexes: T) -> Self {
        let mut set = Self::EMPTY;
        for index in indexes {
            set.insert(index);
        }
        set
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(NodeIndex::get)).finish()
    }
}

/// How many distinct failure domains of each scope a record must reach before it is acknowledged, for example
/// `{zone: 2, node: 3}`. The node count is always set and at least as large as any other. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicationProperty(Arc<BTreeMap<Scope, NonZeroU8>>);

/// Why a text or a map is not a replication property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PropertyError {
    /// Not of the form `2` or `{zone: 2, node: 3}`.
    #[error("expected a number of nodes such as 2, or domains such as {{zone: 2, node: 3}}")]
    Syntax,
    /// A larger domain asks for more copies than a smaller one.
    #[error("{larger}: {larger_count} asks for more copies than {smaller}: {smaller_count}")]
    Inverted {
        /// The larger scope.
        larger: Scope,
        /// Its count.
        larger_count: u8,
        /// The smaller scope.
        smaller: Scope,
        /// Its count.
        smaller_count: u8,
    },
    /// More copies than a nodeset can have.
    #[error("{count} copies are more than a nodeset can have")]
    TooMany {
        /// The wanted count.
        count: u8,
    },
}

impl ReplicationProperty {
    /// That many nodes, wherever they stand.
    pub fn nodes(count: NonZeroU8) -> Self {
        Self(Arc::new(BTreeMap::from([(Scope::Node, count)])))
    }

    /// Makes a property; a missing node count is the largest of the others.
    ///
    /// # Errors
    /// [`PropertyError`] when no scope is given, a larger scope asks for more than a smaller one, or more than
    /// [`NODESET_MAX`] copies are wanted.
    pub fn new(counts: impl IntoIterator<Item = (Scope, NonZeroU8)>) -> Result<Self, PropertyError> {
        let mut counts: BTreeMap<Scope, NonZeroU8> = counts.into_iter().collect();
        let most = counts.values().copied().max().ok_or(PropertyError::Syntax)?;
        if usize::from(most.get()) > NODESET_MAX {
            return Err(PropertyError::TooMany { count: most.get() });
        }
        counts.entry(Scope::Node).or_insert(most);
        let mut below: Option<(Scope, NonZeroU8)> = None;
        for (&scope, &count) in &counts {
            if let Some((smaller, smaller_count)) = below
                && count > smaller_count
            {
                return Err(PropertyError::Inverted {
                    larger: scope,
                    larger_count: count.get(),
                    smaller,
                    smaller_count: smaller_count.get(),
                });
            }
            below = Some((scope, count));
        }
        Ok(Self(Arc::new(counts)))
    }

    /// The wanted counts, smallest scope first; always names [`Scope::Node`].
    pub fn counts(&self) -> impl Iterator<Item = (Scope, NonZeroU8)> + '_ {
        self.0.iter().map(|(&scope, &count)| (scope, count))
    }

    /// Copies of each record: the node count.
    pub fn copies(&self) -> NonZeroU8 {
        self.0.get(&Scope::Node).copied().unwrap_or(NonZeroU8::MIN)
    }
}

impl fmt::Display for ReplicationProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (place, (scope, count)) in self.0.iter().rev().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{scope}: {count}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for ReplicationProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReplicationProperty {
    type Err = PropertyError;

    fn from_str(text: &str) -> Result<Self, PropertyError> {
        let text = text.trim();
        if let Ok(count) = text.parse::<NonZeroU8>() {
            return Self::new([(Scope::Node, count)]);
        }
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(PropertyError::Syntax)?;
        let mut counts = BTreeMap::new();
        for part in inner.split(',') {
            let (name, count) = part.split_once(':').ok_or(PropertyError::Syntax)?;
            let scope =
                Scope::ALL.into_iter().find(|scope| scope.name() == name.trim()).ok_or(PropertyError::Syntax)?;
            let count = count.trim().parse::<NonZeroU8>().map_err(|_| PropertyError::Syntax)?;
            if counts.insert(scope, count).is_some() {
                return Err(PropertyError::Syntax);
            }
        }
        Self::new(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_prints_and_parses() {
        for (text, printed) in [
            ("2", "{node: 2}"),
            ("{node: 2}", "{node: 2}"),
            ("{ zone: 2, node: 3 }", "{zone: 2, node: 3}"),
            ("{region: 2}", "{region: 2, node: 2}"),
        ] {
            let property: ReplicationProperty = text.parse().expect(text);
            assert_eq!(property.to_string(), printed);
            assert_eq!(printed.parse(), Ok(property));
        }
    }

    #[test]
    fn a_property_that_no_nodeset_can_meet_by_its_form_is_refused() {
        for text in ["", "0", "{}", "{node: 0}", "{rack: 2}", "{zone: 3, node: 2}", "{node: 2, node: 3}", "200"] {
            assert!(text.parse::<ReplicationProperty>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_nodeset_names_each_node_once() {
        let member = |node: u32| Member {
            node: NodeId::try_from(node).expect("non-zero"),
            disk: DiskId::try_from(u128::from(node)).expect("non-zero"),
            location: Location::default(),
        };
        let nodeset = Nodeset::new(vec![member(3), member(1)]).expect("two nodes");
        assert_eq!(nodeset.index_of(member(3).node).map(NodeIndex::get), Some(1));
        assert_eq!(Nodeset::new(Vec::new()), Err(NodesetError::Empty));
        assert!(matches!(Nodeset::new(vec![member(3), member(3)]), Err(NodesetError::Duplicate { .. })));
    }
}
