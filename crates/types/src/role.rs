//! What a node does for its cluster.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One thing that a node may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It is a member of the metadata group.
    Metadata,
    /// It has a disk and keeps copies.
    LogServer,
    /// It numbers the appends of logs.
    Sequencer,
}

impl Role {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Metadata, Self::LogServer, Self::Sequencer];

    const fn bit(self) -> u8 {
        match self {
            Self::Metadata => 1,
            Self::LogServer => 2,
            Self::Sequencer => 4,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::LogServer => "log-server",
            Self::Sequencer => "sequencer",
        })
    }
}

/// A text that names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a role is metadata, log-server or sequencer")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.to_string() == text).ok_or(UnknownRole)
    }
}

/// Roles of one node, at least one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Roles(u8);

/// A node without any role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a node has at least one role")]
pub struct NoRole;

impl Roles {
    /// Every role.
    pub const ALL: Self = Self(Role::Metadata.bit() | Role::LogServer.bit() | Role::Sequencer.bit());
    /// What every node was before its record said its roles: it keeps copies and numbers appends.
    pub const DATA: Self = Self(Role::LogServer.bit() | Role::Sequencer.bit());

    /// These roles; naming one twice changes nothing.
    ///
    /// # Errors
    /// [`NoRole`] for none at all.
    pub fn new(roles: impl IntoIterator<Item = Role>) -> Result<Self, NoRole> {
        match roles.into_iter().fold(0, |bits, role| bits | role.bit()) {
            0 => Err(NoRole),
            bits => Ok(Self(bits)),
        }
    }

    /// Whether this role is among them.
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// The roles, in order.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, role) in self.iter().enumerate() {
            write!(f, "{}{role}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_a_set_with_at_least_one() {
        assert_eq!(Roles::new([]), Err(NoRole));
        assert_eq!(Roles::new(Role::ALL), Ok(Roles::ALL));
        let two = Roles::new([Role::Sequencer, Role::LogServer, Role::Sequencer]).expect("two");
        assert_eq!((two, two.to_string().as_str()), (Roles::DATA, "log-server, sequencer"));
        assert!(two.has(Role::Sequencer) && !two.has(Role::Metadata));
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("Sequencer".parse::<Role>(), Err(UnknownRole));
    }
}
