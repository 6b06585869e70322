#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::store::conformance::{self, Lives};
use crate::store::memory::MemoryStore;
use crate::testing::*;

struct Life(Arc<MemoryStore>, usize);

impl Lives for Life {
    type Store = Recent<MemoryStore>;

    async fn open(&mut self) -> Recent<MemoryStore> {
        Recent::new(Arc::clone(&self.0), self.1)
    }

    async fn close(&mut self, store: Recent<MemoryStore>) {
        drop(store);
    }
}

#[tokio::test]
async fn the_contract_holds_with_much_and_with_little_memory() {
    for bytes_max in [0, 300, 1 << 20] {
        conformance::run(&mut Life(Arc::new(MemoryStore::new()), bytes_max)).await;
    }
}

fn append(number: u64, first_offset: u64, records: u64) -> Change {
    Change::Append { loglet: loglet(number, 0), batch: placed(first_offset, records) }
}

fn group(changes: impl IntoIterator<Item = Change>) -> Group {
    let mut group = Group::default();
    changes.into_iter().for_each(|change| group.push(change));
    group
}

#[derive(Debug, Clone)]
enum Act {
    Append { loglet: u64, skip: u64, records: u64 },
    Again { loglet: u64, back: u64 },
    DropBelow { loglet: u64, back: u64 },
    DropFrom { loglet: u64, back: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let loglet = || 1..4_u64;
    prop_oneof![
        8 => (loglet(), 0..1_u64, 1..4_u64).prop_map(|(loglet, skip, records)| Act::Append { loglet, skip, records }),
        1 => (loglet(), 1..4_u64, 1..4_u64).prop_map(|(loglet, skip, records)| Act::Append { loglet, skip, records }),
        1 => (loglet(), 1..9_u64).prop_map(|(loglet, back)| Act::Again { loglet, back }),
        2 => (loglet(), 0..20_u64).prop_map(|(loglet, back)| Act::DropBelow { loglet, back }),
        1 => (loglet(), 0..9_u64).prop_map(|(loglet, back)| Act::DropFrom { loglet, back }),
    ]
}

proptest! {
    #[test]
    fn it_answers_as_the_store_alone_does(
        acts in prop::collection::vec(act(), 1..60),
        bytes_max in prop_oneof![Just(0_usize), 200..3000_usize, Just(1 << 20)],
        max_bytes in prop_oneof![Just(0_usize), 1..600_usize, Just(usize::MAX)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(MemoryStore::new());
            let recent = Recent::new(Arc::clone(&store), bytes_max);
            let mut ends = [1_u64; 4];
            for act in acts {
                let change = match act {
                    Act::Append { loglet, skip, records } => {
                        let end = &mut ends[loglet as usize];
                        let change = append(loglet, *end + skip, records);
                        *end += skip + records;
                        change
                    }
                    // As a repair does, with the same bytes, or behind a drop.
                    Act::Again { loglet: number, back } => {
                        let from = ends[number as usize].saturating_sub(back).max(1);
                        let found = store.read(loglet(number, 0), at(from), at(from + 1), 0).await.unwrap();
                        let Some(Stored::Batch(batch)) = found.parts.into_iter().next() else { continue };
                        Change::Append { loglet: loglet(number, 0), batch }
                    }
                    Act::DropBelow { loglet: number, back } => {
                        let offset = at(ends[number as usize].saturating_sub(back).max(1));
                        Change::DropBelow { loglet: loglet(number, 0), offset }
                    }
                    Act::DropFrom { loglet: number, back } => {
                        let offset = ends[number as usize].saturating_sub(back).max(1);
                        let change = Change::DropFrom { loglet: loglet(number, 0), offset: at(offset) };
                        recent.commit(group([change])).await.unwrap();
                        let found = store.read(loglet(number, 0), at(1), at(1 << 20), usize::MAX).await.unwrap();
                        ends[number as usize] = found.parts.last().map_or(offset, |last| last.end().get().max(offset));
                        continue;
                    }
                };
                recent.commit(group([change])).await.unwrap();
                for (number, end) in (0_u64..).zip(ends).skip(1) {
                    for from in end.saturating_sub(12).max(1)..=end {
                        for until in from..=end + 2 {
                            let of = loglet(number, 0);
                            let wanted = store.read(of, at(from), at(until), max_bytes).await.unwrap();
                            let found = recent.read(of, at(from), at(until), max_bytes).await.unwrap();
                            assert_eq!(found, wanted, "{of} [{from}, {until})");
                        }
                    }
                }
                let kept = recent.kept.lock();
                assert!(kept.bytes <= kept.bytes_max, "{} of {} bytes", kept.bytes, kept.bytes_max);
                let batches: usize = kept.runs.values().map(VecDeque::len).sum();
                assert_eq!(kept.batches, batches);
                assert!(kept.order.len() <= 2 * batches + 65, "{} entries for {batches} batches", kept.order.len());
            }
        });
    }
}

#[tokio::test]
async fn what_was_refused_is_not_read() {
    let store = Arc::new(MemoryStore::new());
    let recent = Recent::new(Arc::clone(&store), 1 << 20);
    recent.commit(group([append(1, 1, 2)])).await.unwrap();
    store.set_full(true);
    assert!(matches!(recent.commit(group([append(1, 3, 2)])).await, Err(StoreError::Full)));
    let found = recent.read(loglet(1, 0), at(1), at(5), usize::MAX).await.unwrap();
    assert_eq!(found.parts, [Stored::Batch(placed(1, 2))]);
}

#[tokio::test]
async fn readers_at_the_end_do_not_ask_the_store() {
    let store = Arc::new(MemoryStore::new());
    let recent = Recent::new(Arc::clone(&store), 1 << 20);
    recent.commit(group([append(1, 1, 2), append(1, 3, 2)])).await.unwrap();
    assert!(store.damage(loglet(1, 0), at(3)), "it is there");
    let found = recent.read(loglet(1, 0), at(3), at(5), usize::MAX).await.unwrap();
    assert_eq!(found.parts, [Stored::Batch(placed(3, 2))], "not from the store");
}
