//! How fast bytes may be moved: a bucket that is paid afterwards, because nobody knows before how large an answer is.

use std::num::NonZeroU64;
use std::time::Duration;

/// So far ahead of its rate may somebody be who was idle.
const BURST: Duration = Duration::from_millis(100);

/// The bucket. Times are since an arbitrary start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    bytes_per_second: NonZeroU64,
    /// What was moved so far is within the rate from then on.
    paid_at: Duration,
}

impl Pace {
    /// Nothing was moved yet.
    pub const fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, paid_at: Duration::ZERO }
    }

    /// So many bytes were moved.
    pub fn moved(&mut self, now: Duration, bytes: u64) {
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.bytes_per_second.get()));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_at = self.paid_at.max(now).saturating_add(cost);
    }

    /// When more may be moved.
    pub fn ready_at(&self) -> Duration {
        self.paid_at.saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_is_moved_however_large_the_pieces_are() {
        let rate = NonZeroU64::new(1 << 20).expect("not 0");
        for piece in [100, 4096, 1 << 20, 5 << 20] {
            let mut pace = Pace::new(rate);
            let (mut now, mut moved) = (Duration::ZERO, 0_u64);
            while now < Duration::from_secs(60) {
                now = now.max(pace.ready_at());
                pace.moved(now, piece);
                moved += piece;
                let allowed = (now + BURST).as_secs_f64() * rate.get() as f64 + 2.0 * piece as f64;
                assert!(moved as f64 <= allowed, "{moved} bytes after {now:?} in pieces of {piece}");
            }
            assert!(moved >= 59 << 20, "{moved} bytes in a minute in pieces of {piece}");
        }
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut pace = Pace::new(NonZeroU64::new(1000).expect("not 0"));
        pace.moved(Duration::from_secs(100), 1000);
        assert_eq!(pace.ready_at(), Duration::from_secs(101) - BURST);
    }
}
