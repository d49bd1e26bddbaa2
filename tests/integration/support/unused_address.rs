//! Loopback addresses that nothing else uses.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below Linux's default range for ephemeral ports, so that the system never assigns them.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Returns different addresses with ports that are free: no other test gets the same, nor does a program
/// that lets the system choose. Address and port both depend on the process ID; the port too, because a
/// listener on all interfaces conflicts with every address.
pub fn unused_addresses<const N: usize>() -> [SocketAddrV4; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = std::process::id();
    let [_, high, middle, low] = process.to_be_bytes();
    let ip = Ipv4Addr::new(127, 100 + high % 100, middle, low.max(1));
    std::array::from_fn(|_| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = u16::try_from(process % u32::from(PORTS.end - PORTS.start)).expect("small");
        let offset = (first + 7 * number) % (PORTS.end - PORTS.start);
        SocketAddrV4::new(ip, PORTS.start + offset)
    })
}
