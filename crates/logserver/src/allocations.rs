//! What a store costs a log server in allocations. They are counted, not timed: a copy of payloads or an allocation for each
//! record shows here on the day it comes. A bound that has to grow wants a reason. The files have theirs in
//! `store/files/tests.rs`.

use std::sync::Arc;

use bifrost_wire::log_server::LogServer;
use tokio::runtime::Builder;

use crate::store::memory::MemoryStore;
use crate::testing::*;

#[test]
fn a_store_costs_a_log_server_as_much_with_many_records_as_with_one() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let cost = |records: u64| {
        let server = runtime.block_on(start(Arc::new(MemoryStore::new())));
        let mut stream = runtime.block_on(server.open_store()).unwrap();
        let mut requests: Vec<_> =
            (0..33).map(|turn| Some(store_request(loglet(1, 0), 1, turn * records + 1, &[records]))).collect();
        let info = usual(|turn| {
            let request = requests[turn as usize].take().unwrap();
            runtime.block_on(exchange(&mut stream, request)).unwrap();
        });
        runtime.block_on(server.shutdown());
        info
    };
    let (one, many) = (cost(1), cost(256));
    assert!(one.count_total <= 6, "{one:?}");
    assert!(many.count_total <= one.count_total, "{many:?}");
    assert!(many.bytes_total <= one.bytes_total + 256, "a payload was copied: {many:?}");
}
