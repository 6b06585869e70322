//! Where: positions in a log and in a loglet. Arithmetic is checked; running out is an error that leads to a new loglet.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use thiserror::Error;

use crate::id::InvalidId;

/// The range of positions is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no position {distance} beyond {at}")]
pub struct OutOfPositions {
    /// Where the step began.
    pub at: u64,
    /// How far it should have gone.
    pub distance: u64,
}

macro_rules! position {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The first position, 1.
            pub const FIRST: Self = Self(NonZeroU64::MIN);
            /// The last position that can be named.
            pub const MAX: Self = Self(NonZeroU64::MAX);

            /// Makes the position from a number, or `None` for 0.
            pub const fn new(value: u64) -> Option<Self> {
                match NonZeroU64::new(value) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The number of the position, at least 1.
            pub const fn get(self) -> u64 {
                self.0.get()
            }

            /// The position `records` further on.
            ///
            /// # Errors
            /// [`OutOfPositions`] at the end of the range.
            pub const fn advance(self, records: u64) -> Result<Self, OutOfPositions> {
                match self.0.checked_add(records) {
                    Some(value) => Ok(Self(value)),
                    None => Err(OutOfPositions { at: self.0.get(), distance: records }),
                }
            }

            /// How many positions lie in `[earlier, self)`, or `None` if `earlier` is later.
            pub const fn distance_from(self, earlier: Self) -> Option<u64> {
                self.0.get().checked_sub(earlier.0.get())
            }

            /// The position before this one, or `None` for the first.
            pub const fn previous(self) -> Option<Self> {
                Self::new(self.0.get() - 1)
            }
        }

        impl TryFrom<u64> for $name {
            type Error = InvalidId;

            fn try_from(value: u64) -> Result<Self, InvalidId> {
                Self::new(value).ok_or(InvalidId { kind: $kind })
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let value = text.parse::<u64>().map_err(|_| InvalidId { kind: $kind })?;
                Self::try_from(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

position! {
    /// Position of a record in a log, from 1. Only grows (promise 3).
    Lsn, "LSN"
}

position! {
    /// Position of a record in a loglet, from 1. `lsn = base_lsn + offset - 1`.
    LogletOffset, "loglet offset"
}

impl LogletOffset {
    /// The LSN of this offset in a segment that starts at `base_lsn`.
    ///
    /// # Errors
    /// [`OutOfPositions`] at the end of the range.
    pub const fn to_lsn(self, base_lsn: Lsn) -> Result<Lsn, OutOfPositions> {
        base_lsn.advance(self.get() - 1)
    }

    /// The offset of `lsn` in a segment that starts at `base_lsn`, or `None` if `lsn` lies before the segment.
    pub const fn from_lsn(lsn: Lsn, base_lsn: Lsn) -> Option<Self> {
        match lsn.distance_from(base_lsn) {
            Some(distance) => match distance.checked_add(1) {
                Some(value) => Self::new(value),
                None => None,
            },
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_the_range_is_an_error_not_a_wrap() {
        assert!(Lsn::MAX.advance(1).is_err());
        assert_eq!(Lsn::MAX.advance(0), Ok(Lsn::MAX));
        assert!(LogletOffset::MAX.to_lsn(Lsn::new(2).expect("non-zero")).is_err());
        assert_eq!(LogletOffset::from_lsn(Lsn::MAX, Lsn::FIRST), Some(LogletOffset::MAX));
    }

    proptest! {
        #[test]
        fn offsets_and_lsns_map_both_ways(base in 1..=u64::MAX, offset in 1..=u64::MAX) {
            let base = Lsn::new(base).expect("non-zero");
            let offset = LogletOffset::new(offset).expect("non-zero");
            if let Ok(lsn) = offset.to_lsn(base) {
                prop_assert_eq!(LogletOffset::from_lsn(lsn, base), Some(offset));
            }
        }
    }
}
