//! Free ports on loopback.

use std::net::TcpListener;

use anyhow::{Context, Result};

/// Finds `count` free TCP ports of 127.0.0.1. All are held until the last is found, so no two are the same; another
/// process may still take one before it is used, which is why a whole start is tried again.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>();
    held.and_then(|held| held.iter().map(|l| Ok(l.local_addr()?.port())).collect())
        .context("no free port on 127.0.0.1")
}
