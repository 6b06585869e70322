//! Ports of loopback that nobody uses.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// So many different ones. They were all free at the same moment; nothing keeps them free until a server takes them.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
        *port = listener.local_addr().context("the address of a listener")?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// So many for each of three members.
pub(crate) fn of_members<const N: usize>() -> Result<[[u16; N]; 3]> {
    let [a, b, c] = [free()?, free()?, free()?];
    Ok([a, b, c])
}
