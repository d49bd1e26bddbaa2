//! A private Tor network on loopback, with onion services that can be broken on purpose.
//!
//! The crate runs the system's `tor` (`apt-get install tor`): three authorities; relays, each of which is a guard, an exit
//! and a hidden-service directory (HSDir); onion services; and C tor clients to compare with. All processes use free ports
//! of 127.0.0.1 and a temporary folder of their own. They do not touch the system's tor, and no packet leaves the machine.
//!
//! ```no_run
//! use std::time::Duration;
//! use testnet::{ClientOptions, HttpServer, Network, ServiceOptions, socks5_connect};
//!
//! # fn main() -> anyhow::Result<()> {
//! let network = Network::builder().circuit_timeout_ms(Some(2500)).start()?;
//! let server = HttpServer::start("hello")?;
//! let service = network.service(ServiceOptions::with_port(80, server.address()))?;
//! let c_tor = network.c_tor_client(ClientOptions::default())?;
//! let reply = socks5_connect(c_tor.extended_port(), service.address(), 80, Duration::from_secs(30))?;
//! assert_eq!(reply.code, 0x00);
//! network.mark_done();
//! # Ok(())
//! # }
//! ```
//!
//! All calls block, and none needs an async runtime. On two idle cores a network starts in about 14 seconds, a service in
//! 4.5, a client in 2. Several networks may run side by side.
//!
//! # Ways to break a service
//!
//! | fault | how | C tor's reply code |
//! |---|---|---|
//! | no descriptor | [`Network::unpublished_address`] | F0 |
//! | descriptor invalid | [`Network::corrupt_descriptor`] | 04 |
//! | introduction refused | [`Service::kill`] | F2; in the first seconds it can be 06 |
//! | rendezvous never completes | [`Service::freeze`] | 06 after 120 s |
//! | client key missing, client key wrong | [`ServiceOptions::authorized`], [`Service::set_authorized`] | F4, F5 |
//! | invalid address | [`addresses`] | F6 |
//! | introduction points silent | [`Network::freeze_relays`] of [`Service::introduction_points`] | 06 after 120 s; if only one of three is silent 00, or no reply for 40 s and more if C tor tries that one first |
//!
//! For the last row, start the network with [`NetworkBuilder::spare_relays`] and the service with
//! [`ServiceOptions::intro_points_on_spare_relays`]: then the frozen relays are no client's guard, second hop or directory.
//!
//! # Targets behind exits
//!
//! The exits use a name server that knows `good.test` (127.0.0.1), `six.test` (::1 only), `both.test` (both) and
//! `public.test` (203.0.113.7, which no host has). It never answers for `slow.test`, answers SERVFAIL for
//! `broken.test` and NXDOMAIN for all other names. Reverse lookups work for 192.0.2.7 (`good.test`) and 2001:db8::7
//! (`six.test`), since exits refuse to look up internal addresses. What a client sees of a target:
//!
//! | target | reason in the exit's END cell | reply code of a C tor client |
//! |---|---|---|
//! | [`EchoServer`] and the other servers | | 00 |
//! | [`ClosedPort`], on any address, and behind an onion service | MISC | 01 |
//! | port 9; port 19 on IPv6, port 29 on IPv4 | none: no exit's policy summary contains the port | 01 at once |
//! | 127.0.0.9 | EXITPOLICY: the summary does not show this address | 01 after 120 s of retries |
//! | 127.255.255.255 | NOROUTE: a broadcast address | 01 at once: the client takes it for one of its virtual addresses (04 with another `VirtualAddrNetworkIPv4`) |
//! | 192.0.2.1 | INTERNAL: exits are bound to loopback | 01 |
//! | unknown name | RESOLVEFAILED | 04 |
//! | `broken.test` | RESOLVEFAILED | 04 after 10 s |
//! | `slow.test` | RESOLVEFAILED after 2 s | 04 after 16 s |
//! | [`UnresponsivePort`] | none | 01 after 125 s; 06 after 120 s behind an onion service |
//!
//! A C tor exit on Linux never sends CONNECTREFUSED for a TCP connection: the refusal arrives after `connect` has returned
//! EINPROGRESS; tor fetches it with SO_ERROR, which clears it, and then derives the reason from an unrelated `errno`
//! (`connection_handle_write_impl`, `connection_edge_end_errno`). To get 05 in a SOCKS reply, use a virtual port that an
//! onion service does not have: the service ends the stream with DONE, which clients report as a refusal.
//!
//! # Bridges and observed connections
//!
//! [`Network::bridge`] starts a bridge, plain or with obfs4. With [`NetworkBuilder::watched`], [`Network::arrivals`] returns
//! every TCP connection that a client has made to a relay or bridge, however short: a forwarder in front of each relay
//! records them for as long as the network lives.
//!
//! # How the network becomes usable quickly
//!
//! - The authorities vote as soon as they know all relays: their voting schedule is moved through the control port.
//! - The authorities read "measured" bandwidths from a file. Otherwise the first consensus would contain a bandwidth for
//!   only one or two relays, and all circuits would begin and end at the same relay, which is impossible.
//! - `hsdir_interval` and the voting interval result in the same time period (see `torrc`), and no time period ends while a
//!   network is young.
//! - There are no shared random values: C tor's carry no time, and arti would take them for those of another day.
//!
//! # Logs of a failed run
//!
//! The folder of a network is removed with it after [`Network::mark_done`]. Otherwise it stays, and the library prints its
//! path and the last lines of the logs named to [`Network::show_if_kept`]. It contains each node's `torrc` and `log`.
//! `TESTNET_KEEP=1` keeps it in any case. `TESTNET_LOG=info` (or `debug`) makes all nodes log more.
//!
//! # Layout
//!
//! | module | contains |
//! |---|---|
//! | `network` | authorities, relays and bridges, from their keys to a consensus; records of client connections |
//! | `torrc` | the configuration of all nodes, and the voting schedule |
//! | `service`, `c_tor` | onion services, C tor clients |
//! | `control` | a client of the nodes' control ports |
//! | `forwarder` | TCP forwarders in front of relays, which delay traffic and observe connections |
//! | `outbound` | a proxy between a client and the relays |
//! | `clock`, `preload` | an adjustable clock for one process, and other libraries loaded into `tor` |
//! | `corrupt` | overwrites descriptors in the memory of the HSDirs |
//! | `address`, `keys` | onion addresses, client authorization |
//! | `name_server`, `backend`, `socks` | the name server, servers to connect to, a raw SOCKS5 client |
//! | `process`, `workdir`, `ports`, `sync` | child processes that end with their parent, the temporary folder, free ports, locks |

mod address;
mod backend;
mod c_tor;
mod clock;
mod control;
mod corrupt;
mod forwarder;
mod keys;
mod name_server;
mod network;
mod outbound;
mod ports;
mod preload;
mod process;
mod service;
mod socks;
mod sync;
mod torrc;
mod workdir;

/// Valid and invalid onion addresses. Every function returns a name that ends in `.onion`.
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
pub use c_tor::{CTor, ClientOptions};
pub use corrupt::{Corruption, Where};
pub use keys::{ClientKey, ClientPublicKey};
pub use network::{
    Arrival, Bridge, BridgeOptions, NETWORK_SIDE, Network, NetworkBuilder, RelayId, Role,
};
pub use outbound::{OutboundProxy, PROXY_SIDE};
pub use service::{Service, ServiceOptions};
pub use socks::{SocksAddress, SocksReply, SocksRequest, socks5_connect};
