//! Free ports on loopback.

use std::net::TcpListener;

use anyhow::{Context, Result};

/// Finds `count` different free TCP ports of 127.0.0.1.
///
/// Another process may take one of them before it is used; see
/// [`retry_if_port_taken`](crate::process::retry_if_port_taken).
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    // Held until all are found, so that they differ.
    let held = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>();
    held.and_then(|held| held.iter().map(|l| Ok(l.local_addr()?.port())).collect())
        .context("no free port on 127.0.0.1")
}
