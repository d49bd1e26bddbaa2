//! A private Tor network on loopback, with onion services that can be broken on purpose.
//!
//! It runs the `tor` of the system (`apt-get install tor`): three authorities, relays that are all guards, exits and onion
//! service directories, onion services, and C tor clients to compare with. Everything has free ports of 127.0.0.1 and a
//! temporary folder of its own; nothing of the system's tor is touched, and no packet leaves the machine.
//!
//! ```no_run
//! use std::time::Duration;
//! use testnet::{ClientOptions, HttpServer, Network, ServiceOptions, socks5_connect};
//!
//! # fn main() -> anyhow::Result<()> {
//! let network = Network::builder().circuit_timeout_ms(Some(2500)).start()?;
//! let server = HttpServer::start("hello")?;
//! let service = network.service(ServiceOptions::with_port(80, server.address()))?;
//! let judge = network.c_tor_client(ClientOptions::default())?;
//! let reply = socks5_connect(judge.extended_port(), service.address(), 80, Duration::from_secs(30))?;
//! assert_eq!(reply.code, 0x00);
//! network.mark_done();
//! # Ok(())
//! # }
//! ```
//!
//! All calls block, and none needs an async runtime. On two idle cores a network takes about 14 seconds, a service
//! 4.5, a client 2. Several networks may run side by side.
//!
//! # Ways to break a service
//!
//! | what | how | C tor says |
//! |---|---|---|
//! | no descriptor | [`Network::unpublished_address`] | F0 |
//! | descriptor invalid | [`Network::corrupt_descriptor`] | 04 |
//! | introduction refused | [`Service::kill`] | F2, after some seconds in which it can be 06 |
//! | rendezvous never comes | [`Service::freeze`] | 06 after 120 s |
//! | no client key, another key | [`ServiceOptions::authorized`], [`Service::set_authorized`] | F4, F5 |
//! | invalid address | [`addresses`] | F6 |
//! | introduction points silent | [`Network::freeze_relays`] of [`Service::introduction_points`] | 06 after 120 s; with one of three silent 00, or nothing for 40 s and more if it tries that one first |
//!
//! For the last, start the network with [`NetworkBuilder::spare_relays`] and the service with
//! [`ServiceOptions::intro_points_on_spare_relays`]: then no client's guard, second hop or directory stops with them.
//!
//! # Targets behind exits
//!
//! The exits ask a name server that knows `good.test` (127.0.0.1), `six.test` (::1 only), `both.test`; that never answers
//! for `slow.test`, fails for `broken.test`, and denies all else. For reverse lookups there are 192.0.2.7 (`good.test`) and
//! 2001:db8::7 (`six.test`), since exits refuse to look up internal addresses. What a client sees of a target:
//!
//! | target | the exit's END | C tor client says |
//! |---|---|---|
//! | [`EchoServer`] and so on | | 00 |
//! | [`ClosedPort`], on any address, and behind an onion service | MISC | 01 |
//! | port 9; port 19 on IPv6, port 29 on IPv4 | none: no exit's policy summary has the port | 01 at once |
//! | 127.0.0.9 | EXITPOLICY: the summary does not show it | 01 after 120 s of trying |
//! | 127.255.255.255 | NOROUTE: a broadcast address | 01 at once: it takes it for one of its virtual addresses (04 with another `VirtualAddrNetworkIPv4`) |
//! | 192.0.2.1 | INTERNAL: exits are bound to loopback | 01 |
//! | unknown name | RESOLVEFAILED | 04 |
//! | `broken.test` | RESOLVEFAILED | 04 after 10 s |
//! | `slow.test` | RESOLVEFAILED after 2 s | 04 after 16 s |
//! | [`UnresponsivePort`] | none | 01 after 125 s; 06 after 120 s behind an onion service |
//!
//! A C tor exit on Linux never says CONNECTREFUSED for a TCP connection: the refusal arrives after `connect` has returned
//! EINPROGRESS, tor fetches it with SO_ERROR, which clears it, and then makes the reason from an `errno` that has nothing
//! to do with it (`connection_handle_write_impl`, `connection_edge_end_errno`). For 05 in a SOCKS reply use a virtual port
//! that an onion service does not have: its END says DONE, which clients take for a refusal.
//!
//! # What a client connects to
//!
//! [`Network::bridge`] starts a bridge, plain or with obfs4. With [`NetworkBuilder::watched`], [`Network::arrivals`] tells of
//! every TCP connection that a client has made to a relay or bridge, however short. The fronts that see them stand before
//! the relays for as long as the network lives, so nothing can pass between two looks.
//!
//! # What makes it work
//!
//! - The authorities vote when they know all relays, not by chance: their schedule is moved through the control port.
//! - The bandwidths are "measured" ones from a file. Else the first consensus would know the bandwidth of one or two relays
//!   and of nobody else, and all circuits would begin and end at the same relay, which is impossible.
//! - `hsdir_interval` and the voting interval say the same period (see `torrc`), and no period turns while a network is young.
//! - No shared random values: C tor's carry no time, and arti would take them for another day's.
//!
//! # When it fails
//!
//! The folder of a network goes with it after [`Network::mark_done`]. Otherwise it stays, and its path is printed with the
//! last lines of the logs named to [`Network::show_if_kept`]; each node's `torrc` and `log` are in it. `TESTNET_KEEP=1` keeps
//! it in any case. `TESTNET_LOG=info` (or `debug`) makes all nodes log more.
//!
//! # Layout
//!
//! - `network`: authorities, relays and bridges, from keys to a consensus, and who connects to them; `torrc`: their
//!   configuration and the voting schedule
//! - `service`, `judge`: onion services, C tor clients; `control`: the control port of all of them
//! - `clock`: a clock that can be moved; `distance`: links that take time; `outbound`: a proxy between a client and the relays
//! - `corrupt`: descriptors overwritten in the directories' memory
//! - `address`, `keys`: onion addresses, client authorization
//! - `names`, `backend`, `socks`: the name server, servers to connect to, a raw SOCKS5 client
//! - `process`, `workdir`, `ports`: children that die with us, the temporary folder, free ports

mod address;
mod backend;
mod clock;
mod control;
mod corrupt;
mod distance;
mod judge;
mod keys;
mod names;
mod network;
mod outbound;
mod ports;
mod process;
mod service;
mod socks;
mod torrc;
mod workdir;

/// Onion addresses, right ones and wrong ones. Every function gives a name that ends in `.onion`.
pub mod addresses {
    pub use crate::address::{
        bad_checksum, not_a_point, too_long_alias, too_short, torsion, unpublished, version_two,
        wrong_version,
    };
}

pub use backend::{
    BulkServer, ClosedPort, EchoServer, HttpServer, RecordingServer, SilentServer,
    UnresponsivePort, counted_bytes,
};
pub use corrupt::{Corruption, Where};
pub use judge::{CTor, ClientOptions};
pub use keys::{ClientKey, ClientPublicKey};
pub use network::{
    Arrival, Bridge, BridgeOptions, NETWORK_SIDE, Network, NetworkBuilder, RelayId, Role,
};
pub use outbound::{OutboundProxy, PROXY_SIDE};
pub use service::{Service, ServiceOptions};
pub use socks::{SocksAddress, SocksReply, SocksRequest, socks5_connect};
