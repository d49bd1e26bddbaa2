//! Places on loopback that nobody else uses.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports that the system gives to nobody by itself begin above this one.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Addresses with ports at which nobody listens, no two of them alike: neither another test nor a
/// program that lets the system choose gets the same. The address is this process's own, and the
/// port is no other's as well, should all interfaces be meant.
pub fn own<const N: usize>() -> [SocketAddrV4; N] {
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
