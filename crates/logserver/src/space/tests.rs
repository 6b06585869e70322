#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn look(free_bytes: u64) -> Look {
    Look { free_bytes, ballast: true }
}

/// Marks at 150, 100, 50 and 12 MiB.
fn core() -> SpaceCore {
    let options = SpaceOptions { reserve_bytes: Some(100 * MIB), ballast_bytes: Some(MIB) };
    SpaceCore::new(options.marks(GIB, MIB))
}

#[test]
fn each_mark_ends_something_and_the_small_writes_come_last() {
    for (free, fullness, store, repair) in [
        (200, Fullness::Ample, true, true),
        (149, Fullness::Low, true, true),
        (99, Fullness::Full, false, true),
        (49, Fullness::Scarce, false, false),
        (11, Fullness::Exhausted, false, false),
        (0, Fullness::Exhausted, false, false),
    ] {
        let mut core = core();
        core.observe(look(free * MIB));
        assert_eq!(core.fullness(), fullness, "{free} MiB");
        assert_eq!(core.admit(Demand::Store, 1000), store, "{free} MiB");
        assert_eq!(core.admit(Demand::Repair, 1000), repair, "{free} MiB");
    }
}

#[test]
fn a_state_is_left_only_well_above_its_mark() {
    let mut core = core();
    core.observe(look(99 * MIB));
    core.observe(look(101 * MIB));
    assert_eq!(core.fullness(), Fullness::Full, "an eighth above the mark is wanted");
    assert!(!core.admit(Demand::Store, 1));
    core.observe(look(115 * MIB));
    assert_eq!(core.fullness(), Fullness::Low);
    assert!(core.admit(Demand::Store, 1));
    core.observe(look(0));
    core.observe(look(900 * MIB));
    assert_eq!(core.fullness(), Fullness::Ample, "one look is enough");
}

#[test]
fn a_burst_between_two_looks_stops_at_the_mark() {
    let mut core = core();
    core.observe(look(160 * MIB));
    for _ in 0..6 {
        assert!(core.admit(Demand::Store, 10 * MIB));
    }
    assert!(!core.admit(Demand::Store, 1), "160 - 60 is the mark");
    assert!(core.admit(Demand::Repair, 50 * MIB), "repairs go deeper");
    assert!(!core.admit(Demand::Repair, 1));
    assert!(!core.admit(Demand::Store, u64::MAX));
}

#[test]
fn the_ballast_goes_when_the_reserve_is_gone_and_comes_back_with_room() {
    let mut core = core();
    assert_eq!(core.observe(Look { free_bytes: GIB, ballast: false }), Some(BallastStep::Make));
    assert_eq!(core.observe(look(13 * MIB)), None);
    assert_eq!(core.observe(look(12 * MIB)), Some(BallastStep::GiveUp));
    assert_eq!(core.observe(Look { free_bytes: 13 * MIB, ballast: false }), None, "it would be given up again");
    assert_eq!(core.observe(Look { free_bytes: 100 * MIB, ballast: false }), None);
    assert_eq!(core.observe(Look { free_bytes: 120 * MIB, ballast: false }), Some(BallastStep::Make));
}

#[test]
fn defaults_scale_with_the_disk() {
    let options = SpaceOptions::default();
    assert_eq!(options.validate(), Ok(()));
    assert_eq!(options.marks(1 << 40, 64 * MIB).stores, GIB);
    assert_eq!(options.marks(10 * GIB, 64 * MIB).stores, 512 * MIB);
    assert_eq!(options.marks(GIB, 64 * MIB).stores, 256 * MIB, "four write buffers");
    assert_eq!(options.marks(100 * MIB, 64 * MIB).stores, 50 * MIB, "half is for records, however small the disk");
    assert_eq!(options.marks(GIB, 64 * MIB).ballast_bytes, GIB / 50);
    assert_eq!(options.marks(1 << 40, 64 * MIB).ballast_bytes, 32 * MIB);
}

#[test]
fn options_out_of_bounds_are_refused() {
    let options = SpaceOptions { reserve_bytes: Some(1), ballast_bytes: None };
    assert_eq!(options.validate().unwrap_err().option, "reserve_bytes");
    let options = SpaceOptions { reserve_bytes: None, ballast_bytes: Some(1 << 40) };
    assert_eq!(options.validate().unwrap_err().option, "ballast_bytes");
}

proptest! {
    /// Whatever is seen and let in: no store reaches into the reserve, and no repair below its mark.
    #[test]
    fn nothing_is_let_in_below_its_mark(
        total in MIB..(1_u64 << 42),
        steps in prop::collection::vec((any::<u64>(), any::<u32>(), any::<bool>()), 1..50),
    ) {
        let marks = SpaceOptions::default().marks(total, 64 * MIB);
        prop_assert!(marks.ballast <= marks.repairs && marks.repairs <= marks.stores);
        prop_assert!(marks.stores <= marks.new_loglets && marks.stores <= total / 2);
        let mut core = SpaceCore::new(marks);
        for (free, bytes, store) in steps {
            let mut left = free % (total + 1);
            core.observe(Look { free_bytes: left, ballast: store });
            let (demand, mark) =
                if store { (Demand::Store, marks.stores) } else { (Demand::Repair, marks.repairs) };
            for _ in 0..3 {
                if core.admit(demand, bytes.into()) {
                    left -= u64::from(bytes);
                    prop_assert!(left >= mark);
                }
            }
        }
    }

    /// Hundreds of looks at a disk that fills and empties, with a ballast that comes and goes as the core says.
    #[test]
    fn what_is_said_of_a_disk_follows_from_what_is_free(
        total in 64 * MIB..(1_u64 << 42),
        looks in prop::collection::vec((any::<u64>(), 0..4_u8, any::<bool>()), 1..500),
    ) {
        let marks = SpaceOptions::default().marks(total, MIB);
        let mut core = SpaceCore::new(marks);
        let mut free = total;
        let mut ballast = false;
        for (dice, kind, obeyed) in looks {
            free = match kind {
                0 => dice % (total + 1),
                1 => free.saturating_sub(dice % (total / 16)),
                2 => (free + dice % (total / 16)).min(total),
                _ => (marks.stores + dice % (2 * MIB)).saturating_sub(MIB),
            };
            let before = core.fullness();
            let step = core.observe(Look { free_bytes: free, ballast });
            let now = core.fullness();
            prop_assert!(now >= marks.fullness(free), "better than it is");
            prop_assert!(now <= before.max(marks.fullness(free)), "worse than it was and is");
            // What is a little better than before does not count yet, so that answers do not change with every group.
            prop_assert!(now >= before || now >= marks.fullness(free - free / HYSTERESIS));
            match step {
                Some(BallastStep::GiveUp) => prop_assert!(ballast && now == Fullness::Exhausted),
                Some(BallastStep::Make) => {
                    prop_assert!(!ballast && now <= Fullness::Low);
                    prop_assert!(free - marks.ballast_bytes > marks.stores, "it would be given up again at once");
                }
                None => prop_assert!(!(ballast && now == Fullness::Exhausted), "the last reserve is kept for nobody"),
            }
            if obeyed && let Some(step) = step {
                ballast = step == BallastStep::Make;
            }
        }
    }
}
