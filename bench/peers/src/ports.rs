//! Ports of loopback that nobody uses.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;

/// Below the ports that the system gives to outgoing connections: a member that starts must not find that another one's
/// connection has taken its port.
const PORTS: Range<u16> = 12_000..32_000;

/// So many different ones, none of which was given before. They are free now; who listens elsewhere must not want them.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.start);
    let mut ports = [0; N];
    for port in &mut ports {
        *port = loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            anyhow::ensure!(PORTS.contains(&next), "no free port on loopback");
            if TcpListener::bind((Ipv4Addr::LOCALHOST, next)).is_ok() {
                break next;
            }
        };
    }
    Ok(ports)
}

/// So many for each of three members.
pub(crate) fn of_members<const N: usize>() -> Result<[[u16; N]; 3]> {
    let [a, b, c] = [free()?, free()?, free()?];
    Ok([a, b, c])
}
