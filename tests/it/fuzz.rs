//! Every fuzz target, briefly: its seeds, its seeds damaged, and random bytes. `make fuzz` runs them at length, guided by
//! coverage. proptest prints the smallest input that fails and its seed.

use bifrost_fuzz::TARGETS;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// What a fuzzer does to an input.
#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let interesting = prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)];
    prop_oneof![
        (any::<Index>(), interesting).prop_map(|(place, value)| Damage::Set(place, value)),
        (any::<Index>(), 0_u8..8).prop_map(|(place, bit)| Damage::Flip(place, bit)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..16)).prop_map(|(place, new)| Damage::Insert(place, new)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match damage {
        Damage::Set(place, value) => bytes[place.index(length)] = *value,
        Damage::Flip(place, bit) => bytes[place.index(length)] ^= 1 << bit,
        Damage::Cut(place) => bytes.truncate(place.index(length)),
        Damage::Insert(place, new) => {
            let place = place.index(length);
            bytes.splice(place..place, new.iter().copied());
        }
        Damage::Repeat(from, to) => {
            let (from, to) = (from.index(length), to.index(length));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.extend(part);
        }
    }
}

#[test]
fn no_decoder_panics_on_bytes_of_a_peer_or_a_disk() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has something to start from", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
        let inputs = prop_oneof![
            3 => (prop::sample::select(seeds), prop::collection::vec(damage(), 1..8)).prop_map(|(mut bytes, damages)| {
                damages.iter().for_each(|damage| apply(&mut bytes, damage));
                bytes
            }),
            1 => prop::collection::vec(any::<u8>(), 0..512),
        ];
        // PROPTEST_CASES makes it longer.
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            ..Config::with_cases(2_000.max(Config::default().cases))
        });
        let outcome = runner.run(&inputs, |bytes| {
            (target.run)(&bytes);
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("fuzz target {}: {failure}", target.name);
        }
    }
}
