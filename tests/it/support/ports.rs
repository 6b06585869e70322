//! Ports for processes that come back to them: a restart has to find them free.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that the system gives to outgoing connections, so that none of those takes one while its owner is down.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;
/// Processes that run side by side begin at different ports.
const STRIDE: u32 = 97;

/// So many ports in a row, given to nobody else in this process and used by nobody now.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..COUNT {
        let offset = u32::from(NEXT.fetch_add(count, Ordering::Relaxed)) + std::process::id() * STRIDE;
        let first = FIRST + u16::try_from(offset % u32::from(COUNT)).expect("less than the count");
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} free ports in a row")
}

/// An address that nobody listens at, now or by chance later.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_ports(1))
}
