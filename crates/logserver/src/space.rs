//! How full the disk is, and who may still use it: the core of a full disk.
//!
//! ```text
//!  free bytes ─────────────────────────────────────────────────────────────────────────────► 0
//!   Ample          │ Low               │ Full            │ Scarce           │ Exhausted
//!   everything     │ no new loglets    │ no stores       │ no repairs       │ the ballast is given up
//!                  soft mark           hard mark         repair mark        ballast mark
//!                                      └───────── reserve: seals, settles, trims, reads, metadata ───┘
//! ```
//!
//! A store is refused before the file system is full, so that what is left is there for the small writes that lead out
//! of the state: a seal and a settle move a log to other disks, a trim gives space back. Leaving a state needs no
//! restart and nobody's help: the next look at the disk decides.

#[cfg(test)]
mod tests;

use bifrost_wire::node::DiskSpace;
pub use bifrost_wire::node::Fullness;

use crate::options::InvalidOption;

/// A mark is left behind only when this part of it is free above it, so that the answer does not change with every
/// group near a mark.
const HYSTERESIS: u64 = 8;
/// The reserve holds this many write buffers at least: what is in memory is written once more, into files.
const WRITE_BUFFERS: u64 = 4;
/// Least bytes that are free before the ballast is given up.
const BALLAST_MARK_MIN: u64 = 1 << 20;
/// Largest reserve that is chosen without being asked for.
const RESERVE_MAX: u64 = 1 << 30;

/// How much of a disk is kept free, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceOptions {
    /// Free bytes below which stores are refused, from 1 MiB to 1 TiB. Default (`None`): 5 % of the file system, at most
    /// 1 GiB, at least four write buffers, and never more than half of the file system. Seals, settles and trims take a
    /// few hundred bytes each; most of it is for flush and compaction, which write anew what they are about to drop.
    pub reserve_bytes: Option<u64>,
    /// Size of the ballast file, up to 16 GiB; 0 for none. Default (`None`): half a write buffer, at most 2 % of the
    /// file system. It is what seals and trims live on when others have filled the file system to the last byte.
    pub ballast_bytes: Option<u64>,
}

impl SpaceOptions {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`InvalidOption`] names the first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidOption> {
        for (option, value, least, most) in [
            ("reserve_bytes", self.reserve_bytes.unwrap_or(RESERVE_MAX), 1 << 20, 1 << 40),
            ("ballast_bytes", self.ballast_bytes.unwrap_or(0), 0, 1 << 34),
        ] {
            if value < least || value > most {
                let bound = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
                return Err(InvalidOption { option, least: bound(least), most: bound(most) });
            }
        }
        Ok(())
    }

    /// The marks on a file system of `total_bytes`, for a store that keeps `write_buffer_bytes` in memory.
    pub fn marks(&self, total_bytes: u64, write_buffer_bytes: u64) -> Marks {
        let scaled = (total_bytes / 20).min(RESERVE_MAX).max(write_buffer_bytes.saturating_mul(WRITE_BUFFERS));
        let reserve = self.reserve_bytes.unwrap_or_else(|| scaled.min(total_bytes / 2));
        Marks {
            total_bytes,
            new_loglets: reserve.saturating_add(reserve / 2),
            stores: reserve,
            repairs: reserve / 2,
            // At least what metadata on the same file system wants free.
            ballast: (reserve / 8).max(BALLAST_MARK_MIN).min(reserve / 2),
            ballast_bytes: self.ballast_bytes.unwrap_or_else(|| (write_buffer_bytes / 2).min(total_bytes / 50)),
        }
    }
}

/// Free bytes at which something ends. `ballast <= repairs <= stores <= new_loglets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// What the file system holds in all.
    pub total_bytes: u64,
    /// The soft mark: below it placement should choose another disk.
    pub new_loglets: u64,
    /// The hard mark: below it stores are refused. What is free there is the reserve.
    pub stores: u64,
    /// Below it repairs are refused too; they are bounded by a sequencer's window and go deeper than stores.
    pub repairs: u64,
    /// Below it the ballast is given up.
    pub ballast: u64,
    /// How much the ballast gives back.
    pub ballast_bytes: u64,
}

/// Who wants to write. Seals, settles and trims are not asked: they are tried to the last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// A sequencer stores.
    Store,
    /// A finder repairs.
    Repair,
}

/// What a look at the disk showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Whether the ballast is there.
    pub ballast: bool,
}

/// What to do about the ballast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BallastStep {
    /// Give it up now.
    GiveUp,
    /// There is room for it: make it again.
    Make,
}

/// Decides who may still write. Stores are counted between two looks, so a burst cannot run through the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceCore {
    marks: Marks,
    fullness: Fullness,
    /// What was free at the last look, less what was let in since.
    left_bytes: u64,
}

impl SpaceCore {
    /// A disk that nobody looked at yet.
    pub const fn new(marks: Marks) -> Self {
        Self { marks, fullness: Fullness::Ample, left_bytes: u64::MAX }
    }

    /// How full it was at the last look.
    pub const fn fullness(&self) -> Fullness {
        self.fullness
    }

    /// Takes note of what is free now.
    pub fn observe(&mut self, look: Look) -> Option<BallastStep> {
        self.left_bytes = look.free_bytes;
        let now = self.marks.fullness(look.free_bytes);
        self.fullness = if now >= self.fullness {
            now
        } else {
            // Better than before only if it stays so with an eighth less.
            self.marks.fullness(look.free_bytes - look.free_bytes / HYSTERESIS).min(self.fullness)
        };
        let room = self.marks.stores.saturating_add(self.marks.ballast_bytes);
        match look.ballast {
            true if self.fullness == Fullness::Exhausted => Some(BallastStep::GiveUp),
            false if self.fullness <= Fullness::Low && self.marks.ballast_bytes > 0 && look.free_bytes > room => {
                Some(BallastStep::Make)
            }
            true | false => None,
        }
    }

    /// Lets `bytes` in, or refuses them.
    pub fn admit(&mut self, demand: Demand, bytes: u64) -> bool {
        let (mark, worst) = match demand {
            Demand::Store => (self.marks.stores, Fullness::Low),
            Demand::Repair => (self.marks.repairs, Fullness::Full),
        };
        let left = self.left_bytes.checked_sub(bytes).filter(|left| *left >= mark && self.fullness <= worst);
        if let Some(left) = left {
            self.left_bytes = left;
        }
        left.is_some()
    }
}

impl Marks {
    /// How a disk is told to others.
    pub(crate) fn space(&self, free_bytes: u64) -> Option<DiskSpace> {
        let total_bytes = self.total_bytes;
        // A file system that says that it holds nothing says nothing.
        (total_bytes > 0).then_some(DiskSpace {
            total_bytes,
            free_bytes,
            soft_mark_bytes: self.new_loglets,
            hard_mark_bytes: self.stores,
        })
    }

    const fn fullness(&self, free_bytes: u64) -> Fullness {
        if free_bytes < self.ballast {
            Fullness::Exhausted
        } else if free_bytes < self.repairs {
            Fullness::Scarce
        } else if free_bytes < self.stores {
            Fullness::Full
        } else if free_bytes < self.new_loglets {
            Fullness::Low
        } else {
            Fullness::Ample
        }
    }
}
